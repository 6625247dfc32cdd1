"""The same problems as cvxpy programs: slow, but independent of all other solvers, so the tests compare against them."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, ClassVar

import numpy as np

from .._arrays import Array, host_numbers, put, to_host
from ..objectives.base import Problem
from ..objectives.kliep import MaximumLikelihood
from ..objectives.kmm import MeanMatching
from ..objectives.lsif import LeastSquares
from ..objectives.planned_transport import PlannedTransport
from ..objectives.quadratic import Root
from ..objectives.wasserstein import Transport
from .base import Kind, Solver, State, residual_scale

__all__ = ["Reference", "program"]


@dataclass(frozen=True)
class Reference(Solver):
    """One step solves the problem with cvxpy on the host. backend: the name of a cvxpy solver, None for Clarabel."""

    backend: str | None = None
    is_one_step: ClassVar[bool] = True
    solves: ClassVar[Kind] = Kind(
        "that have a cvxpy program (add one with @densratio.solvers.reference.program.register)",
        lambda problem: _has_program(problem),
    )

    def first(self, problem: Problem, start: Array) -> State:
        return State.at(start)

    def step(self, problem: Problem, state: State) -> State:
        cp = _cvxpy()
        coefficients, value, constraints = program(problem)
        posed, backend = cp.Problem(cp.Minimize(value), constraints), self.backend or cp.CLARABEL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of possible inaccuracy, which the state shows
            with contextlib.suppress(cp.SolverError):
                posed.solve(solver=backend)
        if coefficients.value is None:
            raise RuntimeError(
                f"cvxpy's solver {backend} found no solution for {type(problem).__name__}. Give another as Reference(backend=...), "
                'or use solver="auto".'
            )
        coef = problem.project(put(coefficients.value, state.coef))
        grad = problem.value_and_grad(coef)[1]
        residual = problem.residual(coef, grad, residual_scale(problem.curvature()))
        # Converged means that cvxpy has converged, to its own tolerance.
        return state._replace(coef=coef, residual=residual, n_iter=state.n_iter + 1, is_final=posed.status == cp.OPTIMAL)


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError:
        raise ImportError('The reference solver needs cvxpy: pip install "densratio-toolkit[reference]"') from None
    return cvxpy


@singledispatch
def program(problem: Problem) -> tuple[Any, Any, list[Any]]:
    """The cvxpy program of a problem: (coefficients, value to minimize, constraints).

    To register your own, put `@program.register` on a function whose argument is annotated with your problem class.
    """
    raise ValueError(
        f"No cvxpy program is registered for {type(problem).__name__}: use densratio.solvers.reference.program.register."
    )


def _has_program(problem: Problem) -> bool:
    return program.dispatch(type(problem)) is not program.dispatch(Problem)


@program.register
def _(problem: MeanMatching):
    cp, n = _cvxpy(), problem.weights.n
    w, counts = cp.Variable(n), np.ones(n) if problem.unit is None else host_numbers(problem.unit)
    mass = cp.multiply(counts, w)
    if isinstance(problem.matrix, Root):
        curved = cp.sum_squares(host_numbers(problem.matrix.root).T @ mass)
    else:
        # Add a ridge at the level of rounding: the kernel matrix is singular to working precision.
        curved = cp.quad_form(mass, cp.psd_wrap(host_numbers(problem.matrix.matrix) + 1e-13 * n * np.eye(n)))
    penalty = 0.5 * problem.regularization * cp.sum_squares(cp.multiply(np.sqrt(counts), w))
    value = (0.5 * curved - host_numbers(problem.linear) @ mass + penalty) * problem.scale
    low, high = problem.weights.total
    return w, value, [w >= 0, w <= host_numbers(problem.weights.upper(problem.linear)), cp.sum(mass) >= low, cp.sum(mass) <= high]


@program.register
def _(problem: MaximumLikelihood):
    cp, alive = _cvxpy(), np.flatnonzero(to_host(problem.feasible.alive))
    weight = host_numbers(problem.feasible.weight)
    # In shares a_l b_l the constraint is the simplex. Rows may differ by hundreds of decades: each is relative to its largest.
    target = host_numbers(problem.target)[:, alive] / weight[alive]
    largest = np.maximum(target.max(axis=1, keepdims=True), np.finfo(float).tiny)
    share, count = (
        cp.Variable(len(alive)),
        np.ones(len(target)) if problem.target_weight is None else host_numbers(problem.target_weight),
    )
    likelihood = (count / count.sum()) @ (cp.log((target / largest) @ share) + np.log(largest[:, 0]))
    back = np.zeros((len(weight), len(alive)))
    back[alive, np.arange(len(alive))] = 1.0 / weight[alive]
    return back @ share, -likelihood, [share >= 0, cp.sum(share) == 1]


@program.register
def _(problem: LeastSquares):
    cp, matrix, linear = _cvxpy(), host_numbers(problem.matrix.dense()), host_numbers(problem.linear)
    a = cp.Variable(len(linear))
    eigenvalues, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(np.clip(eigenvalues, 0.0, None))[:, None] * vectors.T
    value = 0.5 * cp.sum_squares(root @ a) - linear @ a + 0.5 * problem.regularization * cp.sum_squares(a)
    return a, value, [] if problem.quadratic is None else [a >= 0]


@program.register
def _(problem: Transport):
    cp, n = _cvxpy(), problem.weights.n
    w, counts = cp.Variable(n), host_numbers(problem.weights.counted(problem.init()))
    source, target = host_numbers(problem.source)[:, 0], host_numbers(problem.target)[:, 0]
    drawn = np.ones(len(target)) if problem.target_weight is None else host_numbers(problem.target_weight)
    grid = np.unique(np.concatenate([source, target]))
    reached = (source[None, :] <= grid[:-1, None]) * counts / n
    target_reached = (target[None, :] <= grid[:-1, None]) @ drawn / drawn.sum()
    # A single value leaves no interval between points, and the distance is 0.
    # Lengths are relative to the range, because the tolerance of the solver is absolute.
    size = max(grid[-1] - grid[0], problem.regularization, np.finfo(float).tiny)
    length = np.diff(grid) / size
    value = cp.sum(cp.multiply(length, cp.abs(reached @ w - target_reached))) if len(grid) > 1 else cp.sum(0 * w)
    value = value + problem.regularization * cp.sum_squares(cp.multiply(np.sqrt(counts / (2 * n)), w)) / size
    return w, value, [w >= 0, w <= host_numbers(problem.weights.upper(problem.source)), counts @ w == n]


@program.register
def _(problem: PlannedTransport):
    cp, given, n = _cvxpy(), problem.marginals, problem.weights.n
    counts = host_numbers(problem.weights.counted(problem.init()))
    w, plan = cp.Variable(n), cp.Variable(problem.costs.shape, nonneg=True)
    # Without the constant part of the value, next to which a conic solver would lose the rest.
    size = max(problem.costs.max(), problem.regularization, np.finfo(float).tiny)
    penalty = problem.regularization / size * cp.sum_squares(cp.multiply(np.sqrt(counts / (2 * n)), w))
    value = cp.sum(cp.multiply(problem.costs / size, plan)) + penalty
    taken = np.zeros((len(given.source), n))
    taken[given.of_source, np.arange(n)] = counts / n
    mass = [cp.sum(plan, axis=1) == taken @ w, cp.sum(plan, axis=0) == given.demand]
    return w, value, [w >= 0, w <= host_numbers(problem.weights.upper(problem.init())), *mass]
