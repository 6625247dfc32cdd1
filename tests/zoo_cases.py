"""Samples and fits for the tests of ratios that minimize no divergence."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8))


def samples(n_source=60, n_target=40, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_source, d)), rng.normal(0.5, 0.8, size=(n_target, d))


def nmse(ratio, truth):
    return np.mean((ratio / ratio.mean() - truth / truth.mean()) ** 2)
