"""The bins of histogram-based boosting for weighted rows, found in one sort of each column."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import validate_data

__all__ = ["WeightedBins"]

_MOST = 255  # bins that boosting gives a column


class WeightedBins(TransformerMixin, BaseEstimator):
    """Replace values by the numbers of their bins between weighted quantiles, in columns of more than 255 values.

    Without weights the columns stay as they are. It is a first step before `HistGradientBoostingClassifier`, which then finds the
    bins that it would make itself. The trees are the same unless it makes bins from a part of the rows, as with early stopping or
    more than 200,000 rows. With weights scikit-learn sorts a column anew for each of the 254 quantiles, which takes 50 times as
    long.
    """

    def fit(self, X: Any, y: Any = None, sample_weight: np.ndarray | None = None) -> WeightedBins:
        """Find the bins of rows (n, d), NaN for a missing value, with sample_weight (n,)."""
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        self.edges_ = [None if sample_weight is None else _edges(column, np.asarray(sample_weight)) for column in X.T]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Rows (n, d) with the number of the bin, from 0, in place of each value of a column with bins."""
        X = validate_data(self, X, reset=False, copy=True, dtype=np.float64, ensure_all_finite="allow-nan")
        for column, edges in zip(X.T, self.edges_, strict=True):
            if edges is not None:
                known = ~np.isnan(column)
                column[known] = np.searchsorted(edges, column[known])
        return X


def _edges(column: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """The largest value of each bin but the last; None if each value has its own bin."""
    rows = np.flatnonzero(~np.isnan(column) & (weight > 0.0))
    order = rows[np.argsort(column[rows], kind="stable")]
    values, below = column[order], np.cumsum(weight[order])
    if len(np.unique(values)) <= _MOST:
        return None
    need = np.linspace(0.0, 100.0, _MOST + 1)[1:-1] / 100.0 * below[-1]
    at = np.minimum(np.searchsorted(below, need), len(values) - 1)
    following = values[np.minimum(at + 1, len(values) - 1)]
    is_within = below[at] - need > np.finfo(np.float64).eps
    edges = np.unique(np.where(is_within, values[at], (values[at] + following) / 2.0))
    # Of edges that separate the same rows boosting takes the first.
    n_below = np.searchsorted(values, edges, side="right")
    return edges[np.append(True, np.diff(n_below) > 0)]
