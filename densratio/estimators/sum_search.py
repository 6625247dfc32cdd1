"""Cross-validation from sums over rows: the problem of each fold is built once, and training problems are their sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from ..model_selection import Fold, are_partition
from ..objectives import Objective
from .samples import Samples
from .solve import Assembly, assemble, choose_solver, problem_of

__all__ = ["scores_from_sums"]

_ENOUGH = 1e-4  # tolerance of fits that are only scored: far below the differences between candidates


def scores_from_sums(ratio: Any, gamma: Any, objectives: Sequence[Objective], samples: Samples, folds: list[Fold]) -> np.ndarray:
    """Held-out scores (len(objectives), n_folds) at one bandwidth, from the sums with and without each fold."""
    with np.errstate(all="ignore"):
        # A candidate that overflows gets a non-finite score and is not chosen.
        assembly = assemble(ratio, samples, gamma, objectives[0])
        pairs = _kept_and_held_out(assembly, samples, folds)
        return np.array([[_score(ratio, objective, *pair) for pair in pairs] for objective in objectives])


def _kept_and_held_out(assembly: Assembly, samples: Samples, folds: list[Fold]) -> list[tuple[Any, Any]]:
    splits = [samples.split(fold) for fold in folds]
    held_out: list[Any] = [problem_of(assembly, out) for _, out in splits]
    if are_partition(folds, *samples.sizes):
        kept = [reduce(lambda a, b: a.plus(b), held_out[:k] + held_out[k + 1 :]) for k in range(len(folds))]
    else:
        kept = [problem_of(assembly, part) for part, _ in splits]
    return list(zip(kept, held_out, strict=True))


def _score(ratio: Any, objective: Objective, kept: Any, held_out: Any) -> float:
    kept = kept.under(objective)
    solver = choose_solver(ratio, kept, to_convergence=True)
    solver = replace(solver, tol=max(solver.tol, _ENOUGH))
    return float(kept.held_out_score(solver.solve(kept).coef, held_out))
