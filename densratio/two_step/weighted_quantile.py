"""Quantiles of weighted scores and one more row of infinite score, for conformal prediction under covariate shift."""

from __future__ import annotations

import numpy as np

__all__ = ["needed", "row_quantiles", "score_quantiles", "weight_below"]

_ROUNDING = 1e-12  # rounding in a sum of weights must not ask for one more row


def needed(weights: np.ndarray, new_weights: np.ndarray, confidence: float) -> np.ndarray:
    """Weight (m,) of the scores up to the quantile: confidence (sum w_i + w(x)). weights (n,), new_weights (m,)."""
    return confidence * (np.sum(weights) + new_weights) * (1.0 - _ROUNDING)


def score_quantiles(scores: np.ndarray, weights: np.ndarray, need: np.ndarray) -> np.ndarray:
    """The least score (m,) up to which the weights (n,) of the scores (n,) sum to `need` (m,); infinity if they never do."""
    order = np.argsort(scores)
    place = np.searchsorted(np.cumsum(weights[order]), need, side="left")
    return np.append(scores[order], np.inf)[place]


def row_quantiles(scores: np.ndarray, weights: np.ndarray, need: np.ndarray) -> np.ndarray:
    """As `score_quantiles`, with separate scores (m, n) for each of the m new rows."""
    order = np.argsort(scores, axis=1)
    place = np.sum(np.cumsum(weights[order], axis=1) < need[:, None], axis=1)
    padded = np.pad(np.take_along_axis(scores, order, axis=1), ((0, 0), (0, 1)), constant_values=np.inf)
    return np.asarray(np.take_along_axis(padded, place[:, None], axis=1)[:, 0])


def weight_below(scores: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Sum of the weights (n,) of the scores (n,) below each value of `at`, of any shape."""
    order = np.argsort(scores)
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    return sums[np.searchsorted(scores[order], at, side="left")]
