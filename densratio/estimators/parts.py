"""Small parts that the estimators share: names to entries, seeds, and what suits an objective."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from .._arrays import Array, has_float64, is_tensor
from ..features import Features
from ..objectives import KullbackLeibler, MaximumMeanDiscrepancy, Objective, SquaredDistance, Wasserstein1

__all__ = ["FEATURE_BLOCK", "auto_solvers", "from_registry", "inputs_of", "place", "ratio_of_source", "seed_of"]

T = TypeVar("T")
FEATURE_BLOCK = 2**24
"""Entries of a block of features."""
_DENSE_SOLVE = 1000  # beyond as many centres a factorisation costs more than it saves


def auto_solvers(objective: Objective, source: Array) -> tuple[str, str]:
    """Names of the solvers that suit an objective on `source` (n_s, k): to convergence, and for a few steps in a loop."""
    if isinstance(objective, MaximumMeanDiscrepancy):
        return "interior_point" if has_float64(source) else "projected_gradient", "projected_gradient"
    if isinstance(objective, KullbackLeibler):
        suits_newton = has_float64(source) and source.shape[1] <= _DENSE_SOLVE
        return "likelihood_newton" if suits_newton else "expectation_maximisation", "expectation_maximisation"
    if isinstance(objective, SquaredDistance):
        if objective.has_closed_form:
            return "closed_form", "projected_gradient"
        suits_active_set = (
            objective.nonnegative and objective.is_definite and has_float64(source) and source.shape[1] <= _DENSE_SOLVE
        )
        return "active_set" if suits_active_set else "projected_gradient", "projected_gradient"
    if isinstance(objective, Wasserstein1):
        return "closed_form", "subgradient"
    return "projected_gradient", "projected_gradient"


def place(x: Array) -> Any:
    """What must agree for two arrays to meet in one operation."""
    return (is_tensor(x), x.dtype, x.device if is_tensor(x) else None)


def inputs_of(objective: Objective, features: Features | None, source: Array, target: Array) -> tuple[Array, Array]:
    """What the objective takes of the two samples: their features, or the rows themselves."""
    return (source, target) if features is None or objective.takes == "rows" else (features(source), features(target))


def ratio_of_source(objective: Objective, coef: Array, source: Array) -> Array:
    """The raw ratio (n_s,) of the source rows, given what the objective takes of them."""
    return coef if objective.anchors == "source" else objective.ratio(coef, source)


def from_registry(what: str, name: Any, registry: dict[str, type[T]], also: tuple[str, ...] = ()) -> type[T]:
    """The entry `name` of a registry; a ValueError that lists the names where there is none."""
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"{what}={name!r} is not known; use one of {sorted([*registry, *also])}.")
    return registry[name]


def seed_of(random_state: Any) -> int:
    """An int seed from an int, a RandomState or Generator (which advances), or None (fresh; the global state is left alone)."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    raise ValueError(f"random_state must be an int, a RandomState, a Generator or None; got {random_state!r}.")
