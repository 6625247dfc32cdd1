"""Optimal transport on a line, exactly: dynamic programming over sorted points, with and without regularization."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

__all__ = ["best_distribution", "best_potential", "lengthened", "shortened"]

_MOVED = 1e4  # distance, in units of the regularization, that knots may move before their places are rewritten
_FEW = 32  # number of knots that are first examined together
_OUTWEIGHS = 8.0  # a step is cut to this multiple of the length that it must outweigh, and so stays long
_ALL = 1.0 - 1e-12  # share of a rise that counts as all of it, up to rounding
_NOTHING = 1e-12  # share of the total steepness that counts as rounding


def best_distribution(points: np.ndarray, capacity: np.ndarray, target: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """The distribution function (K,) on sorted `points` (K,) with jumps in [0, capacity_k] that is nearest to `target` in W1.

    target (m,): sorted. reached (m + 1,): its distribution function before the first row and at each row, from 0 to 1.
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
    steps: np.ndarray, supply: np.ndarray, demand: np.ndarray, regularization: float, upper: float = np.inf
) -> np.ndarray:
    """The function h (K,) of slope at most 1 that minimizes the sum of supply phi(h) - demand h.

    The K points have the distances `steps` (K - 1,) > 0.

    phi(t) = max over 0 <= w <= upper of w t - regularization w^2 / 2, regularization > 0. supply (K,) and demand (K,), >= 0,
    of sum 1. The optimal weights are clip(h / regularization, 0, upper) where supply > 0.
    Dynamic programming: the least sum up to point k, as a function of h_k, has an increasing piecewise linear derivative. The step
    to the next point inserts a flat piece at its zero, which moves the knots on its two sides apart.
    """
    zeros, slope = [], _Slope(4 * len(supply), regularization)
    for mass, drawn, step in zip(supply.tolist(), demand.tolist(), [*steps.tolist(), 0.0], strict=True):
        slope.add(mass / regularization, regularization * upper, drawn)
        zeros.append(slope.zero if slope.short == 0.0 else np.inf)
        slope.widen(step)
    height = [slope.zero]
    for zero, step in zip(zeros[-2::-1], steps[::-1].tolist(), strict=True):
        height.append(min(max(zero, height[-1] - step), height[-1] + step))
    return np.array(height[::-1])


def shortened(steps: np.ndarray, supply: np.ndarray, demand: np.ndarray, regularization: float) -> np.ndarray:
    """The steps for `best_potential`, shortened where a step outweighs all shorter ones and the penalty; the weights are the same.

    Only the necessary mass crosses such a step, however long it is: the potential of a receiver is high only across a tight step,
    but a side that can supply itself has rows with a potential of at most regularization / (its supply).
    This may fail if several steps are about as long and mass can cross any of them; the gap shows it.
    """
    order = np.argsort(steps)
    sides = [(np.cumsum(mass[::way])[:-1][::way] for mass in (supply, demand)) for way in (1, -1)]
    highest = np.max([np.where((s > 0.0) & (d > 0.0), regularization / np.where(s > 0.0, s, 1.0), 0.0) for s, d in sides], axis=0)
    cut, total = steps.copy(), 0.0
    for k in order.tolist():
        cut[k] = min(cut[k], _OUTWEIGHS * (regularization + float(highest[k]) + total))
        total += float(cut[k])
    return cut


def lengthened(height: np.ndarray, flow: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The heights (K,) for steps that are longer by `more` (K - 1,), with the flow (K - 1,) over them from left to right.

    The side that receives mass is higher by the same amount. It has no free capacity, so its weights do not change.
    """
    rises = np.where(np.abs(flow) > _NOTHING, np.sign(flow) * more, 0.0)
    to_right, to_left = np.maximum(rises, 0.0), np.maximum(-rises, 0.0)
    return height + np.append(0.0, np.cumsum(to_right)) + np.append(np.cumsum(to_left[::-1])[::-1], 0.0)


class _Knots:
    """The knots on one side of a zero, the nearest last: their distances outward, minus `moved`, and the changes of steepness."""

    def __init__(self, sign: float, most: int):
        self.sign, self.moved, self.n = sign, 0.0, 0
        self.places, self.changes = np.empty(most), np.empty(most)

    def push(self, places: np.ndarray | float, changes: np.ndarray | float, n: int = 1) -> None:
        """Add the n nearest knots, from outward in."""
        self.places[self.n : self.n + n], self.changes[self.n : self.n + n] = places - self.moved, changes
        self.n += n

    def insert(self, place: float, change: float) -> None:
        """Add a knot wherever it belongs."""
        place -= self.moved
        at = self.n - int(self.places[: self.n][::-1].searchsorted(place))
        for values, value in ((self.places, place), (self.changes, change)):
            values[at + 1 : self.n + 1] = values[at : self.n]
            values[at] = value
        self.n += 1

    def nearest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Places and changes of the `count` nearest knots, from inward out."""
        here = slice(max(self.n - count, 0), self.n)
        return self.places[here][::-1] + self.moved, self.changes[here][::-1]

    def shift(self, length: float, most: float) -> None:
        """Move all knots outward. A total of up to `most` is stored separately; a longer one would cost places near 0 digits."""
        self.moved += length
        if self.moved > most:
            self.places[: self.n] += self.moved
            self.moved = 0.0


class _Slope:
    """An increasing piecewise linear function, given by its zero, its steepness there, and its knots on both sides.

    If it is negative everywhere, `zero` is a place beyond all knots, where the function is -short.
    """

    def __init__(self, most: int, unit: float):
        self.zero, self.steepness, self.short, self.total = 0.0, 0.0, 0.0, 0.0
        self.right, self.left, self.most_moved, self.count = _Knots(1.0, most), _Knots(-1.0, most), _MOVED * unit, _FEW

    def widen(self, length: float) -> None:
        """Insert a piece of value 0 from zero - length to zero + length."""
        for side in (self.right, self.left):
            if self.short == 0.0:
                side.push(side.sign * self.zero, self.steepness)
            side.shift(length, self.most_moved)
        self.steepness = 0.0

    def add(self, rise: float, end: float, fall: float) -> None:
        """Add rise * clip(t, 0, end) - fall, and find the zero."""
        if rise > 0.0:
            self.total += rise
            self._bend(0.0, rise)
            if end < np.inf:
                self._bend(end, -rise)
        value = rise * min(max(self.zero, 0.0), end) - fall - self.short
        self.short = 0.0
        if value < 0.0:
            self.short = self._passed(self.right, self.left, -value)
        elif value > 0.0:
            self._passed(self.left, self.right, value)

    def _bend(self, place: float, change: float) -> None:
        if place >= self.zero:
            self.right.insert(place, change)
        else:
            self.left.insert(-place, -change)
            self.steepness += change

    def _passed(self, ahead: _Knots, behind: _Knots, missing: float) -> float:
        """Move the zero over the knots ahead until the function has risen by `missing`, and return the remaining deficit."""
        here = ahead.sign * self.zero
        while ahead.n:
            places, changes = ahead.nearest(self.count)
            lengths, after = places.copy(), self.steepness + changes.cumsum()
            slopes = after - changes
            slopes[slopes < _NOTHING * self.total] = 0.0  # else a long flat piece would rise by rounding
            lengths[0] -= here
            lengths[1:] -= places[:-1]
            rises = (slopes * lengths).cumsum()
            n = int(rises.searchsorted(missing * _ALL))
            if n:
                behind.push(-places[:n], -changes[:n], n)
                ahead.n -= n
                here, missing, self.steepness = float(places[n - 1]), missing - float(rises[n - 1]), float(after[n - 1])
            self.count = max(_FEW, 2 * n)
            if n < len(places):
                break
        limit = float(places[n]) if ahead.n else np.inf
        has_zero = self.steepness > _NOTHING * self.total
        self.zero = ahead.sign * (min(here + missing / self.steepness, limit) if has_zero else here)
        return 0.0 if has_zero else missing
