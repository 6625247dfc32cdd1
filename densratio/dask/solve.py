"""Fits from sums over the partitions of a table."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, host_numbers, namespace, widest_here
from .._blocks import row_slices
from ..estimators import DensityRatio
from ..estimators.distributed import Sampled, finish, portable, raw_ratio, samples_of_rows
from ..estimators.samples import Samples
from ..estimators.solve import Assembly, problem_of, solve
from ..objectives import Problem
from ..objectives.kliep import MaximumLikelihood
from ..objectives.likelihood import Likelihood, LikelihoodSums, Mixture, MixtureSet
from .partitions import Block, Partitions

__all__ = ["Passes", "fit_by_sums"]

_GATHERED = 2**22  # largest number of entries of target features gathered for the solve


class Context(NamedTuple):
    """The input of every task of a pass: the estimator, its objective and fitted features, and the argument of the pass."""

    ratio: DensityRatio
    assembly: Assembly
    argument: Any


class Passes(NamedTuple):
    """Passes over the partitions of a table that add up sums over the features of source and target rows."""

    partitions: Partitions
    ratio: DensityRatio
    assembly: Assembly
    labels: tuple[Any, Any]

    def sums(self, summarize: Callable[[Samples, Context], Any], plus: Callable[[Any, Any], Any], argument: Any = None) -> Any:
        """Add up summarize(rows of a partition, context) over all partitions with `plus`, in one pass."""
        context = Context(portable(self.ratio), self.assembly, argument)
        return self.partitions.reduce(_of_block, plus, (summarize, self.labels, context))


@dataclass(frozen=True, eq=False)
class PartitionedLikelihood(MaximumLikelihood):
    """The KLIEP problem on all target rows; `target` holds a sample, and each evaluation is a pass over the partitions."""

    one_pass: Callable[[np.ndarray, MixtureSet], LikelihoodSums]

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        """The likelihood, with sums over the partitions."""
        feasible = self.feasible.wide()
        return Likelihood(feasible, lambda shares: self.one_pass(shares, feasible))

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        shares = widest_here(coef) * self.likelihood.feasible.weight
        return self.likelihood.value_and_grad(shares, self.likelihood.sums(shares))


def fit_by_sums(ratio: DensityRatio, passes: Passes, sampled: Sampled) -> float:
    """Fit `ratio` on all rows of the partitions, and return the mean of the raw ratio over the source; `sampled`: a sample.

    Stores everything that a fit stores, except the mean and the weights. Warns if the solver stops early.
    """
    problem = passes.sums(_problem, lambda mine, theirs: _gathered(mine.plus(theirs)))
    solution = solve(ratio, _whole(passes, problem))
    finish(ratio, sampled, solution)
    return _mean_ratio(passes, problem, solution.coef)


def _whole(passes: Passes, problem: Any) -> Problem:
    """The problem on all rows; `problem` may hold only a sample of the target rows."""
    if not isinstance(problem, MaximumLikelihood) or problem.n_seen == problem.target.shape[0]:
        return problem
    fields = (problem.source_count, problem.source_total, problem.target, problem.target_weight, problem.n_seen)
    return PartitionedLikelihood(*fields, lambda *at: passes.sums(_likelihood_sums, LikelihoodSums.plus, at))


def _mean_ratio(passes: Passes, problem: Any, coef: Array) -> float:
    """Mean raw ratio over the source rows: from sums if the ratio is linear, by a pass if it may be clipped at 0."""
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


def _gathered(problem: Any) -> Any:
    """The problem with at most as many target rows as one machine can hold."""
    if not isinstance(problem, MaximumLikelihood):
        return problem.compact()
    return problem.thinned(max(1, _GATHERED // problem.target.shape[1]))


def _likelihood_sums(samples: Samples, context: Context) -> LikelihoodSums:
    """The sums of one partition; the argument of the pass is the shares and the feasible set."""
    shares, feasible = context.argument
    features, weight = context.assembly.features, samples.target_weight

    def of(rows: slice) -> LikelihoodSums:
        mixture = Mixture.of(features(samples.target[rows, :]), None if weight is None else weight[rows], feasible)
        return mixture.sums(shares)

    blocks = row_slices(samples.target.shape[0], features.n_columns) or [slice(0, 0)]
    return functools.reduce(LikelihoodSums.plus, map(of, blocks))


def _raw_sums(samples: Samples, context: Context) -> np.ndarray:
    """Sums over the source rows of one partition of the weighted raw ratio, and of the weights."""
    n = samples.source.shape[0]
    count = np.ones(n) if samples.source_weight is None else host_numbers(samples.source_weight)
    raw = host_numbers(raw_ratio(context.ratio, samples.source)) if n else np.empty(0)
    return np.array([raw @ count, count.sum()])
