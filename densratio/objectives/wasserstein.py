"""Wasserstein-1 distance of one-column samples in closed form: one sort, no critic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from typing import ClassVar, Literal, Self

import numpy as np

from .._arrays import Array, eps, full_like_row, namespace, put, to_host
from .base import Objective
from .row_weights import RowProblem, WeightSet, check_bounds, relative

__all__ = ["Transport", "Wasserstein1"]


@dataclass(frozen=True)
class Wasserstein1(Objective):
    """W(w) = int |F_w(t) - F_target(t)| dt over the weights 0 <= w <= max_weight of mean 1, for rows with one column.

    F_w is the distribution function of the weighted source. W is convex and piecewise linear in w, with the subgradient
    dW/dw_i = (1/n) int_{x_i}^inf sign(F_w - F_target)(t) dt. The mean is exactly 1: W is infinite for unequal mass. A row that
    counts s_i times has mass s_i w_i / n, and its subgradient is s_i times as large.
    """

    max_weight: float | None = 1000.0

    anchors: ClassVar[Literal["source", "target"]] = "source"
    takes: ClassVar[Literal["features", "rows"]] = "rows"

    def __post_init__(self) -> None:
        check_bounds(self.max_weight, 0.0)

    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Transport:
        _check_one_column(source)
        weights = WeightSet(source.shape[0], self.max_weight, counts=relative(source_weight))
        return Transport(source, target, weights, relative(target_weight))


@dataclass(frozen=True, eq=False)
class Transport(RowProblem):
    """The distance as a function of the source weights, in the set `weights`; target rows count target_weight (m,) times."""

    source: Array
    target: Array
    weights: WeightSet
    target_weight: Array | None

    is_smooth: ClassVar[bool] = False
    least_value: ClassVar[float | None] = 0.0
    has_minimizer: ClassVar[bool] = True  # type: ignore[misc]

    @cached_property
    def _line(self) -> tuple[Array, Array, Array, Array]:
        """Order of all rows along the line, distances between neighbors, target masses, and positions of the source rows."""
        xp = namespace(self.source)
        points = xp.concat([self.source[:, 0], self.target[:, 0]])
        order = xp.argsort(points)
        points = xp.take(points, order)
        drawn = full_like_row(self.target, 1.0) if self.target_weight is None else self.target_weight
        # Equal points are at distance 0, so the position of the first serves for all.
        # NaN would get a place beyond the last point, which a GPU refuses later and for good.
        place = xp.clip(xp.searchsorted(points, self.source[:, 0] + 0.0), max=points.shape[0] - 1)
        return order, points[1:] - points[:-1], -drawn / self.target.shape[0], place

    def init(self) -> Array:
        return self.weights.ones(self.source)

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        xp, n = namespace(coef), self.source.shape[0]
        order, length, drawn, place = self._line
        mass = xp.concat([self.weights.counted(coef) / n, drawn])
        excess = xp.cumulative_sum(xp.take(mass, order))[:-1]  # F_w - F_target between neighboring points
        # Treat a difference within the rounding of n + m additions as 0: any sign is a subgradient there, and 0 leaves w unchanged.
        excess = xp.where(xp.abs(excess) > eps(coef) * order.shape[0], excess, 0.0)
        rising = xp.cumulative_sum(xp.sign(excess) * length)
        beyond = xp.concat([rising[-1:], rising[-1:] - rising])  # integral from each point to infinity
        slope = xp.take(beyond, place)
        return xp.sum(xp.abs(excess) * length), self.weights.counted(slope) / n

    def curvature(self) -> Array:
        """|g|^2 / W at uniform weights, with g projected onto the plane of constant mean: the inverse of Polyak's step; 1 if W = 0.

        The curvature of a nonsmooth function is unbounded. This step moves weights by about 1 at any scale of the rows.
        """
        even = self.init()
        xp, (value, grad) = namespace(even), self.value_and_grad(even)
        normal = self.weights.counted(even)
        along = grad - normal * (xp.sum(grad * normal) / xp.sum(normal * normal))
        squared = xp.sum(along * along)
        usable = (value > 0.0) & (squared > 0.0)
        return xp.where(usable, squared / xp.where(usable, value, xp.ones_like(value)), xp.ones_like(value))

    def minimizer(self) -> Array:
        """Exact minimizing weights (n,), in O((n + m) log(n + m)) on the host; equal rows get equal weights."""
        x, v = (to_host(rows)[:, 0].astype(np.float64) for rows in (self.source, self.target))
        n, order = len(x), np.argsort(v)
        points, group = np.unique(x, return_inverse=True)
        count = np.bincount(group, None if self.weights.counts is None else to_host(self.weights.counts))
        drawn = np.ones(len(v)) if self.target_weight is None else to_host(self.target_weight)[order].astype(np.float64)
        reached = np.concatenate([[0.0], np.cumsum(drawn) / np.sum(drawn)])
        # A bound larger than all the mass on one row never binds.
        upper = np.inf if self.weights.max_weight is None else float(self.weights.max_weight)
        cumulative = _best_distribution(points, np.minimum(upper * count / n, 1.0), v[order], reached)
        weights = np.clip(np.diff(cumulative, prepend=0.0) / count * n, 0.0, upper)[group]
        return self.weights.project_counted(put(weights, self.source))

    def bare(self) -> Self:
        """The problem without the rows."""
        return replace(self, source=self.source[:0, :], target=self.target[:0, :], target_weight=None)


def _check_one_column(source: Array) -> None:
    if source.shape[1] != 1:
        raise ValueError(
            f"Wasserstein takes rows of one column, such as losses; got {source.shape[1]} columns. Several columns need a "
            "critic network, which DynamicReweighter has in training loops. On a table, reduce the rows to one column, or use "
            "KMM, KLIEP or LSIF."
        )


def _best_distribution(points: np.ndarray, capacity: np.ndarray, target: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Distribution function (K,) on sorted `points` (K,) with jumps in [0, capacity_k] that is nearest in W1 to sorted `target`.

    reached (m + 1,): the target's distribution function before its first row and at each row, from 0 to 1.
    Dynamic programming over the points. The cost so far, as a function of the mass so far, is convex and piecewise
    linear; two heaps hold its knots left and right of the minimum. A jump of up to c shifts the right knots by c; each
    level of the target's distribution function before the next point adds a knot.
    """
    infinite = float("inf")
    left, right = [(-0.0, infinite)], [(0.0, infinite)]  # (-knot, slope change), (knot - shift, slope change)
    shift, valleys = 0.0, []
    for k in range(len(points) - 1):
        shift += float(capacity[k])
        for level, length in _levels(points[k], points[k + 1], target, reached):
            _add_distance(left, right, shift, level, length)
        valleys.append((-left[0][0], right[0][0] + shift))
    cumulative = np.ones(len(points))
    for k in range(len(points) - 2, -1, -1):
        high = cumulative[k + 1]
        low = high - capacity[k + 1]
        valley_low, valley_high = valleys[k]
        cumulative[k] = min(max(0.5 * (max(valley_low, low) + min(valley_high, high)), low), high)
    return np.clip(cumulative, 0.0, 1.0)


def _levels(start: float, stop: float, target: np.ndarray, reached: np.ndarray) -> list[tuple[float, float]]:
    """The levels of the target's distribution function between two points, as (level, length) pairs."""
    first, last = np.searchsorted(target, [start, stop], side="right")
    knots = np.concatenate([[start], target[first:last], [stop]])
    lengths = np.diff(knots)
    return [(float(reached[first + i]), float(length)) for i, length in enumerate(lengths) if length > 0.0]


def _add_distance(left: list, right: list, shift: float, level: float, weight: float) -> None:
    """Add weight |. - level| to the convex function that the heaps hold."""
    # The falling half goes into the right heap and displaces knots to the left heap; the rising half, the other way round.
    heappush(right, (level - shift, weight))
    _carry(right, left, weight, lambda knot: -(knot + shift))
    heappush(left, (-level, weight))
    _carry(left, right, weight, lambda knot: -knot - shift)


def _carry(source: list, sink: list, weight: float, convert) -> None:
    """Move the top knots, of total slope `weight`, from one heap to the other."""
    while weight > 0.0:
        knot, amount = source[0]
        moved = min(amount, weight)
        heappop(source)
        if amount > moved:
            heappush(source, (knot, amount - moved))
        heappush(sink, (convert(knot), moved))
        weight -= moved
