"""Primal-dual interior point for KMM's quadratic program, on a low-rank root of the kernel matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, cholesky_solver, device_of, namespace, widest
from ..objectives import MaximumMeanDiscrepancy
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual, residual_scale, unknown_residual

__all__ = ["InteriorPoint"]

_ROUNDING = 1e-14
_TO_BOUNDARY = 0.995
_NEAREST = 1e-20  # least distance from a bound, relative to the bounds' distance
_DAMPING = 1e-10  # added to the barrier's curvature, relative to the kernel's diagonal


class _Memory(NamedTuple):
    """Interior iterate (z, its bounds' multipliers, the sum's multiplier) in float64; z is the weights and their sum's slack."""

    x: Array
    lower: Array
    upper: Array
    sum_multiplier: Array
    value: Array
    grad: Array
    root: Array | None
    scale: Array
    complementarity: Array


@dataclass(frozen=True)
class InteriorPoint(Solver):
    """Mehrotra's predictor-corrector steps on 0 <= w <= B, sum w = n (or in a range, by a slack).

    The Newton matrix is K plus a diagonal. A pivoted Cholesky root R (n, r) with K = RR' to rounding makes each step
    cost n r^2 by the Woodbury identity; where the kernel is so narrow that r would pass n / 2, the matrix is factorised
    as it is. Gradients, and so the answer, come from K itself. Works in float64 whatever the dtype of the samples.
    Source: Mehrotra (1992); Fine & Scheinberg (2001).
    """

    max_iter: int = 100
    root_tol: float = 1e-8
    """Trace of the kernel matrix left out of its root, relative to the whole. It slows the last digits, and biases none."""

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if not isinstance(objective, MaximumMeanDiscrepancy):
            raise ValueError(f"interior_point solves KMM alone; got {type(objective).__name__}. Use projected_gradient.")
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        source, target = widest(source), widest(target)
        xp, n = namespace(source), source.shape[0]
        wide = widest(start)
        value, grad = objective.value_and_grad(wide, source, target)
        scale = residual_scale(objective.curvature(source, target))
        bounds = _bounds(objective, n, source)
        # The interior iterate starts in the middle, whatever the warm start: a point at a bound would stall the method.
        middle = xp.minimum(xp.ones_like(bounds), 0.5 * bounds)
        middle = xp.concat([middle[:n], 0.5 * bounds[n:]])
        size = xp.max(xp.abs(n * grad)) + 1e-300
        memory = _Memory(
            middle,
            xp.full_like(middle, 1.0) * size,
            xp.full_like(middle, 1.0) * size,
            xp.zeros_like(value),
            value,
            grad,
            source if objective.is_factored else _pivoted_root(source, self.root_tol),
            scale,
            unknown_residual(value),
        )
        return State(start, xp.ones_like(value), unknown_residual(value), 0, memory)

    def has_converged(self, state: State) -> bool:
        """Whether the residual is at most tol, or the duality gap at most the rounding of the value: no digits are left to gain."""
        n, memory = state.coef.shape[0], state.memory
        no_digits_left = float(memory.complementarity) <= _ROUNDING * (1.0 + n * abs(float(memory.value)))
        return super().has_converged(state) or no_digits_left

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        assert isinstance(objective, MaximumMeanDiscrepancy)
        dtype = state.coef.dtype
        source, target, memory = widest(source), widest(target), state.memory
        xp, n = namespace(source), source.shape[0]
        iterate, size = _newton(objective, memory, source, target)

        # The answer so far: the feasible point nearest to the interior iterate, where it beats the best one seen.
        candidate = objective.project(iterate.x[:n], source, target)
        value, grad = objective.value_and_grad(candidate, source, target)
        better = value <= memory.value
        coef = xp.where(better, candidate, widest(state.coef))
        value, grad = xp.where(better, value, memory.value), xp.where(better, grad, memory.grad)
        residual = optimality_residual(objective, coef, grad, source, target, memory.scale)
        return State(xp.astype(coef, dtype), size, residual, state.n_iter + 1, iterate._replace(value=value, grad=grad))


def _bounds(objective: MaximumMeanDiscrepancy, n: int, like: Array) -> Array:
    """Upper bounds (n + 1,) of the weights and of the slack n * mean(w) - low."""
    xp = namespace(like)
    low, high = objective._mean_range(n)
    # A slack of width 0 is kept at width ~0 so that one program serves both the exact mean and a range.
    width = max(n * (high - low), 1e-9 * n)
    upper = xp.full((n,), objective._upper(n), dtype=like.dtype, device=device_of(like))
    return xp.concat([upper, xp.full((1,), width, dtype=like.dtype, device=device_of(like))])


def _newton(objective: MaximumMeanDiscrepancy, memory: _Memory, source: Array, target: Array) -> tuple[_Memory, Array]:
    """One predictor-corrector step for: minimise w'Kw/2 - kappa'w, constraint 1'w - s = low n, 0 <= (w, s) <= bounds."""
    xp, n = namespace(source), source.shape[0]
    x, lower, upper, y = memory.x, memory.lower, memory.upper, memory.sum_multiplier
    low, high = objective._mean_range(n)
    low_sum = n * low if high > low else n * low - 0.5e-9 * n
    bounds = _bounds(objective, n, source)
    # Far inside rounding, but never at a bound: the barrier divides by both.
    room = xp.maximum(bounds - x, _NEAREST * bounds)
    grad = objective.hessian_times(x[:n], source) - objective.linear(source, target)
    sign = xp.concat([xp.ones_like(x[:n]), -xp.ones_like(x[n:])])
    stationarity = xp.concat([grad, xp.zeros_like(x[n:])]) - y * sign
    shortfall = low_sum - xp.sum(sign * x)
    diagonal = lower / x + upper / room
    diagonal = diagonal + xp.concat([xp.full_like(grad, objective.regularization + _DAMPING), xp.zeros_like(x[n:])])
    solve = _newton_solver(memory.root, source, diagonal)
    along_sum = solve(sign)
    slope = xp.sum(sign * along_sum)

    def direction(lower_target: Array, upper_target: Array) -> tuple[Array, Array, Array, Array]:
        free = solve(lower_target / x - upper_target / room - stationarity)
        dy = (shortfall - xp.sum(sign * free)) / slope
        dx = free + dy * along_sum
        return dx, dy, (lower_target - lower * dx) / x - lower, (upper_target + upper * dx) / room - upper

    def longest(dx: Array, dlower: Array, dupper: Array) -> Array:
        def to_zero(value: Array, change: Array) -> Array:
            shrinks = change < 0.0
            return xp.min(xp.where(shrinks, -value / xp.where(shrinks, change, -xp.ones_like(change)), xp.ones_like(change)))

        primal = xp.minimum(to_zero(x, dx), to_zero(room, -dx))
        return xp.clip(xp.minimum(primal, xp.minimum(to_zero(lower, dlower), to_zero(upper, dupper))), max=1.0)

    zero = xp.zeros_like(x)
    dx, _, dlower, dupper = direction(zero, zero)
    reach = longest(dx, dlower, dupper)
    complementarity = xp.mean(x * lower + room * upper)  # a feasible point's duality gap is this times n
    predicted = xp.mean((x + reach * dx) * (lower + reach * dlower) + (room - reach * dx) * (upper + reach * dupper))
    centring = (predicted / complementarity) ** 3 * complementarity
    dx, dy, dlower, dupper = direction(centring - dx * dlower, centring + dx * dupper)
    reach = xp.clip(_TO_BOUNDARY * longest(dx, dlower, dupper), max=1.0)
    # Where rounding has spoilt the direction, stay: the best point so far is kept either way.
    usable = xp.isfinite(reach) & xp.all(xp.isfinite(dx)) & xp.isfinite(dy)

    def move(value: Array, change: Array) -> Array:
        return xp.where(usable, value + reach * change, value)

    return memory._replace(
        x=xp.maximum(move(x, dx), _NEAREST * bounds),
        lower=move(lower, dlower),
        upper=move(upper, dupper),
        sum_multiplier=move(y, dy),
        complementarity=x.shape[0] * complementarity,
    ), reach


def _newton_solver(root: Array | None, kernel: Array, diagonal: Array):
    """Solves (K + diagonal) for the weights and diagonal alone for the slack, with one step of refinement."""
    xp, n = namespace(kernel), kernel.shape[0]
    d = diagonal[:n]
    if root is None:
        eye = xp.eye(n, dtype=kernel.dtype, device=device_of(kernel))
        inverse = cholesky_solver(kernel + d[:, None] * eye)
        return lambda r: xp.concat([inverse(r[:n]), r[n:] / diagonal[n:]])
    scaled = root / d[:, None]
    inner = xp.matrix_transpose(root) @ scaled
    capacitance = cholesky_solver(inner + xp.eye(inner.shape[0], dtype=kernel.dtype, device=device_of(kernel)))

    def once(r: Array) -> Array:
        return r / d - scaled @ capacitance(xp.matrix_transpose(scaled) @ r)

    def solve(r: Array) -> Array:
        first = once(r[:n])
        left = r[:n] - (root @ (xp.matrix_transpose(root) @ first) + d * first)
        return xp.concat([first + once(left), r[n:] / diagonal[n:]])

    return solve


def _pivoted_root(kernel: Array, tol: float) -> Array | None:
    """R (n, r) with RR' = kernel up to a trace of `tol` of the whole; None where that takes more than n / 2 columns."""
    xp, n = namespace(kernel), kernel.shape[0]
    left = xp.linalg.diagonal(kernel) + 0.0
    enough = tol * float(xp.sum(left))
    rows = kernel[:0, :]
    r = 0
    while float(xp.sum(left)) > enough:
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
