"""KLIEP: the ratio that maximizes the likelihood of the target, that is, minimizes the Kullback-Leibler divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import ClassVar, Literal, Self

import numpy as np

from .._arrays import Array, namespace, put, take_rows, tiny, to_host, weighted_mean, widest_here
from .base import Objective, SumProblem
from .likelihood import Likelihood, Mixture, MixtureSet

__all__ = ["KullbackLeibler", "MaximumLikelihood"]

_FLOOR = 1e-4  # least share of the even coefficients that a warm start gives each center, so that no center stays at 0
_KEPT_TARGETS = 20_000  # largest number of target rows in a compact problem
_FEW = 4096  # number of rows up to which sums in the dtype of the features are accurate enough


@dataclass(frozen=True)
class KullbackLeibler(Objective):
    """F(a) = -mean_j log (A a)_j subject to a >= 0, b'a = 1, with A = target features >= 0 and b = mean source feature.

    The constraint sets the mean of the ratio over the source rows to exactly 1. A center far from all source rows (b_l = 0
    up to rounding) would get an infinite coefficient; its coefficient is fixed at 0.
    Source: Sugiyama et al. (2008), with the exact projection.
    """

    anchors: ClassVar[Literal["source", "target"]] = "target"
    is_sum: ClassVar[bool] = True
    needs_nonnegative_features: ClassVar[bool] = True  # type: ignore[misc]

    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> MaximumLikelihood:
        xp = namespace(source)
        if source_weight is None and source.shape[0] <= _FEW:
            count, total = xp.sum(xp.ones_like(source[:, 0])), xp.sum(source, axis=0)
        else:
            wide = widest_here(source)
            weight = xp.ones_like(wide[:, 0]) if source_weight is None else widest_here(source_weight)
            count, total = xp.sum(weight), weight @ wide
        return MaximumLikelihood(count, total, target, target_weight, target.shape[0])

    def score(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Array:
        """mean log r(target) - mean r(source) + 1, the variational lower bound of the divergence."""
        # The likelihood alone would reward a ratio that is large everywhere.
        xp = namespace(source_ratio, target_ratio)
        likelihood = weighted_mean(xp.log(xp.clip(target_ratio, min=tiny(target_ratio))), target_weight)
        return likelihood - weighted_mean(source_ratio, source_weight) + 1.0


@dataclass(frozen=True, eq=False)
class MaximumLikelihood(SumProblem):
    """The negative mean log-likelihood of the target as a function of the coefficients.

    It holds sums of the source features, and the target features row by row: the likelihood is not a function of their sums.
    """

    source_count: Array
    """() sum of the source weights"""
    source_total: Array
    """(k,) sum of the weighted source features"""
    target: Array
    """(m, k) target features"""
    target_weight: Array | None
    """(m,) how often each row counts; None: once"""
    n_seen: int
    """Number of target rows added so far; `thinned` may have kept fewer"""

    beside_ratio: ClassVar[tuple[str, ...]] = ("source_total", "target", "target_weight")

    @cached_property
    def feasible(self) -> MixtureSet:
        """The feasible set of the coefficients."""
        return MixtureSet.of(namespace(self.target).astype(self.mean_source, self.target.dtype, copy=False))

    @cached_property
    def _mixture(self) -> Mixture:
        return Mixture.of(self.target, self.target_weight, self.feasible)

    @property
    def mean_source(self) -> Array:
        """(k,) mean source feature"""
        return self.source_total / self.source_count

    def init(self) -> Array:
        return self.feasible.even()

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        xp = namespace(coef, self.target)
        ratio, weight = self.target @ coef + tiny(coef), self.target_weight
        share = 1.0 / ratio.shape[0] if weight is None else weight / xp.sum(weight)
        return -weighted_mean(xp.log(ratio), weight), -(xp.matrix_transpose(self.target) @ (share / ratio))

    def curvature(self) -> Array:
        even = self.init()
        xp, grad = namespace(even), self.value_and_grad(even)[1]
        # At even coefficients the row sums of the Hessian, which bound its eigenvalues, are multiples of the gradient.
        return xp.max(xp.where(self.feasible.alive, -grad, xp.zeros_like(grad))) / xp.max(even)

    def project(self, coef: Array) -> Array:
        return self.feasible.project(coef)

    def ratio(self, coef: Array, features: Array) -> Array:
        return features @ coef

    def warm_start(self, coef: Array) -> Array:
        # The likelihood depends on the proportions of coef, so a stored coef is rescaled rather than projected.
        xp, feasible = namespace(coef), self.feasible
        even = feasible.even()
        kept = even * xp.clip(coef, min=0.0)
        mass = xp.sum(kept * feasible.weight)
        kept = xp.where(mass > 0.0, kept / xp.where(mass > 0.0, mass, xp.ones_like(mass)), even)
        return feasible.scaled(xp.maximum(kept, _FLOOR * even))

    def gap(self, coef: Array, grad: Array) -> Array:
        return self.feasible.gap(coef, grad)

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        """The likelihood, with sums over the rows of `target`."""
        return Likelihood(self.feasible, lambda shares: self._mixture.slope(shares), lambda shares: self._mixture.second(shares))

    def wide(self) -> Self:
        wide = super().wide()
        # Keep the feasible set of the original dtype: a change of rounding must not turn a dead center into a live one.
        vars(wide)["feasible"] = self.feasible.wide()
        return wide

    # ------------------------------------------------------------ sums over rows

    def plus(self, other: Self) -> Self:
        return self._with(other, *_joined([self, other]))

    @classmethod
    def without_each(cls, parts: Sequence[Self]) -> list[Self]:
        # In a ring of the parts, the rows of all but one are consecutive: slices of it need no copies.
        target, weight = _joined([*parts, *parts])
        ends = np.cumsum([part.target.shape[0] for part in parts]).tolist()
        kept = []
        for k, part in enumerate(parts):
            rows = slice(ends[k], ends[k] + ends[-1] - part.target.shape[0])
            others = [*parts[:k], *parts[k + 1 :]]
            totals = reduce(lambda a, b: a._with(b, part.target[:0, :], None), others)
            kept.append(replace(totals, target=target[rows, :], target_weight=None if weight is None else weight[rows]))
        return kept

    def _with(self, other: Self, target: Array, target_weight: Array | None) -> Self:
        """These target rows, with the sums over the source rows of both problems."""
        return replace(
            self,
            source_count=widest_here(self.source_count) + other.source_count,
            source_total=widest_here(self.source_total) + other.source_total,
            target=target,
            target_weight=target_weight,
            n_seen=self.n_seen + other.n_seen,
        )

    def compact(self) -> MaximumLikelihood:
        """The problem with at most 20,000 of the target rows."""
        return self.thinned(_KEPT_TARGETS)

    def thinned(self, most: int) -> MaximumLikelihood:
        """The problem with at most `most` target rows, sampled at random in proportion to the rows' counts."""
        sums = self.source_count, self.source_total
        if self.target.shape[0] <= most:
            return MaximumLikelihood(*sums, self.target, self.target_weight, self.n_seen)
        weight = to_host(self._row_weights())
        # Systematic sampling: all target rows seen so far are equally likely to be kept, and the kept rows count equally.
        edges = np.cumsum(weight) / weight.sum() * most
        start = np.random.default_rng(self.n_seen).uniform()
        hits = np.diff(np.floor(edges - start), prepend=np.floor(-start)).astype(np.int64)
        keep = np.flatnonzero(hits)
        kept_weight = put(hits[keep] * (weight.sum() / most), self.target)
        return MaximumLikelihood(*sums, take_rows(self.target, keep), kept_weight, self.n_seen)

    def under(self, objective: Objective) -> Self:
        return self

    def signed(self, coef: Array) -> Array:
        return coef

    def source_mean(self, coef: Array) -> Array:
        return namespace(coef).sum(widest_here(coef) * self.mean_source)

    def held_out_score(self, coef: Array, held_out: Self) -> Array:
        xp = namespace(coef)
        ratio, weight = xp.clip(held_out.target @ coef, min=tiny(coef)), held_out.target_weight
        mean = self.source_mean(coef)
        log_mean = xp.log(xp.where(mean > 0.0, mean, xp.ones_like(mean)))
        source = held_out.source_mean(coef) / xp.exp(log_mean)
        score = weighted_mean(xp.log(ratio), weight) - log_mean - source + 1.0
        return xp.where(mean > 0.0, score, -float("inf"))

    def _row_weights(self) -> Array:
        xp = namespace(self.target)
        return xp.ones_like(self.target[:, 0]) if self.target_weight is None else self.target_weight


def _joined(parts: Sequence[MaximumLikelihood]) -> tuple[Array, Array | None]:
    """The target rows of all parts, and how often each counts; None if all count once."""
    xp = namespace(parts[0].target)
    counts_once = all(part.target_weight is None for part in parts)
    weight = None if counts_once else xp.concat([part._row_weights() for part in parts])
    return xp.concat([part.target for part in parts]), weight
