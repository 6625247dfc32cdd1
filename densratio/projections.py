"""Exact Euclidean projections onto the feasible sets, by sorting; pure functions of arrays (numpy, torch, array API).

No function branches on array values, so a GPU never waits for the host.
"""

from __future__ import annotations

from ._arrays import Array, clipped_at_zero, device_of, full_like_row, namespace, running_sum

__all__ = ["box", "box_sum", "box_sum_range", "nonnegative", "simplex", "weighted_box_sum", "weighted_box_sum_range"]


def nonnegative(x: Array) -> Array:
    """Closest point to `x` (n,) with entries >= 0."""
    return namespace(x).clip(x, min=0.0)


def box(x: Array, upper: float) -> Array:
    """Closest point to `x` (n,) with entries in [0, upper]; upper > 0."""
    return namespace(x).clip(x, min=0.0, max=upper)


def simplex(x: Array, weight: Array, total: float = 1.0) -> Array:
    """Closest point to `x` (n,) with entries >= 0 and weight . p = total.

    weight (n,), entries > 0; total > 0. The plain simplex is a weight of ones. An entry of -inf stays at 0.
    Source: Duchi et al. (2008), Fig. 1, with weights.
    """
    xp = namespace(x, weight)
    order = xp.argsort(-x / weight)
    w = xp.take(weight, order)
    squares = running_sum(w * w)
    # Shifts along the weight do not change the projection. After the first pass the sums are of the size of `total`, and the
    # second pass recovers digits lost to a large threshold.
    for _ in range(2):
        # The threshold peaks at Duchi's index rho, so no search is needed.
        x = x - xp.max((running_sum(w * xp.take(x, order)) - total) / squares) * weight
    return xp.clip(x, min=0.0)


def box_sum(x: Array, upper: float, total: float | Array) -> Array:
    """Closest point to `x` (n,) with entries in [0, upper] and sum `total`, 0 < total <= n * upper.

    The projection is clip(x - tau, 0, upper). Its sum decreases piecewise linearly in tau, with knots at x and x - upper: sort
    the knots, accumulate the sum from the top, and interpolate. The sum is exact up to rounding relative to the range of `x`.
    Source: Wang & Lu (2015), arXiv:1503.01002.
    """
    xp = namespace(x)
    if isinstance(total, int | float) and upper >= total:
        return _plain_simplex(x, total)
    x = x - xp.max(x)  # the projection is invariant to shifts, and this one keeps digits
    knots = xp.concat([x, x - upper])
    slope_change = xp.concat([full_like_row(x, 1.0), full_like_row(x, -1.0)])
    order = xp.argsort(-knots)
    knots, active = xp.take(knots, order), running_sum(xp.take(slope_change, order))
    # At the top knot the sum is 0: accumulating from there loses no digits to a large `upper`.
    gained = running_sum(active[:-1] * (knots[:-1] - knots[1:]))
    position = xp.clip(xp.sum(xp.astype(gained < total, xp.int64)), max=gained.shape[0] - 1)
    tau = xp.take(knots, xp.reshape(position + 1, (1,)))
    # Solve for tau again on the active set of the interpolation, which removes the accumulated rounding error.
    tau = tau + (xp.sum(box(x - tau, upper)) - total) / xp.clip(xp.take(active, xp.reshape(position, (1,))), min=1.0)
    shifted = x - tau
    inside = xp.astype((shifted > 0.0) & (shifted < upper), x.dtype)
    tau = tau + (xp.sum(box(x - tau, upper)) - total) / xp.clip(xp.sum(inside), min=1.0)
    return box(x - tau, upper)


def box_sum_range(x: Array, upper: float, low: float, high: float) -> Array:
    """Closest point to `x` (n,) with entries in [0, upper] and low <= sum <= high.

    0 <= low <= high, high > 0, low <= n * upper. `upper` may be infinite if high is finite.
    """
    xp = namespace(x)
    upper = min(upper, high)
    if low == high:
        return box_sum(x, upper, high)
    clipped = box(x, upper)
    total = xp.sum(clipped)
    outside = (total < low) | (total > high)
    return xp.where(outside, box_sum(x, upper, xp.clip(total, min=low, max=high)), clipped)


def weighted_box_sum(x: Array, upper: Array, weight: Array, total: float | Array) -> Array:
    """Closest point p to `x` (n,) with 0 <= p <= upper and weight . p = total.

    upper (n,) and weight (n,) finite, entries > 0; 0 < total <= weight . upper. The projection is clip(x - tau weight, 0, upper),
    whose weighted sum decreases piecewise linearly in tau: `box_sum` with knots at x / weight and (x - upper) / weight.
    """
    xp = namespace(x, weight)
    start, mass = x / weight, weight * weight
    top = upper / weight
    start = start - xp.max(start)  # invariant to shifts along the weight; this one keeps digits
    knots = xp.concat([start, start - top])
    order = xp.argsort(-knots)
    knots, active = xp.take(knots, order), running_sum(xp.take(xp.concat([mass, -mass]), order))
    gained = running_sum(active[:-1] * (knots[:-1] - knots[1:]))
    position = xp.clip(xp.sum(xp.astype(gained < total, xp.int64)), max=gained.shape[0] - 1)
    segment = xp.reshape(position, (1,))
    # Inside the segment the active set is that of the solution: one step solves for tau, and more remove rounding errors.
    tau = 0.5 * (xp.take(knots, segment) + xp.take(knots, segment + 1))
    for _ in range(3):
        shifted = start - tau
        slope = xp.sum(xp.where((shifted > 0.0) & (shifted < top), mass, xp.zeros_like(mass)))
        excess = xp.sum(mass * xp.minimum(xp.clip(shifted, min=0.0), top)) - total
        tau = tau + xp.where(slope > 0.0, excess / xp.where(slope > 0.0, slope, xp.ones_like(slope)), xp.zeros_like(slope))
    return xp.minimum(xp.clip((start - tau) * weight, min=0.0), upper)


def weighted_box_sum_range(x: Array, upper: Array, weight: Array, low: float, high: float) -> Array:
    """Closest point p to `x` (n,) with 0 <= p <= upper and low <= weight . p <= high; arguments as in `weighted_box_sum`."""
    xp = namespace(x, weight)
    if low == high:
        return weighted_box_sum(x, upper, weight, high)
    clipped = xp.minimum(xp.clip(x, min=0.0), upper)
    total = xp.sum(weight * clipped)
    outside = (total < low) | (total > high)
    return xp.where(outside, weighted_box_sum(x, upper, weight, xp.clip(total, min=low, max=high)), clipped)


def _plain_simplex(x: Array, total: float) -> Array:
    """`simplex` with a weight of ones, in fewer operations, for bounds that cannot bind, as in most training loops."""
    xp = namespace(x)
    x = x - xp.max(x)
    sums = running_sum(-xp.sort(-x))
    counts = xp.arange(1, x.shape[0] + 1, dtype=x.dtype, device=device_of(x))
    return clipped_at_zero(x - xp.max((sums - total) / counts))
