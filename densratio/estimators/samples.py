"""Two samples of weighted rows: distinct rows, copies, and counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from .._arrays import Array, concat_rows, eps, is_sparse, namespace, take_rows, to_host, weighted_mean
from ..model_selection import Fold, stratified_folds

__all__ = [
    "Measure", "Samples", "distinct_folds", "distinct_rows", "kinds_of", "mean_one", "measures", "moments", "oas_shrinkage",
    "over_mean", "row_counts", "vanishes",
]  # fmt: skip


class Samples(NamedTuple):
    """Validated rows of the two domains, and how often each row counts.

    source (n_s, d), target (n_t, d); their weights (n_s,), (n_t,) as given, both None if each row counts once; is_source (n,),
    the domain of each row of X; and the positions in X of the source and target rows.
    """

    source: Array
    target: Array
    source_weight: Array | None
    target_weight: Array | None
    is_source: np.ndarray
    source_index: np.ndarray
    target_index: np.ndarray

    @property
    def weighted_rows(self) -> tuple[Array, Array, Array | None, Array | None]:
        """(source, target, source_weight, target_weight)."""
        return self.source, self.target, self.source_weight, self.target_weight

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_s, n_t)."""
        return self.source.shape[0], self.target.shape[0]

    def counted(self) -> Samples:
        """The samples without the rows of weight 0."""
        if self.source_weight is None:
            return self
        return self.taking(*(np.flatnonzero(to_host(weight) > 0.0) for weight in (self.source_weight, self.target_weight)))

    def taking(self, source: np.ndarray, target: np.ndarray) -> Samples:
        """The rows of the two domains at these positions."""
        weights = [
            None if weight is None else take_rows(weight, keep)
            for weight, keep in ((self.source_weight, source), (self.target_weight, target))
        ]
        rows = take_rows(self.source, source), take_rows(self.target, target)
        return Samples(*rows, weights[0], weights[1], self.is_source, self.source_index[source], self.target_index[target])

    def sliced(self, source: slice, target: slice) -> Samples:
        """The rows in these slices of the two domains."""
        weights = [None if w is None else w[at] for w, at in ((self.source_weight, source), (self.target_weight, target))]
        index = self.source_index[source], self.target_index[target]
        return Samples(self.source[source, :], self.target[target, :], weights[0], weights[1], self.is_source, *index)

    def stacked(self) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """(X, y, sample_weight) as arguments of `fit`, source rows first."""
        y = np.repeat([0, 1], self.sizes)
        weight = None
        if self.source_weight is not None:
            weight = np.concatenate([to_host(self.source_weight), to_host(self.target_weight)])
        return concat_rows(self.source, self.target), y, weight


def mean_one(raw: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """raw (n,) divided by its weighted mean, and that mean (); both are ones if `vanishes` is true of the mean."""
    xp = namespace(raw)
    mean = weighted_mean(raw, weight)
    gone = vanishes(mean)
    mean = xp.where(gone, xp.ones_like(mean), mean)
    return xp.where(gone, xp.ones_like(raw), raw / mean), mean


def vanishes(mean: Array) -> Array:
    """Whether a mean () is 0, or so small that its numbers have lost digits: rows are then as far as any."""
    # Negated, so that it is true of NaN.
    return ~(mean > float(namespace(mean).finfo(mean.dtype).smallest_normal) / eps(mean))


def over_mean(raw: Array, mean: float) -> Array:
    """raw (n,) >= 0 divided by `mean`, at most the 0.4th power of the largest number: sums of squares stay finite."""
    xp, largest = namespace(raw), float(namespace(raw).finfo(raw.dtype).max)
    return xp.clip(raw, max=min(largest**0.4 * mean, largest)) / mean


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
    """The distinct rows of source and target in float64, with the summed weights of their copies, scaled to mean 1.

    Their order does not depend on the order of the rows, on copies versus weights, on dense versus CSR, or on shifts and scales
    of the columns, so a draw by position depends on the samples alone.
    """
    return (
        _measure(samples.source, samples.source_weight),
        _measure(samples.target, samples.target_weight),
    )


def distinct_folds(samples: Samples, n_splits: int) -> list[Fold]:
    """At most `n_splits` folds of the rows of each domain; copies of a row are held out together."""
    kinds = [kinds_of(rows) for rows in (samples.source, samples.target)]
    folds = stratified_folds(len(kinds[0][0]), len(kinds[1][0]), n_splits)
    return [Fold(*(np.flatnonzero(np.isin(kind, out)) for (_, kind), out in zip(kinds, fold, strict=True))) for fold in folds]


def _measure(rows: Any, weight: np.ndarray | None) -> Measure:
    first, kind = kinds_of(rows)
    count = np.bincount(kind, weight, minlength=len(first)).astype(np.float64)
    return Measure(take_rows(rows, first).astype(np.float64), count * (len(first) / count.sum()))


def kinds_of(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Position (k,) of one copy of each distinct row, sorted by kind, and the kind (n,) of each row: equal rows share a number."""
    directions = np.random.default_rng(0).standard_normal((2, rows.shape[1]))
    first, second = _sums(rows, directions)
    # Two sums with random factors agree only for rows that are equal up to rounding.
    _, position, kind = np.unique(first + 1j * second, return_index=True, return_inverse=True)
    return position, kind.ravel()


def _sums(rows: Any, directions: np.ndarray) -> list[np.ndarray]:
    """Sums (n,) of each row's columns, centered and scaled to range 1, times each row of `directions` (2, d)."""
    if is_sparse(rows):
        canonical = scipy.sparse.csr_array(rows, dtype=np.float64, copy=True)
        canonical.sum_duplicates()
        low, high = (np.asarray(side.todense()).ravel() for side in (canonical.min(axis=0), canonical.max(axis=0)))
        # Sparse columns are not centered: centering would shift all sums equally.
        return [canonical @ (factors * _reciprocal(high - low)) for factors in directions]
    # Divided by the largest entry first: the range of huge columns would overflow.
    largest = np.max(np.abs(rows), axis=0).astype(np.float64)
    scaled = np.ascontiguousarray(rows.astype(np.float64) * _reciprocal(largest))
    scaled -= scaled.min(axis=0)
    scaled *= _reciprocal(scaled.max(axis=0))
    # Not a matrix product, which may round equal rows differently depending on their position.
    return [np.sum(scaled * factors, axis=1) for factors in directions]


def _reciprocal(scale: np.ndarray) -> np.ndarray:
    # A scale whose reciprocal overflows counts as 0.
    usable = scale > 1e-300
    return np.where(usable, 1.0 / np.where(usable, scale, 1.0), 1.0)


def distinct_rows(rows: Array, most: int | None, seed: int) -> Array:
    """At most `most` distinct rows of `rows`, drawn by `seed`, in their original order.

    Copies of a row thus give one kernel center, as a weight does. Only a draw of 4 * `most` rows is searched for copies.
    """
    n = rows.shape[0]
    order = np.arange(n) if most is None else np.random.default_rng(seed).permutation(n)[: 4 * most]
    first = np.sort(kinds_of(to_host(take_rows(rows, order)))[0])[:most]
    return rows if len(first) == n else take_rows(rows, np.sort(order[first]))


def row_counts(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """How many rows each source row (n_s,) and target row (n_t,) counts as, for rules that depend on the sample size.

    Weights that are all whole numbers count as copies. Other weights have no unit, so they are scaled in each domain to the sum
    (sum w)^2 / sum w^2, the effective sample size (Kish, 1965). Without weights every row counts once.
    """
    if samples.source_weight is None:
        return np.ones(samples.sizes[0]), np.ones(samples.sizes[1])
    source, target = (to_host(w).astype(np.float64) for w in (samples.source_weight, samples.target_weight))
    if all(np.array_equal(w, np.rint(w)) for w in (source, target)):
        return source, target
    # Divide by the largest first: squares of huge or tiny weights would overflow or underflow.
    source, target = source / source.max(), target / target.max()
    return source * (source.sum() / (source @ source)), target * (target.sum() / (target @ target))


def moments(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of rows (n, d) that count `counts` (n,) times; the covariance is divided by their sum."""
    share = counts / counts.sum()
    mean = share @ rows
    centered = rows - mean
    # Center twice: the mean of many equal rows has a rounding error, which would give a constant column a variance.
    correction = share @ centered
    mean, centered = mean + correction, centered - correction
    constant = np.ptp(rows, axis=0) == 0.0
    centered[:, constant] = 0.0
    return np.where(constant, rows[0], mean), centered.T @ (centered * share[:, None])


def oas_shrinkage(covariance: np.ndarray, size: float) -> float:
    """Share of trace / d I in the oracle approximating shrinkage of a covariance (d, d) of `size` rows, between 0 and 1.

    Source: Chen, Wiesel, Eldar & Hero (2010), Shrinkage algorithms for MMSE covariance estimation, in scikit-learn's form.
    """
    d = len(covariance)
    squares, mean_variance = np.mean(covariance**2), np.trace(covariance) / d
    excess = (size + 1.0) * (squares - mean_variance**2 / d)
    return 1.0 if excess <= 0.0 else float(min(1.0, (squares + mean_variance**2) / excess))
