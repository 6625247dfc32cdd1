"""Projected gradient with a given step size, as in published recipes: nothing adapts and nothing is checked."""

from __future__ import annotations

from dataclasses import dataclass

from .._arrays import Array, namespace
from .._validation import check_number
from ..objectives.base import Problem
from .base import Solver, State, residual_scale

__all__ = ["PlainGradient"]


@dataclass(frozen=True)
class PlainGradient(Solver):
    """coef <- project(coef - step_size * gradient), the same step size throughout; the value may rise if it is too long.

    A stored point from another batch is first projected; it is not rescaled.
    step_size: number > 0 in units of the problem's own gradient (KMM: (K w - kappa) / n); None: 1 / curvature at the start.
    of_mean: the step is step_size / k for k coefficients, for a ratio that is the mean of its k kernels with theta = k coef: theta
    then moves by step_size times the gradient in coef, which is k times the gradient in theta. A training loop stores theta,
    initially 1; for KLIEP, whose projection sets the scale, coef, initially 1.
    """

    step_size: float | None = None
    of_mean: bool = False

    def __post_init__(self) -> None:
        if self.step_size is not None:
            check_number("step_size", self.step_size, "(0, inf)", ", or None for 1 / curvature")

    def _start(self, problem: Problem, coef: Array | None) -> Array:
        # A problem's own warm start may rescale a stored coef; the recipe does not.
        return super()._start(problem, None) if coef is None else problem.project(coef)

    def first(self, problem: Problem, start: Array) -> State:
        curvature = problem.curvature()
        size = 1.0 / curvature if self.step_size is None else namespace(start).full_like(curvature, self._given_size(start))
        return State.at(start, residual_scale(curvature))._replace(step_size=size)

    def _given_size(self, start: Array) -> float:
        assert self.step_size is not None
        return self.step_size / start.shape[0] if self.of_mean else self.step_size

    def step(self, problem: Problem, state: State) -> State:
        xp = namespace(state.coef)
        coef = problem.project(state.coef - state.step_size * problem.grad(state.coef))
        # The largest change by a step of the common scale, which is the memory.
        longer = xp.clip(state.memory / state.step_size, min=1.0)
        residual = longer * xp.max(xp.abs(coef - state.coef))
        return State(coef, state.step_size, residual, state.n_iter + 1, state.memory)
