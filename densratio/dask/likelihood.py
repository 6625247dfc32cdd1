"""KLIEP on more target rows than one machine gathers: Newton's method whose every step is a sum over partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..objectives import KullbackLeibler, SquaredDistance
from ..objectives.kliep import duality_gap
from ..objectives.moments import symmetric_root
from ..solvers import SOLVERS
from ..solvers.base import optimality_residual

__all__ = ["Likelihood", "LikelihoodSums", "Maximum", "maximise"]

_REACHES = np.array([1.0, *0.5 ** np.arange(1, 12), 0.0])  # shares of a step that one pass tries
_RIDGE = 1e-10  # of the mean curvature: what a direction without any gets
_ROUNDING = 1e-14  # of a mean over the rows, relative
_LEAST_GAP = 1e-12  # what rounding leaves of a gap that is a difference of sums over all rows


class LikelihoodSums(NamedTuple):
    """Sums over target rows; those of two parts add up."""

    total: float
    """Sum of the weights w_j."""
    reached: float
    """That of the rows that some live centre is near."""
    log_ratio: np.ndarray
    """(n_reaches,) sum_j w_j log ratio_j at points along the step."""
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
    """Where sums are asked for: at shares s_l = a_l b_l, b the mean source feature, and on the way there from `since`."""

    shares: np.ndarray
    since: np.ndarray
    weight: np.ndarray
    """(k,) b, 1 for a centre that is not alive."""
    alive: np.ndarray

    def sums(self, target: np.ndarray, count: np.ndarray | None) -> LikelihoodSums:
        """The sums over rows with features `target` (m, k) in float64 that count `count` (m,) times, once where None."""
        tiny = np.finfo(np.float64).tiny ** 0.8
        w = np.ones(len(target)) if count is None else count
        columns = np.where(self.alive, target / self.weight, 0.0)
        here, there = columns @ self.since, columns @ self.shares
        log_ratio = np.array([w @ np.log(here + reach * (there - here) + tiny) for reach in _REACHES])
        # A row's scale is a constant of the likelihood, and a row that no live centre is near has nothing to say.
        largest = columns.max(axis=1, initial=0.0)
        is_reached = largest > tiny
        rows, w_reached = columns[is_reached] / largest[is_reached, None], w[is_reached]
        inverse = 1.0 / np.maximum(rows @ self.shares, tiny)
        scaled = rows * (np.sqrt(w_reached) * inverse)[:, None]
        return LikelihoodSums(w.sum(), w_reached.sum(), log_ratio, rows.T @ (w_reached * inverse), scaled.T @ scaled)


class Maximum(NamedTuple):
    """coef (k,), the objective's value there, a bound on its distance to the optimum, the residual, and the steps taken."""

    coef: np.ndarray
    value: float
    gap: float
    residual: float
    n_iter: int
    converged: bool


def maximise(
    one_pass: Callable[[Likelihood], LikelihoodSums],
    coef: np.ndarray,
    mean_source: np.ndarray,
    *,
    scale: float,
    tol: float,
    max_iter: int,
) -> Maximum:
    """KLIEP's coef (k,) on all target rows, from a `coef` that is near, e.g. that of some of the rows.

        minimise  f sum(s) - mean_j log c_j's  over shares s >= 0,   f the share of target rows that a live centre is near,

    whose optimum has sum(s) = 1. Each step minimises the second-order model over s >= 0 exactly, and goes as far towards its
    minimiser as the likelihood rises: one pass, or two where that is not all the way. A few steps from a random sample's
    optimum; it ends at a duality gap and a residual (of a gradient step of length `scale`) of at most tol.
    mean_source (k,): mean source feature. Source: Lee, Sun & Saunders (2014), Proximal Newton-type methods.
    """
    objective, source = KullbackLeibler(), mean_source[None, :]
    weight, alive = objective.constraint(source)
    shares = _normalised(np.where(alive, coef * weight, 0.0))
    sums = one_pass(Likelihood(shares, shares, weight, alive))
    best = _report(objective, shares, sums, source, scale, 0, tol)
    for n_iter in range(1, max_iter + 1):
        if best.converged:
            break
        towards = _normalised(_model_minimiser(shares, sums, alive))
        shares, sums, rise = _advance(one_pass, shares, towards, weight, alive)
        here = _report(objective, shares, sums, source, scale, n_iter, tol)
        # Where rounding hides the rise of the likelihood, the gap still tells progress.
        if rise <= _ROUNDING and not here.gap < 0.5 * best.gap:
            break
        best = here
    return best


def _advance(
    one_pass: Callable[[Likelihood], LikelihoodSums],
    shares: np.ndarray,
    towards: np.ndarray,
    weight: np.ndarray,
    alive: np.ndarray,
) -> tuple[np.ndarray, LikelihoodSums, float]:
    """Shares where the likelihood is largest on the way to `towards`, the sums there, and the relative rise."""
    ahead = one_pass(Likelihood(towards, shares, weight, alive))
    mean = ahead.log_ratio / ahead.total
    rises = (mean - mean[-1]) / (1.0 + abs(mean[-1]))
    if rises[0] >= rises.max() - _ROUNDING:
        return towards, ahead, float(rises[0])
    best = int(np.argmax(rises))
    between = shares + _REACHES[best] * (towards - shares)
    return between, one_pass(Likelihood(between, between, weight, alive)), float(rises[best])


def _model_minimiser(shares: np.ndarray, sums: LikelihoodSums, alive: np.ndarray) -> np.ndarray:
    """argmin over s >= 0 of the likelihood's second-order model at `shares`, which is LSIF's problem."""
    hessian, grad = sums.second / sums.total, np.where(alive, (sums.reached - sums.first) / sums.total, 1.0)
    ridge = _RIDGE * float(np.trace(hessian)) / len(shares)
    linear = hessian @ shares + ridge * shares - grad
    model, solver = SquaredDistance(regularization=ridge), SOLVERS["active_set"]()
    problem = symmetric_root(hessian), linear[None, :]
    return solver.run(model, solver.init(model, *problem), *problem).coef


def _report(
    objective: KullbackLeibler,
    shares: np.ndarray,
    sums: LikelihoodSums,
    source: np.ndarray,
    scale: float,
    n_iter: int,
    tol: float,
) -> Maximum:
    weight, alive = objective.constraint(source)
    coef = np.where(alive, shares / weight, 0.0)
    grad = -weight * sums.first / sums.total
    gap = float(duality_gap(coef, grad, weight, alive))
    residual = float(optimality_residual(objective, coef, grad, source, source, scale))
    resolution = 100.0 * np.finfo(np.float64).eps * max(1.0, float(np.abs(coef).max()))
    converged = gap <= max(tol, _LEAST_GAP) and residual <= max(tol, resolution)
    return Maximum(coef, -float(sums.log_ratio[0] / sums.total), gap, residual, n_iter, converged)


def _normalised(shares: np.ndarray) -> np.ndarray:
    return shares / shares.sum()
