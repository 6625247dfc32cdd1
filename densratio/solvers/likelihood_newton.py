"""Primal-dual Newton for KLIEP: a few dozen steps to the last digits, where expectation maximisation takes tens of thousands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, cholesky_solver, device_of, eps, namespace, tiny, widest
from ..objectives import KullbackLeibler
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual, residual_scale, unknown_residual

__all__ = ["LikelihoodNewton", "newton_step"]

_TO_BOUNDARY = 0.99
_ROUNDING = 1e-14


class _Memory(NamedTuple):
    """Interior iterate in float64: shares s_l = a_l b_l (k,) and multipliers of s >= 0; the best answer's value and gap."""

    shares: Array
    multipliers: Array
    value: Array
    gap: Array
    complementarity: Array
    scale: Array
    rows: Array
    """(m, k) target features over b, each row over its largest entry: they are the same in every step."""
    share: Array
    """(m,) what each target row counts, of sum 1."""


@dataclass(frozen=True)
class LikelihoodNewton(Solver):
    """Mehrotra's steps on  minimise sum(s) - mean_j log (C s)_j  over s >= 0, C = A / b; its optimum has sum(s) = 1.

    That is KLIEP in the shares s_l = a_l b_l, which are of like size whatever the kernel. A step costs m k^2 + k^3. It ends
    when the duality gap and the residual are at most tol. Works in float64 whatever the dtype of the samples.
    Source: Mehrotra (1992); for mixture likelihoods Koenker & Mizera (2014).
    """

    max_iter: int = 200

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if not isinstance(objective, KullbackLeibler):
            raise ValueError(f"likelihood_newton solves KLIEP alone; got {type(objective).__name__}. Use projected_gradient.")
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        wide_source, wide_target, wide = widest(source), widest(target), widest(start)
        xp, k = namespace(wide), wide.shape[0]
        value, grad = objective.value_and_grad(wide, wide_source, wide_target)
        unknown = unknown_residual(value)
        even = xp.full_like(wide, 1.0 / k)
        gap = objective.gap(wide, grad, wide_source, wide_target)
        scale = residual_scale(objective.curvature(wide_source, wide_target))
        rows = _scaled_rows(wide_target, *objective.constraint(wide_source))
        share = objective.shares(xp.ones_like(wide_target[:, 0]))
        memory = _Memory(even, xp.ones_like(even), value, gap, unknown, scale, rows, share)
        return State(start, xp.ones_like(value), unknown, 0, memory)

    def has_converged(self, state: State) -> bool:
        """Whether residual and duality gap are at most tol, or rounding leaves no digits to gain."""
        # A step of no length is one that rounding has spoilt: the next would be the same.
        no_digits_left = float(state.memory.complementarity) <= _ROUNDING or float(state.step_size) == 0.0
        return (super().has_converged(state) and float(state.memory.gap) <= self.tol) or no_digits_left

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        assert isinstance(objective, KullbackLeibler)
        xp, dtype = namespace(state.coef), state.coef.dtype
        source, target, memory = widest(source), widest(target), state.memory
        weight, alive = objective.constraint(source)
        shares, multipliers, reach, complementarity = _newton(memory)

        candidate = xp.where(alive, shares / weight, xp.zeros_like(shares))
        candidate = candidate / xp.sum(candidate * weight)
        value, grad = objective.value_and_grad(candidate, source, target)
        gap = objective.gap(candidate, grad, source, target)
        # Near the optimum the gap tells apart what the value, to rounding, does not.
        ties = (value <= memory.value + 4.0 * eps(value) * xp.clip(xp.abs(value), min=1.0)) & (gap < memory.gap)
        better = (value <= memory.value) | ties
        coef = xp.where(better, candidate, widest(state.coef))
        value, grad = objective.value_and_grad(coef, source, target)
        gap = objective.gap(coef, grad, source, target)
        memory = memory._replace(shares=shares, multipliers=multipliers, value=value, gap=gap, complementarity=complementarity)
        residual = optimality_residual(objective, coef, grad, source, target, memory.scale)
        return State(xp.astype(coef, dtype), reach, residual, state.n_iter + 1, memory)


def _scaled_rows(target: Array, weight: Array, alive: Array) -> Array:
    xp = namespace(target)
    columns = xp.where(alive, target / weight, xp.zeros_like(target))
    # A row's scale is a constant of the likelihood. A row that no live centre is near has nothing to say.
    largest = xp.max(columns, axis=1, keepdims=True)
    return columns / xp.where(largest > tiny(target), largest, xp.full_like(largest, float("inf")))


def _newton(memory: _Memory) -> tuple[Array, Array, Array, Array]:
    """Shares and multipliers after one predictor-corrector step, its length, and the complementarity before it."""
    s, rows, share = memory.shares, memory.rows, memory.share
    xp = namespace(rows)
    ratio = xp.maximum(rows @ s, xp.full_like(rows[:, 0], tiny(rows)))
    scaled = rows * (xp.sqrt(share) / ratio)[:, None]
    grad = 1.0 - xp.matrix_transpose(rows) @ (share / ratio)
    return newton_step(s, memory.multipliers, grad, xp.matrix_transpose(scaled) @ scaled)


def newton_step(s: Array, z: Array, grad: Array, hessian: Array) -> tuple[Array, Array, Array, Array]:
    """One predictor-corrector step of shares s >= 0 (k,) and their multipliers z (k,), with the slope (k,) and curvature (k, k).

    Gives the new shares and multipliers, the length of the step, and the complementarity before it; where rounding has
    spoilt the direction they stay as they are.
    """
    xp = namespace(s)
    solve = cholesky_solver(hessian + xp.eye(s.shape[0], dtype=s.dtype, device=device_of(s)) * (z / s))

    def direction(towards: Array) -> tuple[Array, Array]:
        ds = solve(towards / s - grad)
        return ds, (towards - z * ds) / s - z

    def longest(value: Array, change: Array) -> Array:
        shrinks = change < 0.0
        limit = xp.where(shrinks, -value / xp.where(shrinks, change, -xp.ones_like(change)), xp.ones_like(change))
        return xp.clip(xp.min(limit), max=1.0)

    ds, dz = direction(xp.zeros_like(s))
    average = xp.mean(s * z)
    predicted = xp.mean((s + longest(s, ds) * ds) * (z + longest(z, dz) * dz))
    ds, dz = direction((predicted / average) ** 3 * average - ds * dz)
    reach, dual_reach = _TO_BOUNDARY * longest(s, ds), _TO_BOUNDARY * longest(z, dz)
    usable = xp.all(xp.isfinite(ds)) & xp.all(xp.isfinite(dz))
    floor = tiny(s)
    return (
        xp.where(usable, xp.maximum(s + reach * ds, xp.full_like(s, floor)), s),
        xp.where(usable, xp.maximum(z + dual_reach * dz, xp.full_like(z, floor)), z),
        xp.where(usable, reach, xp.zeros_like(reach)),
        s.shape[0] * average,
    )
