"""Explicit maps for any number of rows: features in blocks, the kernel average, and the error of the approximation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._arrays import Array, full_like_row, host_numbers, namespace, put, take_rows, tiny, to_host, widest_here
from .._blocks import over_blocks, over_rows, row_slices, transposed_times
from .._validation import check_count, from_registry
from ..features import FEATURES, Features, Gaussian, Nystroem, RandomFourier
from .samples import Samples

__all__ = ["MAPS", "MapAverage", "map_error", "map_instead", "mapped", "mean_mapped"]

MAPS = {name: kind for name, kind in FEATURES.items() if kind.is_map}
"""Explicit maps by name."""

_SINGLE_BEYOND = 2**24  # entries of a feature matrix beyond which it is stored in single precision
_PROBE_ROWS = 2000  # rows of each sample on which a map is compared with its kernel


def map_instead(kernel: Any, n_source: int, *, exact_up_to: Any = None, approximation: Any = "nystroem") -> type[Features] | None:
    """The explicit map in place of the kernel for more source rows than `exact_up_to`; None: the kernel is used.

    Raises ValueError for an unknown name, and for a kernel that needs a map and has none.
    """
    kind = type(kernel) if isinstance(kernel, Features) else from_registry("kernel", kernel, FEATURES)
    instead = from_registry("approximation", approximation, MAPS)
    if exact_up_to is not None:
        check_count("exact_up_to", exact_up_to, more=", or None for the exact kernel at any size")
    if kind.is_map or exact_up_to is None or n_source <= exact_up_to:
        return None
    if kind is not Gaussian:
        raise ValueError(
            f"kernel={kernel!r} has no explicit map, and its matrix for {n_source} source rows exceeds exact_up_to="
            f'{exact_up_to}: use kernel="gaussian", which is approximated, or exact_up_to=None for the exact '
            f"matrix ({8e-9 * n_source * n_source:.3g} GB)."
        )
    return instead


def mapped(features: Features, rows: Array) -> Array:
    """Features (n, k) of rows (n, d), in single precision if there are many: the error of the map is far above its rounding."""
    is_large = rows.shape[0] * features.n_columns > _SINGLE_BEYOND

    def of_block(part: Array) -> Array:
        found = features(part)
        return namespace(found).astype(found, namespace(found).float32, copy=False) if is_large else found

    return over_rows(of_block, rows, features.n_columns)


def mean_mapped(features: Features, rows: Array, weight: Array | None) -> Array:
    """Mean feature (1, k) of rows (n, d) that count `weight` (n,) times, computed in blocks."""
    like = features(rows[:1, :])
    xp = namespace(like)
    wide = widest_here(full_like_row(rows, 1.0) if weight is None else weight)

    def total(part: slice) -> Array:
        return transposed_times(features(rows[part, :]), wide[part])

    sums = over_blocks(total, row_slices(rows.shape[0], features.n_columns), rows)
    return xp.astype(sum(sums) / xp.sum(wide), like.dtype, copy=False)[None, :]


@dataclass(frozen=True)
class MapAverage:
    """Kernel average of the source weights through an explicit map: O(k) per row, independent of the number of source rows.

    (max(phi(x) . mean s w phi, 0) + doubt) / (max(phi(x) . mean s phi, 0) + doubt) for source rows that count s times, clipped
    to the range of the weights. doubt: error of the map's kernel means; where the means are below it, no source row is near and
    the average is about 1.
    """

    features: Features
    count: Array
    """(k,) mean feature of the source rows."""
    weighted: Array
    """(k,) mean feature of the source rows times their weights."""
    doubt: float
    least: float
    largest: float

    @classmethod
    def of(cls, features: Features, rows: Array, source: Array, coef: Array, counts: Array | None) -> MapAverage:
        """The average of the weights `coef` (n,) of rows (n, d) with features `source` (n, k) that count `counts` (n,) times."""
        xp = namespace(coef)
        wide = xp.ones_like(widest_here(coef)) if counts is None else widest_here(counts)
        means = [xp.astype(transposed_times(source, mass) / xp.sum(wide), coef.dtype, copy=False) for mass in (wide, wide * coef)]
        doubt = max(_mean_error(features, rows, coef, counts), tiny(coef))
        return cls(features, means[0], means[1], doubt, float(xp.min(coef)), float(xp.max(coef)))

    def __call__(self, rows: Array) -> Array:
        """The average (n,) at rows (n, d)."""

        def average(part: Array) -> Array:
            block = self.features(part)
            xp = namespace(block)
            above, below = (xp.clip(block @ mean, min=0.0) + self.doubt for mean in (self.weighted, self.count))
            return xp.clip(above / below, min=self.least, max=self.largest)

        return over_rows(average, rows, self.features.n_columns)

    def to(self, like: Array) -> MapAverage:
        """The average in the library, dtype and device of the array `like`."""
        moved = [put(to_host(mean), like) for mean in (self.count, self.weighted)]
        return replace(self, features=self.features.to(like), count=moved[0], weighted=moved[1])


def map_error(features: Features, samples: Samples, coef: Array) -> float:
    """Relative error of the KMM objective at the weights `coef` (n,) under a map, compared with the exact kernel.

    Estimated on at most 2000 rows of each sample, the first of a seeded shuffle: the objective is a mean over pairs of source
    rows, a share 1 / n of which pairs a row with itself, minus a mean over pairs of a source and a target row. 0 for a map
    of your own, which approximates no known kernel.
    """
    if not isinstance(features, Nystroem | RandomFourier):
        return 0.0
    n = samples.source.shape[0]
    (x, w), (v, t) = _probe(samples.source, coef, samples.source_weight), _probe(samples.target, None, samples.target_weight)
    values = []
    for pairs, cross in zip(_kernels(features, x, x), _kernels(features, x, v), strict=True):
        own = np.diagonal(pairs)
        apart = w @ pairs @ w - np.sum(own * w * w)
        q = len(w)
        # On a subsample, the mean over pairs of different rows estimates that over all pairs.
        among = ((1.0 - 1.0 / n) * apart / max(1, q * (q - 1)) + np.mean(own * w * w) / n) if q > 1 else np.mean(own * w * w)
        values.append(0.5 * among - np.mean(w * (cross @ t)) / len(t))
    exact, approximate = values
    return abs(approximate - exact) / max(abs(exact), np.finfo(np.float64).tiny)


def _mean_error(features: Features, rows: Array, coef: Array, counts: Array | None) -> float:
    """Root mean square error, on a sample of source rows, of the map's kernel means of the rows and of their weights."""
    if not isinstance(features, Nystroem | RandomFourier) or rows.shape[0] < 2:
        return 0.0
    errors = []
    for value in (namespace(coef).ones_like(coef), coef):
        x, w = _probe(rows, value, counts)
        exact, approximate = _kernels(features, x, x)
        error = approximate - exact
        np.fill_diagonal(error, 0.0)  # a row's kernel value with itself hardly enters the mean over many rows
        errors.append(np.sqrt(np.mean((error @ w / (len(w) - 1)) ** 2)))
    return float(max(errors))


def _probe(rows: Array, coef: Array | None, counts: Array | None) -> tuple[Array, np.ndarray]:
    """A sample of rows (q, d), and coef times counts (q,) on the host, scaled to mean 1."""
    n = rows.shape[0]
    keep = np.arange(n) if n <= _PROBE_ROWS else np.sort(np.random.default_rng(0).permutation(n)[:_PROBE_ROWS])
    mass = np.ones(len(keep))
    for factor in (coef, counts):
        mass = mass if factor is None else mass * to_host(factor)[keep]
    return take_rows(rows, keep), mass / max(mass.mean(), np.finfo(np.float64).tiny)


def _kernels(features: Features, x: Array, y: Array) -> tuple[np.ndarray, np.ndarray]:
    """The exact kernel (n, m) and the approximation by a map, on the host in float64."""
    of_x, of_y = (host_numbers(features(rows)) for rows in (x, y))
    return host_numbers(features.kernel(x, y)), of_x @ of_y.T
