"""Classifiers of given labels, and their predictions for rows that they did not learn from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from joblib import delayed
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import _safe_split

from .._progress import run_all
from .._validation import check_count

__all__ = [
    "calibrated_loss", "calibrated_losses", "copies_of", "fitted", "fitted_to", "is_better", "label_folds", "log_losses", "n_deals",
    "of_all_folds", "out_of_fold", "probabilities", "takes_kernels",
]  # fmt: skip

_COPIED, _DISTINCT = 0.5, 0.1  # shares of copied and of distinct rows above which copies are held out together
_MANY_CLASSES = "The number of unique classes is greater"  # our own message covers classes of one row
_POWERS, _LEAST = np.geomspace(0.1, 1.0, 9), 1e-6
_SMALLEST = 1e-9
_MOST_DEALS, _ROWS = 4, 20_000  # most deals, and most rows in all deals together: more would cost more than they bring


def n_deals(n_repeats: int | None, n_rows: int, *, are_images: bool = False) -> int:
    """How often rows are dealt into folds; None: as often as 20,000 rows in total allow, at most 4 times, images twice."""
    if n_repeats is None:
        return max(1, min(2 if are_images else _MOST_DEALS, _ROWS // n_rows))
    check_count("n_repeats", n_repeats)
    return n_repeats


def copies_of(rows: Any) -> np.ndarray | None:
    """A number (n,) shared by equal rows of (n, ...), if most rows have copies: a copy would reveal its label. Otherwise None."""
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiub":
        return None
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
    _, kind, counts = np.unique(flat.view(f"V{flat.dtype.itemsize * flat.shape[1]}")[:, 0], return_inverse=True, return_counts=True)
    is_copied = np.mean(counts[kind] > 1) > _COPIED and len(counts) > _DISTINCT * len(rows)
    return kind if is_copied else None


def label_folds(given: np.ndarray, groups: np.ndarray | None, cv: int, seed: int) -> list[Any]:
    """(learned, held out) row numbers of each of at most cv folds, stratified by the classes (n,)."""
    most = int(np.bincount(given).max())
    if most < 2:
        raise ValueError(f"Every one of the {len(given)} classes has one row: a label needs others of its class. Merge classes.")
    n_groups = len(given) if groups is None else len(np.unique(groups))
    if n_groups < 2:
        raise ValueError("groups holds one group alone: none is left to learn from while it is held out. Leave groups out.")
    n_folds = min(cv, most, n_groups)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"The least populated class|{_MANY_CLASSES}")
        return list(kind(n_folds, shuffle=True, random_state=seed).split(np.zeros(len(given)), given, groups))


def fitted(model: Any, rows: Any, given: np.ndarray) -> Any:
    """A copy of the model, fitted to the rows."""
    with warnings.catch_warnings():
        # The perceptron stops early on purpose: it would memorize wrong labels.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message=_MANY_CLASSES)
        # A model that only looks like scikit-learn's, without get_params, is copied as it is.
        return clone(model, safe=False).fit(rows, given)


def fitted_to(model: Any, rows: Any, given: np.ndarray, some: np.ndarray) -> Any:
    """A copy of the model, fitted to some of the rows: of a frame, a sparse or dense array, or a kernel matrix (n, n)."""
    return fitted(model, *_safe_split(_tagged(model), rows, given, some))


def takes_kernels(model: Any) -> bool:
    """Whether the rows of a model are those of a kernel matrix (n, n)."""
    return bool(get_tags(_tagged(model)).input_tags.pairwise)


def _tagged(model: Any) -> Any:
    """The model, or a plain estimator in its place if scikit-learn can't read what it takes: rows (n, d), no kernel matrix."""
    return model if hasattr(model, "__sklearn_tags__") and not isinstance(model, type) else BaseEstimator()


def probabilities(model: Any, rows: Any, n_classes: int) -> np.ndarray:
    """Probabilities (n, K) by a classifier of class numbers; 0 for the classes that it did not learn from."""
    proba = np.zeros((np.shape(rows)[0], n_classes))
    proba[:, model.classes_] = model.predict_proba(rows)
    return proba


class _OfAnyClasses(ClassifierMixin, BaseEstimator):
    """A classifier that also learns from rows of a single class, and is then certain of it."""

    def __init__(self, model: Any):
        self.model = model

    def fit(self, X: Any, y: Any) -> _OfAnyClasses:
        self.classes_ = np.unique(y)
        self.model_ = clone(self.model, safe=False).fit(X, y) if len(self.classes_) > 1 else None
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.ones((np.shape(X)[0], 1)) if self.model_ is None else self.model_.predict_proba(X)

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(_tagged(self.model)).input_tags
        return tags


def log_losses(proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    """-log of the probability (n,) of each label, which counts as 1e-9 where it is less; proba (n, K)."""
    return -np.log(np.maximum(proba[np.arange(len(given)), given], _SMALLEST))


def calibrated_losses(proba: np.ndarray, given: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Log losses (n,) of labels at the best power of the probabilities (n, K), which corrects the overconfidence of models."""
    logs = np.log(np.maximum(proba, _LEAST))
    own = logs[np.arange(len(given)), given]
    found = [logsumexp(power * logs, axis=1) - power * own for power in _POWERS]
    return min(found, key=lambda losses: float(np.average(losses, weights=counts)))


def calibrated_loss(proba: np.ndarray, given: np.ndarray, counts: np.ndarray | None = None) -> float:
    """The mean of `calibrated_losses`."""
    return float(np.average(calibrated_losses(proba, given, counts), weights=counts))


def is_better(losses: np.ndarray, others: np.ndarray, share: float, errors: float, counts: np.ndarray | None = None) -> bool:
    """Whether losses (n,) are below others by more than a share of their mean, and by so many standard errors of the difference."""
    counts = np.ones(len(losses)) if counts is None else counts
    gain = others - losses
    mean = float(np.average(gain, weights=counts))
    error = float(np.sqrt(counts @ (gain - mean) ** 2) / counts.sum())
    return mean > max(share * float(np.average(losses, weights=counts)), errors * error)


def out_of_fold(model: Any, rows: Any, given: np.ndarray, deals: list[list[Any]], n_jobs: int | None) -> np.ndarray:
    """Probabilities (r, n, K) of each row for each deal, by copies of the model that learned from the other folds."""
    if any(len(np.unique(given[learned])) < 2 for folds in deals for learned, _ in folds):
        model = _OfAnyClasses(model)  # a fold holds out a class of one row
    predict = partial(probabilities, n_classes=int(given.max()) + 1)
    found = of_all_folds(model, rows, given, predict, deals, "Folds of the classifier", n_jobs)
    if not np.isfinite(found).all():
        raise ValueError("The model gives probabilities that are NaN or infinite: look at its output, or scale the columns.")
    return found


def of_all_folds(
    model: Any,
    rows: Any,
    values: np.ndarray,
    predict: Callable[[Any, Any], np.ndarray],
    deals: list[list[Any]],
    label: str,
    n_jobs: int | None,
) -> np.ndarray:
    """predict(fitted model, held-out rows) of each fold, put together as (r, n, ...). label: what the progress says."""
    folds = [(number, *fold) for number, of_deal in enumerate(deals) for fold in of_deal]
    tasks = (delayed(_held_out)(model, rows, values, predict, learned, held) for _, learned, held in folds)
    parts = run_all(tasks, len(folds), label, n_jobs)
    found = np.empty((len(deals), len(values), *parts[0].shape[1:]))
    for (number, _, held), part in zip(folds, parts, strict=True):
        found[number, held] = part
    return found


def _held_out(model: Any, rows: Any, values: np.ndarray, predict: Any, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    # For a model of a kernel matrix this also takes the columns of the learned rows.
    return predict(fitted_to(model, rows, values, learned), _safe_split(_tagged(model), rows, None, held, learned)[0])
