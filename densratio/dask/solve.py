"""Fits whose sums over rows are sums over partitions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, namespace, to_host, widest_here
from .._blocks import row_slices
from ..estimators import DensityRatio
from ..estimators.elsewhere import Sampled, finish, portable, raw_ratio, samples_of_rows
from ..estimators.samples import Samples
from ..estimators.solve import Assembly, problem_of, solve
from ..objectives import Problem
from ..objectives.kliep import MaximumLikelihood
from ..objectives.likelihood import Likelihood, LikelihoodSums, Mixture, MixtureSet
from .partitions import Block, Partitions

__all__ = ["Passes", "fit_by_sums"]

_GATHERED = 2**22  # entries of target features that come together for the solve


class Context(NamedTuple):
    """What every task of a pass is given: the estimator, its objective and fitted features, and the argument of this pass."""

    ratio: DensityRatio
    assembly: Assembly
    argument: Any


class Passes(NamedTuple):
    """Sums over the partitions of a table: source and target rows with these labels, seen through fitted features."""

    partitions: Partitions
    ratio: DensityRatio
    assembly: Assembly
    labels: tuple[Any, Any]

    def sums(self, summarize: Callable[[Samples, Context], Any], plus: Callable[[Any, Any], Any], argument: Any = None) -> Any:
        """The sum by `plus` of summarize(rows of a partition, context) over all partitions: one pass."""
        context = Context(portable(self.ratio), self.assembly, argument)
        return self.partitions.reduce(_of_block, plus, (summarize, self.labels, context))


@dataclass(frozen=True, eq=False)
class PartitionedLikelihood(MaximumLikelihood):
    """KLIEP's problem on all target rows, of which `target` has gathered some: every value is a pass over the partitions."""

    one_pass: Callable[[np.ndarray, MixtureSet], LikelihoodSums]

    @property
    def likelihood(self) -> Likelihood:
        feasible = self.feasible.wide()
        return Likelihood(feasible, lambda shares: self.one_pass(shares, feasible))

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        shares = widest_here(coef) * self.likelihood.feasible.weight
        return self.likelihood.value_and_grad(shares, self.likelihood.sums(shares))

    def compact(self) -> MaximumLikelihood:  # type: ignore[override]
        """The problem on the rows gathered, which a stream goes on from."""
        return MaximumLikelihood(self.source_count, self.source_total, self.target, self.target_weight, self.n_seen).compact()


def fit_by_sums(ratio: DensityRatio, passes: Passes, sampled: Sampled) -> float:
    """Fit `ratio` on all rows of the partitions, of which `sampled` has some, and give the mean of the raw ratio over the source.

    All that a fit stores is then stored but for the mean and the weights. Warns where the solver stops early.
    """
    problem = passes.sums(_problem, _plus)
    solution = solve(ratio, _whole(passes, problem))
    finish(ratio, sampled, solution)
    return _mean_ratio(passes, problem, solution.coef)


def _whole(passes: Passes, problem: Problem) -> Problem:
    """The problem on all rows, of which `problem` may have gathered some alone."""
    if not isinstance(problem, MaximumLikelihood) or problem.n_seen == problem.target.shape[0]:
        return problem
    fields = (problem.source_count, problem.source_total, problem.target, problem.target_weight, problem.n_seen)
    return PartitionedLikelihood(*fields, lambda *at: passes.sums(_likelihood_sums, LikelihoodSums.plus, at))


def _mean_ratio(passes: Passes, problem: Problem, coef: Array) -> float:
    """Mean raw ratio over the source rows: from their sums where the ratio is linear, by a pass where it is clipped at 0."""
    signed = problem.signed(coef)
    if passes.assembly.features.is_nonnegative and bool(namespace(signed).all(signed >= 0.0)):
        return float(problem.source_mean(coef))
    total, count = passes.sums(_raw_sums, operator.add)
    return float(total / count)


# ---------------------------------------------------------------- on a worker


def _of_block(block: Block, shared: Any) -> Any:
    summarize, labels, context = shared
    is_source, is_target = (block.labels == label for label in labels)
    return summarize(samples_of_rows(context.ratio, block.rows, is_source, is_target, block.weight), context)


def _problem(samples: Samples, context: Context) -> Problem:
    return _gathered(problem_of(context.assembly, samples))


def _plus(mine: Problem, theirs: Problem) -> Problem:
    return _gathered(mine.plus(theirs))


def _gathered(problem: Problem) -> Problem:
    """The problem with the target rows that one machine is to hold."""
    if not isinstance(problem, MaximumLikelihood):
        return problem.compact()
    return problem.thinned(max(1, _GATHERED // problem.target.shape[1]))


def _likelihood_sums(samples: Samples, context: Context) -> LikelihoodSums:
    """The sums of one partition at the shares, and over the feasible set, that are the pass's argument."""
    shares, feasible = context.argument
    features = context.assembly.features
    blocks = row_slices(samples.target.shape[0], features.n_columns) or [slice(0, 0)]
    parts = []
    for rows in blocks:
        weight = None if samples.target_weight is None else samples.target_weight[rows]
        parts.append(Mixture.of(features(samples.target[rows, :]), weight, feasible).sums(shares))
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total


def _raw_sums(samples: Samples, context: Context) -> np.ndarray:
    """Sums over the source rows of one partition of the weighted raw ratio, and of the weights."""
    n = samples.source.shape[0]
    count = np.ones(n) if samples.source_weight is None else to_host(samples.source_weight).astype(np.float64)
    raw = to_host(raw_ratio(context.ratio, samples.source)).astype(np.float64) if n else np.empty(0)
    return np.array([raw @ count, count.sum()])
