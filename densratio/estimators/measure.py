"""Samples as weighted sets: every distinct row once, in an order that the set alone decides, so that copies equal weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from .._arrays import is_sparse, take_rows
from ..model_selection import Fold, stratified_folds
from .contract import Samples

__all__ = ["Measure", "distinct_folds", "kinds_of", "measures"]


class Measure(NamedTuple):
    """Rows (k, d), dense or CSR, and how much each counts (k,)."""

    rows: Any
    weight: np.ndarray

    def taking(self, keep: np.ndarray) -> Measure:
        """The rows at these positions, with their weights."""
        return Measure(take_rows(self.rows, keep), self.weight[keep])

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of values (k, ...), one for each row."""
        return np.tensordot(self.weight, values, axes=1) / self.weight.sum()


def measures(samples: Samples) -> tuple[Measure, Measure]:
    """The distinct rows of source and target, in double precision, weights the sums over the copies, scaled to mean 1.

    The order is the same for any order of the rows, for copies and weights alike, for dense and CSR rows, and for columns
    moved or scaled: what is drawn by position then depends on the samples alone.
    """
    return (
        _measure(samples.source, samples.source_weight),
        _measure(samples.target, samples.target_weight),
    )


def distinct_folds(samples: Samples, n_splits: int) -> list[Fold]:
    """At most `n_splits` folds of the samples' rows; copies of a row are held out together, as a row that counts twice is."""
    kinds = [kinds_of(rows) for rows in (samples.source, samples.target)]
    folds = stratified_folds(len(kinds[0][0]), len(kinds[1][0]), n_splits)
    return [Fold(*(np.flatnonzero(np.isin(kind, out)) for (_, kind), out in zip(kinds, fold, strict=True))) for fold in folds]


def _measure(rows: Any, weight: np.ndarray | None) -> Measure:
    first, kind = kinds_of(rows)
    count = np.bincount(kind, weight, minlength=len(first)).astype(np.float64)
    return Measure(take_rows(rows, first).astype(np.float64), count * (len(first) / count.sum()))


def kinds_of(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Position (k,) of one row of each kind, the kinds in their order, and the kind (n,) of each row."""
    directions = np.random.default_rng(0).standard_normal((2, rows.shape[1]))
    first, second = _sums(rows, directions)
    # Two sums with random factors agree for equal rows alone, but for what rounding cannot tell apart.
    _, position, kind = np.unique(first + 1j * second, return_index=True, return_inverse=True)
    return position, kind.ravel()


def _sums(rows: Any, directions: np.ndarray) -> list[np.ndarray]:
    """Sum (n,) of each row's columns, centred and scaled to range 1, with each row of factors `directions` (2, d)."""
    if is_sparse(rows):
        canonical = scipy.sparse.csr_array(rows, dtype=np.float64, copy=True)
        canonical.sum_duplicates()
        low, high = (np.asarray(side.todense()).ravel() for side in (canonical.min(axis=0), canonical.max(axis=0)))
        # A sparse column is not centred: that moves all sums alike.
        return [canonical @ (factors * _reciprocal(high - low)) for factors in directions]
    # Divided by the largest entry first: the range of huge columns would overflow.
    largest = np.max(np.abs(rows), axis=0).astype(np.float64)
    scaled = np.ascontiguousarray(rows.astype(np.float64) * _reciprocal(largest))
    scaled -= scaled.min(axis=0)
    scaled *= _reciprocal(scaled.max(axis=0))
    # Not a matrix product: that may round the same row in two ways, by its position.
    return [np.sum(scaled * factors, axis=1) for factors in directions]


def _reciprocal(scale: np.ndarray) -> np.ndarray:
    # A scale so small that its reciprocal overflows is as good as none.
    usable = scale > 1e-300
    return np.where(usable, 1.0 / np.where(usable, scale, 1.0), 1.0)
