"""Wasserstein-1 distance of one-column samples in closed form: one sort, no critic."""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar, Literal

import numpy as np

from .._arrays import Array, eps, full_like_row, namespace, put, to_host
from .kmm import WeightedRows, smoothed_weights

__all__ = ["Wasserstein1"]


@dataclass(frozen=True)
class Wasserstein1(WeightedRows):
    """W(w) = int |F_w(t) - F_target(t)| dt over the weights 0 <= w <= max_weight of mean 1, for rows with one column.

    F_w is the distribution function of the source under its weights. W is convex and piecewise linear in w, and a slope
    of it is dW/dw_i = (1/n) int_{x_i}^inf sign(F_w - F_target)(t) dt. The mean is exactly 1: W is infinite for unequal mass.
    A row that counts s_i times has the mass s_i w_i / n, and s_i times the slope.
    """

    max_weight: float | None = 1000.0
    source_weight: Array | None = field(default=None, compare=False, repr=False)
    target_weight: Array | None = field(default=None, compare=False, repr=False)

    takes: ClassVar[Literal["features", "rows"]] = "rows"
    is_smooth: ClassVar[bool] = False
    has_closed_form: ClassVar[bool] = True

    def init(self, source: Array, target: Array) -> Array:
        _check_one_column(source)
        return super().init(source, target)

    def warm_start(self, coef: Array, source: Array, target: Array) -> Array:
        _check_one_column(source)
        return super().warm_start(coef, source, target)

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        xp = namespace(coef, source)
        n, m = source.shape[0], target.shape[0]
        points = xp.concat([source[:, 0], target[:, 0]])
        order = xp.argsort(points)
        points = xp.take(points, order)
        drawn = full_like_row(target, 1.0) if self.target_weight is None else self.target_weight
        mass = xp.concat([self.counted(coef) / n, -drawn / m])
        excess = xp.cumulative_sum(xp.take(mass, order))[:-1]  # F_w - F_target between neighbouring points
        length = points[1:] - points[:-1]
        # A difference within the rounding of n + m additions is none: there the slope may be any, and 0 keeps w still.
        excess = xp.where(xp.abs(excess) > eps(coef) * (n + m), excess, 0.0)
        rising = xp.cumulative_sum(xp.sign(excess) * length)
        beyond = xp.concat([rising[-1:], rising[-1:] - rising])  # int from each point to infinity
        # Equal points have no length between them, so the first of them stands for all.
        slope = xp.take(beyond, xp.searchsorted(points, source[:, 0]))
        return xp.sum(xp.abs(excess) * length), self.counted(slope) / n

    def curvature(self, source: Array, target: Array) -> Array:
        """|g|^2 / W at uniform weights, g along the plane of constant mean: the inverse of Polyak's step; 1 where W = 0.

        A kinked function has no bound on its curvature. This step moves weights by about 1 whatever the scale of the rows.
        """
        xp = namespace(source)
        even = xp.ones_like(source[:, 0])
        value, grad = self.value_and_grad(even, source, target)
        normal = self.counted(even)
        along = grad - normal * (xp.sum(grad * normal) / xp.sum(normal * normal))
        squared = xp.sum(along * along)
        usable = (value > 0.0) & (squared > 0.0)
        return xp.where(usable, squared / xp.where(usable, value, xp.ones_like(value)), xp.ones_like(value))

    def ratio(self, coef: Array, features: Array) -> Array:
        """Kernel average of the weights; `features` (n, p) are a kernel's values at the source rows."""
        return smoothed_weights(coef, features, self.source_weight)

    def minimiser(self, source: Array, target: Array) -> Array:
        """Weights (n,) of least distance, exact, in O((n + m) log(n + m)) on the host; equal rows share their weight."""
        x, v = (to_host(rows)[:, 0].astype(np.float64) for rows in (source, target))
        n, order = len(x), np.argsort(v)
        points, group = np.unique(x, return_inverse=True)
        count = np.bincount(group, None if self.source_weight is None else to_host(self.source_weight))
        drawn = np.ones(len(v)) if self.target_weight is None else to_host(self.target_weight)[order].astype(np.float64)
        reached = np.concatenate([[0.0], np.cumsum(drawn) / np.sum(drawn)])
        # A bound beyond all the mass on one row binds nowhere.
        upper = np.inf if self.max_weight is None else float(self.max_weight)
        cumulative = _best_distribution(points, np.minimum(upper * count / n, 1.0), v[order], reached)
        weights = np.clip(np.diff(cumulative, prepend=0.0) / count * n, 0.0, upper)[group]
        return self.project_counted(put(weights, source))


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
