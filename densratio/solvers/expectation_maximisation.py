"""Expectation maximisation for KLIEP: a multiplicative step without parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, eps, namespace
from ..objectives import KullbackLeibler
from ..objectives.base import Objective
from ..objectives.kliep import duality_gap, project_alive
from .base import Solver, State, unknown_residual

__all__ = ["ExpectationMaximisation"]


class _Memory(NamedTuple):
    value: Array
    grad: Array
    stride: Array
    gap: Array
    weight: Array
    alive: Array


@dataclass(frozen=True)
class ExpectationMaximisation(Solver):
    """a_l <- a_l [A'(1 / (A a))]_l / (m b_l): feasible, and the likelihood never falls.

    The share a_l b_l is the probability that a target row was drawn by centre l, and the step is its posterior mean.
    Later steps go further along the same change of log a, by a stride that grows while that raises the likelihood more than
    the plain step and shrinks where it does not; the first step from a start is the plain one. Convergence is sublinear on
    hard problems: for a fit to the last digits use likelihood_newton.
    Source: the step, Dempster, Laird & Rubin (1977) on mixture proportions.
    """

    max_iter: int = 100_000

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if not isinstance(objective, KullbackLeibler):
            raise ValueError(
                f"expectation_maximisation solves KLIEP alone; got {type(objective).__name__}. Use projected_gradient."
            )
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        value, grad = objective.value_and_grad(start, source, target)
        xp = namespace(start)
        memory = _Memory(value, grad, xp.zeros_like(value), unknown_residual(value), *objective.constraint(source))
        return State(start, xp.ones_like(value), unknown_residual(value), 0, memory)

    def has_converged(self, state: State) -> bool:
        """Whether residual and duality gap are at most tol, or what the dtype can resolve."""
        return super().has_converged(state) and float(state.memory.gap) <= max(self.tol, 10.0 * eps(state.coef))

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        assert isinstance(objective, KullbackLeibler)
        xp = namespace(state.coef)
        a, memory = state.coef, state.memory
        weight, alive = memory.weight, memory.alive
        ratio = xp.where(alive, -memory.grad / weight, xp.zeros_like(a))
        plain = a * ratio
        plain = plain / xp.sum(plain * weight)
        longer = xp.exp(xp.clip(memory.stride * xp.log(xp.where(plain > 0.0, ratio, 1.0)), min=-30.0, max=30.0))
        leap = plain * longer
        leap = leap / xp.sum(leap * weight)
        plain_value, plain_grad = objective.value_and_grad(plain, source, target)
        leap_value, leap_grad = objective.value_and_grad(leap, source, target)
        leaps = leap_value <= plain_value
        coef, grad = xp.where(leaps, leap, plain), xp.where(leaps, leap_grad, plain_grad)
        stride = xp.where(leaps, 2.0 * memory.stride + 1.0, 0.5 * memory.stride)
        residual = xp.max(xp.abs(project_alive(coef - grad, weight, alive) - coef))
        gap = duality_gap(coef, grad, weight, alive)
        memory = memory._replace(value=xp.where(leaps, leap_value, plain_value), grad=grad, stride=stride, gap=gap)
        return State(coef, state.step_size, residual, state.n_iter + 1, memory)
