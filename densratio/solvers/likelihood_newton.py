"""Primal-dual Newton for KLIEP: about a dozen steps to full precision; expectation maximization takes tens of thousands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._arrays import Array, cholesky_solver, device_of, eps, has_float64, namespace, tiny, widest
from ..objectives.base import Problem
from ..objectives.likelihood import Likelihood, LikelihoodSums
from .base import Kind, Solver, State, residual_scale, unknown_residual

__all__ = ["LikelihoodNewton"]

_TO_BOUNDARY = 0.99
_ROUNDING = 1e-14
_MOST_CENTERS = 1000  # with more, a factorization costs more than it saves
_FIRST_STEPS = 4  # of expectation maximization: they cost less than one Newton step and save several
_LEAST_SHARE = 1e-4  # of the even share, after these steps
_LEAST_MULTIPLIER = 0.1  # at the start


class _Memory(NamedTuple):
    """Interior iterate in float64: shares s_l = a_l b_l (k,) and the multipliers of s >= 0; the value of the best coef."""

    shares: Array
    multipliers: Array
    sums: LikelihoodSums | None
    """Of the shares; None before the first step"""
    value: Array
    complementarity: Array
    scale: Array
    problem: Problem
    """The problem in float64"""


@dataclass(frozen=True)
class LikelihoodNewton(Solver):
    """Mehrotra's predictor-corrector steps on KLIEP in shares s_l = a_l b_l, which have similar sizes for any kernel.

    minimize f sum(s) - mean_j log (C s)_j  over s >= 0, with C = A / b and f the share of the target rows near a live center;
    sum(s) = 1 at the optimum. The first step is a few of expectation maximization from even shares. Each later one takes one
    pass over the target rows with m k^2 operations, in memory or as a sum over the partitions of a cluster, and k^3 more. `run`
    ends when the duality gap and the residual are at most tol. Computes in float64 whatever the dtype of the samples.
    Source: Mehrotra (1992); for mixture likelihoods Koenker & Mizera (2014).
    """

    max_iter: int = 200
    solves: ClassVar[Kind] = Kind(
        f"of mixture proportions, such as KLIEP's, with up to {_MOST_CENTERS} centers, in double precision",
        lambda problem: problem.likelihood is not None and _is_small(problem.likelihood.feasible.weight),
    )

    def first(self, problem: Problem, start: Array) -> State:
        wide, coef = problem.wide(), widest(start)
        value, grad = wide.value_and_grad(coef)
        even = namespace(coef).full_like(coef, 1.0 / coef.shape[0])
        memory = _Memory(even, even, None, value, unknown_residual(value), residual_scale(wide.curvature()), wide)
        return State(start, namespace(value).ones_like(value), unknown_residual(value), 0, memory, wide.gap(coef, grad))

    def step(self, problem: Problem, state: State) -> State:
        memory, likelihood = state.memory, state.memory.problem.likelihood
        if memory.sums is None:
            shares, multipliers, sums = _interior(likelihood, memory.shares)
            memory = memory._replace(shares=shares, multipliers=multipliers, sums=sums)
            return self._improved(state._replace(n_iter=1), memory)
        grad = _slope(memory.sums)
        curvature = likelihood.curvature(memory.shares, memory.sums)
        shares, multipliers, reach, complementarity = _newton_step(memory.shares, memory.multipliers, grad, curvature)
        sums = likelihood.sums(shares)

        memory = memory._replace(shares=shares, multipliers=multipliers, sums=sums, complementarity=complementarity)
        return self._improved(state._replace(step_size=reach, n_iter=state.n_iter + 1), memory)

    def _improved(self, state: State, memory: _Memory) -> State:
        """The state with this memory, at the coef of its shares if that is no worse than the current one."""
        xp, wide, likelihood = namespace(state.coef), memory.problem, memory.problem.likelihood
        assert likelihood is not None and memory.sums is not None
        # The coef of the shares scaled to sum 1, as at the optimum; its value comes from the same pass.
        candidate = likelihood.feasible.coef_of(memory.shares)
        value, grad = likelihood.value_and_grad(memory.shares, memory.sums)
        gap, residual = wide.gap(candidate, grad), wide.residual(candidate, grad, memory.scale)
        # Near the optimum values agree to rounding, and the gap decides which coef is better.
        ties = (value <= memory.value + 4.0 * eps(value) * xp.clip(xp.abs(value), min=1.0)) & (gap < state.gap)
        better = (value <= memory.value) | ties
        memory = memory._replace(value=xp.where(better, value, memory.value))
        coef = xp.where(better, xp.astype(candidate, state.coef.dtype, copy=False), state.coef)
        residual, gap = xp.where(better, residual, state.residual), xp.where(better, gap, state.gap)
        state = state._replace(coef=coef, residual=residual, memory=memory, gap=gap)
        # A step of length 0 means that rounding spoiled the direction; the next step would be the same.
        no_digits_left = (memory.complementarity <= _ROUNDING) | (state.step_size == 0.0)
        return state._replace(is_final=self.is_near(state) | no_digits_left)


def _is_small(coef: Array) -> bool:
    return has_float64(coef) and coef.shape[0] <= _MOST_CENTERS


def _interior(likelihood: Likelihood, even: Array) -> tuple[Array, Array, LikelihoodSums]:
    """Shares and multipliers (k,) from which the steps start, and the sums there.

    They never come from an earlier fit: a start at a bound would stall the method.
    """
    xp, shares, sums = namespace(even), even, likelihood.sums(even)
    for _ in range(_FIRST_STEPS if likelihood.late_second else 0):
        shares = xp.maximum(shares * sums.first / xp.clip(sums.reached, min=tiny(even)), _LEAST_SHARE * even)
        sums = likelihood.sums(shares)
    return shares, xp.clip(_slope(sums), min=_LEAST_MULTIPLIER), sums


def _slope(sums: LikelihoodSums) -> Array:
    """Gradient (k,) in the shares of these sums."""
    return (sums.reached - sums.first) / sums.total


def _newton_step(s: Array, z: Array, grad: Array, hessian: Array) -> tuple[Array, Array, Array, Array]:
    """One predictor-corrector step of shares s >= 0 (k,) and their multipliers z (k,), with the slope (k,) and curvature (k, k).

    Returns the new shares and multipliers, the step length, and the complementarity before the step. If rounding spoiled the
    direction, shares and multipliers are unchanged and the length is 0.
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
