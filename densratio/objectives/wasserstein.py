"""Wasserstein-1 distance between the weighted source and the target: a sort in one column, a transport plan in several."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from .._arrays import Array, eps, full_like_row, host_numbers, namespace, put, running_sum
from .._validation import check_number
from .base import Objective
from .line_transport import best_distribution, best_potential, lengthened, shortened
from .planned_transport import PlannedTransport, TransportProblem
from .row_weights import WeightSet, check_bounds, relative

__all__ = ["Transport", "Wasserstein1"]

_CERTAIN = 1e-9  # gap of a solution, relative to its value, at which it counts as right
_ROUNDING = 1e-15  # of each row in a sum of masses


@dataclass(frozen=True)
class Wasserstein1(Objective):
    """W(w) + regularization |w|^2 / (2n), W the least mean Euclidean distance that turns the weighted source into the target.

    W(w) = min over T >= 0 of sum_ij T_ij |x_i - v_j| with sum_j T_ij = w_i / n and sum_i T_ij = 1/m, over the weights
    0 <= w <= max_weight of mean 1, which is exact: W is infinite for unequal mass. In one column W is int |F_w(t) - F_target(t)|
    dt, with the distribution functions of the weighted source and of the target. W is convex and piecewise linear in w. A row
    that counts s_i times has mass s_i w_i / n, and its square counts s_i times, as for its copies.
    """

    max_weight: float | None = 1000.0
    regularization: float = 0.0

    anchors: ClassVar[Literal["source", "target"]] = "source"
    takes: ClassVar[Literal["features", "rows"]] = "rows"

    def __post_init__(self) -> None:
        check_bounds(self.max_weight, 0.0)
        check_number("regularization", self.regularization, "[0, inf)")

    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Transport | PlannedTransport:
        weights = WeightSet(source.shape[0], self.max_weight, counts=relative(source_weight))
        kind = Transport if source.shape[1] == 1 else PlannedTransport
        return kind(source, target, weights, relative(target_weight), float(self.regularization))


@dataclass(frozen=True, eq=False)
class Transport(TransportProblem):
    """The value in one column as a function of the source weights, which are in the set `weights`."""

    has_minimizer: ClassVar[bool] = True  # type: ignore[misc]

    @property
    def least_value(self) -> float:  # type: ignore[override]
        """The value of equal weights at distance 0: the mean square of weights of mean 1 is at least 1."""
        return 0.5 * self.regularization

    @cached_property
    def _line(self) -> tuple[Array, Array, Array, Array]:
        """Order of all rows along the line, distances between neighbors, target masses, and positions of the source rows."""
        xp = namespace(self.source)
        points = xp.concat([self.source[:, 0], self.target[:, 0]])
        order = xp.argsort(points)
        points = xp.take(points, order)
        drawn = full_like_row(self.target, 1.0) if self.target_weight is None else self.target_weight
        # Equal points are at distance 0, so the position of the first serves for all.
        # NaN would get a position beyond the last point, which on a GPU causes a later error that cannot be recovered.
        place = xp.clip(xp.searchsorted(points, self.source[:, 0] + 0.0), max=points.shape[0] - 1)
        return order, points[1:] - points[:-1], -drawn / self.target.shape[0], place

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        xp, n = namespace(coef), self.source.shape[0]
        order, length, drawn, place = self._line
        mass = xp.concat([self.weights.counted(coef) / n, drawn])
        excess = running_sum(xp.take(mass, order))[:-1]  # F_w - F_target between neighboring points
        # Treat a difference within the rounding of n + m additions as 0: any sign is a subgradient there, and 0 leaves w unchanged.
        excess = xp.where(xp.abs(excess) > eps(coef) * order.shape[0], excess, 0.0)
        rising = running_sum(xp.sign(excess) * length)
        beyond = xp.concat([rising[-1:], rising[-1:] - rising])  # integral from each point to infinity
        value, slope = xp.sum(xp.abs(excess) * length), xp.take(beyond, place)
        if self.regularization:
            value = value + 0.5 * self.regularization * xp.mean(self.weights.counted(coef * coef))
            slope = slope + self.regularization * coef
        return value, self.weights.counted(slope) / n

    def curvature(self) -> Array:
        """|g|^2 / W at uniform weights, with g projected onto the plane of constant mean: the inverse of Polyak's step; 1 if W = 0.

        The curvature of a nonsmooth function is unbounded. This step moves weights by about 1 at any scale of the rows.
        """
        even = self.init()
        xp, (value, grad) = namespace(even), self.value_and_grad(even)
        normal = self.weights.counted(even)
        along = grad - normal * (xp.sum(grad * normal) / xp.sum(normal * normal))
        value, squared = value - self.least_value, xp.sum(along * along)
        usable = (value > 0.0) & (squared > 0.0)
        return xp.where(usable, squared / xp.where(usable, value, xp.ones_like(value)), xp.ones_like(value))

    def gap(self, coef: Array, grad: Array) -> Array:
        if self.regularization == 0.0:
            return super().gap(coef, grad)
        # A subgradient gives a loose bound, and the dual solution is available.
        return namespace(coef).clip(self.value_and_grad(coef)[0] - self._dual.value, min=0.0)

    def minimizer(self) -> Array:
        """Exact minimizing weights (n,), by dynamic programming on the host; equal rows get equal weights."""
        if self.regularization > 0.0:
            return self.weights.project_counted(put(self._dual.weights, self.source))
        (x, v), counts, drawn = self._on_host
        n, order = len(x), np.argsort(v)
        points, group = np.unique(x, return_inverse=True)
        count = np.bincount(group, counts)
        reached = np.concatenate([[0.0], np.cumsum(drawn[order])])
        # An upper bound larger than all the mass on one row never binds.
        upper = np.inf if self.weights.max_weight is None else float(self.weights.max_weight)
        cumulative = best_distribution(points, np.minimum(upper * count / n, 1.0), v[order], reached)
        weights = np.clip(np.diff(cumulative, prepend=0.0) / count * n, 0.0, upper)[group]
        return self.weights.project_counted(put(weights, self.source))

    @property
    def potentials(self) -> np.ndarray | None:
        """The optimal dual values g (m,) of the target rows, see `PlannedTransport`; None without regularization."""
        return self._dual.potentials if self.regularization > 0.0 else None

    @cached_property
    def _dual(self) -> _Dual:
        (x, given), counts, drawn = self._on_host
        # Every plan pays the distance of a target row to the range of the source, and a long one would cost the others digits.
        v = np.clip(given, x.min(), x.max())
        way = np.abs(given - v)
        points, place = np.unique(np.concatenate([x, v]), return_inverse=True)
        supply = np.bincount(place[: len(x)], counts, len(points)) / len(x)
        demand = np.bincount(place[len(x) :], drawn, len(points))
        steps = np.diff(points)
        cut = shortened(steps, supply, demand, self.regularization)
        found = self._potential(steps, cut, supply, demand)
        if found.gap > _CERTAIN * found.value and not np.array_equal(cut, steps):
            found = min(found, self._potential(steps, steps, supply, demand), key=lambda at: at.gap)
        value = float(drawn @ way) + found.value
        return _Dual(found.weights[place[: len(x)]], found.potentials[place[len(x) :]] + way, value, found.gap)

    def _potential(self, steps: np.ndarray, cut: np.ndarray, supply: np.ndarray, demand: np.ndarray) -> _Dual:
        """The solution for points at distances `steps`, found with the distances `cut`."""
        ridge, upper = self.regularization, np.inf if self.weights.max_weight is None else float(self.weights.max_weight)
        height = best_potential(cut, supply, demand, ridge)
        # Without the upper bound the sweep is faster, and exact if no weight exceeds it.
        if height[supply > 0.0].max() > ridge * upper:
            height = best_potential(cut, supply, demand, ridge, upper)
        weights = np.clip(height / ridge, 0.0, upper)
        flow = np.cumsum(supply * weights - demand)[:-1]
        height = lengthened(height, flow, steps - cut)
        value = demand @ height - supply @ (weights * (height - 0.5 * ridge * weights))
        flow = np.where(np.abs(flow) > _ROUNDING * len(flow), flow, 0.0)
        reached = np.abs(flow) @ steps + 0.5 * ridge * supply @ weights**2
        return _Dual(weights, height, float(value), float(reached - value))

    @property
    def _on_host(self) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
        """Source (n,) and target (m,), the counts (n,) of mean 1 and the target masses (m,) of sum 1, in float64."""
        x, v = (host_numbers(rows)[:, 0] for rows in (self.source, self.target))
        counts = np.ones(len(x)) if self.weights.counts is None else host_numbers(self.weights.counts)
        drawn = np.ones(len(v)) if self.target_weight is None else host_numbers(self.target_weight)
        return (x, v), counts, drawn / drawn.sum()


class _Dual(NamedTuple):
    """Weights and potentials of points, or of source and target rows; the dual value, and its distance to the weights' value."""

    weights: np.ndarray
    potentials: np.ndarray
    value: float
    gap: float
