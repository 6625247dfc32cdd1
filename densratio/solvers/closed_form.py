"""The minimizer in closed form, for the problems that have one: uLSIF and Wasserstein-1 of one column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._arrays import namespace
from ..objectives.base import Problem
from .base import Solver, State, residual_scale

__all__ = ["ClosedForm"]


@dataclass(frozen=True)
class ClosedForm(Solver):
    """One step goes to `problem.minimizer()`; a warm start is only where it starts from.

    A kinked problem has no residual that vanishes at the optimum; for it the residual is 0 after the step.
    """

    serves: ClassVar[str] = "with a closed form, such as uLSIF and Wasserstein"

    def suits(self, problem: Problem) -> bool:
        return problem.has_minimizer

    def step(self, problem: Problem, state: State) -> State:
        coef = problem.minimizer()
        if not problem.is_smooth:
            return State(coef, state.step_size, namespace(coef).zeros_like(coef[0]), state.n_iter + 1)
        residual = problem.residual(coef, problem.value_and_grad(coef)[1], residual_scale(problem.curvature()))
        return State(coef, state.step_size, residual, state.n_iter + 1)

    def run(self, problem: Problem, state: State) -> State:
        """One step: there is nothing to repeat."""
        return self.step(problem, state)
