"""The classifier that `find_label_issues` takes where none is given."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .held_out import fitted, label_folds

__all__ = ["default_model"]

_TRIAL, _TRIAL_FOLDS = 4000, 3  # rows on which the models are compared


def default_model(rows: np.ndarray, given: np.ndarray, seed: int) -> Any:
    """The network or the boosted trees that predict held-out labels best, on as many rows as a trial needs."""
    trees = HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=seed)
    models = [*_networks(len(rows), seed), trees]
    some = np.random.default_rng(seed).permutation(len(rows))[:_TRIAL]
    if np.bincount(given[some]).max() < _TRIAL_FOLDS:
        return models[0]
    learned, held = (some[part] for part in label_folds(given[some], None, _TRIAL_FOLDS, seed)[0])
    losses = [_held_out_loss(model, rows, given, learned, held) for model in models]
    return models[int(np.argmin(losses))]


def _held_out_loss(model: Any, rows: np.ndarray, given: np.ndarray, learned: np.ndarray, held: np.ndarray) -> float:
    n_classes = int(given.max()) + 1
    full = np.full((len(held), n_classes), 1e-6)
    full[:, np.unique(given[learned])] = fitted(model, rows[learned], given[learned]).predict_proba(rows[held])
    return log_loss(given[held], full / full.sum(axis=1, keepdims=True), labels=np.arange(n_classes))


def _networks(n_rows: int, seed: int) -> list[Any]:
    """Networks by torch, whose probabilities are steadier; one by scikit-learn where torch is not installed.

    Columns of one unit, such as pixels, are learned better as they are: their small spreads are mostly noise.
    """
    if importlib.util.find_spec("torch") is not None:
        network = importlib.import_module(".mean_network", __package__).MeanNetwork
        return [network(one_unit=one_unit, random_state=seed) for one_unit in (False, True)]
    perceptron = MLPClassifier((256, 256), batch_size=min(128, n_rows), max_iter=max(30, 150_000 // n_rows), random_state=seed)
    return [make_pipeline(StandardScaler(), perceptron)]
