"""Calibration: maps from a classifier's held-out log odds to log odds that match the observed frequencies."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

__all__ = ["CALIBRATIONS", "Calibration", "Isotonic", "Sigmoid"]


class Calibration(ABC):
    """A nondecreasing map of scores, learned from held-out scores."""

    @abstractmethod
    def fit(self, scores: np.ndarray, y: np.ndarray, counts: np.ndarray) -> Calibration:
        """Learn from scores (n,) of rows with labels y (n,), 0 or 1, that count `counts` (n,) times."""

    @abstractmethod
    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated log odds (n,), which may be infinite."""


class Sigmoid(Calibration):
    """Log odds slope_ * score + intercept_ with slope_ >= 0, fitted by maximum likelihood to smoothed labels.

    Source: Platt (1999), Probabilistic outputs for support vector machines, with his targets (n_target + 1) / (n_target + 2) and
    1 / (n_source + 2), which keep the slope finite if the scores separate the domains.
    """

    def fit(self, scores: np.ndarray, y: np.ndarray, counts: np.ndarray) -> Sigmoid:
        n_source, n_target = (float(counts[y == domain].sum()) for domain in (0, 1))
        share = counts / counts.sum()
        center = share @ scores
        spread = float(share @ (scores - center) ** 2) ** 0.5
        soft = np.where(y == 1, (n_target + 1.0) / (n_target + 2.0), 1.0 / (n_source + 2.0))
        self.slope_, self.intercept_ = 0.0, float(np.log((n_target + 1.0) / (n_source + 1.0)))
        if spread > 1e-12 * max(1.0, float(np.max(np.abs(scores)))):
            # A soft label enters as both labels with weights. The penalty is negligible.
            model = LogisticRegression(C=1e10, solver="newton-cholesky", tol=1e-6, max_iter=1000)
            column, labels = np.tile((scores - center) / spread, 2)[:, None], np.repeat([1, 0], len(y))
            model.fit(column, labels, sample_weight=np.concatenate([counts * soft, counts * (1.0 - soft)]))
            slope = float(model.coef_[0, 0]) / spread
            if slope > 0.0:
                self.slope_, self.intercept_ = slope, float(model.intercept_[0]) - slope * center
        return self

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return self.slope_ * scores + self.intercept_


class Isotonic(Calibration):
    """The nondecreasing step function nearest to the labels, each step smoothed by one pseudo-row with the overall share.

    Without the pseudo-row, a step with rows of only one domain would get probability 0 or 1, however few its rows.
    Source: Zadrozny & Elkan (2002), Transforming classifier scores into accurate multiclass probability estimates.
    """

    def fit(self, scores: np.ndarray, y: np.ndarray, counts: np.ndarray) -> Isotonic:
        steps = IsotonicRegression(out_of_bounds="clip").fit(scores, y, counts).predict(scores)
        level, step = np.unique(steps, return_inverse=True)
        size = np.bincount(step, counts)
        # Smoothing may break the order of neighboring steps, so the steps are made monotone again.
        drawn_in = (size * level + np.average(y, weights=counts)) / (size + 1.0)
        self.steps_ = IsotonicRegression(out_of_bounds="clip").fit(scores, drawn_in[step], counts)
        return self

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        share = self.steps_.predict(scores)
        return np.log(share) - np.log1p(-share)


CALIBRATIONS: dict[str, type[Calibration]] = {"isotonic": Isotonic, "sigmoid": Sigmoid}
