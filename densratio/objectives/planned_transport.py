"""Optimal transport in several columns as a function of the source weights: a linear program over transport plans."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.sparse
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from .._arrays import Array, eps, host_numbers, namespace, put
from .row_weights import RowProblem, WeightSet

__all__ = ["Marginals", "PlannedTransport", "TransportProblem"]

_MOST_PAIRS = 2**24
_LP_TOL = 1e-10  # the smallest tolerance that HiGHS accepts


class Marginals(NamedTuple):
    """The distinct rows of both samples on the host in float64, and their masses.

    supply (n,) and demand (m,), each of sum 1: the masses of the source rows at equal weights, and of the target rows. upper (n,):
    largest weights. of_source and of_target: the position of each original row among the distinct rows.
    """

    source: np.ndarray
    target: np.ndarray
    supply: np.ndarray
    demand: np.ndarray
    upper: np.ndarray
    of_source: np.ndarray
    of_target: np.ndarray


@dataclass(frozen=True, eq=False)
class TransportProblem(RowProblem):
    """Base of the transport problems of the rows of two samples; target rows count target_weight (m,) times."""

    source: Array
    target: Array
    weights: WeightSet
    target_weight: Array | None
    regularization: float = 0.0

    is_smooth: ClassVar[bool] = False
    beside_ratio: ClassVar[tuple[str, ...]] = ("source", "target", "target_weight")

    def init(self) -> Array:
        return self.weights.ones(self.source)


@dataclass(frozen=True, eq=False)
class PlannedTransport(TransportProblem):
    """The least transport cost plus regularization |w|^2 / (2n), for rows of any number of columns; see `Wasserstein1`.

    The dual: maximize mean_j g_j - mean_i phi(f_i) over potentials g (m,) of the target rows, with f_i = max_j (g_j - |x_i - v_j|)
    and phi(f) = max over 0 <= w <= max_weight of w f - regularization w^2 / 2. It is solved by `PrimalDual` in
    densratio.solvers; the value at given weights is a linear program, solved on the host.
    """

    @cached_property
    def marginals(self) -> Marginals:
        """The samples as a transport problem. Raises ValueError if there are too many pairs of rows."""
        source, of_source = _distinct(self.source)
        target, of_target = _distinct(self.target)
        if len(source) * len(target) > _MOST_PAIRS:
            raise ValueError(
                f"The exact transport of several columns holds the distances of all pairs of rows, at most {_MOST_PAIRS:.3g}; got "
                f'{len(source)} x {len(target)} distinct rows. Use Wasserstein(potential="critic"), fewer rows, or KMM, KLIEP or '
                "LSIF."
            )
        n, m = len(of_source), len(of_target)
        supply = np.bincount(of_source, None if self.weights.counts is None else host_numbers(self.weights.counts)) / n
        demand = np.bincount(of_target, None if self.target_weight is None else host_numbers(self.target_weight)) / m
        upper = 1.0 / supply
        upper = upper if self.weights.max_weight is None else np.minimum(upper, float(self.weights.max_weight))
        return Marginals(source, target, supply / supply.sum(), demand / demand.sum(), upper, of_source, of_target)

    @cached_property
    def _split_distances(self) -> tuple[np.ndarray, np.ndarray]:
        # Exact for near rows and for large offsets.
        costs = cdist(self.marginals.source, self.marginals.target)
        nearest = costs.min(axis=0)
        costs -= nearest
        return costs, nearest

    @property
    def costs(self) -> np.ndarray:
        """(n, m) distances of the distinct rows, minus `nearest`, so that a target row far from all others costs no digits."""
        return self._split_distances[0]

    @property
    def nearest(self) -> np.ndarray:
        """(m,) distances of the distinct target rows to their nearest source rows, which no plan avoids; g is relative to them."""
        return self._split_distances[1]

    @property
    def unavoidable(self) -> float:
        """The part of the value that is the same for all weights, from the nearest rows."""
        return float(self.marginals.demand @ self.nearest)

    @cached_property
    def distinct(self) -> WeightSet:
        """The set of the weights of the distinct source rows."""
        n = len(self.marginals.source)
        return WeightSet(n, self.weights.max_weight, counts=self.marginals.supply * n)

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        value, grad = self._avoidable(coef)
        return put(self.unavoidable + value, coef), grad

    def _avoidable(self, coef: Array) -> tuple[float, Array]:
        """The value minus its unavoidable part, and the gradient."""
        weights, of_source = host_numbers(coef), self.marginals.of_source
        share = self.weights.counted(coef) / self.source.shape[0]
        mass = np.bincount(of_source, host_numbers(share), len(self.marginals.source))
        distance, height = self._transported(mass)
        penalty = 0.5 * self.regularization * float(host_numbers(share) @ weights)
        slope = self.regularization * weights - height[of_source]
        return distance + penalty, self.weights.counted(put(slope, coef)) / self.source.shape[0]

    def curvature(self) -> Array:
        """The inverse of a step that moves weights by about 1, for any unit of the rows: |g|^2 / W at equal weights."""
        even = self.init()
        xp, (value, grad) = namespace(even), self.value_and_grad(even)
        along = grad - xp.mean(grad)
        squared = xp.sum(along * along)
        # A constant gradient leaves the rounding of its mean.
        usable = (value > 0.0) & (squared > (100.0 * eps(grad)) ** 2 * xp.sum(grad * grad))
        return xp.where(usable, squared / xp.where(usable, value, xp.ones_like(value)), xp.ones_like(value))

    def gap(self, coef: Array, grad: Array) -> Array:
        # The gradient contains the potentials of the source rows, which determine the best potentials of the target rows.
        counts = self.weights.counted(self.init())
        height = np.empty(len(self.marginals.source))
        height[self.marginals.of_source] = host_numbers(self.regularization * coef - grad * self.source.shape[0] / counts)
        potentials = (height[:, None] + self.costs).min(axis=0)
        return put(max(self._avoidable(coef)[0] - self.dual_value(potentials), 0.0), coef)

    def heights(self, potentials: np.ndarray) -> np.ndarray:
        """f (n,) of the distinct source rows for potentials (m,) of the distinct target rows."""
        return (potentials - self.costs).max(axis=1)

    def dual_value(self, potentials: np.ndarray) -> float:
        """A lower bound on the avoidable part of the optimum: the dual value of potentials (m,) with the best constant added."""
        height, supply = self.heights(potentials), self.marginals.supply
        if self.regularization == 0.0:
            return float(self.marginals.demand @ potentials + self.distinct.least(-height * supply))
        weights = self.distinct.project_counted(height / self.regularization)
        return float(self.marginals.demand @ potentials + supply @ (weights * (0.5 * self.regularization * weights - height)))

    def _transported(self, mass: np.ndarray) -> tuple[float, np.ndarray]:
        """The avoidable part of the least cost of moving mass (n,) to the target, and an optimal f (n,) of its dual, by HiGHS."""
        is_there, demand = mass > 0.0, self.marginals.demand * mass.sum()
        costs = self.costs[is_there]
        nearest = costs.min(axis=0)
        # Without the unavoidable cost of this mass, and in their own unit, costs make the solver's tolerances relative.
        costs = costs - nearest
        unit, (n, m) = costs.max() or 1.0, costs.shape
        sums = scipy.sparse.vstack([scipy.sparse.kron(np.eye(n), np.ones(m)), scipy.sparse.kron(np.ones(n), np.eye(m))])
        # The last sum follows from the others, and would contradict them by rounding.
        moved = n * np.concatenate([mass[is_there], demand])[:-1]
        options = {"primal_feasibility_tolerance": _LP_TOL, "dual_feasibility_tolerance": _LP_TOL}
        found = linprog(costs.ravel() / unit, A_eq=sums.tocsr()[:-1], b_eq=moved, method="highs", options=options)
        if not found.success:
            raise RuntimeError(f"HiGHS found no transport plan: {found.message}")
        potentials = nearest + unit * np.append(found.eqlin.marginals[n:], 0.0)
        height = self.heights(potentials)
        return float(demand @ potentials - mass @ height), height


def _distinct(rows: Array) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows (k, d), in float64, and the position of each row among them."""
    # Adding 0 makes -0 equal to 0 for the sort.
    found, place = np.unique(host_numbers(rows) + 0.0, axis=0, return_inverse=True)
    return found, place.ravel()
