"""Samples and fits for the tests of ratios that minimize no divergence."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from densratio import KMM, SpectralRatio
from densratio._scale import distinct_of_any_columns

QUICK = {
    "discriminator": {"cv": 2},
    "stacked": {"estimators": [KMM(), SpectralRatio(n_components=5, random_state=0)], "cv": 2},
}


def quick(name):
    """Parameters of an estimator for tests of what all have: the default stack fits dozens of estimators, on five folds each."""
    return QUICK.get(name, {})


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8))


def samples(n_source=60, n_target=40, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_source, d)), rng.normal(0.5, 0.8, size=(n_target, d))


def by_row(y, of_source, of_target):
    """Values (n,) of the rows of X from those of the source and those of the target."""
    values = np.empty(len(y))
    values[y == 0], values[y == 1] = of_source, of_target
    return values


def source_places(y, order):
    """Where the source rows of X[order] are among those of X."""
    return (np.cumsum(y == 0) - 1)[order[y[order] == 0]]


def sorted_rows(rows):
    """The rows in the order in which estimators draw folds and centers from rows that all differ."""
    return rows[distinct_of_any_columns(rows)[0]]


def nmse(ratio, truth):
    return np.mean((ratio / ratio.mean() - truth / truth.mean()) ** 2)
