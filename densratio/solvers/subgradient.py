"""Projected subgradient with Polyak's step, for kinked objectives whose value is >= 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._arrays import Array, namespace
from ..objectives.base import Objective
from .base import Solver, State

__all__ = ["Subgradient"]


@dataclass(frozen=True)
class Subgradient(Solver):
    """coef <- project(coef - relaxation value / |g|^2 g), g the subgradient along the feasible plane.
    """

    relaxation: float = 2.0

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        xp = namespace(start)
        v,g = objective.value_and_grad(start, source, target)
        return State(start, xp.ones_like(start[0]), v, 0, (v,g))

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        value, grad = state.memory
        curvature = objective.polyak_curvature(value, grad)
        coef = objective.project(state.coef - self.relaxation / curvature * grad, source, target)
        value, grad = objective.value_and_grad(coef, source, target)
        return State(coef, self.relaxation / curvature, value, state.n_iter + 1, (value, grad))
