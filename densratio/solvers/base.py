"""Solver and Solution: which problems a solver can solve, its start, one step, and the loop to a solution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

from .._arrays import Array, eps, namespace
from ..objectives.base import Problem

__all__ = ["Kind", "Solution", "Solver", "State", "residual_scale", "unknown_residual"]


class State(NamedTuple):
    """The state of a solver between two steps: all that the next step needs."""

    coef: Array
    """(p,), feasible"""
    step_size: Array
    residual: Array
    """() optimality residual at coef, see `Problem.residual`; infinite before the first step"""
    n_iter: int
    memory: Any = ()
    """What the solver stores between steps, such as momentum or multipliers"""
    gap: Array | None = None
    """() upper bound on value - optimum at coef, from solvers that stop by it too"""
    is_final: Any = None
    """() whether coef is as good as the solver can make it, from solvers that do not stop by the residual"""

    @classmethod
    def at(cls, start: Array, memory: Any = ()) -> Self:
        """The state at a feasible start (p,), before any step."""
        return cls(start, namespace(start).ones_like(start[0]), unknown_residual(start[0]), 0, memory)


class Kind(NamedTuple):
    """A kind of problem."""

    phrase: str
    """Completes "it solves problems ..." in an error message"""
    has: Callable[[Any], bool]
    """Whether a problem is of the kind"""


@dataclass(frozen=True, eq=False)
class Solution:
    """A problem and the state that a solver reached on it. Numbers are read from the device only when they are accessed."""

    problem: Problem
    state: State
    solver: Solver

    @property
    def coef(self) -> Array:
        """(p,), feasible"""
        return self.state.coef

    @cached_property
    def value_and_gap(self) -> tuple[float, float]:
        """The value at coef and an upper bound on value - optimum, infinite if none is known."""
        return self.solver.value_and_gap(self.problem, self.state)

    @property
    def value(self) -> float:
        """The problem's value at coef."""
        return self.value_and_gap[0]

    @property
    def gap(self) -> float:
        """Upper bound on value - optimum; infinite if none is known."""
        return self.value_and_gap[1]

    @property
    def residual(self) -> float:
        """Optimality residual at coef."""
        return float(self.state.residual)

    @property
    def n_iter(self) -> int:
        """Steps taken."""
        return self.state.n_iter

    @property
    def converged(self) -> bool:
        """Whether the solver has reached its tolerance, or the limit of floating-point precision."""
        return self.solver.has_converged(self.state)


@dataclass(frozen=True)
class Solver(ABC):
    """An algorithm that minimizes problems. `run` stops at an optimality residual <= tol, or after max_iter steps."""

    tol: float = 1e-6
    max_iter: int = 10_000

    is_one_step: ClassVar[bool] = False
    """Whether one step solves the problem."""
    solves: ClassVar[Kind] = Kind("of any kind", lambda problem: True)
    """The problems that suit this solver."""

    def suits(self, problem: Problem) -> bool:
        """Whether this solver can solve the problem."""
        return self.solves.has(problem)

    @abstractmethod
    def first(self, problem: Problem, start: Array) -> State:
        """The state at a feasible start (p,), before any step: `State.at`, with what `step` needs."""

    @abstractmethod
    def step(self, problem: Problem, state: State) -> State:
        """One iteration: a fixed amount of work that never waits for the device."""

    def init(self, problem: Problem, coef: Array | None = None, *earlier: Any) -> State:
        """The initial state, cold or from a stored `coef` (p,). Raises ValueError if the problem does not suit the solver.

        earlier: arguments that earlier versions took after an objective; such a call raises an error that says what to type.
        """
        return self.first(problem, self._start(problem, coef))

    def single_step(self, problem: Problem, coef: Array | None = None) -> State:
        """`step` from `init`, for callers that need only the coef (p,), as in a training loop.

        To save work, solvers may leave out the residual, which is then infinite, and data for further steps.
        """
        return self.step(problem, self.init(problem, coef))

    def _start(self, problem: Problem, coef: Array | None) -> Array:
        """A feasible coef (p,), cold or from a stored one."""
        self.check(problem)
        return problem.init() if coef is None else problem.warm_start(coef)

    def check(self, problem: Problem) -> None:
        """Raise ValueError if the problem does not suit this solver, and TypeError if it is not a `Problem`."""
        if not isinstance(problem, Problem):
            raise TypeError(
                f"A solver takes a problem, made by an objective: solver.init(objective.problem(source, target)); got "
                f"{type(problem).__name__}."
            )
        if not self.suits(problem):
            raise ValueError(
                f"{type(self).__name__} cannot solve {type(problem).__name__}: it solves problems {self.solves.phrase}. "
                'Use solver="auto", or projected_gradient, which suits any.'
            )

    def run(self, problem: Problem, state: State) -> State:
        """Call `step`, at least once, until `has_converged`, `max_iter` steps are done, or a step has length 0."""
        for _ in range(1 if self.is_one_step else self.max_iter):
            state = self.step(problem, state)
            if self.has_converged(state) or float(state.step_size) == 0.0:
                break
        return state

    def solve(self, problem: Problem, coef: Array | None = None) -> Solution:
        """The solution by `init` and `run`, cold or from a stored `coef` (p,)."""
        return Solution(problem, self.run(problem, self.init(problem, coef)), self)

    def value_and_gap(self, problem: Problem, state: State) -> tuple[float, float]:
        """The value at coef and an upper bound on value - optimum, infinite if none is known."""
        value, grad = problem.value_and_grad(state.coef)
        return float(value), float(problem.gap(state.coef, grad))

    def has_converged(self, state: State) -> bool:
        """Whether the state is final, or `is_near` for solvers that stop by it."""
        return bool(self.is_near(state) if state.is_final is None else state.is_final)

    def is_near(self, state: State) -> Array:
        """Whether () the residual, and the gap if the state holds one, are at most tol or the resolution of the dtype."""
        xp = namespace(state.coef)
        resolution = 100.0 * eps(state.coef) * xp.clip(xp.max(xp.abs(state.coef)), min=1.0)
        near = state.residual <= xp.clip(resolution, min=self.tol)
        return near if state.gap is None else near & (state.gap <= max(self.tol, 10.0 * eps(state.gap)))


def residual_scale(curvature: Array) -> Array:
    """max(1, 1 / curvature)."""
    return namespace(curvature).clip(1.0 / curvature, min=1.0)


def unknown_residual(like: Array) -> Array:
    """The residual () before the first step: infinite."""
    return namespace(like).full_like(like, float("inf"))
