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
    """coef <- project(coef - relaxation * Polyak's step * subgradient), a long step that may cross a kink.

    The value may rise, for a monotone step can come to rest at a kink; but where it would rise above that of the cold start,
    the step is Polyak's from the present value instead, which shortens as the optimum nears.
    relaxation: step size in units of Polyak's step at the cold start.
    Source: Polyak (1969).
    """

    relaxation: float = 2.0

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if objective.is_smooth or objective.anchors != "source":
            raise ValueError(
                f"subgradient is for kinked objectives of weights, of value >= 0; got {objective}. Use projected_gradient."
            )
        cold = objective.init(source, target)
        start = cold if coef is None else objective.warm_start(coef, source, target)
        value, grad = objective.value_and_grad(cold, source, target)
        step_size = self.relaxation * polyak_step(value, grad)
        return State(start, step_size, unknown_residual(value), 0, _Memory(value))

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        xp = namespace(state.coef)
        value, grad = objective.value_and_grad(state.coef, source, target)
        long = objective.project(state.coef - state.step_size * grad, source, target)
        short_size = xp.minimum(polyak_step(value, grad), 0.5 * state.step_size)
        short = objective.project(state.coef - short_size * grad, source, target)
        rises_too_far = objective.value_and_grad(long, source, target)[0] > state.memory.cold_value
        coef = xp.where(rises_too_far, short, long)
        # What the step moved: the residual of the point that it left, in the unit of the step.
        return State(coef, state.step_size, xp.max(xp.abs(coef - state.coef)), state.n_iter + 1, state.memory)


def polyak_step(value: Array, grad: Array) -> Array:
    """value / |g|^2 (), g the part of `grad` (n,) along the plane of constant mean, on which weights live; 1 where g = 0."""
    xp = namespace(grad)
    along = grad - xp.mean(grad)
    squared = xp.sum(along * along)
    usable = (value > 0.0) & (squared > 0.0)
    return xp.where(usable, value / xp.where(usable, squared, 1.0), 1.0)
