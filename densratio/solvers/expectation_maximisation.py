"""Expectation maximisation for KLIEP: a multiplicative step without parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, namespace
from ..objectives import KullbackLeibler
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual, residual_scale, unknown_residual

__all__ = ["ExpectationMaximisation"]


class _Memory(NamedTuple):
    value: Array
    grad: Array
    stride: Array
    scale: Array
    weight: Array
    alive: Array


@dataclass(frozen=True)
class ExpectationMaximisation(Solver):
    """a_l <- a_l [A'(1 / (A a))]_l / (m b_l): feasible, and the likelihood never falls.

    The share a_l b_l is the probability that a target row was drawn by centre l, and the step is its posterior mean.
    Later steps go further along the same change of log a, by a stride that grows while that raises the likelihood more
    than the plain step, and shrinks where it does not; the first step from a start is the plain one.
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
        # Coefficients are of the order of 1 / b, and the curvature where the ratio is near 1 of the order of b^2.
        scale = residual_scale(xp.max(xp.mean(source, axis=0)) ** 2)
        memory = _Memory(value, grad, xp.zeros_like(value), scale, *objective.constraint(source))
        return State(start, xp.ones_like(value), unknown_residual(value), 0, memory)

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        assert isinstance(objective, KullbackLeibler)
        xp = namespace(state.coef)
        a, memory = state.coef, state.memory
        weight, alive = memory.weight, memory.alive
        ratio = xp.where(alive, -memory.grad / weight, xp.zeros_like(a))
        plain = a * ratio
        plain = plain / xp.sum(plain * weight)
        log_change = xp.log(xp.where(plain > 0.0, ratio, xp.ones_like(ratio)))
        leap = plain * xp.exp(xp.clip(memory.stride * log_change, min=-30.0, max=30.0))
        leap = leap / xp.sum(leap * weight)
        plain_value, plain_grad = objective.value_and_grad(plain, source, target)
        leap_value, leap_grad = objective.value_and_grad(leap, source, target)
        leaps = leap_value <= plain_value
        coef, grad = xp.where(leaps, leap, plain), xp.where(leaps, leap_grad, plain_grad)
        stride = xp.where(leaps, 2.0 * memory.stride + 1.0, 0.5 * memory.stride)
        residual = optimality_residual(objective, coef, grad, source, target, memory.scale)
        value = xp.where(leaps, leap_value, plain_value)
        memory = memory._replace(value=value, grad=grad, stride=stride)
        return State(coef, state.step_size, residual, state.n_iter + 1, memory)
