"""LSIF: the ratio with the least mean squared error over the source."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from .._arrays import Array, eigh, eps, namespace, tiny, weighted_mean, widest_here
from .._validation import check_number
from ..projections import nonnegative
from .base import Objective, SumProblem
from .moments import Moments
from .quadratic import Dense, Quadratic, Root
from .quadratic_problem import QuadraticProblem

__all__ = ["LeastSquares", "SquaredDistance"]


@dataclass(frozen=True)
class SquaredDistance(Objective):
    """J(a) = a'Ha/2 - h'a + regularization (l1_ratio |a|_1 + (1 - l1_ratio) |a|^2 / 2), H = mean phi phi' over the
    source, h = mean phi over the target; J estimates (1/2) int (ratio_a - ratio)^2 p_source up to a constant.

    alpha in [0, 1): estimate the relative ratio p_target / (alpha p_target + (1 - alpha) p_source) <= 1 / alpha (RuLSIF); H is
    then alpha times the mean over the target plus 1 - alpha times the mean over the source.
    nonnegative: constrain a >= 0 (LSIF); without the constraint and without L1 the minimizer has a closed form (uLSIF). An L1
    penalty without the constraint is solved over a = u - v with u, v >= 0; coef is then (u, v) with 2k entries. Without an L2
    penalty J is unbounded below if a target row is far from all source rows; a fit then stops with a warning.
    Source: Kanamori, Hido & Sugiyama (2009); Yamada et al. (2013) for the relative ratio.
    """

    regularization: float = 0.01
    l1_ratio: float = 0.0
    nonnegative: bool = True
    alpha: float = 0.0

    anchors: ClassVar[Literal["source", "target"]] = "target"
    is_sum: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("regularization", self.regularization, "[0, inf)")
        check_number("l1_ratio", self.l1_ratio, "[0, 1]")
        if not isinstance(self.nonnegative, bool | np.bool_):
            raise ValueError(f"nonnegative must be True or False; got {self.nonnegative!r}.")
        check_number("alpha", self.alpha, "[0, 1)", ", the share of the target in the denominator")

    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> LeastSquares:
        return LeastSquares.of(self, Moments.of(source, source_weight), Moments.of(target, target_weight))

    @property
    def needs_nonnegative_features(self) -> bool:  # type: ignore[override]
        """Whether coefficients are >= 0."""
        return self.nonnegative

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
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Array:
        """mean r(target) - (1 - alpha) mean r(source)^2 / 2 - alpha mean r(target)^2 / 2; the true relative ratio maximizes it."""
        of_source = weighted_mean(source_ratio * source_ratio, source_weight)
        of_target = weighted_mean(target_ratio * target_ratio, target_weight)
        return weighted_mean(target_ratio, target_weight) - 0.5 * ((1.0 - self.alpha) * of_source + self.alpha * of_target)


@dataclass(frozen=True, eq=False)
class LeastSquares(QuadraticProblem, SumProblem):
    """J as a function of the coefficients. It depends on the samples through H and h alone, which are sums over rows.

    For coefficients >= 0 the L1 penalty is linear, so it is part of `linear`.
    """

    objective: SquaredDistance
    source: Moments
    target: Moments

    beside_ratio: ClassVar[tuple[str, ...]] = ("matrix", "linear", "source", "target")

    @classmethod
    def of(cls, objective: SquaredDistance, source: Moments, target: Moments) -> LeastSquares:
        """The problem from the sums of the two samples."""
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

    def project_counted(self, coef: Array) -> Array:
        return self.project(coef)

    def ratio(self, coef: Array, features: Array) -> Array:
        xp, signed = namespace(features), self.signed(coef)
        return nonnegative(xp.astype(features, signed.dtype, copy=False) @ signed)

    def warm_start(self, coef: Array) -> Array:
        # Use the best multiple of the stored coef: its scale may belong to another batch.
        xp = namespace(coef)
        coef = xp.astype(self.project(coef), self.linear.dtype, copy=False)
        gain = xp.sum(coef * self.linear)
        cost = xp.sum(coef * self.matrix.times(coef)) + self.regularization * xp.sum(coef * coef)
        usable = (gain > 0.0) & (cost > tiny(cost))
        return coef * xp.where(usable, gain / xp.where(usable, cost, xp.ones_like(cost)), xp.zeros_like(cost))

    def gap(self, coef: Array, grad: Array) -> Array:
        xp, ridge = namespace(coef, grad), self.regularization
        if not self._is_bounded:
            return super().gap(coef, grad) if ridge == 0.0 else xp.sum(grad * grad) / (2.0 * ridge)
        if ridge == 0.0:
            return self._scaled_gap(coef, grad)
        # Lagrange duality with the multipliers max(grad, 0); the strong convexity of the L2 penalty bounds the rest.
        negative = xp.clip(grad, max=0.0)
        return xp.sum(xp.clip(grad, min=0.0) * coef) + xp.sum(negative * negative) / (2.0 * ridge)

    def _scaled_gap(self, coef: Array, grad: Array) -> Array:
        """The gap without a ridge: the least multiple t >= 1 of coef with H (t coef) >= b is feasible in the dual problem."""
        xp, image = namespace(coef), grad + self.linear
        wanted = self.linear > 0.0
        reached = image > 0.0
        share = xp.where(wanted & reached, self.linear / xp.where(reached, image, xp.ones_like(image)), xp.ones_like(image))
        stretch = xp.clip(xp.max(xp.where(wanted & ~reached, xp.full_like(share, float("inf")), share)), min=1.0)
        twice = xp.sum(coef * grad) - xp.sum(coef * self.linear) + stretch * stretch * xp.sum(coef * image)
        return xp.where(xp.isfinite(stretch), xp.clip(0.5 * twice, min=0.0), stretch)

    @property
    def quadratic(self) -> Quadratic | None:  # type: ignore[override]
        """None if the coefficients are unconstrained."""
        return Quadratic(self.matrix, self.linear, self.regularization) if self._is_bounded else None

    @property
    def has_minimizer(self) -> bool:  # type: ignore[override]
        return not self._is_bounded

    def minimizer(self) -> Array:
        """(H + regularization I)^-1 h (k,), the uLSIF solution, from the eigendecomposition of H."""
        second = self.matrix.dense()
        xp = namespace(second)
        eigenvalues, vectors = eigh(second)
        shifted = xp.clip(eigenvalues, min=0.0) + self.regularization
        # At regularization 0, directions without source mass get coefficient 0: the minimum-norm solution.
        usable = shifted > xp.max(shifted) * (second.shape[0] * eps(second))
        inverse = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
        coef = vectors @ (inverse * (xp.matrix_transpose(vectors) @ widest_here(self.linear)))
        return xp.astype(coef, self.linear.dtype, copy=False)

    def signed(self, coef: Array) -> Array:
        """The coefficients (k,) of the features from `coef` (k,), or (2k,) if it is split."""
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

    def source_mean(self, coef: Array) -> Array:
        signed = widest_here(self.signed(coef))
        return namespace(signed).sum(signed * self.source.mean)

    def mixture_mean(self, coef: Array) -> Array:
        """Mean () of the (relative) ratio over the mixture in its denominator; 1 for the true ratio."""
        signed, alpha = widest_here(self.signed(coef)), self.objective.alpha
        return namespace(signed).sum(signed * ((1.0 - alpha) * self.source.mean + alpha * self.target.mean))

    def held_out_score(self, coef: Array, held_out: Self) -> Array:
        # The sums over rows give the score of the linear model, before clipping at 0.
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
    """(1 - alpha) times the mean outer product over the source plus alpha times that over the target, (k, k)."""
    return source.second if alpha == 0.0 else (1.0 - alpha) * source.second + alpha * target.second


def _root(source: Moments, target: Moments, alpha: float) -> Array | None:
    """R (k, r) with RR' = `_blend`, if the samples have few rows; None otherwise."""
    if source.rows is None or (alpha > 0.0 and target.rows is None):
        return None
    xp = namespace(source.rows)
    rows = source.rows * ((1.0 - alpha) / max(1, source.rows.shape[0])) ** 0.5
    if alpha > 0.0 and target.rows is not None:
        rows = xp.concat([rows, target.rows * (alpha / max(1, target.rows.shape[0])) ** 0.5])
    return xp.matrix_transpose(rows)


def _split_matrix(second: Array) -> Array:
    """The matrix (2k, 2k) of the quadratic in (u, v), if that in u - v has the matrix `second` (k, k)."""
    xp = namespace(second)
    upper = xp.concat([second, -second], axis=1)
    return xp.concat([upper, -upper])
