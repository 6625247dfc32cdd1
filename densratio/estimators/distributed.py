"""Fits whose rows are distributed, such as over a cluster: the estimator reads a sample of them, and is given the solution."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from .._arrays import Array, put
from ..features import Features
from ..objectives import Objective
from ..solvers import Solution
from .density_ratio import DensityRatio
from .samples import Samples
from .search import search
from .solve import Assembly, assemble, make_features, objective_of, warn_unless_converged

__all__ = [
    "Sampled",
    "check_sample",
    "finish",
    "objective_and_features",
    "portable",
    "raw_ratio",
    "sample_of",
    "samples_of_rows",
    "score_of",
]


class Sampled(NamedTuple):
    """A sample of the rows as an estimator reads it, with the objective and the features fitted to it."""

    samples: Samples
    assembly: Assembly
    like: Array
    """An empty array of the type of the input"""


def objective_and_features(ratio: DensityRatio) -> tuple[Objective, Features]:
    """Objective and unfitted features; parameters that cross-validation has yet to choose have their defaults."""
    defaults = type(ratio)().get_params()
    plain = clone(ratio).set_params(**{name: defaults[name] for name in ratio._search.grids})
    objective = objective_of(plain)
    return objective, make_features(plain, objective, 1, plain.n_centers)


def sample_of(ratio: DensityRatio, X: Any, y: Any, sample_weight: Any) -> Sampled:
    """Validate a sample of the rows, choose parameters by cross-validation on it, and assemble objective and features."""
    samples, like = ratio._samples(X, y, sample_weight, reset=True)
    distinct = samples.counted().mapped(ratio._scaled).merged()
    ratio._draw_seed()
    search(ratio, distinct)
    return Sampled(distinct, assemble(ratio, distinct), like)


def check_sample(ratio: DensityRatio, X: Any, y: Any, sample_weight: Any) -> None:
    """Raise ValueError if a fitted estimator cannot use the rows."""
    ratio._samples(X, y, sample_weight, reset=False)


def finish(ratio: DensityRatio, sampled: Sampled, solution: Solution) -> None:
    """Store a solution on all rows, except the weights and their mean. Warns if the solver stopped early."""
    ratio._keep(sampled.assembly, solution, sampled.samples)
    warn_unless_converged(ratio, solution)
    for name in ratio._returns:
        setattr(ratio, name, ratio._returned(getattr(ratio, name), sampled.like))


def samples_of_rows(
    ratio: DensityRatio, rows: np.ndarray, is_source: np.ndarray, is_target: np.ndarray, weight: np.ndarray | None
) -> Samples:
    """Scaled samples from rows (n, d) without zero weights, on the device that computes.

    The masks (n,) may be empty for one domain.
    """
    counts = np.ones(len(rows), dtype=bool) if weight is None else weight > 0.0
    places = [np.flatnonzero(is_member & counts) for is_member in (is_source, is_target)]
    source, target = (ratio._scaled(ratio._placed(rows[at])) for at in places)
    weights = [None if weight is None else put(weight[at], source) for at in places]
    return Samples(source, target, weights[0], weights[1], is_source, places[0], places[1])


def portable(ratio: Any) -> Any:
    """A shallow copy of a fitted ratio with only what `transform` needs, since every worker gets one and the rest may be large."""
    light = copy.copy(ratio)
    for name in ("_problem", "weights_"):
        vars(light).pop(name, None)
    return light


def raw_ratio(ratio: DensityRatio, rows: Array) -> Array:
    """The ratio (n,) at placed rows, before division by `normalization_`."""
    return ratio._ratio(rows)


def score_of(
    ratio: DensityRatio, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
) -> float:
    """The `score` of the ratio's values at held-out rows."""
    return float(ratio._score_of(source_ratio, target_ratio, source_weight, target_weight))
