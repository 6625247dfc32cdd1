"""The choice of parameters by cross-validation: candidates, rows, and folds."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from .._arrays import to_host
from .._scale import some_of
from ..model_selection import Fold, choose, folds_of, stratified_folds
from .samples import Samples, row_counts

__all__ = ["folds_by", "is_search", "search"]


def is_search(value: Any) -> bool:
    """Whether a parameter is to be chosen by cross-validation: it is "cv" or a sequence of values."""
    return (isinstance(value, str) and value == "cv") or isinstance(value, list | tuple | np.ndarray)


def search(estimator: Any, samples: Samples) -> None:
    """Choose the parameters given as "cv" or a sequence, and set best_params_ and cv_results_, or delete them if there are none."""
    for stale in ("best_params_", "cv_results_"):
        if hasattr(estimator, stale):
            delattr(estimator, stale)
    grid = {}
    for name in estimator._choosable:
        value = getattr(estimator, name)
        if is_search(value):
            grid[name] = list(estimator._grid(name, samples)) if isinstance(value, str) else _listed(name, value)
    if grid:
        some = _some_rows(estimator, samples)
        choice = choose(grid, lambda candidates: estimator._scores(candidates, some))
        estimator.best_params_, estimator.cv_results_ = choice.best_params, choice.results


def folds_by(cv: Any, samples: Samples) -> list[Fold]:
    """The folds that `cv` defines: a number of folds (None: five), a splitter, or an iterable of (train, test)."""
    if cv is None or isinstance(cv, Integral):
        folds = stratified_folds(*samples.sizes, 5 if cv is None else int(cv), counts=row_counts(samples))
        return [_in_units_of(samples, fold) for fold in folds]
    domain = (~samples.is_source).astype(int)
    splits = check_cv(cv, domain, classifier=True).split(np.zeros((len(domain), 1)), domain)
    folds = folds_of([test for _, test in splits], samples.source_index, samples.target_index)
    return folds if samples.source_kind is None else [_of_distinct_rows(fold, samples) for fold in folds]


def _in_units_of(samples: Samples, fold: Fold) -> Fold:
    """The fold with its counts in the units of the samples' weights, which may have none."""
    if fold.source_weight is None or fold.target_weight is None:
        return fold
    unit = [
        to_host(weight).sum() / count.sum()
        for weight, count in zip((samples.source_weight, samples.target_weight), row_counts(samples), strict=True)
    ]
    return fold._replace(source_weight=fold.source_weight * unit[0], target_weight=fold.target_weight * unit[1])


def _of_distinct_rows(fold: Fold, samples: Samples) -> Fold:
    """The fold of merged rows from one of the rows of X."""
    sides = []
    for out, kind, index in (
        (fold.source, samples.source_kind, samples.source_index),
        (fold.target, samples.target_kind, samples.target_index),
    ):
        assert kind is not None
        weight = np.ones(len(kind)) if samples.row_weight is None else samples.row_weight[index]
        held_out = np.bincount(kind[out], weight[out], minlength=int(kind.max()) + 1)
        at = np.flatnonzero(held_out)
        sides.append((at, held_out[at], np.bincount(kind, weight)[at]))
    (source, of_source, all_source), (target, of_target, all_target) = sides
    if np.array_equal(of_source, all_source) and np.array_equal(of_target, all_target):
        return Fold(source, target)
    return Fold(source, target, of_source, of_target)


def _listed(name: str, value: Any) -> list[Any]:
    if len(value) == 0:
        raise ValueError(f'{name} is an empty sequence: give at least one value, or "cv".')
    return [v.item() if isinstance(v, np.generic) else v for v in value]


def _some_rows(estimator: Any, samples: Samples) -> Samples:
    """A seeded sample of at most `_choice_rows` rows of each domain; all rows if `cv` is a splitter or names rows."""
    cv, most = getattr(estimator, "cv", None), estimator._choice_rows
    if max(samples.sizes) <= most or not (cv is None or isinstance(cv, Integral)):
        return samples
    return samples.taking(*(some_of(n, most) for n in samples.sizes))
