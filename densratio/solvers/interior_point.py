"""Primal-dual interior point for KMM's quadratic program, on a low-rank root of the kernel matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, cholesky_solver, device_of, namespace, widest
from ..objectives import MaximumMeanDiscrepancy
from ..objectives.base import Objective
from ..objectives.row_blocks import gram, times, transposed_times
from .base import Solver, State, residual_scale, unknown_residual

__all__ = ["InteriorPoint"]

_ROUNDING = 1e-14
_TO_BOUNDARY = 0.995
_NEAREST = 1e-20  # least distance from a bound, relative to the bounds' distance
_MIXTURES = tuple((centre, order) for centre in (0.01, 0.3) for order in (0.3, 1.0))
"""Shares of the centring and of the second-order direction that a step tries."""
_CENTRAL = 1e-4  # least complementary product, relative to their mean, of a step that is not avoided
_ASTRAY = 10.0  # what a step that leaves the central path must gain to be taken, in present means
_DAMPING = 1e-12  # added to the barrier's curvature, relative to the kernel's trace


class _Memory(NamedTuple):
    """Interior iterate (x, its bounds' multipliers, the sum's multiplier) in float64, and the gradient at the best point.

    x is the weights and, where the mean may vary, its excess over the least one. Multipliers are for one count of each row.
    """

    x: Array
    lower: Array
    upper: Array
    sum_multiplier: Array
    value: Array
    grad: Array
    root: Array | None
    scale: Array
    complementarity: Array


class _Program(NamedTuple):
    """Minimise n F(w) over 0 <= x <= bounds and sum counts * sign * x = least, x the weights w and the mean's excess."""

    counts: Array
    sign: Array
    bounds: Array
    least: float


class _Direction(NamedTuple):
    """A change of the interior iterate."""

    x: Array
    lower: Array
    upper: Array
    sum_multiplier: Array


class _Directions(NamedTuple):
    """Parts of a step, which add up: to complementary products of 0, from there to equal ones, and what bends the path."""

    affine: _Direction
    centring: _Direction
    second: _Direction

    def mixed(self, centre: Array | float, order: Array | float) -> _Direction:
        """affine + centre * centring + order * second."""
        return _Direction(*(a + centre * c + order * s for a, c, s in zip(*self, strict=True)))


@dataclass(frozen=True)
class InteriorPoint(Solver):
    """Predictor-corrector steps on 0 <= w <= B, sum w = n (or in a range, by a slack).

    Of some mixtures of the affine, centring and second-order directions a step takes the one that leaves the least
    complementarity near the central path: with a million rows some row always spoils the one mixture of Mehrotra's rule.
    The Newton matrix is K plus a diagonal. A pivoted Cholesky root R (n, r) with K = RR' to rounding makes each step
    cost n r^2 by the Woodbury identity; where the kernel is so narrow that r would pass n / 2, the matrix is factorised
    as it is. Gradients, and so the answer, come from K itself. Works in float64 whatever the dtype of the samples.
    A row that counts s times takes the steps that s copies of it would: its barrier counts s times, and so do the norms.
    Source: Mehrotra (1992); Fine & Scheinberg (2001); Colombo & Gondzio (2008) for weighted corrections.
    """

    max_iter: int = 100
    root_tol: float = 1e-8
    """Trace of the kernel matrix left out of its root, relative to the whole. It slows the last digits, and biases none."""

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if not isinstance(objective, MaximumMeanDiscrepancy):
            raise ValueError(f"interior_point solves KMM alone; got {type(objective).__name__}. Use projected_gradient.")
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        source, target = _wide(objective, source), widest(target)
        xp, n, wide = namespace(source), source.shape[0], widest(start)
        value, grad = objective.value_and_grad(wide, source, target)
        program = _program(objective, n, wide)
        # The interior iterate starts in the middle, whatever the warm start: a point at a bound would stall the method.
        half = 0.5 * program.bounds
        middle = xp.concat([xp.clip(half[:n], max=1.0), half[n:]])
        lower = xp.ones_like(middle) * (xp.max(xp.abs(objective.count_slope(wide, source, target))) + 1e-300)
        # Both bounds of a row pull alike: the products of distance and multiplier, which the steps lower together, are equal.
        upper = lower * middle / (program.bounds - middle)
        root = source if objective.is_factored else _pivoted_root(source, program.counts[:n], self.root_tol)
        scale = residual_scale(objective.count_curvature(source, target))
        memory = _Memory(middle, lower, upper, xp.zeros_like(value), value, grad, root, scale, unknown_residual(value))
        return State(start, xp.ones_like(value), unknown_residual(value), 0, memory)

    def has_converged(self, state: State) -> bool:
        """Whether the residual is at most tol, or the duality gap at most the rounding of the value: no digits are left to gain."""
        n, memory = state.coef.shape[0], state.memory
        no_digits_left = float(memory.complementarity) <= _ROUNDING * (1.0 + n * abs(float(memory.value)))
        return float(state.residual) <= self.tol or no_digits_left

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        assert isinstance(objective, MaximumMeanDiscrepancy)
        dtype = state.coef.dtype
        source, target, memory = _wide(objective, source), widest(target), state.memory
        xp, n = namespace(source), source.shape[0]
        iterate, size = _newton(objective, memory, source, target)

        # The answer so far: the feasible point nearest to the interior iterate, where it beats the best one seen.
        candidate = objective.project_counted(iterate.x[:n])
        value, grad = objective.value_and_grad(candidate, source, target)
        better = value <= memory.value
        coef = xp.where(better, candidate, widest(state.coef))
        value, grad = xp.where(better, value, memory.value), xp.where(better, grad, memory.grad)
        along_counts = grad if objective.source_weight is None else grad / objective.source_weight
        residual = xp.max(xp.abs(objective.project_counted(coef - memory.scale * along_counts) - coef))
        return State(xp.astype(coef, dtype), size, residual, state.n_iter + 1, iterate._replace(value=value, grad=grad))


def _wide(objective: MaximumMeanDiscrepancy, source: Array) -> Array:
    """The source features in float64; a tall map stays as it is, for its products convert it in blocks."""
    return source if objective.is_factored else widest(source)


def _program(objective: MaximumMeanDiscrepancy, n: int, like: Array) -> _Program:
    xp = namespace(like)
    low, high = objective._mean_range(n)

    def rows(value: float) -> Array:
        return xp.full((n,), value, dtype=like.dtype, device=device_of(like))

    counts, sign = objective.counted(rows(1.0)), rows(1.0)
    # Without a bound, that of all the mass on one row. With one that stands alone: copies of a row have it too.
    bounds = n * high / xp.min(counts) * sign if objective.max_weight is None else rows(float(objective.max_weight))
    if high > low:
        # The mean's excess counts n times, so that copies of all rows change nothing.
        one = rows(1.0)[:1]
        counts, sign = xp.concat([counts, n * one]), xp.concat([sign, -one])
        bounds = xp.concat([bounds, (high - low) * one])
    return _Program(counts, sign, bounds, n * low)


def _newton(objective: MaximumMeanDiscrepancy, memory: _Memory, source: Array, target: Array) -> tuple[_Memory, Array]:
    """One step on the program, and its length."""
    xp, n = namespace(source), source.shape[0]
    x, lower, upper, y = memory.x, memory.lower, memory.upper, memory.sum_multiplier
    counts, sign, bounds, least = _program(objective, n, x)
    # Far inside rounding, but never at a bound: the barrier divides by both.
    room = xp.maximum(bounds - x, _NEAREST * bounds)
    slope = xp.concat([objective.count_slope(x[:n], source, target), xp.zeros_like(x[n:])])
    curved = xp.concat([xp.full_like(x[:n], objective.regularization + _DAMPING * n), xp.zeros_like(x[n:])])
    solve = _newton_solver(memory.root, source, lower / x + upper / room + curved, counts)
    complementarity = xp.sum(counts * (x * lower + room * upper))  # a feasible point's duality gap
    level = 0.5 * complementarity / xp.sum(counts)
    along_sum, steepest, centred = solve(sign, y * sign - slope, level / x - level / room)
    gain = xp.sum(counts * sign * along_sum)

    def direction(free: Array, shortfall: Array | float, at_lower: Array, at_upper: Array) -> _Direction:
        dy = (shortfall - xp.sum(counts * sign * free)) / gain
        dx = free + dy * along_sum
        return _Direction(dx, (at_lower - lower * dx) / x, (at_upper + upper * dx) / room, dy)

    affine = direction(steepest, least - xp.sum(counts * sign * x), -x * lower, -room * upper)
    centring = direction(centred, 0.0, level, level)
    bend = (-affine.x * affine.lower, affine.x * affine.upper)
    second = direction(solve(bend[0] / x - bend[1] / room)[0], 0.0, *bend)

    move, reach = _best_mixture(_Directions(affine, centring, second), memory, room, counts, level)

    def moved(value: Array, change: Array) -> Array:
        return xp.where(reach > 0.0, value + reach * change, value)

    return memory._replace(
        x=xp.maximum(moved(x, move.x), _NEAREST * bounds),
        lower=moved(lower, move.lower),
        upper=moved(upper, move.upper),
        sum_multiplier=moved(y, move.sum_multiplier),
        complementarity=complementarity,
    ), reach


def _best_mixture(directions: _Directions, memory: _Memory, room: Array, counts: Array, level: Array) -> tuple[_Direction, Array]:
    """The mixture that leaves the least mean complementary product (`level` is the present one), and how far it is followed.

    Where rounding has spoilt all of them, nothing is followed.
    """
    xp, zero = namespace(level), 0.0 * level
    best = (zero, zero, zero, xp.full_like(level, float("inf")))
    for centre, order in _MIXTURES:
        move = directions.mixed(centre, order)
        reach = _TO_BOUNDARY * _longest(move, memory, room)
        at_lower = (memory.x + reach * move.x) * (memory.lower + reach * move.lower)
        at_upper = (room - reach * move.x) * (memory.upper + reach * move.upper)
        left = 0.5 * xp.sum(counts * (at_lower + at_upper)) / xp.sum(counts)
        is_central = xp.minimum(xp.min(at_lower), xp.min(at_upper)) >= _CENTRAL * left
        left = xp.where(is_central, left, left + _ASTRAY * level)
        found = (xp.full_like(level, centre), xp.full_like(level, order), reach, left)
        best = tuple(xp.where(left < best[3], new, old) for new, old in zip(found, best, strict=True))
    return directions.mixed(*best[:2]), best[2]


def _longest(move: _Direction, memory: _Memory, room: Array) -> Array:
    """The largest part () of a move, at most 1, that keeps the iterate within its bounds and the multipliers >= 0."""
    xp = namespace(room)
    pairs = ((memory.x, move.x), (room, -move.x), (memory.lower, move.lower), (memory.upper, move.upper))
    rates = xp.stack([xp.max(-change / value) for value, change in pairs])
    return 1.0 / xp.clip(xp.max(rates), min=1.0)


def _newton_solver(root: Array | None, kernel: Array, diagonal: Array, counts: Array) -> Callable[..., list[Array]]:
    """Maps each r to the x of K (counts x) + diagonal x = r for the weights, and of diagonal x = r for the mean's excess."""
    xp, n = namespace(kernel), kernel.shape[0]
    d, s = diagonal[:n], counts[:n]
    if root is None:
        eye = xp.eye(n, dtype=kernel.dtype, device=device_of(kernel))
        inverse = cholesky_solver(kernel + (d / s)[:, None] * eye)
        return lambda *right: [xp.concat([inverse(r[:n]) / s, r[n:] / diagonal[n:]]) for r in right]
    inner = gram(root, s / d)
    factor = cholesky_solver(inner + xp.eye(inner.shape[0], dtype=inner.dtype, device=device_of(inner)))

    def capacitance(moments: Array) -> Array:
        return xp.stack([factor(moments[:, j]) for j in range(moments.shape[1])], axis=1)

    def solve(*right: Array) -> list[Array]:
        rows = xp.stack([r[:n] for r in right], axis=1)
        moment = capacitance(transposed_times(root, (s / d)[:, None] * rows))
        x = (rows - times(root, moment)) / d[:, None]
        return [xp.concat([x[:, j], r[n:] / diagonal[n:]]) for j, r in enumerate(right)]

    return solve


def _pivoted_root(kernel: Array, counts: Array, tol: float) -> Array | None:
    """R (n, r) with RR' = kernel up to a trace, over rows that count `counts` (n,) times, of `tol` of the whole.

    None where that takes more than n / 2 columns.
    """
    xp, n = namespace(kernel), kernel.shape[0]
    left = xp.linalg.diagonal(kernel) + 0.0
    enough = tol * float(xp.sum(counts * left))
    rows = kernel[:0, :]
    r = 0
    while float(xp.sum(counts * left)) > enough:
        if r >= n // 2:
            return None
        if r == rows.shape[0]:
            spare = xp.zeros((max(64, r), n), dtype=kernel.dtype, device=device_of(kernel))
            rows = xp.concat([rows, spare])
        pivot = int(xp.argmax(left))
        explained = xp.matrix_transpose(rows[:r, :]) @ rows[:r, pivot]
        row = (kernel[pivot, :] - explained) / xp.sqrt(left[pivot])
        rows[r, :] = row
        left = xp.clip(left - row * row, min=0.0)
        left[pivot] = 0.0
        r += 1
    return xp.matrix_transpose(rows[:r, :]) + 0.0
