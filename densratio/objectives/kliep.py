"""KLIEP: the ratio under which the target's likelihood is largest, that is the Kullback-Leibler divergence least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .._arrays import Array, eps, namespace, tiny
from ..projections import simplex
from .base import Objective

__all__ = ["KullbackLeibler", "duality_gap", "project_alive"]

_FLOOR = 1e-4  # share of an even spread that a warm start gives to every centre, so that none is shut out for good


@dataclass(frozen=True)
class KullbackLeibler(Objective):
    """F(a) = -mean_j log (A a)_j subject to a >= 0, b'a = 1, with A = target features >= 0 and b = mean source feature.

    Then the mean of the ratio over the source rows is exactly 1. A centre that no source row is near (b_l = 0 up to
    rounding) would have an infinite coefficient; it is held at 0.
    Source: Sugiyama et al. (2008), with the exact projection.
    """

    anchors: ClassVar[Literal["source", "target"]] = "target"
    needs_nonnegative_features: ClassVar[bool] = True

    def init(self, source: Array, target: Array) -> Array:
        weight, alive = self.constraint(source)
        even = namespace(source, target).astype(alive, source.dtype)
        return even / namespace(source).sum(even * weight)

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        xp, m = namespace(coef, target), target.shape[0]
        ratio = target @ coef + tiny(coef)
        return -xp.mean(xp.log(ratio)), -(xp.matrix_transpose(target) @ (1.0 / ratio)) / m

    def curvature(self, source: Array, target: Array) -> Array:
        xp = namespace(source, target)
        ratio = target @ self.init(source, target)
        # A target row that only dead centres are near adds a constant, and no curvature.
        reached = ratio > eps(ratio) * xp.max(ratio)
        inverse = xp.where(reached, 1.0 / xp.where(reached, ratio, xp.ones_like(ratio)), xp.zeros_like(ratio))
        scaled = target * inverse[:, None]
        # Row sums bound the largest eigenvalue of the non-negative matrix scaled' scaled / m.
        return xp.max(xp.matrix_transpose(scaled) @ xp.sum(scaled, axis=1)) / target.shape[0]

    def project(self, coef: Array, source: Array, target: Array) -> Array:
        return project_alive(coef, *self.constraint(source))

    def ratio(self, coef: Array, features: Array) -> Array:
        return features @ coef

    def warm_start(self, coef: Array, source: Array, target: Array) -> Array:
        # The likelihood is a matter of proportions, so a stored coef is rescaled rather than projected.
        xp = namespace(coef, source)
        weight, alive = self.constraint(source)
        even = xp.astype(alive, coef.dtype)
        even = even / xp.sum(even * weight)
        kept = even * xp.clip(coef, min=0.0)
        mass = xp.sum(kept * weight)
        kept = xp.where(mass > 0.0, kept / xp.where(mass > 0.0, mass, xp.ones_like(mass)), even)
        kept = xp.maximum(kept, _FLOOR * even)
        return kept / xp.sum(kept * weight)

    def summarise(self, source: Array, target: Array) -> tuple[Array, Array]:
        return namespace(source).mean(source, axis=0, keepdims=True), target

    def gap(self, coef: Array, grad: Array, source: Array, target: Array) -> Array:
        return duality_gap(coef, grad, *self.constraint(source))

    def score(self, source_ratio: Array, target_ratio: Array) -> Array:
        # The variational bound of the divergence. The likelihood alone would reward a ratio that is large everywhere.
        xp = namespace(source_ratio, target_ratio)
        return xp.mean(xp.log(xp.clip(target_ratio, min=tiny(target_ratio)))) - xp.mean(source_ratio) + 1.0

    def constraint(self, source: Array) -> tuple[Array, Array]:
        """b (k,), with 1 in place of dead entries, and which centres are alive; all are where no source row is near any."""
        xp = namespace(source)
        mean = xp.mean(source, axis=0)
        largest = xp.max(mean)
        # Below this the squares that a projection takes would vanish.
        mean = xp.where(largest > eps(mean) ** 2, mean, xp.ones_like(mean))
        alive = mean > 10.0 * eps(mean) * xp.max(mean)
        return xp.where(alive, mean, xp.ones_like(mean)), alive


def project_alive(coef: Array, weight: Array, alive: Array) -> Array:
    """Nearest point to `coef` (k,) with entries >= 0, weight . a = 1, and 0 for the centres that are not `alive`."""
    xp = namespace(coef)
    return simplex(xp.where(alive, coef, -float("inf")), weight)


def duality_gap(coef: Array, grad: Array, weight: Array, alive: Array) -> Array:
    """Bound () on what is left to gain: a linear function on the set of `project_alive` is least at a vertex."""
    xp = namespace(coef)
    return xp.sum(grad * coef) - xp.min(xp.where(alive, grad / weight, float("inf")))
