"""Fits whose sums over rows are sums over partitions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._arrays import put, to_host, widest_here
from ..estimators import DensityRatio
from ..estimators.contract import Samples
from ..features import Features
from ..objectives import StatisticObjective, Statistics
from ..objectives.kliep import LikelihoodStatistics
from .blockwise import portable
from .likelihood import Likelihood, LikelihoodSums, maximise
from .partitions import Block, Partitions

__all__ = ["Context", "Passes", "fit_by_sums"]

_GATHERED = 2**22  # entries of target features that come together for the solve
_BLOCK = 2**19  # entries of a block of features that the sums of the likelihood are taken of: it stays in the cache


class Context(NamedTuple):
    """What every task of a pass is given: the estimator, its objective and fitted features, and the argument of this pass."""

    ratio: DensityRatio
    objective: StatisticObjective
    features: Features
    argument: Any


class Passes(NamedTuple):
    """Sums over the partitions of a table: source and target rows with these labels, seen through fitted features."""

    partitions: Partitions
    ratio: DensityRatio
    objective: StatisticObjective
    features: Features
    labels: tuple[Any, Any]

    @classmethod
    def over(cls, partitions: Partitions, ratio: DensityRatio, labels: tuple[Any, Any], samples: Samples) -> Passes:
        """With the features that `ratio` fits on `samples`."""
        objective = ratio._make_objective()
        assert isinstance(objective, StatisticObjective)
        features = ratio._fitted_features(objective, samples, ratio._chosen("gamma"))
        return cls(partitions, ratio, objective, features, labels)

    def sums(self, summarise: Callable[[Samples, Context], Any], plus: Callable[[Any, Any], Any], argument: Any = None) -> Any:
        """The sum by `plus` of summarise(rows of a partition, context) over all partitions: one pass."""
        context = Context(portable(self.ratio), self.objective, self.features, argument)
        return self.partitions.reduce(_of_block, plus, (summarise, self.labels, context))


def fit_by_sums(ratio: DensityRatio, passes: Passes, samples: Samples) -> float:
    """Fit `ratio` on all rows of the partitions, of which `samples` are some, and give the mean of the raw ratio over the source.

    All that a fit stores is then stored but for the mean and the weights. Warns where the solver stops early.
    """
    statistics = passes.sums(_statistics, _plus)
    ratio._solve_statistics(passes.objective, passes.features, statistics, samples)
    if isinstance(statistics, LikelihoodStatistics) and statistics.n_seen > statistics.target.shape[0]:
        _refine(ratio, passes, statistics)
    ratio._warn_unless_converged()
    return _mean_ratio(ratio, passes, statistics)


def _refine(ratio: DensityRatio, passes: Passes, statistics: LikelihoodStatistics) -> None:
    """The optimum on all target rows in place of that of the rows gathered, which a stream goes on from."""
    equal, *compact = passes.objective.problem(statistics, statistics.target)
    found = maximise(
        lambda likelihood: passes.sums(_likelihood_sums, LikelihoodSums.plus, likelihood),
        to_host(widest_here(statistics.mean_source)),
        scale=max(1.0, 1.0 / float(equal.curvature(*compact))),
        tol=ratio.tol,
        max_iter=ratio.max_iter,
    )
    ratio._coef = ratio.coef_ = put(found.coef, ratio._coef)
    ratio.objective_value_, ratio.gap_, ratio.residual_ = found.value, found.gap, found.residual
    ratio.n_iter_, ratio.converged_ = found.n_iter, found.converged


def _mean_ratio(ratio: DensityRatio, passes: Passes, statistics: Statistics) -> float:
    """Mean raw ratio over the source rows: from their sums where the ratio is linear, by a pass where it is clipped at 0."""
    signed = widest_here(passes.objective.signed(ratio._coef))
    if passes.features.is_nonnegative and bool((signed >= 0.0).all()):
        return float((signed * statistics.mean_source).sum())
    total, count = passes.sums(_raw_sums, operator.add)
    return float(total / count)


# ---------------------------------------------------------------- on a worker


def _of_block(block: Block, shared: Any) -> Any:
    summarise, labels, context = shared
    return summarise(_samples_of(context.ratio, block, labels), context)


def _samples_of(ratio: DensityRatio, block: Block, labels: tuple[Any, Any]) -> Samples:
    """The rows of one partition that count, where the method computes; either domain may be empty."""
    counts = np.ones(len(block.rows), dtype=bool) if block.weight is None else block.weight > 0.0
    places = [np.flatnonzero((block.labels == label) & counts) for label in labels]
    source, target = (ratio._placed(block.rows[at]) for at in places)
    weights = [None if block.weight is None else put(block.weight[at], source) for at in places]
    return Samples(source, target, weights[0], weights[1], block.labels == labels[0], places[0], places[1])


def _statistics(samples: Samples, context: Context) -> Statistics:
    return _gathered(context.ratio._statistics(context.objective, context.features, samples))


def _plus(mine: Statistics, theirs: Statistics) -> Statistics:
    return _gathered(mine.plus(theirs))


def _gathered(statistics: Statistics) -> Statistics:
    """The statistics with the target rows that one machine is to hold."""
    if not isinstance(statistics, LikelihoodStatistics):
        return statistics
    return statistics.thinned(max(1, _GATHERED // statistics.target.shape[1]))


def _likelihood_sums(samples: Samples, context: Context) -> LikelihoodSums:
    likelihood: Likelihood = context.argument
    count = None if samples.target_weight is None else to_host(samples.target_weight).astype(np.float64)
    step = max(1, _BLOCK // context.features.n_columns)
    starts = range(0, max(1, samples.target.shape[0]), step)
    parts = []
    for start in starts:
        rows = to_host(context.features(samples.target[start : start + step, :])).astype(np.float64, copy=False)
        parts.append(likelihood.sums(rows, None if count is None else count[start : start + step]))
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total


def _raw_sums(samples: Samples, context: Context) -> np.ndarray:
    """Sums over the source rows of one partition of the weighted raw ratio, and of the weights."""
    n = samples.source.shape[0]
    count = np.ones(n) if samples.source_weight is None else to_host(samples.source_weight).astype(np.float64)
    raw = to_host(context.ratio._ratio(samples.source)).astype(np.float64) if n else np.empty(0)
    return np.array([raw @ count, count.sum()])
