"""LSIF: the ratio nearest to the true one in mean square over the source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from .._arrays import Array, eps, namespace, tiny, weighted_mean, widest_here
from ..projections import nonnegative
from .base import Objective, is_number
from .moments import Moments
from .quadratic import Dense, Quadratic, Root
from .quadratic_problem import QuadraticProblem

__all__ = ["LeastSquares", "SquaredDistance"]


@dataclass(frozen=True)
class SquaredDistance(Objective):
    """J(a) = a'Ha/2 - h'a + regularization (l1_ratio |a|_1 + (1 - l1_ratio) |a|^2 / 2), H = mean phi phi' over the
    source, h = mean phi over the target; J estimates (1/2) int (ratio_a - ratio)^2 p_source up to a constant.

    alpha in [0, 1): the relative ratio p_target / (alpha p_target + (1 - alpha) p_source) <= 1 / alpha in place of the ratio
    (RuLSIF): H is then alpha of the mean over the target and 1 - alpha of that over the source.
    nonnegative: a >= 0 (LSIF); without it and without L1 the minimizer has a closed form (uLSIF). An L1 penalty without
    a >= 0 is solved over a = u - v, u, v >= 0: coef is then (u, v) with 2k entries. Without an L2 part J is unbounded below
    where a target row has no source row near; a fit then stops at max_iter, and says so.
    Source: Kanamori, Hido & Sugiyama (2009); Yamada et al. (2013) for the relative ratio.
    """

    regularization: float = 0.01
    l1_ratio: float = 0.0
    nonnegative: bool = True
    alpha: float = 0.0

    anchors: ClassVar[Literal["source", "target"]] = "target"
    is_sum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (is_number(self.regularization) and 0.0 <= self.regularization < float("inf")):
            raise ValueError(f"regularization must be a finite number >= 0; got {self.regularization!r}.")
        if not (is_number(self.l1_ratio) and 0.0 <= self.l1_ratio <= 1.0):
            raise ValueError(f"l1_ratio must be in [0, 1]; got {self.l1_ratio!r}.")
        if not isinstance(self.nonnegative, bool | np.bool_):
            raise ValueError(f"nonnegative must be True or False; got {self.nonnegative!r}.")
        if not (is_number(self.alpha) and 0.0 <= self.alpha < 1.0):
            raise ValueError(f"alpha must be in [0, 1), the share of the target in the denominator; got {self.alpha!r}.")

    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> LeastSquares:
        return LeastSquares.of(self, Moments.of(source, source_weight), Moments.of(target, target_weight))

    @property
    def l1(self) -> float:
        """Strength of the L1 penalty."""
        return self.regularization * self.l1_ratio

    @property
    def l2(self) -> float:
        """Strength of the L2 penalty."""
        return self.regularization * (1.0 - self.l1_ratio)

    @property
    def is_split(self) -> bool:
        """Whether a coef is (u, v) with a = u - v."""
        return self.l1 > 0.0 and not self.nonnegative

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


@dataclass(frozen=True, eq=False)
class LeastSquares(QuadraticProblem):
    """J as a function of the coefficients: H and h are all that it asks of the samples, by their sums over rows.

    The L1 penalty of coefficients >= 0 is part of the vector.
    """

    objective: SquaredDistance
    source: Moments
    target: Moments

    @classmethod
    def of(cls, objective: SquaredDistance, source: Moments, target: Moments) -> LeastSquares:
        """The problem on samples with these sums."""
        root = _root(source, target, objective.alpha)
        mean, l1 = target.mean, objective.l1
        xp = namespace(mean)
        if root is None:
            matrix: Any = _blend(source, target, objective.alpha)
            matrix, mean = Dense(_split_matrix(matrix) if objective.is_split else matrix), widest_here(mean)
        else:
            root = xp.concat([root, -root]) if objective.is_split else root
            matrix, mean = Root(root), xp.astype(mean, root.dtype, copy=False)
        linear = xp.concat([mean - l1, -mean - l1]) if objective.is_split else mean - l1
        return cls(matrix, linear, objective.l2, 1.0, None, 1.0, objective, source, target)

    def init(self) -> Array:
        xp, even = namespace(self.linear), namespace(self.linear).ones_like(self.linear)
        if self.objective.is_split:
            k = even.shape[0] // 2
            even = xp.concat([even[:k], 0.0 * even[k:]])
        return self.warm_start(even)

    def project(self, coef: Array) -> Array:
        return nonnegative(coef) if self._is_bounded else coef

    def ratio(self, coef: Array, features: Array) -> Array:
        return nonnegative(features @ self.signed(coef))

    def warm_start(self, coef: Array) -> Array:
        # The best multiple of the stored coef: a stored scale belongs to another batch.
        xp = namespace(coef)
        coef = self.project(coef)
        gain = xp.sum(coef * self.linear)
        cost = xp.sum(coef * self.matrix.times(coef)) + self.regularization * xp.sum(coef * coef)
        usable = (gain > 0.0) & (cost > tiny(cost))
        return coef * xp.where(usable, gain / xp.where(usable, cost, xp.ones_like(cost)), xp.zeros_like(cost))

    def gap(self, coef: Array, grad: Array) -> Array:
        # Lagrange duality with the multipliers max(grad, 0); the strongly convex L2 part pays for negative gradients.
        xp = namespace(coef, grad)
        if self.regularization == 0.0:
            return super().gap(coef, grad)
        if self._is_bounded:
            negative = xp.clip(grad, max=0.0)
            return xp.sum(xp.clip(grad, min=0.0) * coef) + xp.sum(negative * negative) / (2.0 * self.regularization)
        return xp.sum(grad * grad) / (2.0 * self.regularization)

    @property
    def quadratic(self) -> Quadratic | None:
        return Quadratic(self.matrix, self.linear, self.regularization) if self._is_bounded else None

    @property
    def has_minimizer(self) -> bool:  # type: ignore[override]
        return not self._is_bounded

    def minimizer(self) -> Array:
        """(H + regularization I)^-1 h (k,) of uLSIF, from the eigenvectors of H."""
        second = self.matrix.dense()
        xp = namespace(second)
        eigenvalues, vectors = xp.linalg.eigh(second)
        shifted = xp.clip(eigenvalues, min=0.0) + self.regularization
        # At regularization 0 directions without source mass get 0: the minimum-norm solution.
        usable = shifted > xp.max(shifted) * (second.shape[0] * eps(second))
        inverse = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
        coef = vectors @ (inverse * (xp.matrix_transpose(vectors) @ widest_here(self.linear)))
        return xp.astype(coef, self.linear.dtype, copy=False)

    def signed(self, coef: Array) -> Array:
        """The coefficients (k,) of the features, given `coef` (k,) or its two parts (2k,)."""
        k = coef.shape[0] // 2
        return coef[:k] - coef[k:] if self.objective.is_split else coef

    # ------------------------------------------------------------ sums over rows

    def plus(self, other: Self) -> LeastSquares:
        return LeastSquares.of(self.objective, self.source.plus(other.source), self.target.plus(other.target))

    def under(self, objective: Objective) -> LeastSquares:
        assert isinstance(objective, SquaredDistance)
        return LeastSquares.of(objective, self.source, self.target)

    def compact(self) -> LeastSquares:
        return replace(self, source=self.source.compact(), target=self.target.compact())

    def bare(self) -> LeastSquares:
        nothing = Moments(self.source.count, self.source.total[:0], self.linear[:0])
        return replace(self, matrix=Dense(self.linear[:0]), linear=self.linear[:0], source=nothing, target=nothing)

    def source_mean(self, coef: Array) -> Array:
        signed = widest_here(self.signed(coef))
        return namespace(signed).sum(signed * self.source.mean)

    def mixture_mean(self, coef: Array) -> Array:
        """Mean () of the (relative) ratio over the mixture that it is relative to, which is 1 at the true one."""
        signed, alpha = widest_here(self.signed(coef)), self.objective.alpha
        return namespace(signed).sum(signed * ((1.0 - alpha) * self.source.mean + alpha * self.target.mean))

    def held_out_score(self, coef: Array, held_out: Self) -> Array:
        # From sums over rows, and so of the linear model before any clipping at 0.
        signed = widest_here(self.signed(coef))
        xp, mean = namespace(signed), self.mixture_mean(coef)
        signed = signed / xp.where(mean > 0.0, mean, xp.ones_like(mean))
        second = _blend(held_out.source, held_out.target, self.objective.alpha)
        score = xp.sum(signed * held_out.target.mean) - 0.5 * xp.sum(signed * (second @ signed))
        return xp.where(mean > 0.0, score, -float("inf"))

    @property
    def _is_bounded(self) -> bool:
        return self.objective.nonnegative or self.objective.is_split


def _blend(source: Moments, target: Moments, alpha: float) -> Array:
    """(1 - alpha) of the mean outer product over the source and alpha of that over the target, (k, k)."""
    return source.second if alpha == 0.0 else (1.0 - alpha) * source.second + alpha * target.second


def _root(source: Moments, target: Moments, alpha: float) -> Array | None:
    """R (k, r) with RR' = `_blend`, of samples whose rows are few; None for others."""
    if source.rows is None or (alpha > 0.0 and target.rows is None):
        return None
    xp = namespace(source.rows)
    rows = source.rows * ((1.0 - alpha) / max(1, source.rows.shape[0])) ** 0.5
    if alpha > 0.0 and target.rows is not None:
        rows = xp.concat([rows, target.rows * (alpha / max(1, target.rows.shape[0])) ** 0.5])
    return xp.matrix_transpose(rows)


def _split_matrix(second: Array) -> Array:
    """The matrix (2k, 2k) of (u, v) where that of u - v is `second` (k, k)."""
    xp = namespace(second)
    upper = xp.concat([second, -second], axis=1)
    return xp.concat([upper, -upper])
