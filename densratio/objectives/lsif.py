"""LSIF: the ratio nearest to the true one in mean square over the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from .._arrays import Array, device_of, eps, namespace, tiny, weighted_mean, widest_here
from ..projections import nonnegative
from .base import Objective, is_number
from .moments import Moments, rows_with, symmetric_root
from .statistics import StatisticObjective, Statistics

__all__ = ["SquaredDistance", "SquaredDistanceStatistics"]


class SquaredDistanceStatistics(Statistics):
    """Moments of the features of the source and of the target: J is a function of these alone."""

    def __init__(self, source: Moments, target: Moments):
        self.source, self.target = source, target

    def plus(self, other: Statistics) -> SquaredDistanceStatistics:
        assert isinstance(other, SquaredDistanceStatistics)
        return SquaredDistanceStatistics(self.source.plus(other.source), self.target.plus(other.target))

    @property
    def mean_source(self) -> Array:
        """(k,) mean source feature."""
        return self.source.mean


@dataclass(frozen=True)
class SquaredDistance(StatisticObjective):
    """J(a) = a'Ha/2 - h'a + regularization (l1_ratio |a|_1 + (1 - l1_ratio) |a|^2 / 2), H = mean phi phi' over the
    source, h = mean phi over the target; J estimates (1/2) int (ratio_a - ratio)^2 p_source up to a constant.

    alpha in [0, 1): the relative ratio p_target / (alpha p_target + (1 - alpha) p_source) <= 1 / alpha in place of the ratio
    (RuLSIF): H is then alpha of the mean over the target and 1 - alpha of that over the source.
    nonnegative: a >= 0 (LSIF); without it and without L1 the minimiser has a closed form (uLSIF). An L1 penalty without
    a >= 0 is solved over a = u - v, u, v >= 0: coef is then (u, v) with 2k entries. Without an L2 part J is unbounded below
    where a target row has no source row near; a fit then stops at max_iter, and says so.
    Source: Kanamori, Hido & Sugiyama (2009); Yamada et al. (2013) for the relative ratio.
    """

    regularization: float = 0.01
    l1_ratio: float = 0.0
    nonnegative: bool = True
    alpha: float = 0.0

    anchors: ClassVar[Literal["source", "target"]] = "target"
    gradient_is_affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (is_number(self.regularization) and 0.0 <= self.regularization < float("inf")):
            raise ValueError(f"regularization must be a finite number >= 0; got {self.regularization!r}.")
        if not (is_number(self.l1_ratio) and 0.0 <= self.l1_ratio <= 1.0):
            raise ValueError(f"l1_ratio must be in [0, 1]; got {self.l1_ratio!r}.")
        if not isinstance(self.nonnegative, bool | np.bool_):
            raise ValueError(f"nonnegative must be True or False; got {self.nonnegative!r}.")
        if not (is_number(self.alpha) and 0.0 <= self.alpha < 1.0):
            raise ValueError(f"alpha must be in [0, 1), the share of the target in the denominator; got {self.alpha!r}.")

    def init(self, source: Array, target: Array) -> Array:
        xp = namespace(source, target)
        even = xp.ones_like(target[0, :])
        return self.warm_start(xp.concat([even, xp.zeros_like(even)]) if self._is_split else even, source, target)

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        xp = namespace(coef, source)
        signed = self.signed(coef)
        curved, linear = self._hessian_times(signed, source, target), xp.mean(target, axis=0)
        grad = curved - linear
        value = xp.sum(signed * (0.5 * curved - linear)) + xp.sum(coef * (0.5 * self._l2 * coef + self._l1))
        return value, (xp.concat([grad, -grad]) if self._is_split else grad) + self._l2 * coef + self._l1

    def curvature(self, source: Array, target: Array) -> Array:
        # The largest row sum of |source|'|source| / n, by two products with a vector; exact row sums where features are >= 0.
        xp = namespace(source)
        bound = xp.max(self._mixed(lambda rows: xp.matrix_transpose(xp.abs(rows)) @ xp.sum(xp.abs(rows), axis=1), source, target))
        bound = bound * (2.0 if self._is_split else 1.0) + self._l2
        # No source row near any centre: the value is linear, and a step of any finite size will do.
        return xp.where(bound > 0.0, bound, xp.ones_like(bound))

    def project(self, coef: Array, source: Array, target: Array) -> Array:
        return nonnegative(coef) if self.nonnegative or self._is_split else coef

    def ratio(self, coef: Array, features: Array) -> Array:
        return nonnegative(features @ self.signed(coef))

    def warm_start(self, coef: Array, source: Array, target: Array) -> Array:
        # The best multiple of the stored coef: a stored scale belongs to another batch.
        xp = namespace(coef, source)
        coef = self.project(coef, source, target)
        signed = self.signed(coef)
        gain = xp.sum(signed * xp.mean(target, axis=0)) - self._l1 * xp.sum(coef)
        cost = xp.sum(signed * self._hessian_times(signed, source, target)) + self._l2 * xp.sum(coef * coef)
        usable = (gain > 0.0) & (cost > tiny(cost))
        return coef * xp.where(usable, gain / xp.where(usable, cost, xp.ones_like(cost)), xp.zeros_like(cost))

    def summarise(self, source: Array, target: Array) -> tuple[Array, Array]:
        # H and h are all that J asks of the samples: a root of H stands in for n_s rows of features.
        xp, (n, k) = namespace(source, target), source.shape
        root = source if n <= 4 * k else symmetric_root(self._hessian(source))
        if self.alpha == 0.0:
            return root, xp.mean(target, axis=0, keepdims=True)
        return root, (target if target.shape[0] <= 4 * k else rows_with(xp.mean(target, axis=0), self._hessian(target)))

    def statistics(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> SquaredDistanceStatistics:
        return SquaredDistanceStatistics(Moments.of(source, source_weight), Moments.of(target, target_weight))

    def problem(self, statistics: Statistics, like: Array) -> tuple[Objective, Array, Array]:
        assert isinstance(statistics, SquaredDistanceStatistics)
        xp, mean = namespace(like), statistics.target.mean
        target = mean[None, :] if self.alpha == 0.0 else rows_with(mean, statistics.target.second)
        return self, xp.astype(symmetric_root(statistics.source.second), like.dtype), xp.astype(target, like.dtype)

    def gap(self, coef: Array, grad: Array, source: Array, target: Array) -> Array:
        # Lagrange duality with the multipliers max(grad, 0); the strongly convex L2 part pays for negative gradients.
        xp = namespace(coef, grad)
        if self._l2 == 0.0:
            return super().gap(coef, grad, source, target)
        if self.nonnegative or self._is_split:
            negative = xp.clip(grad, max=0.0)
            return xp.sum(xp.clip(grad, min=0.0) * coef) + xp.sum(negative * negative) / (2.0 * self._l2)
        return xp.sum(grad * grad) / (2.0 * self._l2)

    def held_out_score(self, coef: Array, kept: Statistics, held_out: Statistics) -> Array:
        # From sums over rows, and so of the linear model before any clipping at 0.
        assert isinstance(held_out, SquaredDistanceStatistics)
        xp = namespace(coef, kept.mean_source)
        signed = self.signed(widest_here(coef))
        mean = xp.sum(signed * self.mixture(kept))
        signed = signed / xp.where(mean > 0.0, mean, xp.ones_like(mean))
        second = (1.0 - self.alpha) * held_out.source.second + self.alpha * held_out.target.second
        score = xp.sum(signed * held_out.target.mean) - 0.5 * xp.sum(signed * (second @ signed))
        return xp.where(mean > 0.0, score, -float("inf"))

    def mixture(self, statistics: Statistics) -> Array:
        """(k,) mean feature over the mixture that the (relative) ratio is relative to: the ratio's mean over it is 1."""
        assert isinstance(statistics, SquaredDistanceStatistics)
        return (1.0 - self.alpha) * statistics.source.mean + self.alpha * statistics.target.mean

    def minimiser(self, source: Array, target: Array) -> Array:
        """The closed form (H + regularization I)^-1 h (k,) of uLSIF, from the eigenvectors of H."""
        xp = namespace(source, target)
        eigenvalues, vectors = xp.linalg.eigh(self._mixed(lambda rows: xp.matrix_transpose(rows) @ rows, source, target))
        shifted = xp.clip(eigenvalues, min=0.0) + self._l2
        # At regularization 0 directions without source mass get 0: the minimum-norm solution.
        usable = shifted > xp.max(shifted) * (source.shape[1] * eps(source))
        inverse = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
        return vectors @ (inverse * (xp.matrix_transpose(vectors) @ xp.mean(target, axis=0)))

    def quadratic(self, source: Array, target: Array) -> tuple[Array, Array]:
        """(A (k, k), g (k,)) with J(a) = a'A a / 2 - g'a over a >= 0: all penalties within."""
        xp = namespace(source, target)
        hessian = self._mixed(lambda rows: xp.matrix_transpose(rows) @ rows, source, target)
        eye = xp.eye(hessian.shape[0], dtype=hessian.dtype, device=device_of(hessian))
        return hessian + self._l2 * eye, xp.mean(target, axis=0) - self._l1

    @property
    def has_closed_form(self) -> bool:
        """Whether `minimiser` applies: without a >= 0 and without L1."""
        return not self.nonnegative and self._l1 == 0.0

    @property
    def is_definite(self) -> bool:
        """Whether an L2 part makes J strictly convex."""
        return self._l2 > 0.0

    @property
    def _l1(self) -> float:
        return self.regularization * self.l1_ratio

    @property
    def _l2(self) -> float:
        return self.regularization * (1.0 - self.l1_ratio)

    @property
    def _is_split(self) -> bool:
        return self._l1 > 0.0 and not self.nonnegative

    def signed(self, coef: Array) -> Array:
        """The coefficients (k,) of the features, given `coef` (k,) or its two parts (2k,)."""
        k = coef.shape[0] // 2
        return coef[:k] - coef[k:] if self._is_split else coef

    def _hessian(self, rows: Array) -> Array:
        return namespace(rows).matrix_transpose(rows) @ rows / rows.shape[0]

    def _hessian_times(self, vector: Array, source: Array, target: Array) -> Array:
        xp = namespace(source)
        return self._mixed(lambda rows: xp.matrix_transpose(rows) @ (rows @ vector), source, target)

    def _mixed(self, total: Callable[[Array], Array], source: Array, target: Array) -> Array:
        """(1 - alpha) of the mean over the source rows and alpha of that over the target rows, of sums `total` over rows."""
        of_source = total(source) / source.shape[0]
        if self.alpha == 0.0:
            return of_source
        return (1.0 - self.alpha) * of_source + self.alpha * (total(target) / target.shape[0])

    def score(
        self,
        source_ratio: Array,
        target_ratio: Array,
        source_weight: Array | None = None,
        target_weight: Array | None = None,
    ) -> Array:
        """mean r(target) - (1 - alpha) mean r(source)^2 / 2 - alpha mean r(target)^2 / 2, largest at the true relative ratio."""
        of_source = weighted_mean(source_ratio * source_ratio, source_weight)
        of_target = weighted_mean(target_ratio * target_ratio, target_weight)
        return weighted_mean(target_ratio, target_weight) - 0.5 * ((1.0 - self.alpha) * of_source + self.alpha * of_target)
