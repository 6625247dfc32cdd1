"""The default classifier of `find_label_issues`."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from .._progress import ticked
from .._threads import threads_for
from .held_out import calibrated_losses, fitted, is_better, label_folds, probabilities

__all__ = ["default_model", "default_threads", "has_torch", "makes_networks", "torch_network"]

_TRIAL, _TRIAL_FOLDS = 8000, 3  # rows of the comparison (on 4000, trees can still seem better than networks), and its folds
_ALL_FOLDS = 500  # rows of a table up to which all folds are compared: fewer rows tell less
_RIDGES = 0.1, 0.001  # C of logistic regressions, for few columns and for embeddings
_FEW_IMAGES = 5000
# Rows for which a forest is tried: boosted trees and networks learn more of the noise in few rows; of fewer it is best by luck.
_FEW_ROWS = range(100, 2001)
_SMALL_IMAGE = 256  # pixels times channels up to which an image can be a row of a table
_ERRORS = 2.0  # standard errors
_MARGIN = 0.03  # by which others must predict better than networks, which gain most from more rows


def default_model(rows: np.ndarray, given: np.ndarray, seed: int, groups: np.ndarray | None = None, device: str = "cpu") -> Any:
    """The network, trees or logistic regression that predicts held-out labels best in a trial on some of the rows.

    Few rows of a table are all held out in turn, so that the choice depends less on chance.

    rows (n, d), or images (n, c, h, w) with torch. groups (n,): rows of one group are held out together. device: of the networks.
    """
    if rows.ndim == 4:
        networks, others = _image_models(rows, seed, device)
    else:
        networks, others = _networks(len(rows), seed, device), _small_models(len(rows), seed)
    models = [*networks, *others]
    some = np.random.default_rng(seed).permutation(len(rows))[:_TRIAL]
    if np.bincount(given[some]).max() < _TRIAL_FOLDS:
        return networks[0]
    folds = label_folds(given[some], None if groups is None else groups[some], _TRIAL_FOLDS, seed)
    n_folds = len(folds) if rows.ndim == 2 and len(rows) <= _ALL_FOLDS else 1
    trials = [[some[part] for part in fold] for fold in folds[:n_folds]]
    if any(len(np.unique(given[learned])) < 2 for learned, _ in trials):
        return networks[0]
    found = (np.concatenate([_held_out_losses(model, rows, given, *trial) for trial in trials]) for model in models)
    losses = np.stack(list(ticked(found, len(models), "Models compared")))
    means = losses.mean(axis=1)
    network, other = int(np.argmin(means[: len(networks)])), len(networks) + int(np.argmin(means[len(networks) :]))
    # Networks that see neighboring pixels are only replaced for a significant gain.
    errors = _ERRORS if rows.ndim == 4 else 0.0
    return models[other if is_better(losses[other], losses[network], _MARGIN, errors) else network]


def _held_out_losses(model: Any, rows: np.ndarray, given: np.ndarray, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    with default_threads(model, rows[learned]):
        learner = fitted(model, rows[learned], given[learned])
        return calibrated_losses(probabilities(learner, rows[held], int(given.max()) + 1), given[held])


def default_threads(model: Any, rows: np.ndarray) -> AbstractContextManager[None]:
    """Use one thread in the block for a default model of few rows; convolutions share their work between all.

    With another process on two cores, the trees of 3,000 rows took minutes with two threads, and seconds with one.
    """
    is_convolution = rows.ndim > 2 and isinstance(model, torch_network())
    return nullcontext() if is_convolution else threads_for(len(rows), rows[0].size)


def _small_models(n_rows: int, seed: int) -> list[Any]:
    """Trees, for few rows a forest, and models that learn little noise from few rows, or from many or uninformative columns."""
    trees = [
        HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=n, early_stopping=False, random_state=seed) for n in (31, 4)
    ]
    forest = [RandomForestClassifier(200, min_samples_leaf=3, random_state=seed)] if n_rows in _FEW_ROWS else []
    return [*trees, *forest, *(make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=200)) for C in _RIDGES)]


def _image_models(images: np.ndarray, seed: int, device: str) -> tuple[list[Any], list[Any]]:
    """Convolutions on images that are moved, mirrored too, or unchanged; and models of pixels (n, d), of large images a network."""
    network, factory = torch_network(), importlib.import_module(".image_network", __package__).image_network
    # With few rows large batches would give few steps.
    drawn = {"random_state": seed, "device": device}
    how = {"epochs": 10, "batch_size": 32 if len(images) < _FEW_IMAGES else 64, "rate": 1e-2, "share": 1 / 3, **drawn}
    convolutions = [network(factory, moves=moves, **how) for moves in ("shifts", "flips")]
    convolutions.append(network(**drawn))  # without normalization, for few or small images
    of_pixels = [network(one_unit=True, **drawn)]
    if images[0].size <= _SMALL_IMAGE:
        of_pixels += _small_models(len(images), seed)
    return convolutions, [make_pipeline(FunctionTransformer(_pixels), model) for model in of_pixels]


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def has_torch() -> bool:
    """Whether torch is installed; without it there are no models for images."""
    return importlib.util.find_spec("torch") is not None


def makes_networks(model: Any) -> bool:
    """Whether a model may be a function that makes networks, such as a class of them: no network, no estimator or class of one."""
    if isinstance(model, type):
        return hasattr(model, "parameters") or not hasattr(model, "fit")
    return callable(model) and not hasattr(model, "parameters") and not hasattr(model, "fit")


def torch_network() -> Any:
    """The class `MeanNetwork`. Raises ImportError without torch."""
    return importlib.import_module(".mean_network", __package__).MeanNetwork


def _networks(n_rows: int, seed: int, device: str) -> list[Any]:
    """Networks of torch, whose probabilities are steadier; one of scikit-learn without torch.

    Columns with one unit, such as pixels, are learned better unscaled: their small spreads are mostly noise.
    """
    if has_torch():
        return [torch_network()(one_unit=one_unit, random_state=seed, device=device) for one_unit in (False, True)]
    perceptron = MLPClassifier((256, 256), batch_size=min(128, n_rows), max_iter=max(30, 150_000 // n_rows), random_state=seed)
    return [make_pipeline(StandardScaler(), perceptron)]
