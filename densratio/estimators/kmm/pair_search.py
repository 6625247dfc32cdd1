"""Cross-validation of kernel mean matching from one kernel matrix of all rows, shared by all folds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..._arrays import Array, concat_rows, device_of, is_numpy_array, namespace, take_rows, weighted_mean
from ...model_selection import Fold
from ...objectives.row_weights import smoothed_weights
from ..samples import Samples
from ..search import scores_by_gamma
from ..solve import assemble, choose_solver, objective_of
from .witness import MISS, level_of

__all__ = ["scores_from_pairs"]


def scores_from_pairs(ratio: Any, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    """Held-out scores (n_candidates, n_folds); at one bandwidth each fit starts from the solution for the last objective."""
    return scores_by_gamma(ratio, candidates, samples, _scores_at)


def _scores_at(ratio: Any, gamma: Any, candidates: list[dict[str, Any]], samples: Samples, folds: list[Fold]) -> np.ndarray:
    objectives: list[Any] = [objective_of(ratio, candidate) for candidate in candidates]
    features = assemble(ratio, samples, gamma, objectives[0]).features
    pooled = concat_rows(samples.source, samples.target)
    kernel = replace(features, parameters_=(pooled,))(pooled)
    scores = np.empty((len(objectives), len(folds)))
    # Strongest regularization first: it is easiest to solve, and the next fit starts from its active sets.
    order = sorted(range(len(objectives)), key=lambda i: -objectives[i].regularization)
    for number, fold in enumerate(folds):
        for i, score in zip(order, _path(ratio, [objectives[i] for i in order], kernel, samples, fold), strict=True):
            scores[i, number] = score
    return scores


def _path(ratio: Any, objectives: list[Any], kernel: Array, samples: Samples, fold: Fold) -> list[float]:
    """The score of each objective on a fold. kernel: of all rows, source rows first."""
    kept, out = samples.split(fold)
    xp, n_source = namespace(kernel), samples.sizes[0]
    s, t, s_out, t_out = kept.source_index, n_source + kept.target_index, out.source_index, n_source + out.target_index
    counts, drawn = kept.source_weight, kept.target_weight
    to_source = [_block(kernel, of, s) for of in (s, s_out, t_out)]
    problem = objectives[0].problem(to_source[0], _block(kernel, t, s), counts, drawn)
    share = xp.full_like(kernel[0, : len(t)], 1.0 / len(t)) if drawn is None else drawn / xp.sum(drawn)
    to_target = [_block(kernel, of, t) @ share for of in (s, s_out, t_out)]
    coef, scores = None, []
    for objective in objectives:
        problem = problem.under(objective)
        coef = choose_solver(ratio, problem, to_convergence=True).solve(problem, coef).coef
        mass = problem.counted(coef) / len(s)
        differences = [near - values @ mass for near, values in zip(to_target, to_source, strict=True)]
        held_out = _ratios(problem, coef, differences, to_source[1:])
        held_out = [values / weighted_mean(coef, counts) for values in held_out]
        scores.append(float(objective.score(*held_out, out.source_weight, out.target_weight)))
    return scores


def _ratios(problem: Any, coef: Array, differences: list[Array], near: list[Array]) -> list[Array]:
    """The ratio at held-out source and target rows, as `KMM.transform` gives it.

    differences: the witness function at the training source rows and at the held-out rows; near: kernel values of the latter.
    """
    xp, upper = namespace(coef), problem.weights.max_weight or float(problem.weights.n)
    if problem.regularization > 0.0:
        slope = problem.weights.n / problem.regularization
        level = level_of(lambda rows: take_rows(slope * differences[0], rows), coef, problem.unit, upper)
        kept, *held_out = (xp.clip(slope * part + level, min=0.0, max=upper) for part in differences)
        if float(xp.mean((kept - coef) ** 2)) ** 0.5 <= MISS:
            return held_out
    return [smoothed_weights(coef, kernel, problem.unit) for kernel in near]


def _block(kernel: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """The block (k, l) of the kernel matrix at these rows and columns."""
    if is_numpy_array(kernel):
        return kernel[np.ix_(rows, columns)]
    xp = namespace(kernel)
    return xp.take(take_rows(kernel, rows), xp.asarray(columns, device=device_of(kernel)), axis=1)
