"""k-fold cross-validation in which every fold holds out rows of both domains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from .._arrays import take_rows

__all__ = ["Fold", "are_partition", "folds_of", "k_fold_scores", "stratified_folds"]


class Fold(NamedTuple):
    """Indices of the held-out rows within the source and within the target."""

    source: np.ndarray
    target: np.ndarray

    def rest(self, n_source: int, n_target: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the other rows of samples of these sizes."""
        return np.delete(np.arange(n_source), self.source), np.delete(np.arange(n_target), self.target)


def stratified_folds(n_source: int, n_target: int, n_splits: int, *, seed: int = 0) -> list[Fold]:
    """`n_splits` shuffled folds of both domains, or as many as the smaller domain has rows.

    Raises ValueError if a domain has only one row: holding it out would leave none.
    """
    if n_splits < 2:
        raise ValueError(f"cv must be at least 2 folds; got {n_splits}.")
    n_splits = min(n_splits, n_source, n_target)
    if n_splits < 2:
        raise ValueError(
            f"Cross-validation needs at least two rows of each domain; got {n_source} source and {n_target} target rows. Pass "
            "parameters as numbers or rules instead of 'cv' or sequences."
        )
    rng = np.random.default_rng(seed)
    splits = [[np.sort(rows) for rows in np.array_split(rng.permutation(n), n_splits)] for n in (n_source, n_target)]
    return [Fold(source, target) for source, target in zip(*splits, strict=True)]


def are_partition(folds: list[Fold], n_source: int, n_target: int) -> bool:
    """Whether the folds hold out each row of both domains exactly once."""
    sizes = ((n_source, [fold.source for fold in folds]), (n_target, [fold.target for fold in folds]))
    return all(np.array_equal(np.sort(np.concatenate(held_out)), np.arange(n)) for n, held_out in sizes)


def folds_of(held_out: Iterable[Any], source_index: np.ndarray, target_index: np.ndarray) -> list[Fold]:
    """One fold for each array of `held_out` (row indices of X); source_index and target_index are the domains' rows in X.

    Raises ValueError if a fold holds out none or all rows of a domain.
    """
    folds = []
    for number, test in enumerate(held_out):
        is_out = [np.isin(index, test) for index in (source_index, target_index)]
        for name, out in zip(("source", "target"), is_out, strict=True):
            if out.all() or not out.any():
                what = "every" if out.all() else "no"
                raise ValueError(
                    f"Fold {number} of cv holds out {what} {name} row: it must hold out some rows of each domain and keep some."
                )
        folds.append(Fold(*(np.flatnonzero(out) for out in is_out)))
    return folds


def k_fold_scores(
    estimator: Any,
    candidates: list[dict[str, Any]],
    X: Any,
    y: np.ndarray,
    sample_weight: np.ndarray | None,
    *,
    folds: list[Fold],
    n_jobs: int | None,
) -> np.ndarray:
    """Scores (n_candidates, n_folds) on the held-out rows of clones with each candidate's parameters.

    X (n, d), source rows first; y (n,), 0 = source and 1 = target; sample_weight (n,) or None; n_jobs as in joblib.
    """
    n_source = int(np.sum(y == 0))
    held_out = [np.concatenate([fold.source, n_source + fold.target]) for fold in folds]
    tasks = [(candidate, rows) for candidate in candidates for rows in held_out]
    scores = Parallel(n_jobs=n_jobs)(
        delayed(_score)(clone(estimator).set_params(**candidate), X, y, sample_weight, rows) for candidate, rows in tasks
    )
    return np.reshape(scores, (len(candidates), len(folds)))


def _score(estimator: Any, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, held_out: np.ndarray) -> float:
    kept = np.setdiff1d(np.arange(len(y)), held_out)
    train, test = (
        (take_rows(X, rows), y[rows], None if sample_weight is None else sample_weight[rows]) for rows in (kept, held_out)
    )
    with warnings.catch_warnings():
        # A fit that stops early in a fold still has a valid score; the final fit warns.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*train).score(*test)
