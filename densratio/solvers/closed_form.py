"""The minimizer in closed form, for problems that have one: uLSIF and one-column Wasserstein-1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._arrays import Array, namespace
from ..objectives.base import Problem
from .base import Kind, Solver, State, residual_scale

__all__ = ["ClosedForm"]


@dataclass(frozen=True)
class ClosedForm(Solver):
    """One step returns `problem.minimizer()`, for any start.

    The residual of a nonsmooth problem does not vanish at the optimum, so it is set to 0 after the step.
    """

    is_one_step: ClassVar[bool] = True
    solves: ClassVar[Kind] = Kind("with a closed form, such as uLSIF and Wasserstein", lambda problem: problem.has_minimizer)

    def first(self, problem: Problem, start: Array) -> State:
        return State.at(start)

    def step(self, problem: Problem, state: State) -> State:
        coef = problem.minimizer()  # type: ignore[attr-defined]
        if not problem.is_smooth:
            return State(coef, state.step_size, namespace(coef).zeros_like(coef[0]), state.n_iter + 1)
        residual = problem.residual(coef, problem.value_and_grad(coef)[1], residual_scale(problem.curvature()))
        return State(coef, state.step_size, residual, state.n_iter + 1)
