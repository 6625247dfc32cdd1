"""Samples and measures for the tests of SpectralRatio and SubspaceLSIF."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

QUICK = {"gamma": "median", "regularization": 0.1, "max_iter": 10, "n_restarts": 1}


def draw(n_source=40, n_target=30, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_source, d)), rng.normal(0.6, 0.8, size=(n_target, d))


def nmse(truth, weights):
    truth, weights = truth / truth.mean(), weights / weights.mean()
    return np.mean((truth - weights) ** 2) / np.mean(truth**2)


def kernel(x, y, gamma):
    return np.exp(-gamma * cdist(x, y, "sqeuclidean"))
