"""Projected subgradient with fixed steps, for nonsmooth problems in training loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._arrays import Array, namespace
from ..objectives.base import Problem
from .base import Kind, Solver, State

__all__ = ["Subgradient"]


@dataclass(frozen=True)
class Subgradient(Solver):
    """coef <- project(coef - relaxation * Polyak's step size * subgradient), a long step that may cross kinks.

    The value may rise: a monotone method can get stuck at a kink. If the value would exceed that of the cold start, the step
    size is Polyak's at the current point instead, which shrinks near the optimum.
    relaxation: step size in units of Polyak's step size at the cold start.
    Source: Polyak (1969).
    """

    relaxation: float = 2.0

    solves: ClassVar[Kind] = Kind(
        "with kinks and a known least value, such as Wasserstein in one column",
        lambda problem: not problem.is_smooth and problem.least_value is not None,
    )

    # The memory is the value at the cold start.
    def first(self, problem: Problem, start: Array) -> State:
        value, grad = problem.value_and_grad(problem.init())
        step_size = self.relaxation * polyak_step(value - problem.least_value, grad)
        return State.at(start, value)._replace(step_size=step_size)

    def step(self, problem: Problem, state: State) -> State:
        xp = namespace(state.coef)
        value, grad = problem.value_and_grad(state.coef)
        long = problem.project(state.coef - state.step_size * grad)
        short_size = xp.minimum(polyak_step(value - problem.least_value, grad), 0.5 * state.step_size)
        short = problem.project(state.coef - short_size * grad)
        rises_too_far = problem.value_and_grad(long)[0] > state.memory
        coef = xp.where(rises_too_far, short, long)
        # The residual is the largest change of coef in this step.
        return State(coef, state.step_size, xp.max(xp.abs(coef - state.coef)), state.n_iter + 1, state.memory)


def polyak_step(value: Array, grad: Array) -> Array:
    """value / |g|^2 (), with g the projection of `grad` (n,) onto the plane of constant mean; 1 if g = 0."""
    xp = namespace(grad)
    along = grad - xp.mean(grad)
    squared = xp.sum(along * along)
    usable = (value > 0.0) & (squared > 0.0)
    return xp.where(usable, value / xp.where(usable, squared, 1.0), 1.0)
