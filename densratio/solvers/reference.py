"""The same programs written for cvxpy: slow, independent of every other solver here, and so their oracle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from .._arrays import Array, namespace, put, to_host
from ..objectives import KullbackLeibler, MaximumMeanDiscrepancy, SquaredDistance, Wasserstein1
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual, residual_scale, unknown_residual

__all__ = ["Reference", "program"]


@dataclass(frozen=True)
class Reference(Solver):
    """One step hands the problem to cvxpy on the host. backend: a cvxpy solver's name, None for cvxpy's choice."""

    backend: str | None = None

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if any(getattr(objective, name, None) is not None for name in ("source_weight", "target_weight")):
            raise ValueError("The reference solver takes no sample_weight: each row counts once.")
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        return State(start, namespace(start).ones_like(start[0]), unknown_residual(start[0]), 0)

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        cp = _cvxpy()
        host = [to_host(a).astype(np.float64) for a in (source, target)]
        variable, value, constraints = program(objective, *host)
        cp.Problem(cp.Minimize(value), constraints).solve(solver=self.backend or cp.CLARABEL)
        if variable.value is None:
            raise RuntimeError(f"cvxpy found no solution for {objective}.")
        coef = objective.project(put(variable.value, state.coef), source, target)
        grad = objective.value_and_grad(coef, source, target)[1]
        scale = residual_scale(objective.curvature(source, target))
        residual = optimality_residual(objective, coef, grad, source, target, scale)
        return State(coef, state.step_size, residual, state.n_iter + 1)

    def run(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        """One step: there is nothing to repeat."""
        return self.step(objective, state, source, target)

    def has_converged(self, state: State) -> bool:
        """cvxpy stops at its own tolerance, or raises."""
        return state.n_iter > 0


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError:
        raise ImportError('The reference solver needs cvxpy: pip install "densratio-toolkit[reference]"') from None
    return cvxpy


@singledispatch
def program(objective: Objective, source: np.ndarray, target: np.ndarray) -> tuple[Any, Any, list[Any]]:
    """(variable, value to minimise, constraints) of an objective in cvxpy.

    Register your own: `@program.register` on a function whose first argument is annotated with your objective.
    """
    raise ValueError(
        f"No cvxpy program is registered for {type(objective).__name__}: use densratio.solvers.reference.program.register."
    )


@program.register
def _(objective: MaximumMeanDiscrepancy, source, target):
    cp, n = _cvxpy(), source.shape[0]
    w = cp.Variable(n)
    low, high = objective._mean_range(n)
    # A rounding's worth of ridge: the kernel matrix is singular to working precision.
    kernel = cp.psd_wrap(source + 1e-13 * n * np.eye(n)) if not objective.is_factored else None
    curved = cp.sum_squares(source.T @ w) if kernel is None else cp.quad_form(w, kernel)
    value = 0.5 * curved - objective.linear(source, target) @ w + 0.5 * objective.regularization * cp.sum_squares(w)
    return w, value / n, [w >= 0, w <= objective._upper(n), cp.sum(w) >= n * low, cp.sum(w) <= n * high]


@program.register
def _(objective: KullbackLeibler, source, target):
    cp = _cvxpy()
    weight, alive = objective.constraint(source)
    a = cp.Variable(len(weight))
    # In shares a_l b_l the constraint is the simplex and the columns are of like size, which conic solvers need.
    share = cp.multiply(weight * alive, a)
    value = -cp.sum(cp.log((target * alive) @ a)) / len(target)
    return a, value, [a >= 0, cp.sum(share) == 1, cp.multiply(~alive, a) == 0]


@program.register
def _(objective: SquaredDistance, source, target):
    cp, (n, k) = _cvxpy(), source.shape
    a = cp.Variable(2 * k if objective._is_split else k)
    signed = a[:k] - a[k:] if objective._is_split else a
    smooth = cp.sum_squares(source @ signed) / (2 * n) - target.mean(axis=0) @ signed
    penalty = objective._l1 * cp.norm1(a) + 0.5 * objective._l2 * cp.sum_squares(a)
    return a, smooth + penalty, [a >= 0] if objective.nonnegative or objective._is_split else []


@program.register
def _(objective: Wasserstein1, source, target):
    cp, n = _cvxpy(), source.shape[0]
    w = cp.Variable(n)
    points = np.concatenate([source[:, 0], target[:, 0]])
    grid = np.unique(points)
    reached = (source[:, 0][None, :] <= grid[:-1, None]) / n
    target_reached = np.mean(target[:, 0][None, :] <= grid[:-1, None], axis=1)
    # One value alone has no interval between points: the distance is 0.
    # Lengths relative to the range: the solver's tolerance is absolute.
    length = np.diff(grid) / max(grid[-1] - grid[0], np.finfo(float).tiny)
    value = cp.sum(cp.multiply(length, cp.abs(reached @ w - target_reached))) if len(grid) > 1 else cp.sum(0 * w)
    return w, value, [w >= 0, w <= objective._upper(n), cp.sum(w) == n]
