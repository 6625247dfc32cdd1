"""What a solver is: init, one step, and a loop over steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._arrays import Array, eps, namespace
from ..objectives.base import Objective

__all__ = ["Solver", "State", "optimality_residual", "residual_scale", "unknown_residual"]


class State(NamedTuple):
    """Where a solver stands: all that the next step needs."""

    coef: Array
    """(p,), feasible."""
    step_size: Array
    residual: Array
    """() optimality residual at coef, see `optimality_residual`; infinite before the first step."""
    n_iter: int
    memory: Any = ()
    """What this solver's acceleration or duality keeps between steps."""


@dataclass(frozen=True)
class Solver(ABC):
    """A minimiser of objectives. tol: largest optimality residual at which `run` stops. max_iter: its largest number of steps."""

    tol: float = 1e-6
    max_iter: int = 10_000

    @abstractmethod
    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        """The first state, cold or from the stored `coef` (p,)."""

    @abstractmethod
    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        """One iteration: a fixed amount of work that never waits for the device."""

    def run(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        """Step, at least once, until `has_converged` or for `max_iter` steps."""
        for _ in range(self.max_iter):
            state = self.step(objective, state, source, target)
            if self.has_converged(state):
                break
        return state

    def has_converged(self, state: State) -> bool:
        """Whether the residual is at most tol, or at most what the dtype of coef can resolve."""
        xp = namespace(state.coef)
        resolution = 100.0 * eps(state.coef) * max(1.0, float(xp.max(xp.abs(state.coef))))
        return float(state.residual) <= max(self.tol, resolution)


def optimality_residual(
    objective: Objective, coef: Array, grad: Array, source: Array, target: Array, scale: float | Array = 1.0
) -> Array:
    """Largest entry () of |project(coef - scale grad) - coef|: 0 exactly at the optimum of a smooth convex objective.

    It grows with `scale`. Solvers pass max(1, 1 / curvature), so that a flat objective is not taken for a solved one.
    """
    xp = namespace(coef, grad)
    return xp.max(xp.abs(objective.project(coef - scale * grad, source, target) - coef))


def residual_scale(curvature: Array) -> Array:
    """max(1, 1 / curvature)."""
    xp = namespace(curvature)
    return xp.clip(1.0 / curvature, min=1.0)


def unknown_residual(like: Array) -> Array:
    """The residual () of a state that no step has led to: infinite."""
    return namespace(like).full_like(like, float("inf"))
