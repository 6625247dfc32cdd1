"""Expectation maximization for KLIEP: a multiplicative step without tuning parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._arrays import Array, namespace
from ..objectives.base import Problem
from .base import Kind, Solver, State, residual_scale, unknown_residual

__all__ = ["ExpectationMaximization"]


class _Memory(NamedTuple):
    value: Array
    grad: Array
    stride: Array
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
    solves: ClassVar[Kind] = Kind("of mixture proportions, such as KLIEP's", lambda problem: problem.likelihood is not None)

    def first(self, problem: Problem, start: Array) -> State:
        value, grad = problem.value_and_grad(start)
        memory = _Memory(value, grad, namespace(start).zeros_like(value), residual_scale(problem.curvature()))
        return State.at(start, memory)._replace(gap=unknown_residual(value))

    def single_step(self, problem: Problem, coef: Array | None = None) -> State:
        start = self._start(problem, coef)
        plain = _plain_step(problem, start, problem.grad(start))[0]
        return State.at(plain)._replace(n_iter=1)

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
        memory = _Memory(xp.where(leaps, leap_value, plain_value), grad, stride, memory.scale)
        residual = problem.residual(coef, grad, memory.scale)
        return State(coef, state.step_size, residual, state.n_iter + 1, memory, problem.gap(coef, grad))


def _plain_step(problem: Problem, coef: Array, grad: Array) -> tuple[Array, Array]:
    """The coef (k,) after a step from `coef` with gradient `grad`, and its multipliers (k,), up to a common factor."""
    assert problem.likelihood is not None
    feasible = problem.likelihood.feasible
    ratio = namespace(coef).where(feasible.alive, -grad / feasible.weight, namespace(coef).zeros_like(coef))
    return feasible.scaled(coef * ratio), ratio
