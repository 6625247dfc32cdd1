"""Classifiers of given labels and what they predict of rows that they did not learn from."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

__all__ = ["fitted", "label_folds", "out_of_fold"]


def label_folds(given: np.ndarray, groups: np.ndarray | None, cv: int, seed: int) -> list[Any]:
    """(learned, held out) row numbers of each of at most cv folds, which hold the classes (n,) alike."""
    most = int(np.bincount(given).max())
    if most < 2:
        raise ValueError(f"Every one of the {len(given)} classes has one row: a label needs others of its class. Merge classes.")
    n_folds = min(cv, most)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(kind(n_folds, shuffle=True, random_state=seed).split(np.zeros(len(given)), given, groups))


def fitted(model: Any, rows: np.ndarray, given: np.ndarray) -> Any:
    """A copy of the model that learned the rows."""
    with warnings.catch_warnings():
        # The perceptron stops after so many epochs on purpose: it would learn wrong labels by heart.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clone(model).fit(rows, given)


def out_of_fold(model: Any, rows: np.ndarray, given: np.ndarray, folds: list[Any], n_jobs: int | None, verbose: int) -> np.ndarray:
    """Probabilities (n, K) of each row, by copies of the model that learned from the other folds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="Number of classes in training fold")
        return cross_val_predict(model, rows, given, cv=folds, method="predict_proba", n_jobs=n_jobs, verbose=verbose)
