"""Wasserstein-1 distance of one-column samples in closed form: one sort, no critic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush
from typing import ClassVar, Literal, Self

import numpy as np

from .._arrays import Array, eps, full_like_row, namespace, put, to_host
from .base import Objective, Problem
from .row_weights import WeightSet, check_bounds, relative, smoothed_weights

__all__ = ["Transport", "Wasserstein1"]


@dataclass(frozen=True)
class Wasserstein1(Objective):
    """W(w) = int |F_w(t) - F_target(t)| dt over the weights 0 <= w <= max_weight of mean 1, for rows with one column.

    F_w is the distribution function of the source under its weights. W is convex and piecewise linear in w, and a slope
    of it is dW/dw_i = (1/n) int_{x_i}^inf sign(F_w - F_target)(t) dt. The mean is exactly 1: W is infinite for unequal mass.
    A row that counts s_i times has the mass s_i w_i / n, and s_i times the slope.
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
class Transport(Problem):
    """The distance as a function of the source rows' weights in `weights`; target rows count target_weight (m,) times."""

    source: Array
    target: Array
    weights: WeightSet
    target_weight: Array | None

    is_smooth: ClassVar[bool] = False
    least_value: ClassVar[float | None] = 0.0
    has_minimizer: ClassVar[bool] = True  # type: ignore[misc]

    @cached_property
    def _line(self) -> tuple[Array, Array, Array, Array]:
        """Order of all rows along the line, the lengths between them, the target's masses, and each source row's place."""
        xp = namespace(self.source)
        points = xp.concat([self.source[:, 0], self.target[:, 0]])
        order = xp.argsort(points)
        points = xp.take(points, order)
        drawn = full_like_row(self.target, 1.0) if self.target_weight is None else self.target_weight
        # Equal points have no length between them, so the first of them stands for all.
        place = xp.searchsorted(points, self.source[:, 0] + 0.0)
        return order, points[1:] - points[:-1], -drawn / self.target.shape[0], place

    def init(self) -> Array:
        return self.weights.ones(self.source)

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        xp, n = namespace(coef), self.source.shape[0]
        order, length, drawn, place = self._line
        mass = xp.concat([self.weights.counted(coef) / n, drawn])
        excess = xp.cumulative_sum(xp.take(mass, order))[:-1]  # F_w - F_target between neighboring points
        # A difference within the rounding of n + m additions is none: there the slope may be any, and 0 keeps w still.
        excess = xp.where(xp.abs(excess) > eps(coef) * order.shape[0], excess, 0.0)
        rising = xp.cumulative_sum(xp.sign(excess) * length)
        beyond = xp.concat([rising[-1:], rising[-1:] - rising])  # int from each point to infinity
        slope = xp.take(beyond, place)
        return xp.sum(xp.abs(excess) * length), self.weights.counted(slope) / n

    def curvature(self) -> Array:
        """|g|^2 / W at uniform weights, g along the plane of constant mean: the inverse of Polyak's step; 1 where W = 0.

        A kinked function has no bound on its curvature. This step moves weights by about 1 whatever the scale of the rows.
        """
        even = self.init()
        xp, (value, grad) = namespace(even), self.value_and_grad(even)
        normal = self.weights.counted(even)
        along = grad - normal * (xp.sum(grad * normal) / xp.sum(normal * normal))
        squared = xp.sum(along * along)
        usable = (value > 0.0) & (squared > 0.0)
        return xp.where(usable, squared / xp.where(usable, value, xp.ones_like(value)), xp.ones_like(value))

    def project(self, coef: Array) -> Array:
        return self.weights.project(coef)

    def gap(self, coef: Array, grad: Array) -> Array:
        # By convexity the value falls by at most max over feasible v of grad . (coef - v).
        return namespace(coef).sum(grad * coef) - self.weights.least(grad)

    def ratio(self, coef: Array, features: Array) -> Array:
        """Kernel average of the weights; `features` (n, p) are a kernel's values at the source rows."""
        return smoothed_weights(coef, features, self.weights.counts)

    def minimizer(self) -> Array:
        """Weights (n,) of least distance, exact, in O((n + m) log(n + m)) on the host; equal rows share their weight."""
        x, v = (to_host(rows)[:, 0].astype(np.float64) for rows in (self.source, self.target))
        n, order = len(x), np.argsort(v)
        points, group = np.unique(x, return_inverse=True)
        count = np.bincount(group, None if self.weights.counts is None else to_host(self.weights.counts))
        drawn = np.ones(len(v)) if self.target_weight is None else to_host(self.target_weight)[order].astype(np.float64)
        reached = np.concatenate([[0.0], np.cumsum(drawn) / np.sum(drawn)])
        # A bound beyond all the mass on one row binds nowhere.
        upper = np.inf if self.weights.max_weight is None else float(self.weights.max_weight)
        cumulative = _best_distribution(points, np.minimum(upper * count / n, 1.0), v[order], reached)
        weights = np.clip(np.diff(cumulative, prepend=0.0) / count * n, 0.0, upper)[group]
        return self.weights.project_counted(put(weights, self.source))

    def bare(self) -> Self:
        """Without the rows."""
        return replace(self, source=self.source[:0, :], target=self.target[:0, :], target_weight=None)

    def to(self, like: Array) -> Self:
        return replace(self, weights=self.weights.to(like))


def _check_one_column(source: Array) -> None:
    if source.shape[1] != 1:
        raise ValueError(
            f"Wasserstein takes rows of one column, such as losses; got {source.shape[1]} columns. More than one needs a "
            "critic network, which DynamicReweighter has in training loops: on a table reduce the rows to one column, or use "
            "KMM, KLIEP or LSIF."
        )


def _best_distribution(points: np.ndarray, capacity: np.ndarray, target: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Distribution function (K,) at sorted `points` (K,), of jumps in [0, capacity_k], nearest in W1 to the sorted `target`.

    reached (m + 1,): the target's distribution function below its first row, and at each row, from 0 to 1.
    Dynamic programming over the points. The cost so far, as a function of the mass so far, is convex and piecewise
    linear; its knots left and right of the minimum stand in two heaps. Admitting a jump of up to c moves the right
    knots by c; the distance to the next point adds a knot for each level that the target's distribution has there.
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
    """(level, length) of the target's distribution function between two points."""
    first, last = np.searchsorted(target, [start, stop], side="right")
    knots = np.concatenate([[start], target[first:last], [stop]])
    lengths = np.diff(knots)
    return [(float(reached[first + i]), float(length)) for i, length in enumerate(lengths) if length > 0.0]


def _add_distance(left: list, right: list, shift: float, level: float, weight: float) -> None:
    """Add weight |. - level| to the convex function that the heaps hold."""
    # The falling half enters on the left and what it displaces there moves right, and the other way round.
    heappush(right, (level - shift, weight))
    _carry(right, left, weight, lambda knot: -(knot + shift))
    heappush(left, (-level, weight))
    _carry(left, right, weight, lambda knot: -knot - shift)


def _carry(source: list, sink: list, weight: float, convert) -> None:
    """Move the foremost knots of total slope `weight` from one heap to the other."""
    while weight > 0.0:
        knot, amount = source[0]
        moved = min(amount, weight)
        heappop(source)
        if amount > moved:
            heappush(source, (knot, amount - moved))
        heappush(sink, (convert(knot), moved))
        weight -= moved
