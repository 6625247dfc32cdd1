"""Invariance to the units of columns and the order of rows and columns: a scale of the columns, an order of the distinct rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from ._arrays import Array, eps, host_numbers, is_sparse, namespace, put, to_host

__all__ = ["Scale", "as_counts", "column_values", "distinct", "distinct_of_any_columns", "some_of", "varies"]

_LEVELS = 96  # quantiles that represent a column with more distinct values
_GAUSSIAN = {0.25: 0.4506242231, 0.5: 0.9538725524}  # quantiles of the difference of two draws from N(0, 1)
_APART, _LEAST = 0.15, 0.4  # Wasserstein distance, in spreads, from which a column counts in full; the least factor
_ROUNDING = 2.0  # rounding units of two values by which sums in another order differ; whole numbers are exact
_BOUND = 3.0  # spreads from the middle at which values are clipped for this distance, so that sentinels do not dominate it
_PARTS = 16  # parts of the ranks of a column, from which columns are ordered
_MOST = 0.9 * float(np.finfo(np.float64).max)
_FARTHEST = 0.3  # power of the largest number of a dtype at which scaled values are clipped, so that their squares are finite


@dataclass(frozen=True, eq=False)
class Scale:
    """The map (x - middle) / spread of each column, which removes units and origins of the columns.

    middle (d,): the median of the column, one of its values, so that the difference to it is exact. spread (d,): the median
    difference of two unequal rows of one sample, divided by 0.954, or their lower quartile, divided by 0.451, if that is less. For
    a Gaussian column both are the standard deviation. A shift between the samples does not change the spread, and clusters hardly
    increase it, so that a column is not shrunk because the samples differ in it. A few outliers hardly change it. A column of two
    values has a finite spread, however rare one of them is. Values that rounding sets apart, such as 0.3 and 0.1 + 0.2, are equal
    here. The spread is infinite for a constant column: scaled values are 0.
    """

    middle: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, *samples: tuple[Array, Array | None]) -> Scale:
        """The scale of samples, each given as rows (n, d), dense or CSR, and how often they count (n,) or None."""
        middle, spread, _ = _of_columns(samples)
        return cls(middle, spread)

    @classmethod
    def between(cls, source: tuple[Array, Array | None], target: tuple[Array, Array | None]) -> Scale:
        """The scale for distances that separate two samples: columns with similar distributions in both count less.

        A column counts 0.4 + 0.6 min(W / 0.15, 1) times, with W the Wasserstein distance between its values in the two samples, in
        units of the spread and clipped at 3 units. Distances in columns in which the samples do not differ blur a ratio that
        depends on others; all columns in which they visibly differ count equally.
        """
        middle, spread, apart = _of_columns((source, target))
        counts = _LEAST + (1.0 - _LEAST) * np.minimum(apart / _APART, 1.0)
        return cls(middle, spread / (counts / counts.max()))

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
    """CSR or CSC rows (n, d) plus `by` (d,). Columns with a nonzero median are mostly nonzero, and are stored in full."""
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


def distinct_of_any_columns(rows: Array) -> tuple[np.ndarray, np.ndarray]:
    """The same as `distinct`, in an order that does not depend on the order of the columns either.

    It is lexicographic in columns that are ordered by their ranks, together with the ranks of all other columns. Columns with equal
    ranks keep their order.
    """
    position, kind = distinct(rows)
    if rows.shape[1] < 2 or len(position) < 2:
        return position, kind
    columns = scipy.sparse.csc_array(rows) if is_sparse(rows) else to_host(rows)
    # Columns are ordered by the distinct rows: the number of copies must not matter.
    order = _column_order(columns[position, :])
    return (position, kind) if np.array_equal(order, np.arange(len(order))) else distinct(columns[:, order])


def _column_order(rows: Array) -> np.ndarray:
    """The order (d,) of the columns of rows (n, d), by moments of the sixteenths of their ranks and of the sums over all columns.

    The moments are whole numbers, without rounding, so that neither units nor the order of rows change them.
    """
    # A row's sum over the columns does not depend on their order.
    total = np.zeros(rows.shape[0], dtype=np.int64)
    for part in _parts(rows):
        total += part
    moments = [(part.sum(), part @ part, part @ total, part @ (part * total), part @ (total * total)) for part in _parts(rows)]
    return np.lexsort(np.transpose(moments)[::-1])


def _parts(rows: Array) -> Iterator[np.ndarray]:
    """For each column of rows (n, d), the sixteenth (n,) of its sorted values that contains each value, 0 to 15."""
    ends = np.arange(1, _PARTS) * rows.shape[0] // _PARTS
    for values in column_values(rows):
        yield np.searchsorted(np.partition(values, ends)[ends], values)


def some_of(n: int, most: int) -> np.ndarray:
    """Positions of at most `most` of n rows, one drawn from each of `most` runs of rows.

    In the order of `distinct` these rows are spread like all rows; fixed positions could be too wide or too narrow in every sample.
    """
    if n <= most:
        return np.arange(n)
    edges = np.arange(most + 1) * n // most
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


def _of_columns(samples: Sequence[tuple[Array, Array | None]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each column (d,): the median, the spread (infinite if it is constant), and the distance of the first two samples."""
    mass = [np.ones(rows.shape[0]) if w is None else host_numbers(w) for rows, w in samples]
    rounding = _ROUNDING * max(_eps(rows) for rows, _ in samples)
    columns = zip(*(column_values(rows) for rows, _ in samples), strict=True)
    middle, spread, apart = np.reshape([_of_column(values, mass, rounding) for values in columns], (-1, 3)).T
    return middle, np.where(spread > 0.0, spread, np.inf), apart


def varies(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Whether each column (d,) of these samples (n, d), together, has values that more than rounding sets apart."""
    low, high = (end([end(rows, axis=0) for rows in samples], axis=0) for end in (np.min, np.max))
    return _are_apart(low, high, _ROUNDING * max(_eps(rows) for rows in samples))


def _are_apart(low: np.ndarray, high: np.ndarray, rounding: float) -> np.ndarray:
    """Whether values (k,) are below others (k,) by more than `rounding` of their size. Whole numbers are exact."""
    with np.errstate(over="ignore"):
        is_beyond = high - low > rounding * np.maximum(np.abs(low), np.abs(high))
    return is_beyond | ((low < high) & (low == np.rint(low)) & (high == np.rint(high)))


def _eps(rows: Array) -> float:
    return float(np.finfo(rows.dtype).eps) if is_sparse(rows) else eps(rows)


def _of_column(values: Sequence[np.ndarray], mass: Sequence[np.ndarray], rounding: float) -> tuple[float, float, float]:
    """The same for one column, (n,) in each sample, whose rows count `mass` (n,) times; the spread of a constant column is 0.

    rounding: the difference of two values, relative to them, up to which they are equal.
    """
    found, kind = np.unique(np.concatenate(values), return_inverse=True)
    kinds = np.split(kind, np.cumsum([len(column) for column in values])[:-1])
    shares = np.array([np.bincount(at, m / m.max(), len(found)) for at, m in zip(kinds, mass, strict=True)])
    shares /= shares.sum(axis=1, keepdims=True)
    total = np.array([m.sum() for m in mass])
    total /= total.max()
    pooled = total @ shares / total.sum()
    middle = float(found[_reached(pooled, np.array([0.5]))[0]])

    def pairs(share: np.ndarray, part: float) -> tuple[np.ndarray, np.ndarray]:
        difference, weight = _Distinct(found[share > 0.0], share[share > 0.0], rounding).few().differences()
        return difference, part * weight

    difference, weight = (np.concatenate(side) for side in zip(*map(pairs, shares, total), strict=True))
    # If no sample varies, the two differ or the column is constant.
    spread = _spread(difference, weight) if len(difference) else _spread(*pairs(pooled, 1.0))
    return middle, spread, _apart(found, shares, middle, spread)


def _apart(found: np.ndarray, shares: np.ndarray, middle: float, spread: float) -> float:
    """Wasserstein distance, in spreads, of the first two samples of clipped values (k,) with shares (., k); 0 for one sample."""
    if len(shares) < 2 or spread == 0.0:
        return 0.0
    with np.errstate(over="ignore"):
        scaled = np.clip((found - middle) / spread, -_BOUND, _BOUND)
    return float(np.abs(np.cumsum(shares[0] - shares[1])[:-1]) @ np.diff(scaled))


def _spread(difference: np.ndarray, weight: np.ndarray) -> float:
    """The smaller estimate of a Gaussian's standard deviation from the lower quartile and the median of differences (k,)."""
    if not len(difference):
        return 0.0
    order = np.argsort(difference)
    at = _reached(weight[order] / weight.sum(), np.array(list(_GAUSSIAN)))
    return float(min(np.minimum(difference[order][at], _MOST) / list(_GAUSSIAN.values())))


class _Distinct(NamedTuple):
    """Distinct values (k,), ascending, the share (k,) of the rows with each, and the relative difference of equal values."""

    values: np.ndarray
    share: np.ndarray
    rounding: float

    def few(self) -> _Distinct:
        """At most _LEVELS of the values, as quantiles."""
        if len(self.values) <= _LEVELS:
            return self
        kept, count = np.unique(self.values[_reached(self.share, (np.arange(_LEVELS) + 0.5) / _LEVELS)], return_counts=True)
        few = self._replace(values=kept, share=count / _LEVELS)
        if len(few.differences()[0]):
            return few
        # If nearly all rows have one value, the others are compared as if each occurred once.
        kept = self.values[np.linspace(0, len(self.values) - 1, _LEVELS).astype(int)]
        return self._replace(values=kept, share=np.full(_LEVELS, 1.0 / _LEVELS))

    def differences(self) -> tuple[np.ndarray, np.ndarray]:
        """Differences of pairs of unequal values, and the share of each among all pairs of rows."""
        low, high = _pairs(len(self.values))
        with np.errstate(over="ignore"):
            difference = self.values[high] - self.values[low]
        apart = _are_apart(self.values[low], self.values[high], self.rounding)
        return difference[apart], (self.share[low] * self.share[high])[apart]


def _reached(share: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The first position at which the running sum of the shares (k,) reaches each level, up to rounding of the sum."""
    return np.minimum(np.searchsorted(np.cumsum(share), levels - 1e-12), len(share) - 1)


@cache
def _pairs(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(k, 1)


def as_counts(weight: np.ndarray) -> np.ndarray:
    """How often each row counts (n,): whole numbers unchanged; other weights have no unit and get mean 1. Not all are 0."""
    if np.array_equal(weight, np.rint(weight)):
        return weight
    share = weight / weight.max()
    return share / share.mean()
