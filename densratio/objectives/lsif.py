"""LSIF: the ratio nearest to the true one in mean square over the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .._arrays import Array, eps, namespace, tiny
from ..projections import nonnegative
from .base import Objective

__all__ = ["SquaredDistance"]


@dataclass(frozen=True)
class SquaredDistance(Objective):
    """J(a) = a'Ha/2 - h'a + regularization (l1_ratio |a|_1 + (1 - l1_ratio) |a|^2 / 2), H = mean phi phi' over the
    source, h = mean phi over the target; J estimates (1/2) int (ratio_a - ratio)^2 p_source up to a constant.

    nonnegative: a >= 0 (LSIF); without it and without L1 the minimiser has a closed form (uLSIF). An L1 penalty without
    a >= 0 is solved over a = u - v, u, v >= 0: coef is then (u, v) with 2k entries. Without an L2 part J is unbounded below
    where a target row has no source row near; a fit then stops at max_iter, and says so.
    Source: Kanamori, Hido & Sugiyama (2009).
    """

    regularization: float = 0.01
    l1_ratio: float = 0.0
    nonnegative: bool = True

    anchors: ClassVar[Literal["source", "target"]] = "target"
    gradient_is_affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.regularization < float("inf"):
            raise ValueError(f"regularization must be a finite number >= 0; got {self.regularization!r}.")
        if not 0.0 <= self.l1_ratio <= 1.0:
            raise ValueError(f"l1_ratio must be in [0, 1]; got {self.l1_ratio!r}.")

    def init(self, source: Array, target: Array) -> Array:
        xp = namespace(source, target)
        even = xp.ones_like(target[0, :])
        return self.warm_start(xp.concat([even, xp.zeros_like(even)]) if self._is_split else even, source, target)

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        xp = namespace(coef, source)
        signed = self._signed(coef)
        curved, linear = self._hessian_times(signed, source), xp.mean(target, axis=0)
        grad = curved - linear
        value = xp.sum(signed * (0.5 * curved - linear)) + xp.sum(coef * (0.5 * self._l2 * coef + self._l1))
        return value, (xp.concat([grad, -grad]) if self._is_split else grad) + self._l2 * coef + self._l1

    def curvature(self, source: Array, target: Array) -> Array:
        # The largest row sum of |source|'|source| / n, by two products with a vector; exact row sums where features are >= 0.
        xp = namespace(source)
        size = xp.abs(source)
        bound = xp.max(xp.matrix_transpose(size) @ xp.sum(size, axis=1)) / source.shape[0]
        bound = bound * (2.0 if self._is_split else 1.0) + self._l2
        # No source row near any centre: the value is linear, and a step of any finite size will do.
        return xp.where(bound > 0.0, bound, xp.ones_like(bound))

    def project(self, coef: Array, source: Array, target: Array) -> Array:
        return nonnegative(coef) if self.nonnegative or self._is_split else coef

    def ratio(self, coef: Array, features: Array) -> Array:
        return nonnegative(features @ self._signed(coef))

    def warm_start(self, coef: Array, source: Array, target: Array) -> Array:
        # The best multiple of the stored coef: a stored scale belongs to another batch.
        xp = namespace(coef, source)
        coef = self.project(coef, source, target)
        signed = self._signed(coef)
        gain = xp.sum(signed * xp.mean(target, axis=0)) - self._l1 * xp.sum(coef)
        cost = xp.sum(signed * self._hessian_times(signed, source)) + self._l2 * xp.sum(coef * coef)
        usable = (gain > 0.0) & (cost > tiny(cost))
        return coef * xp.where(usable, gain / xp.where(usable, cost, xp.ones_like(cost)), xp.zeros_like(cost))

    def summarise(self, source: Array, target: Array) -> tuple[Array, Array]:
        # H and h are all that J asks of the samples: a root of H stands in for n_s rows of features. It is the symmetric
        # one, which is the same whatever the order of the rows.
        xp, (n, k) = namespace(source, target), source.shape
        mean_target = xp.mean(target, axis=0, keepdims=True)
        if n <= 4 * k:
            return source, mean_target
        eigenvalues, vectors = xp.linalg.eigh(self._hessian(source))
        scale = xp.sqrt(k * xp.clip(eigenvalues, min=0.0))
        return (vectors * scale[None, :]) @ xp.matrix_transpose(vectors), mean_target

    def gap(self, coef: Array, grad: Array, source: Array, target: Array) -> Array:
        # Lagrange duality with the multipliers max(grad, 0); the strongly convex L2 part pays for negative gradients.
        xp = namespace(coef, grad)
        if self._l2 == 0.0:
            return super().gap(coef, grad, source, target)
        if self.nonnegative or self._is_split:
            negative = xp.clip(grad, max=0.0)
            return xp.sum(xp.clip(grad, min=0.0) * coef) + xp.sum(negative * negative) / (2.0 * self._l2)
        return xp.sum(grad * grad) / (2.0 * self._l2)

    def minimiser(self, source: Array, target: Array) -> Array:
        """The closed form (H + regularization I)^-1 h (k,) of uLSIF, from the eigenvectors of H."""
        xp = namespace(source, target)
        eigenvalues, vectors = xp.linalg.eigh(self._hessian(source))
        shifted = xp.clip(eigenvalues, min=0.0) + self._l2
        # At regularization 0 directions without source mass get 0: the minimum-norm solution.
        usable = shifted > xp.max(shifted) * (source.shape[1] * eps(source))
        inverse = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
        return vectors @ (inverse * (xp.matrix_transpose(vectors) @ xp.mean(target, axis=0)))

    @property
    def has_closed_form(self) -> bool:
        """Whether `minimiser` applies: without a >= 0 and without L1."""
        return not self.nonnegative and self._l1 == 0.0

    @property
    def _l1(self) -> float:
        return self.regularization * self.l1_ratio

    @property
    def _l2(self) -> float:
        return self.regularization * (1.0 - self.l1_ratio)

    @property
    def _is_split(self) -> bool:
        return self._l1 > 0.0 and not self.nonnegative

    def _signed(self, coef: Array) -> Array:
        k = coef.shape[0] // 2
        return coef[:k] - coef[k:] if self._is_split else coef

    def _hessian(self, source: Array) -> Array:
        return namespace(source).matrix_transpose(source) @ source / source.shape[0]

    def _hessian_times(self, vector: Array, source: Array) -> Array:
        return namespace(source).matrix_transpose(source) @ (source @ vector) / source.shape[0]
