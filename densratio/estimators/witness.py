"""Kernel mean matching at any row: the formula that its optimality conditions give for the weights, taken off the sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .._arrays import Array, namespace, put, take_rows, to_host
from ..features import Features
from ..objectives.row_blocks import row_slices

__all__ = ["Witness"]

_BLOCK = 2**22  # entries of a block of kernel values
_LEVEL_ROWS = 1000  # rows from which the level is read


@dataclass(frozen=True)
class Witness:
    """r(x) = clip(slope f(x) + level, 0, upper) with f(x) = mean_j t_j k(x, v_j) - mean_i s_i w_i k(x, x_i).

    f is the witness function of the maximum mean discrepancy: positive where the weighted source still lacks mass. At a
    source row the optimality conditions of the regularised program are this formula, with slope n / regularization and the
    multiplier of the mean for a level; so it gives a source row its own weight, and rows near it weights near that.
    """

    terms: tuple[tuple[Features, Array], ...]
    """f(x) is the sum of features(x) @ vector over these pairs."""
    slope: float
    upper: float
    level: float = 0.0

    def at_level_of(self, rows: Array, coef: Array, counts: Array | None) -> Witness:
        """The formula with the level at which rows (n, d) get their weights `coef` (n,), read from those between the bounds.

        counts (n,): how often each row counts in the mean of what they say.
        """
        weights = to_host(coef)
        inside = np.flatnonzero((weights > 1e-6) & (weights < self.upper * (1.0 - 1e-6)))
        # Where every weight is at a bound, the level is at most what the rows at 0 allow, or at least what the others ask.
        at_zero = np.flatnonzero(weights <= 1e-6)
        chosen = inside if len(inside) else at_zero if len(at_zero) else np.arange(len(weights))
        if len(inside) > _LEVEL_ROWS:
            chosen = np.sort(np.random.default_rng(0).permutation(inside)[:_LEVEL_ROWS])
        off = weights[chosen] - self.slope * to_host(self.difference(take_rows(rows, chosen)))
        share = None if counts is None else to_host(counts)[chosen]
        if len(inside):
            return replace(self, level=float(np.average(off, weights=share)))
        return replace(self, level=float(np.min(off) if len(at_zero) else np.max(off)))

    def misses(self, rows: Array, coef: Array) -> float:
        """Root mean square difference from the weights `coef` (n,) of some of the rows (n, d): slope magnifies a solver's rest."""
        some = np.random.default_rng(1).permutation(rows.shape[0])[:_LEVEL_ROWS]
        return float(np.sqrt(np.mean((to_host(self(take_rows(rows, some))) - to_host(coef)[some]) ** 2)))

    def difference(self, rows: Array) -> Array:
        """f (n,) at rows (n, d)."""
        width = max(features.n_columns for features, _ in self.terms)
        parts = []
        for part in row_slices(rows.shape[0], width, _BLOCK):
            parts.append(sum(features(rows[part, :]) @ vector for features, vector in self.terms))
        return namespace(parts[0]).concat(parts)

    def __call__(self, rows: Array) -> Array:
        """The ratio (n,) at rows (n, d)."""
        difference = self.difference(rows)
        return namespace(difference).clip(self.slope * difference + self.level, min=0.0, max=self.upper)

    def to(self, like: Array) -> Witness:
        """The formula in the library, dtype and device of the array `like`."""
        return replace(self, terms=tuple((features.to(like), put(to_host(vector), like)) for features, vector in self.terms))
