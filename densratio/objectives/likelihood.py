"""The likelihood of mixture proportions by its sums over rows, which one block of rows gives as well as many machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, eps, full_like_row, namespace, tiny, widest_here
from ..projections import simplex

__all__ = ["Likelihood", "LikelihoodSums", "Mixture", "MixtureSet"]


class LikelihoodSums(NamedTuple):
    """Sums over target rows j that count w_j times; those of two parts add up."""

    total: Array
    """() sum_j w_j"""
    reached: Array
    """() the same over the rows that some live center is near"""
    log_ratio: Array
    """() sum_j w_j log(c_j's)"""
    first: Array
    """(k,) sum_j w_j c_j / (c_j's), with c_j the features of row j over the mean source feature"""
    second: Array
    """(k, k) sum_j w_j c_j c_j' / (c_j's)^2"""

    def plus(self, other: LikelihoodSums) -> LikelihoodSums:
        """The sums over both parts."""
        return LikelihoodSums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class MixtureSet:
    """Coefficients a >= 0 (k,) with weight . a = 1; those that are not alive are 0.

    weight: the mean source feature of each center, 1 in place of a dead one. A center that no source row is near, up to
    rounding, would have an infinite coefficient. All are alive where no source row is near any.
    """

    weight: Array
    alive: Array

    @classmethod
    def of(cls, mean: Array) -> MixtureSet:
        """The set for the mean source feature (k,)."""
        xp = namespace(mean)
        # Below this the squares that a projection takes would vanish.
        mean = xp.where(xp.max(mean) > eps(mean) ** 2, mean, xp.ones_like(mean))
        alive = mean > 10.0 * eps(mean) * xp.max(mean)
        return cls(xp.where(alive, mean, xp.ones_like(mean)), alive)

    def even(self) -> Array:
        """Equal coefficients (k,) of all live centers."""
        return self.scaled(namespace(self.weight).astype(self.alive, self.weight.dtype))

    def scaled(self, coef: Array) -> Array:
        """coef (k,), >= 0 and 0 at dead centers, as a multiple that is in the set."""
        return coef / namespace(coef).sum(coef * self.weight)

    def project(self, coef: Array) -> Array:
        """The point of the set nearest to `coef` (k,)."""
        return simplex(namespace(coef).where(self.alive, coef, -float("inf")), self.weight)

    def gap(self, coef: Array, grad: Array) -> Array:
        """Bound () on what a convex function with this gradient at coef has left to gain."""
        # A linear function on the set is least at a vertex.
        xp = namespace(coef)
        return xp.sum(grad * coef) - xp.min(xp.where(self.alive, grad / self.weight, float("inf")))

    def coef_of(self, shares: Array) -> Array:
        """The coefficients (k,) of shares s_l = a_l weight_l (k,) > 0 of any sum."""
        xp = namespace(shares)
        return self.scaled(xp.where(self.alive, shares / self.weight, xp.zeros_like(shares)))

    def wide(self) -> MixtureSet:
        """The set in float64, where the device has that."""
        return MixtureSet(widest_here(self.weight), self.alive)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Target rows as the likelihood of shares sees them: features over the mean source feature, in float64.

    Each row is divided by its largest entry, whose logarithm is kept: a row's scale is a constant of the likelihood.
    """

    rows: Array
    """(m, k); 0 where no live center is near"""
    log_scale: Array
    """(m,)"""
    count: Array
    """(m,) how often each row counts, 0 where no live center is near"""
    total: Array
    """() sum of the counts, of all rows"""

    @classmethod
    def of(cls, target: Array, count: Array | None, feasible: MixtureSet) -> Mixture:
        """target (m, k): features; count (m,) or None for once each."""
        target, feasible = widest_here(target), feasible.wide()
        xp = namespace(target)
        count = full_like_row(target, 1.0) if count is None else widest_here(count)
        rows = target * xp.where(feasible.alive, 1.0 / feasible.weight, xp.zeros_like(feasible.weight))
        largest = xp.max(rows, axis=1)
        is_near = largest > tiny(target)
        rows = rows / xp.where(is_near, largest, xp.full_like(largest, float("inf")))[:, None]
        log_scale = xp.log(xp.where(is_near, largest, xp.full_like(largest, tiny(target))))
        return cls(rows, log_scale, xp.where(is_near, count, xp.zeros_like(count)), xp.sum(count))

    def sums(self, shares: Array) -> LikelihoodSums:
        """The sums at shares (k,) > 0."""
        xp = namespace(self.rows)
        ratio = xp.maximum(self.rows @ shares, full_like_row(self.rows, tiny(shares)))
        log_ratio = xp.sum(self.count * (xp.log(ratio) + self.log_scale))
        scaled = self.rows * (xp.sqrt(self.count) / ratio)[:, None]
        first = xp.matrix_transpose(self.rows) @ (self.count / ratio)
        return LikelihoodSums(self.total, xp.sum(self.count), log_ratio, first, xp.matrix_transpose(scaled) @ scaled)


class Likelihood(NamedTuple):
    """minimize  -sum_j w_j log(A a)_j / sum_j w_j  over the coefficients a in `feasible`."""

    feasible: MixtureSet
    sums: Callable[[Array], LikelihoodSums]
    """The sums in float64 at shares (k,): over one block of rows, or over the partitions of a table"""

    def value_and_grad(self, shares: Array, sums: LikelihoodSums) -> tuple[Array, Array]:
        """Value () and gradient (k,) at `feasible.coef_of(shares)`, from the sums at shares (k,) of any sum."""
        xp = namespace(shares)
        mass = xp.sum(xp.where(self.feasible.alive, shares, xp.zeros_like(shares)))
        unreached = (sums.total - sums.reached) * xp.log(xp.full_like(mass, tiny(mass)))
        value = -(sums.log_ratio - sums.reached * xp.log(mass) + unreached) / sums.total
        return value, -mass * self.feasible.weight * sums.first / sums.total
