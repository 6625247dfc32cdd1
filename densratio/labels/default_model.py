"""The classifier that `find_label_issues` takes where none is given."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .held_out import calibrated_loss, fitted, label_folds

__all__ = ["default_model"]

_TRIAL, _TRIAL_FOLDS = 8000, 3  # rows on which the models are compared: of 4000, trees can still seem better than networks
_RIDGES = 0.1, 0.001  # of few columns, and of embeddings: C of logistic regressions
_MARGIN = 0.03  # by which others have to predict better than networks, which learn the most from further rows


def default_model(rows: np.ndarray, given: np.ndarray, seed: int, groups: np.ndarray | None = None) -> Any:
    """The network, boosted trees or logistic regression that predicts held-out labels best, on as many rows as a trial needs.

    groups (n,): rows of one group are held out together.
    """
    networks, others = _networks(len(rows), seed), _small_models(seed)
    models = [*networks, *others]
    some = np.random.default_rng(seed).permutation(len(rows))[:_TRIAL]
    if np.bincount(given[some]).max() < _TRIAL_FOLDS:
        return networks[0]
    learned, held = (
        some[part] for part in label_folds(given[some], None if groups is None else groups[some], _TRIAL_FOLDS, seed)[0]
    )
    if len(np.unique(given[learned])) < 2:
        return networks[0]
    losses = [_held_out_loss(model, rows, given, learned, held) for model in models]
    margins = np.repeat([1.0, 1.0 + _MARGIN], [len(networks), len(others)])
    return models[int(np.argmin(margins * losses))]


def _held_out_loss(model: Any, rows: np.ndarray, given: np.ndarray, learned: np.ndarray, held: np.ndarray) -> float:
    full = np.zeros((len(held), int(given.max()) + 1))
    full[:, np.unique(given[learned])] = fitted(model, rows[learned], given[learned]).predict_proba(rows[held])
    return calibrated_loss(full, given[held])


def _small_models(seed: int) -> list[Any]:
    """Trees, and models that learn little of the noise where rows are few, or columns many or of little to say."""
    trees = [
        HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=n, early_stopping=False, random_state=seed) for n in (31, 4)
    ]
    return [*trees, *(make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=200)) for C in _RIDGES)]


def _networks(n_rows: int, seed: int) -> list[Any]:
    """Networks by torch, whose probabilities are steadier; one by scikit-learn where torch is not installed.

    Columns of one unit, such as pixels, are learned better as they are: their small spreads are mostly noise.
    """
    if importlib.util.find_spec("torch") is not None:
        network = importlib.import_module(".mean_network", __package__).MeanNetwork
        return [network(one_unit=one_unit, random_state=seed) for one_unit in (False, True)]
    perceptron = MLPClassifier((256, 256), batch_size=min(128, n_rows), max_iter=max(30, 150_000 // n_rows), random_state=seed)
    return [make_pipeline(StandardScaler(), perceptron)]
