"""Class ratios q_y = p_target(y) / p_source(y) from the predictions of a classifier on both samples.

All functions take the probabilities of source rows (n, K) by classifiers that did not see them, the classes of these rows as
numbers (n,), the probabilities of target rows (m, K), and how often the rows count, of which the sum is a number of rows. They
return q (K,) >= 0 with sum_y p_source(y) q_y = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.optimize

__all__ = ["METHODS", "Calibration", "Predictions", "bbse", "class_shares", "mlls", "rlls"]

_TINY = 1e-12
_STEPS = 100
_ENOUGH = 1e-10


class Predictions(NamedTuple):
    """The inputs of the estimates of class ratios; arrays as in the module."""

    source: np.ndarray
    classes: np.ndarray
    target: np.ndarray
    source_count: np.ndarray
    target_count: np.ndarray

    def counted(self, source_count: np.ndarray, target_count: np.ndarray) -> Predictions:
        """The same rows with other counts, as a bootstrap draws them."""
        return self._replace(source_count=source_count, target_count=target_count)


def class_shares(classes: np.ndarray, counts: np.ndarray, n_classes: int) -> np.ndarray:
    """Share (K,) of each class."""
    shares = np.bincount(classes, counts, minlength=n_classes)
    return shares / shares.sum()


def mlls(given: Predictions) -> np.ndarray:
    """Maximum likelihood: the class shares that make the target rows most likely, by accelerated expectation maximization.

    maximize  sum_j t_j log sum_y q_y p(y | v_j) + a sum_y p_source(y) log q_y  over  q >= 0,  sum_y p_source(y) q_y = 1,
    a concave problem. The second term acts like a = K more target rows with the source's class frequencies; it keeps small samples
    from setting the share of a class that is hard to distinguish to 0. Each step is one of expectation maximization, which never
    leaves the simplex, extrapolated if the objective rises.
    Source: Saerens, Latinne & Decaestecker (2002); Alexandari, Kundaje & Shrikumar (2020).
    """
    n_classes, count = given.source.shape[1], given.target_count
    prior = np.maximum(class_shares(given.classes, given.source_count, n_classes), _TINY)
    relative, share, added = given.target / prior, prior.copy(), n_classes * prior
    total = count.sum() + added.sum()

    def step(share: np.ndarray) -> np.ndarray:
        return (share * ((count / np.maximum(relative @ share, _TINY)) @ relative) + added) / total

    def objective(share: np.ndarray) -> float:
        return float(count @ np.log(np.maximum(relative @ share, _TINY)) + added @ np.log(np.maximum(share, _TINY)))

    for _ in range(_STEPS):
        first = step(share)
        second = step(first)
        change, bend = first - share, second - 2.0 * first + share
        size = float(np.linalg.norm(bend))
        length = max(1.0, float(np.linalg.norm(change)) / size) if size > 0.0 else 1.0
        # Squared extrapolation (Varadhan & Roland, 2008), then a plain step, which restores the simplex.
        ahead = share + 2.0 * length * change + length**2 * bend
        ahead = second if ahead.min() < 0.0 else step(ahead / ahead.sum())
        if objective(ahead) < objective(second):
            ahead = second
        done = np.abs(ahead - share).max() < _ENOUGH
        share = ahead
        if done:
            break
    return share / share.sum() / prior


def bbse(given: Predictions) -> np.ndarray:
    """Black-box shift estimation: C q = mu with the confusion matrix C of the source and the predicted shares mu of the target.

    Negative entries are set to 0. Source: Lipton, Wang & Smola (2018).
    """
    return _normalized(np.linalg.lstsq(*_confusion(given), rcond=None)[0], given)


def rlls(given: Predictions) -> np.ndarray:
    """Regularized: q = 1 + theta with theta minimizing |C theta - (mu - C 1)|^2 + strength |theta|^2.

    The strength is the sampling variance of a share in mu - C 1, so that theta is near 0 if the samples are not informative.
    Source: Azizzadenesheli, Liu, Yang & Anandkumar (2019).
    """
    confusion, shares = _confusion(given)
    excess = shares - confusion.sum(axis=1)
    sizes = given.source_count.sum(), given.target_count.sum()
    # The unpenalized theta shows the expected size of theta.
    spread = max(1.0, float(np.mean((np.linalg.lstsq(confusion, shares, rcond=None)[0] - 1.0) ** 2)))
    strength = (1.0 / sizes[0] + 1.0 / sizes[1]) / (len(shares) * spread)
    matrix = confusion.T @ confusion + strength * np.eye(len(shares))
    return _normalized(1.0 + np.linalg.solve(matrix, confusion.T @ excess), given)


METHODS: dict[str, Callable[[Predictions], np.ndarray]] = {"mlls": mlls, "bbse": bbse, "rlls": rlls}
"""Estimates of class ratios by name."""


class Calibration(NamedTuple):
    """Bias-corrected temperature scaling: softmax(log p / temperature + bias)."""

    temperature: float
    bias: np.ndarray

    @classmethod
    def of(cls, probability: np.ndarray, classes: np.ndarray, counts: np.ndarray) -> Calibration:
        """The calibration with the best likelihood of the classes (n,) of rows with probabilities (n, K)."""
        logit, n_classes = _logit(probability), probability.shape[1]
        own, share = np.eye(n_classes)[classes], counts / counts.sum()

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            score = parameters[0] * logit + parameters[1:]
            score -= score.max(axis=1, keepdims=True)
            whole = np.exp(score).sum(axis=1)
            difference = share[:, None] * (np.exp(score) / whole[:, None] - own)
            value = share @ (np.log(whole) - score[np.arange(len(score)), classes])
            # A tiny penalty keeps the temperature above 0 if the classes are separated without error.
            value += 5e-5 * (parameters[0] ** 2 + parameters[1:] @ parameters[1:])
            slope = np.append(np.sum(difference * logit), difference.sum(axis=0)) + 1e-4 * parameters
            return float(value), slope

        found = scipy.optimize.minimize(loss, np.append(1.0, np.zeros(n_classes)), jac=True, method="L-BFGS-B").x
        return cls(1.0 / max(found[0], 1e-3), found[1:] - found[1:].mean())

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, K)."""
        score = _logit(probability) / self.temperature + self.bias
        score = np.exp(score - score.max(axis=1, keepdims=True))
        return score / score.sum(axis=1, keepdims=True)


def _logit(probability: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probability, _TINY, None))


def _confusion(given: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """C (K, K), the share of source rows predicted as i and of class j, and the predicted shares (K,) of the target."""
    n_classes = given.source.shape[1]
    pairs = given.source.argmax(axis=1) * n_classes + given.classes
    confusion = np.bincount(pairs, given.source_count, minlength=n_classes**2).reshape(n_classes, n_classes)
    return confusion / confusion.sum(), class_shares(given.target.argmax(axis=1), given.target_count, n_classes)


def _normalized(ratio: np.ndarray, given: Predictions) -> np.ndarray:
    ratio = np.clip(ratio, 0.0, None)
    mean = class_shares(given.classes, given.source_count, len(ratio)) @ ratio
    return ratio / mean if mean > 0.0 else np.ones_like(ratio)
