"""Which network a table gets where none is named: a perceptron, or a linear one that is held back."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .held_out import calibrated_loss
from .rows import Rows
from .training import Plan, stopped

__all__ = ["with_network"]

_TRIAL, _HELD = 8000, 3  # rows of the trial at most, of which one in so many is held out
_RIDGES = 0.1, 0.01, 0.001  # C of logistic regressions: of few columns, and of embeddings
_MARGIN = 0.01  # by which they have to predict better than a perceptron, which is stopped where it predicts best


def with_network(plan: Plan, rows: Rows, seed: int) -> Plan:
    """The plan with a linear network where a logistic regression predicts the labels of held-out rows better than a perceptron.

    Its penalty is that of the regression. A perceptron learns wrong labels by heart where columns are many beside rows.
    """
    some = np.random.default_rng(seed).permutation(len(rows.y))[:_TRIAL]
    held, own = rows.take(some[: len(some) // _HELD]), rows.take(some[len(some) // _HELD :])
    if plan.factory is not None or rows.x.ndim != 2 or not len(held.y) or len(np.unique(own.y)) < 2:
        return plan
    losses = {C: _regression_loss(C, own, held, plan.n_classes) for C in _RIDGES}
    best = min(_RIDGES, key=lambda C: losses[C])
    perceptron = calibrated_loss(stopped(plan, own, held, seed), held.y, held.counts)
    return plan.linear(1.0 / (best * len(rows.y))) if (1.0 + _MARGIN) * losses[best] < perceptron else plan


def _regression_loss(C: float, own: Rows, held: Rows, n_classes: int) -> float:
    proba = np.zeros((len(held.y), n_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=C, max_iter=200).fit(own.x, own.y, sample_weight=own.counts / own.counts.mean())
    proba[:, fitted.classes_] = fitted.predict_proba(held.x)
    return calibrated_loss(proba, held.y, held.counts)
