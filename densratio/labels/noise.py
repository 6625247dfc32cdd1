"""How labels were confused, from probabilities of rows that a model did not learn from; numpy alone."""

from __future__ import annotations

import numpy as np

__all__ = ["confident_share", "probability_of_right"]

_SMALLEST = 1e-4  # probability that a model's word counts for at most


def confident_share(proba: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Share of wrong labels among given labels y (n,), by confident counts of probabilities (n, C) learned from given labels too.

    A row counts for the class whose probability is farthest above the mean of that class over the rows that carry its label.
    Source: Northcutt, Jiang & Chuang (2021), Confident learning.
    """
    n_classes = proba.shape[1]
    sizes = np.bincount(y, weight, n_classes)
    means = np.bincount(y, weight * proba[np.arange(len(y)), y], n_classes) / np.maximum(sizes, np.finfo(float).tiny)
    is_above = (proba >= means) & (sizes > 0)
    rows = is_above.any(axis=1)
    counted = np.where(is_above, proba, -1.0).argmax(axis=1)
    joint = np.zeros((n_classes, n_classes))
    np.add.at(joint, (counted[rows], y[rows]), weight[rows])
    # Each given label counts as often as it was given.
    joint *= sizes / np.maximum(joint.sum(axis=0), np.finfo(float).tiny)
    return float(1.0 - np.trace(joint) / joint.sum())


def probability_of_right(proba: np.ndarray, y: np.ndarray, weight: np.ndarray, n_iter: int = 10) -> np.ndarray:
    """P(true label = y | x, y) (n,) from probabilities (n, C) of the true label, by expectation-maximization over the confusion.

    T[k, j] = P(given j | true k) and q[i, k] proportional to proba[i, k] T[k, y_i] in turn, from T = 0.8 on the diagonal.
    """
    n_classes = proba.shape[1]
    proba = np.maximum(proba, _SMALLEST)
    confusion = np.full((n_classes, n_classes), 0.2 / max(1, n_classes - 1))
    np.fill_diagonal(confusion, 0.8)
    q = _posterior(proba, y, confusion)
    for _ in range(n_iter):
        counts = np.full((n_classes, n_classes), 1.0 / n_classes)
        np.add.at(counts.T, y, q * weight[:, None])
        confusion = counts / counts.sum(axis=1, keepdims=True)
        q = _posterior(proba, y, confusion)
    return q[np.arange(len(y)), y]


def _posterior(proba: np.ndarray, y: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    q = proba * confusion[:, y].T
    return q / q.sum(axis=1, keepdims=True)
