"""The ratio at any row from its features, as a fitted estimator stores it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse

from .._arrays import Array, concat_rows, host_numbers, is_sparse, put, to_host
from .._blocks import over_rows
from .._scale import distinct
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
    """The values that a fit found at its own rows, which are compared in float64 on the host."""

    rows: Any
    values: np.ndarray

    @classmethod
    def of(cls, rows: Array, values: Array) -> KnownRows:
        """The values (k,) at rows (k, d), dense or CSR."""
        return cls(host_numbers(rows), to_host(values))

    def __call__(self, rows: Array, ratio: Array) -> Array:
        """`ratio` (n,) at rows (n, d), replaced by the known values at known rows."""
        known, asked = self.rows, host_numbers(rows)
        if is_sparse(known) != is_sparse(asked):
            known, asked = (scipy.sparse.csr_array(part) for part in (known, asked))
        first, kind = distinct(concat_rows(known, asked))
        k = len(self.values)
        # The first copy of a row is the known one, if there is one.
        at = first[kind[k:]]
        return put(np.where(at < k, self.values[np.minimum(at, k - 1)], to_host(ratio)), ratio)
