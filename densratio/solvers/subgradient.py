"""Projected subgradient: fixed steps for kinked objectives, as a training loop needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, namespace
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual

__all__ = ["Subgradient"]


class _Memory(NamedTuple):
    value: Array
    grad: Array


@dataclass(frozen=True)
class Subgradient(Solver):
    """coef <- project(coef - relaxation / curvature * subgradient), with no test of the value.

    Near a kink a step may raise the value, so it circles the optimum at the distance of a step: the method of a training
    loop, whose batches average that out, and where a monotone step would come to rest at the kinks of the first batches.
    relaxation: step size in units of 1 / curvature, which for Wasserstein-1 is Polyak's step at uniform weights.
    Source: Polyak (1969).
    """

    relaxation: float = 2.0

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        start = objective.init(source, target)
        if coef is not None:
            start = objective.warm_start(coef, source, target)
        value, grad = objective.value_and_grad(start, source, target)
        step_size = self.relaxation / objective.curvature(source, target)
        return State(start, step_size, namespace(start).full_like(value, float("inf")), 0, _Memory(value, grad))

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        coef = objective.project(state.coef - state.step_size * state.memory.grad, source, target)
        value, grad = objective.value_and_grad(coef, source, target)
        residual = optimality_residual(objective, coef, grad, source, target)
        return State(coef, state.step_size, residual, state.n_iter + 1, _Memory(value, grad))
