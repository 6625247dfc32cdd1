"""Active sets for LSIF with non-negative coefficients: Lawson and Hanson's non-negative least squares, by scipy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from .._arrays import Array, namespace, put, to_host
from ..objectives import SquaredDistance
from ..objectives.base import Objective
from .base import Solver, State, optimality_residual, residual_scale, unknown_residual

__all__ = ["ActiveSet"]


@dataclass(frozen=True)
class ActiveSet(Solver):
    """One step goes to the minimiser over a >= 0, exact to rounding, whatever the regularisation; on the host, in float64.

    a'(H + L)a / 2 - g'a over a >= 0 is |C a - d|^2 / 2 up to a constant, with C'C = H + L, L the L2 part and C'd = g = h - l1. It
    takes k^3 operations or a small multiple, where a first-order method takes thousands of steps at a small regularisation.
    Source: Lawson & Hanson (1974).
    """

    def init(self, objective: Objective, source: Array, target: Array, coef: Array | None = None) -> State:
        if not isinstance(objective, SquaredDistance) or not objective.is_definite or not objective.nonnegative:
            raise ValueError(
                f"active_set solves LSIF with nonnegative=True and an L2 penalty alone; got {objective}. Use projected_gradient."
            )
        start = objective.init(source, target) if coef is None else objective.warm_start(coef, source, target)
        return State(start, namespace(start).ones_like(start[0]), unknown_residual(start[0]), 0)

    def step(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        assert isinstance(objective, SquaredDistance)
        hessian, linear = (to_host(part).astype(np.float64) for part in objective.quadratic(source, target))
        solution = _minimiser(hessian, linear)
        candidate = state.coef if solution is None else put(solution, state.coef)
        value, grad = objective.value_and_grad(candidate, source, target)
        old_value, old_grad = objective.value_and_grad(state.coef, source, target)
        xp = namespace(state.coef)
        better = value <= old_value
        coef, grad = xp.where(better, candidate, state.coef), xp.where(better, grad, old_grad)
        scale = residual_scale(objective.curvature(source, target))
        residual = optimality_residual(objective, coef, grad, source, target, scale)
        return State(coef, state.step_size, residual, state.n_iter + 1)

    def run(self, objective: Objective, state: State, source: Array, target: Array) -> State:
        """One step: there is nothing to repeat."""
        return self.step(objective, state, source, target)


def _minimiser(hessian: np.ndarray, linear: np.ndarray) -> np.ndarray | None:
    """argmin over a >= 0 of a'hessian a / 2 - linear'a; None where the active set has not settled within 30 k changes."""
    eigenvalues, vectors = np.linalg.eigh(hessian)
    root = np.sqrt(np.maximum(eigenvalues, eigenvalues[-1] * np.finfo(np.float64).eps))
    try:
        return nnls(root[:, None] * vectors.T, (vectors.T @ linear) / root, maxiter=30 * len(linear))[0]
    except RuntimeError:
        return None
