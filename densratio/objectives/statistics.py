"""Divergences that ask of the samples no more than statistics, so that tables are read in blocks, streams and partitions."""

from __future__ import annotations

from abc import ABC, abstractmethod

from .._arrays import Array
from .base import Objective

__all__ = ["StatisticObjective", "Statistics"]


class Statistics(ABC):
    """All that an objective asks of samples it need not hold: sums over rows, exact under any split into batches."""

    @abstractmethod
    def plus(self, other: Statistics) -> Statistics:
        """The statistics of both batches together."""

    @property
    @abstractmethod
    def mean_source(self) -> Array:
        """(k,) mean source feature; its product with a coef is the mean ratio over the source."""


class StatisticObjective(Objective):
    """An `Objective` whose samples `statistics` and `problem` stand in for. Its coef belongs to centres of the target."""

    @abstractmethod
    def statistics(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Statistics:
        """What `problem` needs of a batch whose rows count source_weight (n_s,) and target_weight (n_t,) times, 1 where None."""

    @abstractmethod
    def problem(self, statistics: Statistics, like: Array) -> tuple[Objective, Array, Array]:
        """An objective and samples, in the dtype of `like`, equal to this one on all rows that went into `statistics`."""

    @abstractmethod
    def held_out_score(self, coef: Array, kept: Statistics, held_out: Statistics) -> Array:
        """`score` () on held-out rows of the ratio at coef (p,), of mean 1 over the source rows kept; -inf where that vanishes."""

    def signed(self, coef: Array) -> Array:
        """The coefficients (k,) of the features in the ratio: `coef` itself as a rule."""
        return coef
