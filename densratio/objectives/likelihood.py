"""The likelihood of mixture proportions from sums over rows, computed in one block or over the partitions of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, eps, full_like_row, namespace, tiny, widest_here
from ..projections import simplex

__all__ = ["Likelihood", "LikelihoodSums", "Mixture", "MixtureSet"]


class LikelihoodSums(NamedTuple):
    """Sums over target rows j that count w_j times; the sums of two parts add up."""

    total: Array
    """() sum_j w_j"""
    reached: Array
    """() sum of w_j over the rows near at least one live center"""
    log_ratio: Array
    """() sum_j w_j log(c_j's)"""
    first: Array
    """(k,) sum_j w_j c_j / (c_j's), with c_j the features of row j over the mean source feature"""
    second: Array | None = None
    """(k, k) sum_j w_j c_j c_j' / (c_j's)^2; None if it is computed later, on demand"""

    def plus(self, other: LikelihoodSums) -> LikelihoodSums:
        """The sums over both parts."""
        return LikelihoodSums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


@dataclass(frozen=True, eq=False)
class MixtureSet:
    """Coefficients a >= 0 (k,) with weight . a = 1, and 0 at dead centers.

    A center is dead if its mean source feature is 0 up to rounding: its coefficient would be infinite. If that is so for all
    centers, all count as alive. weight: the mean source feature of each live center, 1 at dead ones.
    """

    weight: Array
    alive: Array

    @classmethod
    def of(cls, mean: Array) -> MixtureSet:
        """The set for the mean source feature (k,)."""
        xp = namespace(mean)
        # For smaller means the squares in the projection would underflow.
        mean = xp.where(xp.max(mean) > eps(mean) ** 2, mean, xp.ones_like(mean))
        alive = mean > 10.0 * eps(mean) * xp.max(mean)
        return cls(xp.where(alive, mean, xp.ones_like(mean)), alive)

    def even(self) -> Array:
        """Equal coefficients (k,) at all live centers."""
        return self.scaled(namespace(self.weight).astype(self.alive, self.weight.dtype))

    def scaled(self, coef: Array) -> Array:
        """The multiple of coef (k,) that is in the set; coef is >= 0, and 0 at dead centers."""
        return coef / namespace(coef).sum(coef * self.weight)

    def project(self, coef: Array) -> Array:
        """The point of the set nearest to `coef` (k,)."""
        return simplex(namespace(coef).where(self.alive, coef, -float("inf")), self.weight)

    def gap(self, coef: Array, grad: Array) -> Array:
        """Upper bound () on value(coef) - optimum of a convex function with gradient `grad` at coef."""
        # A linear function attains its minimum over the set at a vertex.
        xp = namespace(coef)
        return xp.sum(grad * coef) - xp.min(xp.where(self.alive, grad / self.weight, float("inf")))

    def coef_of(self, shares: Array) -> Array:
        """The coefficients (k,) from shares s_l = a_l weight_l > 0 (k,), which are rescaled to sum 1."""
        xp = namespace(shares)
        return self.scaled(xp.where(self.alive, shares / self.weight, xp.zeros_like(shares)))

    def wide(self) -> MixtureSet:
        """The set in float64, if the device supports it."""
        return MixtureSet(widest_here(self.weight), self.alive)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The rows of the likelihood in shares: target features over the mean source feature, in float64.

    Each row is divided by its largest entry, and the logarithm of that entry is kept: the scale of a row adds a constant to the
    log-likelihood. Both scales multiply vectors, so that the features are not copied.
    """

    target: Array
    """(m, k) target features"""
    inverse: Array
    """(k,) 1 over the mean source feature; 0 at dead centers"""
    scale: Array
    """(m,) 1 over the largest entry of each row; 0 for rows far from all live centers"""
    log_scale: Array
    """(m,) logarithm of the largest entry"""
    count: Array
    """(m,) how often each row counts; 0 for rows far from all live centers"""
    total: Array
    """() sum of the counts of all rows"""

    @classmethod
    def of(cls, target: Array, count: Array | None, feasible: MixtureSet) -> Mixture:
        """From target features (m, k) that count `count` (m,) times; None: once."""
        target, feasible = widest_here(target), feasible.wide()
        xp, least = namespace(target), full_like_row(target, tiny(target))
        count = full_like_row(target, 1.0) if count is None else widest_here(count)
        inverse = xp.where(feasible.alive, 1.0 / feasible.weight, xp.zeros_like(feasible.weight))
        largest = xp.max(target * inverse, axis=1)
        is_near = largest > least
        scale = xp.where(is_near, 1.0 / xp.maximum(largest, least), xp.zeros_like(largest))
        near_count = xp.where(is_near, count, xp.zeros_like(count))
        return cls(target, inverse, scale, xp.log(xp.maximum(largest, least)), near_count, xp.sum(count))

    def sums(self, shares: Array) -> LikelihoodSums:
        """All sums at shares (k,) > 0, in one pass."""
        return self.slope(shares)._replace(second=self.second(shares))

    def slope(self, shares: Array) -> LikelihoodSums:
        """The sums at shares (k,) > 0 without `second`, which takes most of the time."""
        xp, ratio = namespace(self.target), self._ratio(shares)
        log_ratio = xp.sum(self.count * (xp.log(ratio) + self.log_scale))
        first = self.inverse * (xp.matrix_transpose(self.target) @ (self.count * self.scale / ratio))
        return LikelihoodSums(self.total, xp.sum(self.count), log_ratio, first)

    def second(self, shares: Array) -> Array:
        """The sum of outer products (k, k) at shares (k,) > 0."""
        xp = namespace(self.target)
        # The factors of rows and columns may each be huge, but their product is at most 1 / ratio.
        scaled = self.target * self.inverse * (xp.sqrt(self.count) * self.scale / self._ratio(shares))[:, None]
        return xp.matrix_transpose(scaled) @ scaled

    def _ratio(self, shares: Array) -> Array:
        ratio = self.scale * (self.target @ (self.inverse * shares))
        return namespace(ratio).maximum(ratio, full_like_row(ratio, tiny(ratio)))


class Likelihood(NamedTuple):
    """minimize  -sum_j w_j log(A a)_j / sum_j w_j  over the coefficients a in `feasible`."""

    feasible: MixtureSet
    sums: Callable[[Array], LikelihoodSums]
    """Maps shares (k,) to the sums in float64, over one block of rows or over the partitions of a table"""
    late_second: Callable[[Array], Array] | None = None
    """Maps shares (k,) to `second` if `sums` leaves it out; None if one pass gives all"""

    def curvature(self, shares: Array, sums: LikelihoodSums) -> Array:
        """Curvature (k, k) at the shares (k,) of these sums."""
        second = sums.second if self.late_second is None else self.late_second(shares)
        return second / sums.total

    def value_and_grad(self, shares: Array, sums: LikelihoodSums) -> tuple[Array, Array]:
        """Value () and gradient (k,) at `feasible.coef_of(shares)`, from the sums at `shares` (k,), which need not sum to 1."""
        xp = namespace(shares)
        mass = xp.sum(xp.where(self.feasible.alive, shares, xp.zeros_like(shares)))
        unreached = (sums.total - sums.reached) * xp.log(xp.full_like(mass, tiny(mass)))
        value = -(sums.log_ratio - sums.reached * xp.log(mass) + unreached) / sums.total
        return value, -mass * self.feasible.weight * sums.first / sums.total
