"""Optimal transport on a line, exactly: dynamic programming over sorted points, with and without regularization."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

__all__ = ["best_distribution", "best_potential"]


def best_distribution(points: np.ndarray, capacity: np.ndarray, target: np.ndarray, reached: np.ndarray) -> np.ndarray:
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


def best_potential(
    points: np.ndarray, supply: np.ndarray, demand: np.ndarray, regularization: float, upper: np.ndarray
) -> np.ndarray:
    """The function h (K,) on sorted distinct `points` (K,) of slope at most 1 with the least sum of supply phi(h) - demand h.

    phi(t) = max over 0 <= w <= upper of w t - regularization w^2 / 2, regularization > 0. supply (K,) and demand (K,), >= 0,
    of equal sums. The optimal weights are clip(h / regularization, 0, upper) where supply > 0.
    Dynamic programming: the least sum up to point k, as a function of h_k, has an increasing piecewise linear derivative. A gap
    to the next point inserts a flat piece at its zero, which moves the knots right and left of it apart.
    """
    reach = regularization * float(upper.max()) + 2.0 * float(points[-1] - points[0])
    slope = _Slope(2.0 * reach, float(demand.sum()) / reach)
    steps = np.diff(points)
    zeros = np.empty(len(points))
    for k, (mass, drawn) in enumerate(zip(supply.tolist(), demand.tolist(), strict=True)):
        slope.add(mass / regularization, regularization * float(upper[k]), drawn)
        zeros[k] = slope.zero
        if k < len(steps):
            slope.widen(float(steps[k]))
    for k in range(len(points) - 2, -1, -1):
        zeros[k] = min(max(zeros[k], zeros[k + 1] - steps[k]), zeros[k + 1] + steps[k])
    return zeros


class _Slope:
    """An increasing piecewise linear function by its zero, its steepness there, and its knots on either side, in two heaps.

    A knot is (position relative to the moving side, change of steepness away from the zero). It starts with a wall beyond
    `reach` on either side, where the optimum never is, so that there is always a zero.
    """

    def __init__(self, reach: float, wall: float):
        self.zero, self.steepness, self.moved = 0.0, 0.0, 0.0
        self.right, self.left = ([(reach, wall), (float("inf"), 0.0)] for _ in range(2))  # positions of the left are negated

    def widen(self, length: float) -> None:
        """Insert a piece of value 0 from zero - length to zero + length."""
        heappush(self.right, (self.zero - self.moved, self.steepness))
        heappush(self.left, (-self.zero - self.moved, self.steepness))
        self.moved += length
        self.steepness = 0.0

    def add(self, rise: float, end: float, fall: float) -> None:
        """Add rise * clip(t, 0, end) - fall, and find the zero."""
        if rise > 0.0:
            self._bend(0.0, rise)
            self._bend(end, -rise)
        value = rise * min(max(self.zero, 0.0), end) - fall
        if value < 0.0:
            self._find(self.right, self.left, 1.0, value)
        elif value > 0.0:
            self._find(self.left, self.right, -1.0, -value)

    def _bend(self, position: float, change: float) -> None:
        if position >= self.zero:
            heappush(self.right, (position - self.moved, change))
        else:
            heappush(self.left, (-position - self.moved, -change))
            self.steepness += change

    def _find(self, ahead: list, behind: list, sign: float, value: float) -> None:
        """Move the zero in the direction `sign`, over the knots ahead, until the value < 0 there has risen to 0."""
        while True:
            position = sign * (ahead[0][0] + self.moved)
            distance = sign * (position - self.zero)
            rise = max(self.steepness, 0.0) * distance
            if value + rise >= 0.0:
                self.zero += sign * min(-value / self.steepness, distance) if rise > 0.0 else 0.0
                return
            value += rise
            change = heappop(ahead)[1]
            heappush(behind, (-sign * position - self.moved, -change))
            self.zero = position
            self.steepness += change
