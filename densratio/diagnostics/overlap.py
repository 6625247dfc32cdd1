"""Overlap: the share of target rows that are far from every source row, or outside the source's range of a column."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._distances import squared_euclidean
from .columns import column_blocks

__all__ = ["outside_range", "outside_share"]

_QUANTILE = 0.99  # of the distances from each source row to its nearest neighbor; a target row beyond it is outside


def outside_share(source: np.ndarray, target: np.ndarray) -> float:
    """Share of the target rows that are farther from their nearest source row than 99 % of the source rows are.

    source (n_s, d), target (n_t, d), on one scale. About 0.01 where the samples do not differ; NaN with one source row.
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
    return np.concatenate([_beyond(s, t) for s, t in column_blocks(source, target)])


def _beyond(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.mean((target < np.min(source, axis=0)) | (target > np.max(source, axis=0)), axis=0)
