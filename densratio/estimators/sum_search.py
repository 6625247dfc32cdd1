"""Cross-validation from sums over rows: the problem of each fold is built once, and training problems are their sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..model_selection import Fold, are_partition
from ..objectives import Objective
from ..solvers import Solver
from .samples import Samples
from .search import scores_by_gamma
from .solve import Assembly, assemble, choose_solver, objective_of, problem_of

__all__ = ["scores_from_sums"]

_ENOUGH = 2000.0  # times tol: gap of fits that are only scored, far below the standard error of a score


def scores_from_sums(ratio: Any, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    """Held-out scores (n_candidates, n_folds), from the sums with and without each fold."""
    return scores_by_gamma(ratio, candidates, samples, _scores_at)


def _scores_at(ratio: Any, gamma: Any, candidates: list[dict[str, Any]], samples: Samples, folds: list[Fold]) -> np.ndarray:
    objectives = [objective_of(ratio, candidate) for candidate in candidates]
    with np.errstate(all="ignore"):
        # A candidate that overflows gets a non-finite score and is not chosen.
        assembly = assemble(ratio, samples, gamma, objectives[0])
        pairs = _kept_and_held_out(assembly, samples, folds)
        return np.array([_path(ratio, objective, pairs) for objective in objectives])


def _kept_and_held_out(assembly: Assembly, samples: Samples, folds: list[Fold]) -> list[tuple[Any, Any]]:
    splits = [samples.split(fold) for fold in folds]
    held_out: list[Any] = [problem_of(assembly, out) for _, out in splits]
    if are_partition(folds, *samples.sizes):
        kept = type(held_out[0]).without_each(held_out)
    else:
        kept = [problem_of(assembly, part) for part, _ in splits]
    return list(zip(kept, held_out, strict=True))


def _path(ratio: Any, objective: Objective, pairs: list[tuple[Any, Any]]) -> list[float]:
    """The scores of all folds. Each fit starts where the fit without the fold before ended, which may be good enough."""
    scores, coef = [], None
    for kept, held_out in pairs:
        problem = kept.under(objective)
        coef = _solved(choose_solver(ratio, problem, to_convergence=True), problem, coef)
        scores.append(float(problem.held_out_score(coef, held_out)))
    return scores


def _solved(solver: Solver, problem: Any, coef: Any) -> Any:
    """Coefficients (k,) good enough to be scored, from those of a similar problem or None."""
    state = solver.init(problem, coef)
    for _ in range(1 if solver.is_one_step else solver.max_iter):
        if state.gap is not None and float(state.gap) <= _ENOUGH * solver.tol:
            break
        state = solver.step(problem, state)
        if solver.has_converged(state) or float(state.step_size) == 0.0:
            break
    return state.coef
