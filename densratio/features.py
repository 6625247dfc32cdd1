"""Features of rows: kernels at centers (Gaussian, Laplacian) and explicit maps of the Gaussian kernel (random Fourier, Nystroem).

`gamma` is in units of 1 / (data units)^2 for the Gaussian kernel exp(-gamma |x - y|^2) and its maps, and in
1 / (data units) for the Laplacian kernel exp(-gamma |x - y|_1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from ._arrays import (
    Array,
    concat_rows,
    dense,
    eigh,
    eps,
    exp_of_negative,
    is_numpy_array,
    is_sparse,
    namespace,
    put,
    running_sum,
    take_rows,
    tiny,
    to_host,
)
from ._blocks import over_rows
from ._distances import manhattan, squared_euclidean
from ._scale import column_values, some_of

__all__ = ["BANDWIDTHS", "FEATURES", "Features", "Gaussian", "Laplacian", "Nystroem", "RandomFourier", "at_bandwidths"]

T = TypeVar("T")
Anchors = Literal["source", "target"]
_ROUNDING = 8.0  # rounding units by which copies of a value may differ
_NARROWEST = 3  # largest divisor of the median distance for the width of a kernel
_MEDIAN_ROWS = 512  # rows whose pairwise distances the median rule sorts
NO_TRACE = 172.0
"""Exponent beyond which kernels, below 1e-74, change no sum; products of such small numbers are slow to compute."""


# ---------------------------------------------------------------- bandwidth rules


def median_bandwidth(
    source: Array,
    target: Array,
    distance: Callable[[Array, Array], Array],
    source_weight: Array | None = None,
    target_weight: Array | None = None,
    degree: int = 2,
    origin: Array | None = None,
) -> Array:
    """1 / (2 median) of the positive distances between pairs of pooled rows, on at most 256 rows of each sample.

    With the squared Euclidean distance this is gamma = 1 / (2 sigma^2) with sigma the median distance. Pairs are weighted by
    the product of the weights of their rows. degree: the power of the scale of the rows with which the distance grows. origin
    (1, d): the place of 0 in the columns as they were given, by whose distance their values were rounded; None: 0.
    """
    (source, source_weight), (target, target_weight) = _subsample(source, source_weight), _subsample(target, target_weight)
    pooled = concat_rows(source, target)
    distances = distance(pooled, pooled)
    xp, n = namespace(distances), pooled.shape[0]
    # Copies of a row, equal up to rounding of its values, carry no information on the scale: they count as distance 0.
    size = distance(pooled, 0.0 * pooled[:1, :])[:, 0] * (_ROUNDING * eps(distances)) ** degree
    apart = distances > size[:, None] + (size + _rounding(origin, distance))[None, :]
    flat = xp.reshape(xp.where(apart, distances, xp.zeros_like(distances)), (-1,))
    if source_weight is None and target_weight is None:
        n_apart = xp.sum(xp.astype(apart, xp.int64))
        ordered, middle = xp.sort(flat), n * n - n_apart + n_apart // 2
    else:
        order = xp.argsort(flat)
        ordered = xp.take(flat, order)
        sides = ((source, source_weight), (target, target_weight))
        weight = xp.concat([xp.ones_like(size[: s.shape[0]]) if w is None else w for s, w in sides])
        weight = weight / xp.max(weight)  # so that products of weights neither overflow nor underflow
        count = xp.take(xp.reshape(weight[:, None] * weight[None, :], (-1,)), order) * xp.astype(ordered > 0.0, ordered.dtype)
        below = running_sum(count)
        # The tolerance makes ties robust to rounding of the sum of weights.
        middle = xp.sum(xp.astype(below <= 0.5 * below[-1] * (1.0 + 64.0 * eps(below)), xp.int64))
    return _reciprocal(2.0 * xp.take(ordered, xp.reshape(xp.clip(middle, max=n * n - 1), (1,)))[0])


def target_spread_bandwidth(
    source: Array,
    target: Array,
    distance: Callable[[Array, Array], Array],
    source_weight: Array | None = None,
    target_weight: Array | None = None,
    degree: int = 2,
    origin: Array | None = None,
) -> Array:
    """1 / (distance between the 10 % and 90 % quantiles of the target columns), or the pooled range if that is 0.

    In a training loop, rows to be down-weighted would widen the pooled median; the spread of the clean target is unaffected.
    Target rows count as often as their weights say; the weights of source rows do not matter.
    """
    if is_sparse(target):
        source, target = (np.stack(list(column_values(rows)), axis=1) for rows in (source, target))
    xp, n = namespace(source, target), target.shape[0]
    ordered = xp.sort(target, axis=0)
    if target_weight is None:
        low, high = (ordered[place : place + 1, :] for place in (round(0.1 * (n - 1)), round(0.9 * (n - 1))))
    else:
        low, high = _weighted_quantiles(target, target_weight)
    spread = _gap(high, low, distance, origin)
    if is_numpy_array(spread) and spread > 0.0:  # on the host a branch saves computing the range
        return _reciprocal(spread)
    least = xp.minimum(xp.min(source, axis=0, keepdims=True), ordered[:1, :])
    largest = xp.maximum(xp.max(source, axis=0, keepdims=True), ordered[-1:, :])
    return _reciprocal(xp.where(spread > 0.0, spread, _gap(largest, least, distance, origin)))


def _gap(high: Array, low: Array, distance: Callable[[Array, Array], Array], origin: Array | None) -> Array:
    """Distance () between two rows (1, d); 0 if they differ by no more than the rounding of their entries."""
    gap = distance(high, low)[0, 0]
    return namespace(gap).where(gap > _rounding(high, distance) + _rounding(origin, distance), gap, 0.0 * gap)


def _rounding(row: Array | None, distance: Callable[[Array, Array], Array]) -> Any:
    """Distance () of the rounding of a row (1, d); 0 without a row."""
    return 0.0 if row is None else distance(_ROUNDING * eps(row) * row, 0.0 * row)[0, 0]


def _weighted_quantiles(rows: Array, weight: Array) -> list[Array]:
    """The 10 % and 90 % quantiles (1, d) of rows (n, d), as if each occurred weight (n,) times."""
    xp, order = namespace(rows), namespace(rows).argsort(rows, axis=0)
    reached = running_sum(xp.take(weight, xp.reshape(order, (-1,))).reshape(order.shape), axis=0)
    total = float(reached[-1, 0])
    found = []
    for share in (0.1, 0.9):
        # For whole numbers this is the same position as among the copies.
        place = round(share * (total - 1.0)) if total.is_integer() else share * total
        at = xp.sum(xp.astype(reached <= place, xp.int64), axis=0)
        column = [rows[int(order[int(row), j]), j] for j, row in enumerate(xp.clip(at, max=rows.shape[0] - 1))]
        found.append(xp.stack(column)[None, :])
    return found


BANDWIDTHS: dict[str, Callable[..., Array]] = {"median": median_bandwidth, "target_spread": target_spread_bandwidth}


def rule_of(gamma: Any, rules: Mapping[str, T]) -> T | None:
    """The rule with the name gamma, None for a number. Raises ValueError for anything else."""
    if isinstance(gamma, str) and gamma not in rules:
        raise ValueError(
            f"gamma={gamma!r} is not a known rule; give a number > 0 or one of {sorted(rules)}; an estimator's fit also takes "
            '"cv" or a sequence.'
        )
    if isinstance(gamma, str):
        return rules[gamma]
    if isinstance(gamma, bool) or not isinstance(gamma, Real) or not 0.0 < float(gamma) < float("inf"):
        raise ValueError(f"gamma must be a finite number > 0 or one of {sorted(rules)}; got {gamma!r}.")
    return None


def _subsample(rows: Array, weight: Array | None) -> tuple[Array, Array | None]:
    n, most = rows.shape[0], _MEDIAN_ROWS // 2
    if n <= most:
        return rows, weight
    keep = some_of(n, most)
    return take_rows(rows, keep), None if weight is None else take_rows(weight, keep)


def _reciprocal(scale: Array) -> Array:
    """1 / scale; 1 if the data have no scale (all rows are equal)."""
    xp = namespace(scale)
    safe = xp.where(scale > tiny(scale), scale, xp.ones_like(scale))
    return 1.0 / safe


# ---------------------------------------------------------------- features


@dataclass(frozen=True)
class Features(ABC):
    """Configuration of a feature map; `fit` returns a fitted copy and does not modify the configuration.

    gamma: a number > 0 or the name of a rule in BANDWIDTHS. n_centers: the number of rows used as centers (Gaussian,
    Laplacian: rows of the anchor sample, None = all of them) or the number of columns of an explicit map.
    random_state: int seed of the choice of rows and of random directions.
    """

    gamma: float | str = "median"
    n_centers: int | None = None
    random_state: int = 0
    gamma_: Any = field(default=None, compare=False)
    parameters_: Any = field(default=(), compare=False, repr=False)

    is_map: ClassVar[bool] = False
    """Whether the kernel is the inner product of the features; otherwise the features are kernel values at the centers."""
    is_nonnegative: ClassVar[bool] = True
    takes_sparse: ClassVar[bool] = True
    """Whether rows may be CSR."""
    centers_are_rows: ClassVar[bool] = True
    """Whether the centers are rows of the samples."""
    rounding: ClassVar[float] = 1e-8
    """Tolerance to which the array libraries agree on the kernel, in float64."""
    _per_center: ClassVar[int] = 1  # columns
    _degree: ClassVar[int] = 2  # the distance grows with this power of the scale of the rows
    _distance: ClassVar[Callable[..., Array]] = staticmethod(squared_euclidean)

    def fit(self, source: Array, target: Array, *, anchors: Anchors) -> Features:
        """Fitted copy for `source` (n_s, d) and `target` (n_t, d); the rows of the sample `anchors` are the centers."""
        scaled = replace(self, gamma_=self.bandwidth(source, target))
        return replace(scaled, parameters_=scaled._fit(source, target, anchors))

    def to(self, like: Array) -> Features:
        """The fitted copy in the library, dtype and device of the array `like`."""
        return replace(
            self, gamma_=put(to_host(self.gamma_), like), parameters_=tuple(put(dense(to_host(p)), like) for p in self.parameters_)
        )

    @property
    def centers_(self) -> Array:
        """The fitted centers (k, d); for random Fourier features the random directions (k / 2, d)."""
        return self.parameters_[0]

    @property
    def n_columns(self) -> int:
        """Columns k of the fitted features."""
        return self._per_center * self.parameters_[0].shape[0]

    @abstractmethod
    def _fit(self, source: Array, target: Array, anchors: Anchors) -> tuple[Array, ...]: ...

    @abstractmethod
    def __call__(self, x: Array) -> Array:
        """Features (n, k) of the rows of `x` (n, d)."""

    def bandwidth(
        self,
        source: Array,
        target: Array,
        source_weight: Array | None = None,
        target_weight: Array | None = None,
        *,
        origin: Array | None = None,
    ) -> Array:
        """The value () of `gamma`, a number or a rule, on these samples with weighted rows.

        origin (1, d): the place of 0 in the columns before they were scaled; None: they are as they were given.
        """
        rule = rule_of(self.gamma, BANDWIDTHS)
        if rule is None:
            return put(float(self.gamma), source)
        return rule(source, target, self._distance, source_weight, target_weight, self._degree, origin)

    def narrowed(self, source: Array, target: Array) -> float:
        """The factor of gamma that divides the width of the kernel by the number of varying columns, at most by 3.

        The median distance of rows grows with the number of columns. Sums of such wide kernels, with coefficients >= 0, hardly
        vary; a third of the median distance gives the least error on known ratios of 2 to 20 columns.
        """
        ends = zip(column_values(source), column_values(target), strict=True)
        varying = sum(min(a.min(), b.min()) < max(a.max(), b.max()) for a, b in ends)
        return float(min(max(varying, 1), _NARROWEST) ** self._degree)

    def bandwidth_apart(self, source: Array, target: Array) -> float:
        """The gamma at which the kernel of any two different rows is at most 1 %; 0 if all rows are equal.

        Overlapping kernels of discrete rows, with coefficients >= 0, could not follow the frequencies of the rows.
        """
        pooled = concat_rows(source, target)
        distances = to_host(self._distance(pooled, pooled))
        apart = distances[distances > 64.0 * np.finfo(distances.dtype).eps ** 2]
        return float(4.6 / apart.min()) if len(apart) else 0.0

    def kernel(self, x: Array, y: Array) -> Array:
        """The exact kernel (n, m) of rows x (n, d) and y (m, d) at the fitted bandwidth, also for an explicit map."""
        # Scaling the rows, not the distances, saves a pass over the n x m matrix.
        scale = self.gamma_ ** (1.0 / self._degree)
        x, y = x * scale, y * scale
        return over_rows(lambda part: exp_of_negative(self._distance(part, y, 1.0)), x, y.shape[0])

    def _choose(self, rows: Array) -> Array:
        """At most `n_centers` of the rows, in order."""
        n = rows.shape[0]
        if self.n_centers is None or self.n_centers >= n:
            return rows
        return take_rows(rows, np.sort(np.random.default_rng(self.random_state).permutation(n)[: self.n_centers]))


@dataclass(frozen=True)
class Gaussian(Features):
    """exp(-gamma |x - c|^2) at each center c."""

    def _fit(self, source, target, anchors):
        return (self._choose(source if anchors == "source" else target),)

    def __call__(self, x: Array) -> Array:
        return self.kernel(x, self.centers_)


@dataclass(frozen=True)
class Laplacian(Gaussian):
    """exp(-gamma |x - c|_1) at each center c: less smooth than the Gaussian, and less sensitive to single large columns."""

    takes_sparse: ClassVar[bool] = False
    _degree: ClassVar[int] = 1

    _distance: ClassVar[Callable[..., Array]] = staticmethod(manhattan)


@dataclass(frozen=True)
class RandomFourier(Features):
    """sqrt(2/k) (cos x'u, sin x'u), u ~ N(0, 2 gamma I): inner products approximate the Gaussian kernel.

    k = n_centers rounded up to even (200 if None). Source: Rahimi & Recht (2007), the form with cos and sin.
    """

    is_map: ClassVar[bool] = True
    is_nonnegative: ClassVar[bool] = False
    centers_are_rows: ClassVar[bool] = False
    _per_center: ClassVar[int] = 2

    def _fit(self, source, target, anchors):
        xp = namespace(source)
        pairs = ((self.n_centers or 200) + 1) // 2
        draws = np.random.default_rng(self.random_state).standard_normal((pairs, source.shape[1]))
        return (put(draws, source) * xp.sqrt(2.0 * self.gamma_),)

    def __call__(self, x: Array) -> Array:
        xp = namespace(x)
        angle = x @ xp.matrix_transpose(self.centers_)
        return xp.concat([xp.cos(angle), xp.sin(angle)], axis=1) / self.centers_.shape[0] ** 0.5


@dataclass(frozen=True)
class Nystroem(Features):
    """k(x, C) K_CC^(-1/2) at rows C of the pooled samples: inner products approximate the Gaussian kernel, exact on C.

    k = n_centers (200 if None). Source: Williams & Seeger (2001).
    """

    is_map: ClassVar[bool] = True
    is_nonnegative: ClassVar[bool] = False
    # Reciprocals of small eigenvalues magnify rounding errors in every row.
    rounding: ClassVar[float] = 1e-4

    def _fit(self, source, target, anchors):
        xp = namespace(source, target)
        centers = replace(self, n_centers=self.n_centers or 200)._choose(concat_rows(source, target))
        eigenvalues, vectors = eigh(self.kernel(centers, centers))
        # Leave out directions with numerically zero eigenvalues: their reciprocals are rounding noise.
        floor = eigenvalues[-1] * (10.0 * centers.shape[0] * float(xp.finfo(source.dtype).eps))
        scale = xp.where(eigenvalues > floor, 1.0 / xp.sqrt(xp.maximum(eigenvalues, floor)), xp.zeros_like(eigenvalues))
        # The symmetric root, unlike the eigenvectors, does not depend on signs that LAPACK chooses.
        return (centers, (vectors * scale[None, :]) @ xp.matrix_transpose(vectors))

    def __call__(self, x: Array) -> Array:
        centers, whitening = self.parameters_
        return self.kernel(x, centers) @ whitening


FEATURES: dict[str, type[Features]] = {
    "gaussian": Gaussian,
    "laplacian": Laplacian,
    "random_fourier": RandomFourier,
    "nystroem": Nystroem,
}


def at_bandwidths(features: Sequence[Features], x: Array) -> Iterator[Array]:
    """The features (n, k) of rows `x` (n, d) for each of several fitted features that differ only in their bandwidths.

    Kernels share the distances to the centers, and are at least exp(-NO_TRACE).
    """
    first = features[0]
    if type(first) not in (Gaussian, Laplacian):
        yield from (one(x) for one in features)
        return
    largest = max(float(one.gamma_) for one in features)
    distances = over_rows(lambda part: first._distance(part, first.centers_, 1.0 / largest), x, first.n_columns)
    for one in features:
        yield exp_of_negative(one.gamma_ * distances, NO_TRACE)
