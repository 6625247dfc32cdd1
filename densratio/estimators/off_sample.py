"""The ratio at any row from its features, as a fitted estimator stores it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from .._arrays import Array, concat_rows, put, to_host
from .._blocks import over_rows
from .._columns import distinct
from ..features import Features
from ..objectives import Problem

__all__ = ["FromFeatures", "KnownRows", "Predictor"]


class Predictor(Protocol):
    """Computes the ratio at any row, up to a constant factor."""

    def __call__(self, rows: Array) -> Array:
        """The ratio (n,) at rows (n, d)."""

    def to(self, like: Array) -> Predictor:
        """The same in the library, dtype and device of the array `like`."""


@dataclass(frozen=True, eq=False)
class FromFeatures:
    """problem.ratio(coef, features(rows)) in blocks: a kernel expansion, or the kernel average of weights."""

    problem: Problem
    """Reduced to what `ratio` needs"""
    features: Features
    coef: Array

    def __call__(self, rows: Array) -> Array:
        return over_rows(
            lambda part: self.problem.ratio(self.coef, self.features(part)), rows, max(self.features.n_columns, rows.shape[1])
        )

    def to(self, like: Array) -> FromFeatures:
        """The same in the library, dtype and device of the array `like`."""
        return replace(self, problem=self.problem.to(like), features=self.features.to(like), coef=put(to_host(self.coef), like))


@dataclass(frozen=True, eq=False)
class KnownRows:
    """The fitted weights at rows equal to a row of the fit, and another predictor at all others."""

    others: Predictor
    rows: Any
    """(k, d), distinct"""
    values: np.ndarray

    def __call__(self, rows: Array) -> Array:
        ratio, here = self.others(rows), to_host(rows)
        if here.dtype != self.rows.dtype or type(here) is not type(self.rows):
            return ratio
        first, kind = distinct(concat_rows(self.rows, here))
        known = len(self.values)
        at = first[kind[known:]]
        return put(np.where(at < known, self.values[np.minimum(at, known - 1)], to_host(ratio)), ratio)

    def to(self, like: Array) -> KnownRows:
        """The same in the library, dtype and device of the array `like`; rows are compared on the host."""
        return replace(self, others=self.others.to(like))
