"""The ratio at any row from its features, as a fitted estimator stores it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from .._arrays import Array, put, to_host
from .._blocks import over_rows
from ..features import Features
from ..objectives import Problem

__all__ = ["AtRows", "FromFeatures", "Predictor"]


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
class AtRows:
    """The weight of a row that equals a row of the fit, and the ratio of another predictor at any other row."""

    known: dict[bytes, float]
    """The weights by the bytes of the row"""
    elsewhere: Predictor

    @classmethod
    def of(cls, rows: Array, weights: np.ndarray, elsewhere: Predictor) -> AtRows:
        """rows (n, d), dense, with weights (n,); equal rows get the mean of theirs."""
        total: dict[bytes, list[float]] = {}
        for key, weight in zip(_keys(rows), weights.tolist(), strict=True):
            total.setdefault(key, []).append(weight)
        return cls({key: sum(values) / len(values) for key, values in total.items()}, elsewhere)

    def __call__(self, rows: Array) -> Array:
        ratio = np.array(to_host(self.elsewhere(rows)))
        found = [self.known.get(key) for key in _keys(rows)]
        at = [i for i, weight in enumerate(found) if weight is not None]
        ratio[at] = [found[i] for i in at]
        return put(ratio, rows)

    def to(self, like: Array) -> AtRows:
        """The same in the library, dtype and device of the array `like`."""
        return replace(self, elsewhere=self.elsewhere.to(like))


def _keys(rows: Array) -> list[bytes]:
    # In float64, which holds float32 exactly; adding 0 makes -0 equal to 0.
    return [row.tobytes() for row in to_host(rows).astype(np.float64) + 0.0]
