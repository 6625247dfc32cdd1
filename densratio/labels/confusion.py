"""Wrong labels as a latent class: out-of-fold probabilities of given labels, and the confusion between true and given ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["LabelModel", "label_posterior"]

_PRIOR_ROWS = 10.0  # rows that each class borrows from an even confusion at the common noise rate
_ROUNDS, _STEPS, _SHARPENINGS = 4, 5, 30
_SMALLEST = 1e-9
_FIRST_POWERS = np.geomspace(0.35, 3.0, 12)
_NEXT_POWERS = np.array([0.8, 0.9, 1.0, 1.1, 1.25])


class LabelModel(NamedTuple):
    """posterior (n, K): P(true class | row, given label). transition (K, K): P(given class | true class), rows sum to 1."""

    posterior: np.ndarray
    transition: np.ndarray


def label_posterior(proba: np.ndarray, given: np.ndarray, is_clean: np.ndarray) -> LabelModel:
    """True classes from probabilities proba (n, K) of the given labels, of rows that the model did not learn from.

    With q_k(x) = P(true class k | x) and T_kj = P(given j | true k) the model predicts sum_k q_k T_kj. In turn: q is taken
    back out of the probabilities (Richardson-Lucy steps at T), raised to the power under which the given labels are likeliest, and
    T follows by expectation-maximization. Products q T alone don't tell T: it is known where the true class of many rows is nearly
    certain. T starts at confident counts (Northcutt et al. 2021). P(label right) is q_g T_gg / sum_k q_k T_kg,
    for a given label g. A clean row says its true class: its label is likely under q alone, and counts for no confusion.
    given (n,): class numbers. is_clean (n,): rows whose given label is known to be right.
    """
    proba = np.maximum(proba, _SMALLEST)
    proba = proba / proba.sum(axis=1, keepdims=True)
    transition, power = _confident_transition(proba, given), 1.0
    for number in range(_ROUNDS):
        log_q = np.log(np.maximum(_sharpened(proba, transition), _SMALLEST))
        powers = power * _NEXT_POWERS if number else _FIRST_POWERS
        fits = [(*_fitted(_power(log_q, p), given, is_clean, transition), p) for p in powers]
        _, transition, power = max(fits, key=lambda fit: fit[0])
    q = _power(log_q, power)
    joint = np.where(is_clean[:, None], np.eye(proba.shape[1])[given], q * transition[:, given].T)
    return LabelModel(joint / joint.sum(axis=1, keepdims=True), transition)


def _confident_transition(proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    """T from rows counted for the class that is the likeliest of those above the mean of their own rows."""
    n_classes = proba.shape[1]
    sizes = np.bincount(given, minlength=n_classes)
    means = np.bincount(given, proba[np.arange(len(given)), given], n_classes) / np.maximum(sizes, 1)
    above = np.where((proba >= means) & (sizes > 0), proba, -1.0)
    rows = above.max(axis=1) > 0
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (above.argmax(axis=1)[rows], given[rows]), 1.0)
    return _smoothed(counts)


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Rows of T from counts (K, K), each drawn to the common rate of wrong labels, spread evenly."""
    n_classes = len(counts)
    wrong = 1.0 - np.trace(counts) / max(counts.sum(), _SMALLEST)
    even = np.where(np.eye(n_classes, dtype=bool), 1.0 - wrong, wrong / max(n_classes - 1, 1))
    smoothed = counts + _PRIOR_ROWS * even
    return smoothed / smoothed.sum(axis=1, keepdims=True)


def _sharpened(proba: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """q (n, K) with q T near proba: expectation-maximization in each row, which keeps q >= 0 with sum 1."""
    q = proba.copy()
    for _ in range(_SHARPENINGS):
        q *= (proba / np.maximum(q @ transition, _SMALLEST)) @ transition.T
    return q


def _power(log_q: np.ndarray, power: float) -> np.ndarray:
    raised = np.exp(power * (log_q - log_q.max(axis=1, keepdims=True)))
    return raised / raised.sum(axis=1, keepdims=True)


def _fitted(q: np.ndarray, given: np.ndarray, is_clean: np.ndarray, transition: np.ndarray) -> tuple[float, np.ndarray]:
    """Log-likelihood of the labels, and T after a few steps of expectation-maximization."""
    n_classes, noisy = q.shape[1], ~is_clean
    for _ in range(_STEPS):
        joint = q[noisy] * transition[:, given[noisy]].T
        likelihood = np.maximum(joint.sum(axis=1), np.finfo(float).tiny)
        joint /= likelihood[:, None]
        counts = np.array([np.bincount(given[noisy], joint[:, k], n_classes) for k in range(n_classes)])
        transition = _smoothed(counts)
    clean = np.log(np.maximum(q[is_clean, given[is_clean]], _SMALLEST)).sum()
    return float(np.log(likelihood).sum() + clean), transition
