"""RatioOutlierDetector: rows that are rare among clean reference rows, by the ratio of the reference to the new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import OutlierMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from .._arrays import is_tensor, to_host
from .._columns import check_columns, check_container
from .._estimator import Estimator, unchanged_on_error
from .._validation import check_count, check_number, seed_of
from ..model_selection import stratified_folds
from .kliep import KLIEP

__all__ = ["RatioOutlierDetector"]


class RatioOutlierDetector(OutlierMixin, Estimator):
    """Outliers are rows with a small estimated ratio p_reference(x) / p_new(x).

    `fit(X, new=rows)` compares clean reference rows X with the rows to be judged: if only some of them are odd, the ratio is about
    1 at the others and near 0 at the odd ones. `fit(X)` alone compares X with rows drawn uniformly over its range, widened by half
    of it on each side; the ratio is then proportional to the density of X.

    A row is an outlier if its score is among the lowest `false_alarms` of the scores of held-out reference rows. About that share
    of clean rows is called outliers.

    Parameters
    ----------
    ratio : density ratio or None
        It is cloned; the new rows are its source and the reference its target. None: `KLIEP()`.
    false_alarms : float between 0 and 1
    cv : int, number of folds of the reference rows
    random_state : int, RandomState, Generator or None
        Seed of the ratio and the folds; None draws others in each fit.

    Attributes
    ----------
    ratio_ : the fitted ratio. offset_ : the score below which a row is an outlier.
    reference_scores_ : (n,) scores of the reference rows from fits that held them out, ascending.
    n_features_in_, feature_names_in_ : as in scikit-learn.

    Source: Hido, Tsuboi, Kashima, Sugiyama & Kanamori (2011), Statistical outlier detection using direct density ratio estimation,
    Knowledge and Information Systems 26.
    """

    def __init__(self, ratio: Any = None, *, false_alarms: float = 0.05, cv: int = 5, random_state: Any = 0):
        self.ratio = ratio
        self.false_alarms = false_alarms
        self.cv = cv
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, new: Any = None) -> RatioOutlierDetector:
        """Learn from clean reference rows X (n, d), and from the rows `new` (m, d) to be judged, if known. y is ignored."""
        with unchanged_on_error(self):
            self._check()
            reference = self._rows(X, least=2)
            return self._learn(reference, None if new is None else self._rows(new, "new"))

    def score_samples(self, X: Any) -> np.ndarray:
        """The ratio (n,) at the rows of X: small for outliers."""
        check_is_fitted(self)
        return np.asarray(to_host(self.ratio_.transform(self._rows(X))), dtype=np.float64)

    def decision_function(self, X: Any) -> np.ndarray:
        """The score minus `offset_` (n,): negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> np.ndarray:
        """-1 for outliers and 1 for inliers (n,)."""
        return np.where(self.decision_function(X) < 0.0, -1, 1)

    def p_values(self, X: Any) -> np.ndarray:
        """Share (n,) of the reference rows and the row itself with a score as low: small for outliers, uniform for clean rows."""
        scores = self.score_samples(X)
        return (1.0 + np.searchsorted(self.reference_scores_, scores, side="right")) / (1.0 + len(self.reference_scores_))

    def _rows(self, X: Any, name: str = "X", least: int = 0) -> np.ndarray:
        """Rows (n, d) of numbers; `least` > 0 says that they define the columns, and how many there must be."""
        X = check_container(X, name)
        check_columns(X, type(self).__name__)
        return validate_data(
            self, to_host(X) if is_tensor(X) else X, dtype=np.float64, reset=least > 0, ensure_min_samples=max(least, 1)
        )

    def _learn(self, reference: np.ndarray, new: np.ndarray | None) -> RatioOutlierDetector:
        rng = np.random.default_rng(seed_of(self.random_state))
        others = _even(reference, rng) if new is None else new
        folds = stratified_folds(len(others), len(reference), self.cv, seed=int(rng.integers(2**31)))
        held_out = []
        for fold in folds:
            rows, kept = reference[fold.target], np.delete(reference, fold.target, axis=0)
            # The fit has seen the new rows as new, so the held-out rows must be seen in the same way.
            seen = others if new is None else np.concatenate([others, rows])
            held_out.append(self._fitted(seen, kept).transform(rows))
        self.reference_scores_ = np.sort(np.concatenate([to_host(scores) for scores in held_out]))
        self.ratio_ = self._fitted(others, reference)
        rank = int(self.false_alarms * (len(reference) + 1))
        self.offset_ = float(self.reference_scores_[rank - 1]) if rank else 0.0
        return self

    def _fitted(self, others: np.ndarray, reference: np.ndarray) -> Any:
        ratio = KLIEP(random_state=seed_of(self.random_state)) if self.ratio is None else clone(self.ratio)
        return ratio.fit(np.concatenate([others, reference]), np.repeat([0, 1], [len(others), len(reference)]))

    def _check(self) -> None:
        check_number("false_alarms", self.false_alarms, "(0, 1)", ", such as 0.05")
        check_count("cv", self.cv, 2, more=", the number of folds")
        if isinstance(self.ratio, type) or not (self.ratio is None or hasattr(self.ratio, "transform")):
            raise ValueError(f"ratio must be an unfitted density ratio, such as KLIEP(), or None; got {self.ratio!r}.")


def _even(reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows as the reference, uniform over its range, widened by half of it on each side."""
    low, high = reference.min(axis=0), reference.max(axis=0)
    half = (high - low) / 2.0
    return rng.uniform(low - half, high + half, reference.shape)
