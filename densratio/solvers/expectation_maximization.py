"""Expectation maximization for KLIEP: a multiplicative step without tuning parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._arrays import Array, eps, namespace
from ..objectives.base import Problem
from .base import Solver, State, residual_scale, unknown_residual

__all__ = ["ExpectationMaximization"]


class _Memory(NamedTuple):
    value: Array
    grad: Array
    stride: Array
    gap: Array
    scale: Array


@dataclass(frozen=True)
class ExpectationMaximization(Solver):
    """a_l <- a_l [A'(1 / (A a))]_l / (m b_l), which is feasible and never lowers the likelihood.

    The share a_l b_l is the prior probability that a target row comes from center l, and the step replaces it by the mean
    posterior probability. Later steps extrapolate the change of log a by a stride that grows while this raises the likelihood
    more than the plain step and shrinks otherwise; the first step is plain. Convergence is sublinear on hard problems: for a
    precise fit use likelihood_newton.
    Source: Dempster, Laird & Rubin (1977), on mixture proportions.
    """

    max_iter: int = 100_000
    serves: ClassVar[str] = "of mixture proportions, such as KLIEP's"

    def suits(self, problem: Problem) -> bool:
        return problem.likelihood is not None

    def _first(self, problem: Problem, start: Array) -> State:
        value, grad = problem.value_and_grad(start)
        unknown, xp = unknown_residual(value), namespace(start)
        memory = _Memory(value, grad, xp.zeros_like(value), unknown, residual_scale(problem.curvature()))
        return State(start, xp.ones_like(value), unknown, 0, memory)

    def has_converged(self, state: State) -> bool:
        """Whether residual and duality gap are at most tol, or below the resolution of the dtype."""
        return super().has_converged(state) and float(state.memory.gap) <= max(self.tol, 10.0 * eps(state.coef))

    def single_step(self, problem: Problem, coef: Array | None = None) -> State:
        start = self._start(problem, coef)
        plain = _plain_step(problem, start, problem.grad(start))[0]
        return State(plain, namespace(plain).ones_like(plain[0]), unknown_residual(plain[0]), 1)

    def step(self, problem: Problem, state: State) -> State:
        assert problem.likelihood is not None
        xp, memory, feasible = namespace(state.coef), state.memory, problem.likelihood.feasible
        plain, ratio = _plain_step(problem, state.coef, memory.grad)
        longer = xp.exp(xp.clip(memory.stride * xp.log(xp.where(plain > 0.0, ratio, 1.0)), min=-30.0, max=30.0))
        leap = feasible.scaled(plain * longer)
        plain_value, plain_grad = problem.value_and_grad(plain)
        leap_value, leap_grad = problem.value_and_grad(leap)
        leaps = leap_value <= plain_value
        coef, grad = xp.where(leaps, leap, plain), xp.where(leaps, leap_grad, plain_grad)
        stride = xp.where(leaps, 2.0 * memory.stride + 1.0, 0.5 * memory.stride)
        memory = _Memory(xp.where(leaps, leap_value, plain_value), grad, stride, problem.gap(coef, grad), memory.scale)
        return State(coef, state.step_size, problem.residual(coef, grad, memory.scale), state.n_iter + 1, memory)


def _plain_step(problem: Problem, coef: Array, grad: Array) -> tuple[Array, Array]:
    """The coef (k,) after a step from one whose gradient is `grad`, and what it was multiplied by, up to a common factor."""
    assert problem.likelihood is not None
    feasible = problem.likelihood.feasible
    ratio = namespace(coef).where(feasible.alive, -grad / feasible.weight, namespace(coef).zeros_like(coef))
    return feasible.scaled(coef * ratio), ratio
