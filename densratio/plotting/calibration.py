"""DiscriminatorCalibrationDisplay: the calibration of a ratio, read as the probability that a row is from the target."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import to_host
from .._validation import check_count
from ..diagnostics.columns import source_mask
from ._style import CURVES, GRAY, axes_for

__all__ = ["DiscriminatorCalibrationDisplay"]


class DiscriminatorCalibrationDisplay:
    """Reliability curve of P(target | x) = odds r(x) / (1 + odds r(x)), odds = n_target / n_source, in bins of equally many rows.

    By Bayes' rule the ratio of any method is a probabilistic classifier, so the share of target rows at each predicted
    probability shows whether it is right, without the true ratio. A curve flatter than the diagonal means that the ratio is too
    extreme, a steeper one that it is too cautious. The rows that the ratio was fitted on flatter it: pass held-out rows.

    y_prob : (n,) predicted probability of each row. prob_pred, prob_true, n_rows : (bins,) its mean, the share of target rows,
        and the rows of each bin. name : label of the curve.
    After `plot`: ax_, figure_, line_, the axes, the figure and the curve.
    """

    def __init__(self, *, prob_true: Any, prob_pred: Any, n_rows: Any, y_prob: Any, name: str | None = None):
        self.prob_true = prob_true
        self.prob_pred = prob_pred
        self.n_rows = n_rows
        self.y_prob = y_prob
        self.name = name

    @classmethod
    def from_estimator(
        cls, ratio: Any, X: Any, y: Any, *, n_bins: int = 10, name: str | None = None, ax: Any = None
    ) -> DiscriminatorCalibrationDisplay:
        """Curve of a fitted ratio at the rows X (n, d); y (n,), the smaller value is the source."""
        return cls.from_predictions(y, ratio.transform(X), n_bins=n_bins, name=name or type(ratio).__name__, ax=ax)

    @classmethod
    def from_predictions(
        cls, y: Any, ratio: Any, *, n_bins: int = 10, name: str | None = None, ax: Any = None
    ) -> DiscriminatorCalibrationDisplay:
        """Curve of ratios (n,) p_target / p_source at rows of both samples; y (n,), the smaller value is the source."""
        ratio = np.asarray(to_host(ratio), dtype=np.float64)
        if ratio.ndim != 1 or not np.all(np.isfinite(ratio)) or np.min(ratio, initial=0.0) < 0.0:
            raise ValueError(f"ratio must be (n,) finite numbers >= 0, one for each row; got shape {ratio.shape}.")
        check_count("n_bins", n_bins)
        is_target = ~source_mask(y, len(ratio))
        odds = ratio * (np.sum(is_target) / np.sum(~is_target))
        y_prob = odds / (1.0 + odds)
        bins = _equal_counts(y_prob, n_bins)
        n_rows = np.bincount(bins)
        prob_pred, prob_true = (np.bincount(bins, values) / n_rows for values in (y_prob, is_target))
        return cls(prob_true=prob_true, prob_pred=prob_pred, n_rows=n_rows, y_prob=y_prob, name=name).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> DiscriminatorCalibrationDisplay:
        """Draw the curve; the bars are 95 % confidence intervals of the shares."""
        from scipy.stats import binomtest

        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        share, n_rows = np.asarray(self.prob_true), np.asarray(self.n_rows)
        counts = zip(np.rint(share * n_rows).astype(int), n_rows, strict=True)
        spans = np.array([binomtest(int(k), int(n)).proportion_ci(method="wilson") for k, n in counts])
        if not self.ax_.lines:
            self.ax_.plot([0.0, 1.0], [0.0, 1.0], color=GRAY, linestyle="--", linewidth=1, label="calibrated")
        # The diagonal is the first line of the axes, so the first curve is the second.
        color = CURVES[(len(self.ax_.lines) - 1) % len(CURVES)]
        (self.line_,) = self.ax_.plot(self.prob_pred, share, "o-", color=color, label=self.name or "ratio")
        self.ax_.vlines(self.prob_pred, spans[:, 0], spans[:, 1], color=self.line_.get_color(), linewidth=1.5, alpha=0.5)
        self.ax_.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        self.ax_.set(xlabel="P(target | x) by the ratio", ylabel="share of target rows")
        self.ax_.legend(loc="upper left", frameon=False)
        return self


def _equal_counts(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin number (n,) of each value, counted from 0 without gaps; equal values share a bin, so there may be fewer than n_bins."""
    edges = np.quantile(values, np.linspace(0.0, 1.0, n_bins + 1))[1:-1]
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]
