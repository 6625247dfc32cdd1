"""Differences of the columns' means, before and after weighting, and the share of target rows without a source row nearby."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._distances import squared_euclidean
from .columns import column_blocks, two_samples
from .weights import weight_shares

__all__ = ["outside_range", "outside_share", "standardized_mean_difference"]

_QUANTILE = 0.99  # of the distances from each source row to its nearest neighbor; a target row beyond it is outside


def standardized_mean_difference(X_source: Any, X_target: Any, weights: Any = None) -> np.ndarray:
    """Difference of each column's means in standard deviations, (weighted source - target) / sd, as (d,).

    sd = sqrt((s_source^2 + s_target^2) / 2) of the unweighted samples, with or without `weights`, so that weighting can change
    the difference only by moving the mean. It is positive if the source is larger. weights (n_s,), >= 0, of any scale; None
    gives equal weights. Beyond +-0.1 a column is commonly called unbalanced. A column that is constant in both samples gives 0
    if the constants are equal, else +-infinity.

    X_source (n_s, d), X_target (n_t, d): arrays, tensors, sparse matrices or frames (text columns are compared level by level).
    Source: Austin (2009), Balance diagnostics for comparing the distribution of baseline covariates, Statistics in Medicine 28.
    """
    return mean_differences(*two_samples(X_source, X_target), weights)


def mean_differences(source: Any, target: Any, weights: Any = None) -> np.ndarray:
    """`standardized_mean_difference` of tables whose columns are already numeric."""
    shares = None if weights is None else weight_shares(weights, source.shape[0])
    return np.concatenate([_difference(s, t, shares) for s, t in column_blocks(source, target)])


def _difference(source: np.ndarray, target: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
    source, target = centered(source, target)
    gap = _mean(source, shares) - _mean(target, None)
    sd = np.sqrt((_variance(source) + _variance(target)) / 2.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap == 0.0, 0.0, gap / sd)


def centered(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both samples minus the target's first row, in units of a power of two near each column's largest entry.

    Exact up to one rounding: equal constants become 0, and squares neither overflow nor underflow.
    """
    largest = np.maximum(np.max(np.abs(source), axis=0), np.max(np.abs(target), axis=0))
    exponent = -np.frexp(largest)[1]
    source, target = np.ldexp(source, exponent), np.ldexp(target, exponent)
    return source - target[:1], target - target[:1]


def _mean(x: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
    mean = np.mean(x, axis=0) if shares is None else shares @ x
    # A sum of equal numbers has rounding errors; their mean is known exactly.
    return np.where(np.ptp(x, axis=0) == 0.0, x[0], mean)


def _variance(x: np.ndarray) -> np.ndarray:
    return np.where(np.ptp(x, axis=0) == 0.0, 0.0, np.var(x, axis=0, ddof=min(1, len(x) - 1)))


def outside_share(source: np.ndarray, target: np.ndarray) -> float:
    """Share of the target rows that are farther from their nearest source row than 99 % of the source rows are.

    source (n_s, d), target (n_t, d), on one scale. About 0.01 if the samples do not differ; NaN with one source row.
    """
    if len(source) < 2:
        return float("nan")
    among_source = squared_euclidean(source, source)
    np.fill_diagonal(among_source, np.inf)
    usual = np.quantile(np.min(among_source, axis=1), _QUANTILE, method="higher")
    scale = np.max(np.abs(source)) ** 2 + np.max(np.abs(target)) ** 2
    # Between equal rows the distance is rounding noise of this size, not 0.
    nearest = np.min(squared_euclidean(target, source), axis=1)
    return float(np.mean(nearest > usual * (1.0 + 1e-9) + 1e-12 * scale))


def outside_range(source: Any, target: Any) -> np.ndarray:
    """Share of the target rows below the smallest or above the largest source value, for each column (d,)."""
    blocks = column_blocks(source, target)
    return np.concatenate([np.mean((t < np.min(s, axis=0)) | (t > np.max(s, axis=0)), axis=0) for s, t in blocks])
