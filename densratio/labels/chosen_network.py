"""The default network for rows: a perceptron, or a linear one with a penalty; convolutions for images."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .held_out import calibrated_loss, calibrated_losses, is_better, probabilities
from .rows import Rows, dealt, held_shares
from .training import Plan, stopped

__all__ = ["with_network"]

_TRIAL, _FOLDS, _FEW = 8000, 3, 3000  # most rows of the trial; its folds; and rows up to which every fold is held out
_DECAYS = 0.03, 0.1, 0.3, 1.0  # penalties for few columns up to embeddings
_TRIAL_IMAGES, _TRIAL_EPOCHS = 3000, 10
_PART, _STEPS = 0.25, 300  # share of the epochs that convolutions need, and their fewest steps
_LESS = 1.0 / 3.0  # share of the penalty that suffices if wrong labels have small weights
# A perceptron, stopped where it predicts these rows best, must predict better by this share and these standard errors.
_MARGIN, _ERRORS = 0.02, 2.0


def with_network(plan: Plan, rows: Rows, seed: int, *, finds_wrong: bool) -> Plan:
    """The plan with a linear network if a logistic regression predicts held-out labels as well as a perceptron does.

    Its penalty is that of the regression, or smaller if wrong labels are found before it is trained. A perceptron memorizes wrong
    labels if there are many columns and few rows. Images (n, c, h, w) get convolutions, and are moved during training.
    """
    if plan.factory is not None or len(rows.y) < _FOLDS:
        return plan
    if rows.x.ndim == 4:
        fewer = max(round(_PART * plan.epochs), -(-_STEPS // -(-len(rows.y) // plan.batch_size)))
        return plan.of_images(_moves(plan, rows, seed), min(plan.epochs, fewer) if finds_wrong else plan.epochs)
    some = rows.take(np.random.default_rng(seed).permutation(len(rows.y))[:_TRIAL])
    shares = held_shares(some, _FOLDS, seed).T
    deals = [dealt(some, share) for share in (shares if len(some.y) <= _FEW else shares[:1]) if (share > 0).any()]
    if any(len(np.unique(own.y)) < 2 for own, _ in deals):
        return plan
    counts = np.concatenate([held.counts for _, held in deals])
    losses = {decay: np.concatenate([_regression_losses(decay, *deal, plan.n_classes) for deal in deals]) for decay in _DECAYS}
    best = min(_DECAYS, key=lambda decay: counts @ losses[decay])
    trials = [plan.at(f"Choice of the network, trial {number} of {len(deals)}") for number in range(1, len(deals) + 1)]
    found = [stopped(trial, own, held, seed) for trial, (own, held) in zip(trials, deals, strict=True)]
    perceptron = np.concatenate(
        [calibrated_losses(proba, held.y, held.counts) for proba, (_, held) in zip(found, deals, strict=True)]
    )
    if is_better(perceptron, losses[best], _MARGIN, _ERRORS, counts):
        return plan
    return plan.linear(_LESS * best if finds_wrong else best)


def _moves(plan: Plan, rows: Rows, seed: int) -> str:
    """The moves of images in training: "flips" if mirroring improves the prediction of held-out labels, or else "shifts" alone."""
    some = rows.take(np.random.default_rng(seed).permutation(len(rows.y))[:_TRIAL_IMAGES])
    own, held = dealt(some, held_shares(some, _FOLDS, seed)[:, 0])
    if not len(held.y) or len(np.unique(own.y)) < 2:
        return "shifts"
    losses = {}
    for moves in ("shifts", "flips"):
        trial = plan.of_images(moves, min(plan.epochs, _TRIAL_EPOCHS)).at(f"Trial of images moved by {moves}")
        found = stopped(trial, own, held, seed)
        losses[moves] = calibrated_loss(found, held.y, held.counts)
    return min(losses, key=losses.__getitem__)


def _regression_losses(decay: float, own: Rows, held: Rows, n_classes: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression = LogisticRegression(C=1.0 / (decay * len(own.y)), max_iter=200)
        regression.fit(own.x, own.y, sample_weight=own.counts / own.counts.mean())
    return calibrated_losses(probabilities(regression, held.x, n_classes), held.y, held.counts)
