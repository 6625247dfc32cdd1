"""KLIEP on more target rows than one machine gathers: Newton's method whose every step is a sum over partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..objectives import KullbackLeibler
from ..objectives.kliep import duality_gap
from ..solvers.base import optimality_residual
from ..solvers.likelihood_newton import newton_step

__all__ = ["Likelihood", "LikelihoodSums", "Maximum", "maximise"]

_TINY = float(np.finfo(np.float64).tiny) ** 0.8
_ROUNDING = 1e-14


class LikelihoodSums(NamedTuple):
    """Sums over target rows; those of two parts add up."""

    total: float
    """Sum of the weights w_j."""
    reached: float
    """That of the rows that some live centre is near."""
    log_ratio: float
    """sum_j w_j log ratio_j."""
    first: np.ndarray
    """(k,) sum_j w_j c_j / (c_j's), with c_j the features of row j over the mean source feature."""
    second: np.ndarray
    """(k, k) sum_j w_j c_j c_j' / (c_j's)^2."""

    def plus(self, other: LikelihoodSums) -> LikelihoodSums:
        """The sums over both."""
        return LikelihoodSums(
            self.total + other.total,
            self.reached + other.reached,
            self.log_ratio + other.log_ratio,
            self.first + other.first,
            self.second + other.second,
        )


class Likelihood(NamedTuple):
    """Where the sums are taken: at the shares s_l = a_l b_l (k,) of the coefficients a, b the mean source feature."""

    shares: np.ndarray
    weight: np.ndarray
    """(k,) b, 1 for a centre that is not alive."""
    alive: np.ndarray

    def sums(self, target: np.ndarray, count: np.ndarray | None) -> LikelihoodSums:
        """The sums over rows with features `target` (m, k) in float64 that count `count` (m,) times, once where None."""
        w = np.ones(len(target)) if count is None else count
        columns = target * np.where(self.alive, 1.0 / self.weight, 0.0)
        ratio, nearness = (columns @ np.column_stack([self.shares, np.ones_like(self.shares)])).T
        # A row that no live centre is near has nothing to say.
        w_reached = np.where(nearness > _TINY, w, 0.0)
        inverse = 1.0 / np.maximum(ratio, _TINY)
        log_ratio = float(w @ np.log(ratio + _TINY))
        first = columns.T @ (w_reached * inverse)
        columns *= (np.sqrt(w_reached) * inverse)[:, None]
        return LikelihoodSums(float(w.sum()), float(w_reached.sum()), log_ratio, first, columns.T @ columns)


class Maximum(NamedTuple):
    """coef (k,), the objective's value there, a bound on its distance to the optimum, the residual, and the steps taken."""

    coef: np.ndarray
    value: float
    gap: float
    residual: float
    n_iter: int
    converged: bool


def maximise(
    one_pass: Callable[[Likelihood], LikelihoodSums], mean_source: np.ndarray, *, scale: float, tol: float, max_iter: int
) -> Maximum:
    """KLIEP's coef (k,) on all target rows: the steps of `solvers.LikelihoodNewton`, of one pass each, ten of them as a rule.

        minimise  f sum(s) - mean_j log c_j's  over shares s >= 0,   f the share of target rows that a live centre is near,

    whose optimum has sum(s) = 1. It ends at a duality gap and a residual (of a gradient step of length `scale`) of at most
    tol, or where rounding leaves no digits to gain. mean_source (k,): mean source feature. Source: Mehrotra (1992).
    """
    source = mean_source[None, :]
    weight, alive = KullbackLeibler().constraint(source)
    shares, multipliers = np.full_like(mean_source, 1.0 / len(mean_source)), np.ones_like(mean_source)
    best = None
    for n_iter in range(max_iter + 1):
        sums = one_pass(Likelihood(shares, weight, alive))
        here = _report(shares, sums, source, scale=scale, tol=tol)
        best = here if best is None or here.gap <= best.gap else best
        best = best._replace(n_iter=n_iter, converged=best.converged or float(shares @ multipliers) <= _ROUNDING)
        if best.converged or n_iter == max_iter:
            break
        grad = (sums.reached - sums.first) / sums.total
        shares, multipliers, length, _ = newton_step(shares, multipliers, grad, sums.second / sums.total)
        if not length > 0.0:
            break
    assert best is not None
    return best


def _report(shares: np.ndarray, sums: LikelihoodSums, source: np.ndarray, *, scale: float, tol: float) -> Maximum:
    """What the shares give once their sum is the 1 that it is at the optimum."""
    objective = KullbackLeibler()
    weight, alive = objective.constraint(source)
    mass = float(shares[alive].sum())
    coef = np.where(alive, shares / (mass * weight), 0.0)
    grad = -mass * weight * sums.first / sums.total
    value = -(sums.log_ratio - sums.reached * np.log(mass)) / sums.total
    gap = float(duality_gap(coef, grad, weight, alive))
    residual = float(optimality_residual(objective, coef, grad, source, source, scale))
    resolution = 100.0 * np.finfo(np.float64).eps * max(1.0, float(coef.max()))
    return Maximum(coef, value, gap, residual, 0, gap <= tol and residual <= max(tol, resolution))
