"""Every estimator that runs in loops, and problems for it."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone

from densratio import LSIF, DensityRatio, stack_domains
from densratio.estimators import IN_LOOPS

BY_NAME = {
    **{name: kind() for name, kind in IN_LOOPS.items()},
    "ulsif": LSIF(nonnegative=False),
    "base": DensityRatio(),
}
SOURCE_ANCHORED = ["kmm", "wasserstein"]
TARGET_ANCHORED = ["base", "kliep", "lsif", "ulsif"]


def problem(name, n_source=40, n_target=30, seed=0, dtype=np.float64):
    """A source and a shifted target; one column for Wasserstein, whose `partial_fit` has closed forms there, and two for others."""
    d = 1 if name == "wasserstein" else 2
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_source, d)).astype(dtype), rng.normal(0.7, 0.8, size=(n_target, d)).astype(dtype)


def stacked(name, **sizes):
    return stack_domains(*problem(name, **sizes))


def new(name, **params):
    return clone(BY_NAME[name]).set_params(**params)
