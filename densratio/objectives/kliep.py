"""KLIEP: the ratio under which the target's likelihood is largest, that is the Kullback-Leibler divergence least."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from .._arrays import Array, eps, namespace, put, take_rows, tiny, to_host, weighted_mean, widest_here
from ..projections import simplex
from .base import Objective
from .statistics import StatisticObjective, Statistics

__all__ = ["KullbackLeibler", "LikelihoodStatistics", "duality_gap", "project_alive"]

_FLOOR = 1e-4  # share of an even spread that a warm start gives to every centre, so that none is shut out for good


@dataclass(frozen=True, eq=False)
class LikelihoodStatistics(Statistics):
    """Sums of the source's features, and the target's features row by row: their likelihood is no function of sums."""

    source_count: Array
    """() sum of the source weights."""
    source_total: Array
    """(k,) sum of the weighted source features."""
    target: Array
    """(m, k) target features."""
    target_weight: Array | None
    """(m,) how often each counts; None: once."""
    n_seen: int
    """Target rows that went in, of which `thinned` may have kept fewer."""

    def plus(self, other: Statistics) -> LikelihoodStatistics:
        """The statistics of both batches together."""
        assert isinstance(other, LikelihoodStatistics)
        xp, weight = namespace(self.target), None
        if self.target_weight is not None or other.target_weight is not None:
            weight = xp.concat([part._row_weights() for part in (self, other)])
        count, total = self.source_count + other.source_count, self.source_total + other.source_total
        n_seen = self.n_seen + other.n_seen
        return LikelihoodStatistics(count, total, xp.concat([self.target, other.target]), weight, n_seen)

    def thinned(self, most: int) -> LikelihoodStatistics:
        """At most `most` target rows: a random sample in which a row that stands for many is as much likelier to stay."""
        if self.target.shape[0] <= most:
            return self
        weight = to_host(self._row_weights())
        # Systematic sampling: every target row seen so far has the same chance, and the rows kept count alike.
        edges = np.cumsum(weight) / weight.sum() * most
        start = np.random.default_rng(self.n_seen).uniform()
        hits = np.diff(np.floor(edges - start), prepend=np.floor(-start)).astype(np.int64)
        keep = np.flatnonzero(hits)
        kept_weight = put(hits[keep] * (weight.sum() / most), self.target)
        target = take_rows(self.target, keep)
        return LikelihoodStatistics(self.source_count, self.source_total, target, kept_weight, self.n_seen)

    def _row_weights(self) -> Array:
        xp = namespace(self.target)
        return xp.ones_like(self.target[:, 0]) if self.target_weight is None else self.target_weight

    @property
    def mean_source(self) -> Array:
        """(k,) mean source feature."""
        return self.source_total / self.source_count


@dataclass(frozen=True)
class KullbackLeibler(StatisticObjective):
    """F(a) = -mean_j log (A a)_j subject to a >= 0, b'a = 1, with A = target features >= 0 and b = mean source feature.

    Then the mean of the ratio over the source rows is exactly 1. A centre that no source row is near (b_l = 0 up to
    rounding) would have an infinite coefficient; it is held at 0. target_weight (m,): how often each target row counts.
    Source: Sugiyama et al. (2008), with the exact projection.
    """

    target_weight: Array | None = field(default=None, compare=False, repr=False)

    anchors: ClassVar[Literal["source", "target"]] = "target"
    needs_nonnegative_features: ClassVar[bool] = True

    def init(self, source: Array, target: Array) -> Array:
        weight, alive = self.constraint(source)
        even = namespace(source, target).astype(alive, source.dtype)
        return even / namespace(source).sum(even * weight)

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        xp = namespace(coef, target)
        ratio = target @ coef + tiny(coef)
        return -weighted_mean(xp.log(ratio), self.target_weight), -(xp.matrix_transpose(target) @ self.shares(1.0 / ratio))

    def curvature(self, source: Array, target: Array) -> Array:
        xp = namespace(source, target)
        ratio = target @ self.init(source, target)
        # A target row that only dead centres are near adds a constant, and no curvature.
        reached = ratio > eps(ratio) * xp.max(ratio)
        inverse = xp.where(reached, 1.0 / xp.where(reached, ratio, xp.ones_like(ratio)), xp.zeros_like(ratio))
        scaled = target * inverse[:, None]
        # Row sums bound the largest eigenvalue of the non-negative matrix scaled' scaled / m.
        return xp.max(xp.matrix_transpose(scaled) @ self.shares(xp.sum(scaled, axis=1)))

    def shares(self, per_row: Array) -> Array:
        """per_row (m,) times the share of the target that each row is; 1 / m where all count once."""
        if self.target_weight is None:
            return per_row / per_row.shape[0]
        return per_row * (self.target_weight / namespace(per_row).sum(self.target_weight))

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

    def statistics(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> LikelihoodStatistics:
        xp, wide = namespace(source), widest_here(source)
        count = xp.ones_like(wide[:, 0]) if source_weight is None else widest_here(source_weight)
        return LikelihoodStatistics(xp.sum(count), count @ wide, target, target_weight, target.shape[0])

    def problem(self, statistics: Statistics, like: Array) -> tuple[Objective, Array, Array]:
        assert isinstance(statistics, LikelihoodStatistics)
        mean = namespace(like).astype(statistics.mean_source, like.dtype)
        return replace(self, target_weight=statistics.target_weight), mean[None, :], statistics.target

    def held_out_score(self, coef: Array, kept: Statistics, held_out: Statistics) -> Array:
        assert isinstance(held_out, LikelihoodStatistics)
        xp = namespace(coef)
        ratio, weight = xp.clip(held_out.target @ coef, min=tiny(coef)), held_out.target_weight
        mean = xp.sum(widest_here(coef) * kept.mean_source)
        log_mean = xp.log(xp.where(mean > 0.0, mean, xp.ones_like(mean)))
        source = xp.sum(widest_here(coef) * held_out.mean_source) / xp.exp(log_mean)
        score = weighted_mean(xp.log(ratio), weight) - log_mean - source + 1.0
        return xp.where(mean > 0.0, score, -float("inf"))

    def score(
        self,
        source_ratio: Array,
        target_ratio: Array,
        source_weight: Array | None = None,
        target_weight: Array | None = None,
    ) -> Array:
        """mean log r(target) - mean r(source) + 1, the variational bound of the divergence."""
        # The likelihood alone would reward a ratio that is large everywhere.
        xp = namespace(source_ratio, target_ratio)
        likelihood = weighted_mean(xp.log(xp.clip(target_ratio, min=tiny(target_ratio))), target_weight)
        return likelihood - weighted_mean(source_ratio, source_weight) + 1.0

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
