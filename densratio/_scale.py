"""Columns without a unit, rows without an order: one scale for all columns, and the distinct rows in lexicographic order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse

from ._arrays import Array, is_sparse, namespace, put, to_host

__all__ = ["Scale", "column_values", "distinct"]

_LEVELS = 128  # quantiles that stand for a column with more distinct values
_GAUSSIAN = 0.9538725524  # median difference of two draws from a Gaussian, in standard deviations
_MOST = 0.9 * float(np.finfo(np.float64).max)
_FARTHEST = 0.3  # power of the largest number of a dtype at which scaled values are clipped, so that their squares are finite


@dataclass(frozen=True, eq=False)
class Scale:
    """The map (x - middle) / spread of each column, after which units and origins of the columns do not matter.

    middle (d,): the median of the column, one of its values, so that the difference to it is exact. spread (d,): the median
    difference of two rows that differ, divided by 0.954. For a Gaussian column this is the standard deviation; a few far values
    hardly change it, and a column of two values has it too, however rare one of them is. It is infinite for a constant column,
    so that scaled values are 0.
    """

    middle: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, *samples: tuple[Array, Array | None]) -> Scale:
        """The scale of the pooled samples, each given as rows (n, d), dense or CSR, and how often they count (n,) or None."""
        mass = np.concatenate([np.ones(rows.shape[0]) if w is None else to_host(w).astype(np.float64) for rows, w in samples])
        columns = zip(*(column_values(rows) for rows, _ in samples), strict=True)
        found = [_middle_and_spread(np.concatenate(values), mass) for values in columns]
        middle, spread = np.reshape(found, (-1, 2)).T
        return cls(middle, np.where(spread > 0.0, spread, np.inf))

    def __call__(self, rows: Array) -> Array:
        """The scaled rows (n, d), dense or CSR, in the library and dtype of `rows`."""
        xp = np if is_sparse(rows) else namespace(rows)
        largest = float(xp.finfo(rows.dtype).max)
        spread, bound = np.where(np.isfinite(self.spread), np.minimum(self.spread, largest), np.inf), largest**_FARTHEST
        with np.errstate(over="ignore"):
            if is_sparse(rows):
                columns = _moved(rows, np.where(np.isfinite(spread), -self.middle, 0.0))
                scaled = columns.data / np.repeat(spread, np.diff(columns.indptr)).astype(rows.dtype)
                columns.data = np.clip(scaled, -bound, bound)
                return scipy.sparse.csr_array(columns)
            return xp.clip((rows - put(self.middle, rows)) / put(spread, rows), min=-bound, max=bound)

    def back(self, scaled: Array) -> Array:
        """Rows (n, d) in the columns' own units, from scaled ones."""
        spread = np.where(np.isfinite(self.spread), self.spread, 0.0)
        if is_sparse(scaled):
            columns = scipy.sparse.csc_array(scaled, copy=True)
            columns.data = columns.data * np.repeat(spread, np.diff(columns.indptr)).astype(scaled.dtype)
            return scipy.sparse.csr_array(_moved(columns, self.middle))
        return scaled * put(spread, scaled) + put(self.middle, scaled)


def _moved(rows: Any, by: np.ndarray) -> scipy.sparse.csc_array:
    """CSR or CSC rows (n, d) plus `by` (d,). Columns with a median other than 0 are mostly not 0, and are stored in full."""
    columns, at = scipy.sparse.csc_array(rows, copy=True), np.flatnonzero(by)
    if not len(at):
        return columns
    others = np.setdiff1d(np.arange(rows.shape[1]), at)
    moved = scipy.sparse.csc_array(columns[:, at].toarray() + by[at].astype(rows.dtype))
    stacked = scipy.sparse.hstack([columns[:, others], moved], format="csc")
    return scipy.sparse.csc_array(stacked[:, np.argsort(np.concatenate([others, at]))])


def column_values(rows: Array) -> Iterator[np.ndarray]:
    """The columns (n,) of rows (n, d), dense or CSR, one after the other, in float64 on the host."""
    if not is_sparse(rows):
        yield from (column.astype(np.float64) for column in to_host(rows).T)
        return
    columns = scipy.sparse.csc_array(rows, copy=True)
    columns.sum_duplicates()
    for start, stop in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
        values = np.zeros(rows.shape[0])
        values[columns.indices[start:stop]] = columns.data[start:stop]
        yield values


def distinct(rows: Array) -> tuple[np.ndarray, np.ndarray]:
    """Position (k,) of one copy of each distinct row, in lexicographic order, and the number (n,) of each row in that order.

    The order does not depend on the order of the rows, nor on positive factors and offsets of the columns.
    """
    rank = np.zeros(rows.shape[0], dtype=np.int64)
    tied = np.arange(rows.shape[0])
    for values in column_values(rows):
        tied = tied[np.lexsort((values[tied], rank[tied]))]
        before, value, place = rank[tied], values[tied], np.arange(len(tied))
        opens = np.append(True, before[1:] != before[:-1])
        is_first = opens | np.append(True, value[1:] != value[:-1])
        block, first = (np.maximum.accumulate(np.where(at, place, 0)) for at in (opens, is_first))
        rank[tied] = before + first - block
        tied = tied[~(is_first & np.append(is_first[1:], True))]
        if not len(tied):
            break
    _, position, kind = np.unique(rank, return_index=True, return_inverse=True)
    return position, kind


def _middle_and_spread(values: np.ndarray, mass: np.ndarray) -> tuple[float, float]:
    """The median of a column (n,) whose rows count `mass` (n,) times, and its spread; 0 if the column is constant."""
    distinct_values, kind = np.unique(values, return_inverse=True)
    share: np.ndarray = np.bincount(kind, mass / mass.max())
    share = share / share.sum()
    middle = distinct_values[_reached(share, np.array([0.5]))[0]]
    if len(distinct_values) > _LEVELS:
        levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
        kept, share = np.unique(distinct_values[_reached(share, levels)], return_counts=True)
        if len(kept) == 1:
            # Nearly all rows have one value: the others are compared as if each occurred once.
            kept = distinct_values[np.linspace(0, len(distinct_values) - 1, _LEVELS).astype(int)]
            share = np.ones(_LEVELS)
        distinct_values = kept
    return float(middle), min(_median_difference(distinct_values, share), _MOST) / _GAUSSIAN


def _median_difference(values: np.ndarray, share: np.ndarray) -> float:
    """The median difference of two of the distinct values (k,), each of which is drawn with its share (k,)."""
    if len(values) < 2:
        return 0.0
    low, high = _pairs(len(values))
    with np.errstate(over="ignore"):
        difference = values[high] - values[low]
    order = np.argsort(difference)
    weight = (share[low] * share[high])[order]
    return float(difference[order[_reached(weight / weight.sum(), np.array([0.5]))[0]]])


def _reached(share: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The first position at which the running sum of the shares (k,) reaches each level, up to rounding of the sum."""
    return np.minimum(np.searchsorted(np.cumsum(share), levels - 1e-12), len(share) - 1)


@cache
def _pairs(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(k, 1)
