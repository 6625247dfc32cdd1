"""The test cases of the laws of objectives and solvers: an objective, and a solver, on a drawn problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .. import objectives
from .._arrays import Array
from ..features import Features, Gaussian
from ..objectives import Objective
from .laws import close, largest
from .problem import MOST_COLUMNS, MOST_ROWS, Problem, problems

__all__ = ["Case", "cases_of", "is_its_own_projection", "kind_of"]


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """An objective (and a solver) on a drawn problem; see `inputs` for what the objective takes."""

    problem: Problem
    objective: Objective
    features: Features
    solver: Any = None  # a Solver in cases of solvers
    # The solver's states after runs from the cold start, by their bound on the steps, None for the solver's own.
    runs: dict[int | None, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return repr(self.problem)

    def inputs(self, convert: Callable[[np.ndarray], Array] = np.asarray) -> tuple[Array, Array]:
        """The input of the objective, source (n_s, k) and target (n_t, k): the rows or their features."""
        source, target = convert(self.problem.source), convert(self.problem.target)
        if self.objective.takes == "rows":
            return source, target
        fitted = self.features.fit(source, target, anchors=self.objective.anchors)
        return fitted(source), fitted(target)

    def built(self, convert: Callable[[np.ndarray], Array] = np.asarray) -> objectives.Problem:
        """The objective's problem on the drawn samples."""
        return self._in_numpy if convert is np.asarray else self.objective.problem(*self.inputs(convert))

    @cached_property
    def _in_numpy(self) -> objectives.Problem:
        return self.objective.problem(*self.inputs())

    def start(self) -> np.ndarray:
        """The cold start (p,)."""
        return self.built().init()

    def points(self, count: int) -> list[np.ndarray]:
        """Points (p,) at various distances from the start, feasible or not."""
        start, rng = self.start(), self.problem.rng
        scales = (largest(start) or 1.0) * 10.0 ** rng.uniform(-1.0, 1.0, count)
        return [start + scale * rng.standard_normal(len(start)) for scale in scales]

    def feasible(self, count: int) -> list[np.ndarray]:
        """The projections of `points`."""
        return [self.project(point) for point in self.points(count)]

    def rivals(self, point: np.ndarray) -> list[np.ndarray]:
        """Feasible coefs (p,), some of them near `point`."""
        return [self.start(), self.built().warm_start(point), *map(self.project, self.points(6)[1:])]

    def project(self, coef: np.ndarray) -> np.ndarray:
        """The nearest feasible coef (p,)."""
        return self.built().project(coef)

    def value_and_grad(self, coef: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and (sub)gradient (p,) at coef."""
        value, grad = self.built().value_and_grad(coef)
        return float(value), grad


def cases_of(
    objective: Objective, features: Features | None, on: SearchStrategy[Problem] | None, solver: Any = None
) -> SearchStrategy[Case]:
    """Cases on the problems of `on`, by default on small ones, which have one column if the objective takes the rows themselves.

    A profile that derandomizes draws the same problems for each law. They are the same cases then: what one law has computed
    serves the next.
    """
    if on is None:
        on = problems(n_rows=(1, MOST_ROWS), n_columns=(1, 1 if objective.takes == "rows" else MOST_COLUMNS))
    known: dict[tuple[Any, ...], Case] = {}

    def case(problem: Problem) -> Case:
        samples = problem.source, problem.target
        key = (problem.seed, repr(problem), *((x.shape, x.dtype, x.tobytes()) for x in samples))
        return known.setdefault(key, Case(problem, objective, features or Gaussian(), solver))

    return st.builds(case, on)


def is_its_own_projection(case: Case, coef: np.ndarray) -> None:
    """Raise if projecting coef moves it."""
    close(case.project(coef), coef, 1e-9 * (1e-3 + largest(coef)), "the projection of a coef that should be feasible")


def kind_of(objective: Objective) -> type[objectives.Problem]:
    """The class of the problems of an objective, whose attributes determine which laws apply."""
    rows = np.array([[0.0], [1.0], [2.0]])
    if objective.takes == "features":
        rows = Gaussian(gamma=1.0).fit(rows, rows, anchors=objective.anchors)(rows)
    return type(objective.problem(rows, rows))
