"""The minimiser in closed form, for the objectives that have one: uLSIF and Wasserstein-1 of one column."""

from __future__ import annotations

from dataclasses import dataclass

from .._arrays import Array, namespace
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual, residual_scale, unknown_residual

__all__ = ["ClosedForm"]


@dataclass(frozen=True)
class ClosedForm(Solver):
    """One step goes to `objective.minimiser(source, target)`; `coef`, the warm start, is only where it starts from.

    A kinked objective has no residual that vanishes at the optimum; for it the residual is 0 after the step.
    """

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if not getattr(objective, "has_closed_form", False):
            raise ValueError(f"{objective} has no closed form; use projected_gradient.")
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        return State(start, namespace(start).ones_like(start[0]), unknown_residual(start[0]), 0)

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        coef = objective.minimiser(source, target)  # type: ignore[attr-defined]
        if not objective.is_smooth:
            return State(coef, state.step_size, namespace(coef).zeros_like(coef[0]), state.n_iter + 1)
        grad = objective.value_and_grad(coef, source, target)[1]
        scale = residual_scale(objective.curvature(source, target))
        residual = optimality_residual(objective, coef, grad, source, target, scale)
        return State(coef, state.step_size, residual, state.n_iter + 1)

    def run(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        """One step: there is nothing to repeat."""
        return self.step(objective, state, source, target)
