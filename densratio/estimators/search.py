"""The choice of parameters by cross-validation: candidates, rows, and folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.base import clone
from sklearn.model_selection import check_cv

from .._arrays import to_host
from .._progress import run_all
from .._scale import some_of
from ..model_selection import Fold, choose, folds_of, k_fold_scores, stratified_folds
from .samples import Samples, row_counts

__all__ = ["ParameterSearch", "by_gamma", "folds_by", "in_order", "is_search", "scores_by_gamma", "scores_of_clones", "search"]

Candidates = list[dict[str, Any]]


def is_search(value: Any) -> bool:
    """Whether a parameter is to be chosen by cross-validation: it is "cv" or a sequence of values."""
    return (isinstance(value, str) and value == "cv") or isinstance(value, list | tuple | np.ndarray)


def scores_of_clones(ratio: Any, candidates: Candidates, samples: Samples) -> np.ndarray:
    """Scores (n_candidates, n_folds) of clones, each fitted on what a fold keeps of both domains."""
    parts = (samples.split(fold) for fold in folds_by(ratio.cv, samples))
    splits = [(kept.stacked(), held_out.stacked()) for kept, held_out in parts]
    # The rows are in units of the spreads of all rows already.
    return k_fold_scores(clone(ratio).set_params(scale=None), candidates, splits, n_jobs=ratio.n_jobs)


def scores_by_gamma(ratio: Any, candidates: Candidates, samples: Samples, scores_at: Callable[..., np.ndarray]) -> np.ndarray:
    """Scores (n_candidates, n_folds), with one task per bandwidth, whose features serve all values of the other parameters.

    scores_at: (ratio, gamma, candidates of this bandwidth, samples, folds) -> (k, n_folds).
    """
    groups, folds = by_gamma(ratio, candidates), folds_by(ratio.cv, samples)
    tasks = (delayed(scores_at)(ratio, gamma, [candidates[i] for i in of], samples, folds) for gamma, of in groups.items())
    return in_order(groups, run_all(tasks, len(groups), f"Search of {type(ratio).__name__}", ratio.n_jobs))


def by_gamma(ratio: Any, candidates: Candidates) -> dict[Any, list[int]]:
    """The places of the candidates of each bandwidth."""
    groups: dict[Any, list[int]] = {}
    for place, candidate in enumerate(candidates):
        groups.setdefault(candidate.get("gamma", ratio.gamma), []).append(place)
    return groups


def in_order(groups: dict[Any, list[int]], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Scores (n_candidates, n_folds) in the order of the candidates, from those of each group."""
    scores = np.empty((sum(map(len, groups.values())), parts[0].shape[1]))
    for places, part in zip(groups.values(), parts, strict=True):
        scores[places] = part
    return scores


class ParameterSearch(NamedTuple):
    """How an estimator chooses a parameter given as "cv" or a sequence."""

    grids: Mapping[str, Callable[[Any, Samples], Sequence[Any]]]
    """By name of the parameter: a function (estimator, samples) -> the values that "cv" stands for."""
    scores: Callable[[Any, Candidates, Samples], np.ndarray] = scores_of_clones
    """(estimator, candidates, samples) -> scores (n_candidates, n_folds), higher is better."""
    most_rows: int = 10_000
    """Rows of each domain in the search, a seeded sample, unless `cv` names rows or is a splitter."""
    is_cautious: bool = False
    """Whether the standard error over the folds is subtracted from a candidate's mean score."""
    of_distinct: bool = True
    """Whether equal rows are merged into one row that counts as often as they do."""


def search(estimator: Any, samples: Samples) -> None:
    """Choose the parameters given as "cv" or a sequence, and set best_params_ and cv_results_, or delete them if there are none."""
    for stale in ("best_params_", "cv_results_"):
        if hasattr(estimator, stale):
            delattr(estimator, stale)
    grid = {}
    for name, values in estimator._search.grids.items():
        value = getattr(estimator, name)
        if is_search(value):
            grid[name] = list(values(estimator, samples)) if isinstance(value, str) else _listed(name, value)
    if grid:
        some = _some_rows(estimator, samples)
        by = estimator._search
        choice = choose(grid, lambda candidates: by.scores(estimator, candidates, some), is_cautious=by.is_cautious)
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
    """The fold with its counts in the units of the samples' weights."""
    if fold.source_weight is None or fold.target_weight is None:
        return fold
    unit = [
        to_host(weight).sum() / count.sum()
        for weight, count in zip((samples.source_weight, samples.target_weight), row_counts(samples), strict=True)
    ]
    return fold._replace(source_weight=fold.source_weight * unit[0], target_weight=fold.target_weight * unit[1])


def _of_distinct_rows(fold: Fold, samples: Samples) -> Fold:
    """The fold of merged rows that corresponds to a fold of the rows of X."""
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
    """A seeded sample of at most `most_rows` rows of each domain; all rows if `cv` is a splitter or names rows."""
    cv, most = estimator.cv, estimator._search.most_rows
    if max(samples.sizes) <= most or not (cv is None or isinstance(cv, Integral)):
        return samples
    return samples.taking(*(some_of(n, most) for n in samples.sizes))
