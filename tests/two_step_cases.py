"""Tables and fitted ratios for the tests of ImportanceWeighted and importance-weighted scores."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from densratio import KLIEP, stack_domains

N = 60


def first_column(X):
    """The first column as floats, of arrays, frames, lists and sparse matrices."""
    dense = X.toarray() if scipy.sparse.issparse(X) else np.asarray(X, dtype=float)
    return dense[:, 0]


def ones(X):
    return np.ones(len(first_column(X)))


def tilt(X):
    """exp(0.5 x_1), the ratio of N(0.5, 1) to N(0, 1) up to scale."""
    return np.exp(0.5 * first_column(X))


def table(n=N, seed=0):
    """Source rows (n, 2), a real response and a class, both a function of the rows with noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    response = X[:, 0] ** 2 + X[:, 1] + 0.3 * rng.normal(size=n)
    return X, response, (response > 0.7).astype(int)


def fitted_ratio(kind=KLIEP, seed=1):
    X = table()[0]
    target = np.random.default_rng(seed).normal(0.6, 0.8, size=(50, 2))
    return kind(gamma=0.5).fit(*stack_domains(X, target))


def by_hand(ratio, X, flatten=1.0):
    weights = ratio(X) ** flatten
    return weights / weights.mean()


def as_ratio(values):
    """A callable that gives `values` whatever the rows."""
    return lambda X: values
