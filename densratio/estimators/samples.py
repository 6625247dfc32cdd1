"""Two samples of weighted rows: scaled, distinct, and split into kept and held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, concat_rows, dense, eps, host_numbers, namespace, put, take_rows, to_host, weighted_mean
from .._scale import distinct_of_any_columns, varies
from ..model_selection import Fold

__all__ = [
    "Samples", "WeightedRows", "counting_rows", "mean_one", "moments", "oas_shrinkage", "over_mean", "row_counts", "vanishes",
    "varying_columns", "weighted_sides", "with_all_columns",
]  # fmt: skip

_MOST_COPIES = 2.0**31
_NOTHING = 1e-12  # share of the largest weight below which a row does not count


class Samples(NamedTuple):
    """Validated rows of the two domains, and how often each row counts.

    source (n_s, d), target (n_t, d); their weights (n_s,), (n_t,) as given, both None if each row counts once; is_source (n,),
    the domain of each row of X; the positions in X of the source and target rows. If equal rows were merged: the number in `source`
    and `target` of the row at each of these positions, and the weight (n,) of each row of X. given_source: the source rows before
    they were mapped and merged. origin (1, d): where the row of zeros was mapped to.
    """

    source: Array
    target: Array
    source_weight: Array | None
    target_weight: Array | None
    is_source: np.ndarray
    source_index: np.ndarray
    target_index: np.ndarray
    source_kind: np.ndarray | None = None
    target_kind: np.ndarray | None = None
    row_weight: np.ndarray | None = None
    given_source: Array | None = None
    origin: Array | None = None

    @property
    def weighted_rows(self) -> tuple[Array, Array, Array | None, Array | None]:
        """(source, target, source_weight, target_weight)."""
        return self.source, self.target, self.source_weight, self.target_weight

    @property
    def sides(self) -> tuple[tuple[Array, Array | None], tuple[Array, Array | None]]:
        """(source, source_weight), (target, target_weight)."""
        return (self.source, self.source_weight), (self.target, self.target_weight)

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_s, n_t)."""
        return self.source.shape[0], self.target.shape[0]

    def counted(self) -> Samples:
        """The samples without the rows of weight 0, or of so little weight that it is lost in sums."""
        if self.source_weight is None:
            return self
        return self.taking(*(np.flatnonzero(counting_rows(weight)) for weight in (self.source_weight, self.target_weight)))

    def mapped(self, function: Callable[[Array], Array]) -> Samples:
        """The samples with function(rows) in place of the rows."""
        source, target, origin = map(function, (self.source, self.target, dense(0.0 * self.source[:1, :])))
        return self._replace(source=source, target=target, given_source=self.source, origin=origin)

    def of_each_source_row(self, values: Array) -> Array:
        """Values (n,) of all given source rows, from those of the rows that they were merged to."""
        return values if self.source_kind is None else take_rows(values, self.source_kind)

    def merged(self) -> Samples:
        """The distinct rows in an order of their own, with the summed weights of their copies.

        So draws by position from it do not depend on the order of the rows or columns, nor on whether rows are copied or weighted.
        """
        sides = [distinct_of_any_columns(rows) for rows in (self.source, self.target)]
        rows = [take_rows(rows, first) for rows, (first, _) in zip((self.source, self.target), sides, strict=True)]
        weights: list[Any] = [None, None]
        row_weight = None
        if self.source_weight is not None:
            row_weight = np.zeros(len(self.is_source))
            row_weight[self.source_index], row_weight[self.target_index] = to_host(self.source_weight), to_host(self.target_weight)
        if row_weight is not None or any(len(first) < len(kind) for first, kind in sides):
            given = [None if row_weight is None else row_weight[at] for at in (self.source_index, self.target_index)]
            counts = [_sums(kind, weight) for (_, kind), weight in zip(sides, given, strict=True)]
            weights = [put(count, self.source) for count in counts]
        return self._replace(
            source=rows[0], target=rows[1], source_weight=weights[0], target_weight=weights[1],
            source_kind=sides[0][1], target_kind=sides[1][1], row_weight=row_weight,
        )  # fmt: skip

    def taking(self, source: np.ndarray, target: np.ndarray) -> Samples:
        """The rows of the two domains at these positions, without the record of merged rows."""
        index = (self.source_index, self.target_index) if self.source_kind is None else map(np.arange, self.sizes)
        taken = [
            (take_rows(rows, keep), None if weight is None else take_rows(weight, keep), at[keep])
            for (rows, weight), at, keep in zip(self.sides, index, (source, target), strict=True)
        ]
        rows, weights, places = zip(*taken, strict=True)
        return Samples(rows[0], rows[1], weights[0], weights[1], self.is_source, *places)._replace(origin=self.origin)

    def split(self, fold: Fold) -> tuple[Samples, Samples]:
        """The rows that a fold keeps and those that it holds out; the index of each contains its positions here."""
        here = self._replace(source_index=np.arange(self.sizes[0]), target_index=np.arange(self.sizes[1]), source_kind=None)
        held_out = here.taking(fold.source, fold.target)
        if fold.source_weight is None or fold.target_weight is None:
            return here.taking(*fold.rest(*self.sizes)), held_out
        out = [(fold.source, fold.source_weight), (fold.target, fold.target_weight)]
        left = []
        for weight, (at, taken) in zip((self.source_weight, self.target_weight), out, strict=True):
            rest = host_numbers(weight)
            rest[at] = np.where(rest[at] - taken > 1e-9 * rest[at], rest[at] - taken, 0.0)
            left.append(rest)
        kept = here.taking(*map(np.flatnonzero, left))._weighing(*(rest[rest > 0.0] for rest in left))
        return kept, held_out._weighing(fold.source_weight, fold.target_weight)

    def stacked(self) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """(X, y, sample_weight) as arguments of `fit`, source rows first."""
        weights = self.source_weight, self.target_weight
        weight = None if weights[0] is None else np.concatenate([to_host(part) for part in weights])
        return concat_rows(self.source, self.target), np.repeat([0, 1], self.sizes), weight

    def _weighing(self, source_weight: np.ndarray, target_weight: np.ndarray) -> Samples:
        source, target = put(source_weight, self.source_weight), put(target_weight, self.target_weight)
        return self._replace(source_weight=source, target_weight=target)


def _sums(kind: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """The summed weights (k,) of each kind, to the last digit the same in any order of the rows."""
    if weight is None:
        return np.bincount(kind)
    order = np.argsort(weight)
    return np.bincount(kind[order], weight[order])


def mean_one(raw: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """raw (n,) divided by its weighted mean, and that mean (); both are ones if `vanishes` is true of the mean."""
    xp = namespace(raw)
    mean = weighted_mean(raw, weight)
    gone = vanishes(mean)
    mean = xp.where(gone, xp.ones_like(mean), mean)
    return xp.where(gone, xp.ones_like(raw), raw / mean), mean


def vanishes(mean: Array) -> Array:
    """Whether a mean () is 0, or so small that its numbers have lost digits: all rows are then too far away."""
    # Negated, so that it is true for NaN.
    return ~(mean > float(namespace(mean).finfo(mean.dtype).smallest_normal) / eps(mean))


def over_mean(raw: Array, mean: float) -> Array:
    """raw (n,) >= 0 divided by `mean`, at most the 0.4th power of the largest number: sums of squares stay finite."""
    xp, largest = namespace(raw), float(namespace(raw).finfo(raw.dtype).max)
    return xp.clip(raw, max=min(largest**0.4 * mean, largest)) / mean


class WeightedRows(NamedTuple):
    """Rows (k, d), dense or CSR, and how much each counts (k,)."""

    rows: Any
    weight: np.ndarray

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean of values (k, ...), one for each row."""
        return np.tensordot(self.weight, values, axes=1) / self.weight.sum()

    def second(self, values: np.ndarray) -> np.ndarray:
        """Mean (d, d) of the products of values (k, d), one row for each row, with themselves."""
        return values.T @ (self.weight[:, None] * values) / self.weight.sum()


def weighted_sides(samples: Samples) -> tuple[WeightedRows, WeightedRows]:
    """Source and target in float64 on the host, with their `row_counts`."""
    counts = row_counts(samples)
    return WeightedRows(host_numbers(samples.source), counts[0]), WeightedRows(host_numbers(samples.target), counts[1])


def row_counts(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The number of rows that each source row (n_s,) and target row (n_t,) counts as, for rules that depend on the sample size.

    Weights that are all whole numbers count as copies. Other weights have no unit, so they are scaled in each domain to the sum
    (sum w)^2 / sum w^2, the effective sample size (Kish, 1965). Without weights every row counts once.
    """
    if samples.source_weight is None:
        return np.ones(samples.sizes[0]), np.ones(samples.sizes[1])
    source, target = map(host_numbers, (samples.source_weight, samples.target_weight))
    # Huge floats are always whole.
    if all(part.max(initial=0.0) <= _MOST_COPIES and np.array_equal(part, np.rint(part)) for part in (source, target)):
        return source, target
    # Divide by the largest first: squares of huge or tiny weights would overflow or underflow.
    source, target = source / source.max(), target / target.max()
    return source * (source.sum() / (source @ source)), target * (target.sum() / (target @ target))


def counting_rows(weight: Array) -> np.ndarray:
    """Which rows (n,) count: those whose weight is not negligible beside the largest."""
    host = to_host(weight)
    return host > host.max(initial=0.0) * _NOTHING


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


def varying_columns(samples: Samples) -> np.ndarray:
    """Positions (k,) of the columns that are not constant over both samples of dense rows; the first column if all are constant.

    A density that counts a constant column has another bandwidth and another shrinkage, and its ratio is another.
    """
    at = np.flatnonzero(varies((samples.source, samples.target)))
    return at if len(at) else np.arange(1)


def with_all_columns(values: np.ndarray, at: np.ndarray, d: int) -> np.ndarray:
    """A vector (d,) or a matrix (d, d) with the values (k,) or (k, k) in the columns `at` (k,), and 0 in the others."""
    full = np.zeros((d,) * values.ndim)
    full[np.ix_(*[at] * values.ndim)] = values
    return full
