"""Kernel mean matching at unseen rows: the formula of its optimality conditions for the weights, evaluated at any row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..._arrays import Array, full_like_row, namespace, put, take_rows, to_host
from ..._blocks import over_rows
from ...features import Features
from ..explicit_map import mean_mapped
from ..samples import Samples

__all__ = ["MISS", "Witness", "level_of"]

MISS = 0.05
"""Largest RMS error at which the off-sample formula is accepted."""
_AT_BOUND = 1e-6  # distance from a bound within which a weight counts as at the bound
_LEVEL_ROWS = 1000  # largest number of rows from which the level is estimated


@dataclass(frozen=True)
class Witness:
    """r(x) = clip(slope f(x) + level, 0, upper) with f(x) = mean_j t_j k(x, v_j) - mean_i s_i w_i k(x, x_i).

    f is the witness function of the maximum mean discrepancy, positive where the weighted source lacks mass. At source rows
    this formula states the optimality conditions of the regularized problem, with slope n / regularization and the multiplier
    of the mean as the level. So it reproduces the weights of the source rows and is continuous around them.
    """

    terms: tuple[tuple[Features, Array], ...]
    """Pairs (features, vector); f(x) is the sum of features(x) @ vector."""
    slope: float
    upper: float
    level: float = 0.0

    @classmethod
    def of(
        cls,
        features: Features,
        samples: Samples,
        coef: Array,
        regularization: float,
        max_weight: float | None,
        weighted: Array | None,
    ) -> Witness:
        """The formula for source weights `coef` (n,) that are optimal at regularization > 0.

        features: kernel values with the source rows as centers, or an explicit map; weighted (k,): for a map, the weighted mean
        feature of the source.
        """
        n, xp = samples.sizes[0], namespace(coef)
        if weighted is None:
            source_share, target_share = (
                full_like_row(rows, 1.0 / rows.shape[0]) if weight is None else weight / xp.sum(weight)
                for rows, weight in ((samples.source, samples.source_weight), (samples.target, samples.target_weight))
            )
            at_target = replace(features, parameters_=(samples.target,))
            terms: tuple = ((at_target, target_share), (features, -source_share * coef))
        else:
            terms = ((features, mean_mapped(features, samples.target, samples.target_weight)[0, :] - weighted),)
        count = n if samples.source_weight is None else float(xp.sum(samples.source_weight))
        witness = cls(terms, count / float(regularization), float(n) if max_weight is None else float(max_weight))

        def at(rows: np.ndarray) -> Array:
            return witness.slope * witness.difference(take_rows(samples.source, rows))

        return replace(witness, level=level_of(at, coef, samples.source_weight, witness.upper))

    def misses(self, rows: Array, coef: Array) -> float:
        """Root mean square error of the formula for the weights `coef` (n,) on a sample of the rows (n, d)."""
        some = np.random.default_rng(1).permutation(rows.shape[0])[:_LEVEL_ROWS]
        return float(np.sqrt(np.mean((to_host(self(take_rows(rows, some))) - to_host(coef)[some]) ** 2)))

    def difference(self, rows: Array) -> Array:
        """f (n,) at rows (n, d)."""
        width = max(features.n_columns for features, _ in self.terms)
        return over_rows(lambda part: sum(features(part) @ vector for features, vector in self.terms), rows, width)

    def __call__(self, rows: Array) -> Array:
        """The ratio (n,) at rows (n, d)."""
        difference = self.difference(rows)
        return namespace(difference).clip(self.slope * difference + self.level, min=0.0, max=self.upper)

    def to(self, like: Array) -> Witness:
        """The formula in the library, dtype and device of the array `like`."""
        return replace(self, terms=tuple((features.to(like), put(to_host(vector), like)) for features, vector in self.terms))


def level_of(at: Callable[[np.ndarray], Array], coef: Array, counts: Array | None, upper: float) -> float:
    """The level with which slope f + level reproduces the weights `coef` (n,) of rows that count `counts` (n,) times.

    at: maps positions of rows to slope f. The level is estimated from rows between the bounds, if there are any.
    """
    weights = to_host(coef)
    rows = _level_rows(weights, upper)
    off, weights = weights[rows] - to_host(at(rows)), weights[rows]
    if _is_inside(weights, upper).any():
        return float(np.average(off, weights=None if counts is None else to_host(counts)[rows]))
    # If every weight is at a bound, rows at 0 bound the level from above, and rows at the upper bound from below.
    return float(np.min(off) if np.any(weights <= _AT_BOUND) else np.max(off))


def _level_rows(weights: np.ndarray, upper: float) -> np.ndarray:
    """Positions of the rows whose weights (n,) determine the level: those between the bounds, else those at a bound."""
    inside, at_zero = np.flatnonzero(_is_inside(weights, upper)), np.flatnonzero(weights <= _AT_BOUND)
    if len(inside) > _LEVEL_ROWS:
        return np.sort(np.random.default_rng(0).permutation(inside)[:_LEVEL_ROWS])
    return inside if len(inside) else at_zero if len(at_zero) else np.arange(len(weights))


def _is_inside(weights: np.ndarray, upper: float) -> np.ndarray:
    return (weights > _AT_BOUND) & (weights < upper * (1.0 - _AT_BOUND))
