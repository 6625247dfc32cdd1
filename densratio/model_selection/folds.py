"""k-fold cross-validation in which every fold holds out rows of both domains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from joblib import delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from .._progress import run_all

_LEAST_SHARE = 1 / 200  # of all rows, from which a row that occurs more than once is dealt to all folds

__all__ = ["Fold", "are_partition", "folds_of", "folds_of_stacked", "k_fold_scores", "stratified_folds"]


class Fold(NamedTuple):
    """Indices of the held-out rows within the source and within the target.

    source_weight, target_weight: how much of the weight of each of these rows is held out; both None: all of it.
    """

    source: np.ndarray
    target: np.ndarray
    source_weight: np.ndarray | None = None
    target_weight: np.ndarray | None = None

    def rest(self, n_source: int, n_target: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the other rows of samples of these sizes."""
        return np.delete(np.arange(n_source), self.source), np.delete(np.arange(n_target), self.target)


def stratified_folds(
    n_source: int, n_target: int, n_splits: int, *, seed: int = 0, counts: tuple[np.ndarray, np.ndarray] | None = None
) -> list[Fold]:
    """`n_splits` shuffled folds of both domains, or as many as the smaller domain allows.

    counts: how often each row (n_source,), (n_target,) occurs. A frequent row, with at least 2 n_splits copies and half a percent
    of all, is dealt to all folds in equal parts: with few distinct rows, models would otherwise be tested on values that they
    have never seen. Copies of other rows are held out together.
    Raises ValueError if there are fewer than two folds: holding out the only row of a domain would leave none.
    """
    if n_splits < 2:
        raise ValueError(f"cv must be at least 2 folds; got {n_splits}.")
    sizes = (n_source, n_target)
    frequent = [_frequent(np.ones(n), n_splits) for n in sizes] if counts is None else [_frequent(c, n_splits) for c in counts]
    n_splits = min(n_splits, *(int(np.sum(~often)) + n_splits * bool(often.any()) for often in frequent))
    if n_splits < 2:
        raise ValueError(
            f"Cross-validation needs at least two rows of each domain; got {n_source} source and {n_target} target rows. Where the "
            "parameters of a ratio are 'cv' or sequences, numbers or rules in their place need no folds."
        )
    rng = np.random.default_rng(seed)
    splits = [[np.sort(rows) for rows in np.array_split(rng.permutation(np.flatnonzero(~often)), n_splits)] for often in frequent]
    if counts is None or not any(often.any() for often in frequent):
        return [Fold(source, target) for source, target in zip(*splits, strict=True)]
    sides = [_dealt(*side, n_splits) for side in zip(splits, frequent, counts, strict=True)]
    return [Fold(s, t, of_s, of_t) for (s, of_s), (t, of_t) in zip(*sides, strict=True)]


def folds_of_stacked(domain: np.ndarray, n_splits: int, seed: int) -> list[np.ndarray]:
    """The rows (k,) of stacked samples that each of these folds holds out; domain (n,): 0 for source and 1 for target rows."""
    source, target = (np.flatnonzero(domain == k) for k in (0, 1))
    folds = stratified_folds(len(source), len(target), n_splits, seed=seed)
    return [np.concatenate([source[fold.source], target[fold.target]]) for fold in folds]


def _frequent(count: np.ndarray, n_splits: int) -> np.ndarray:
    return (count >= 2 * n_splits) & (count >= _LEAST_SHARE * count.sum())


def _dealt(rare: list[np.ndarray], frequent: np.ndarray, count: np.ndarray, n_splits: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each fold the rows it holds out and how many copies of each; whole numbers of copies stay whole."""
    often = np.flatnonzero(frequent)
    share = count[often] / n_splits
    parts = np.repeat(share[None, :], n_splits, axis=0)
    if np.array_equal(count, np.rint(count)):
        left = (count[often] - n_splits * np.floor(share)).astype(np.int64)
        # The remaining copies go to the folds in turn.
        turn = (np.arange(n_splits)[:, None] - (np.cumsum(left) - left)) % n_splits
        parts = np.floor(share) + (turn < left)
    held_out = []
    for rows, part in zip(rare, parts, strict=True):
        together = np.concatenate([rows, often])
        order = np.argsort(together)
        held_out.append((together[order], np.concatenate([count[rows], part])[order]))
    return held_out


def are_partition(folds: list[Fold], n_source: int, n_target: int) -> bool:
    """Whether the folds hold out each row of both domains exactly once, with all its copies."""
    if any(fold.source_weight is not None for fold in folds):
        return False
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
    estimator: Any, candidates: list[dict[str, Any]], splits: list[tuple[tuple[Any, ...], tuple[Any, ...]]], *, n_jobs: int | None
) -> np.ndarray:
    """Scores (n_candidates, n_folds) on the held-out rows of clones with each candidate's parameters.

    splits: for each fold the arguments (X, y, sample_weight) of `fit`, then those of `score`; n_jobs as in joblib.
    """
    tasks = (delayed(_score)(clone(estimator).set_params(**candidate), *split) for candidate in candidates for split in splits)
    scores = run_all(tasks, len(candidates) * len(splits), f"Search of {type(estimator).__name__}", n_jobs)
    return np.reshape(scores, (len(candidates), len(splits)))


def _score(estimator: Any, kept: tuple[Any, ...], held_out: tuple[Any, ...]) -> float:
    with warnings.catch_warnings():
        # A fit that stops early in a fold still has a valid score; the final fit warns.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(*kept).score(*held_out)
