"""Projected subgradient: fixed steps for kinked objectives, as a training loop needs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, namespace
from ..objectives.base import Objective
from .base import Solver, State, unknown_residual

__all__ = ["Subgradient"]


class _Memory(NamedTuple):
    cold_value: Array


@dataclass(frozen=True)
class Subgradient(Solver):
    """coef <- project(coef - relaxation / curvature * subgradient), a long step that may cross a kink.

    A monotone step would come to rest at the kinks of the first batches, so the value may rise; but where it would rise above
    that of the cold start, the step is Polyak's from the present value instead, which shortens as the optimum nears.
    relaxation: step size in units of 1 / curvature, which for Wasserstein-1 is Polyak's step at uniform weights.
    Source: Polyak (1969).
    """

    relaxation: float = 2.0

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        cold = objective.init(source, target)
        start = cold if coef is None else objective.warm_start(coef, source, target)
        step_size = self.relaxation / objective.curvature(source, target)
        limit = objective.value_and_grad(cold, source, target)[0]
        return State(start, step_size, unknown_residual(limit), 0, _Memory(limit))

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        xp = namespace(state.coef)
        value, grad = objective.value_and_grad(state.coef, source, target)
        long = objective.project(state.coef - state.step_size * grad, source, target)
        moved = xp.sum((long - state.coef) ** 2)
        # moved / step_size^2 is the squared slope along the feasible set.
        polyak = value * state.step_size**2 / xp.where(moved > 0.0, moved, xp.ones_like(moved))
        short = objective.project(state.coef - xp.minimum(polyak, 0.5 * state.step_size) * grad, source, target)
        rises_too_far = objective.value_and_grad(long, source, target)[0] > state.memory.cold_value
        coef = xp.where(rises_too_far, short, long)
        # What the step moved: the residual of the point that it left, in the unit of the step.
        return State(coef, state.step_size, xp.max(xp.abs(coef - state.coef)), state.n_iter + 1, state.memory)
