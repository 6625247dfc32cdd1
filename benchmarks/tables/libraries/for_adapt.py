"""adapt's instance-based methods. Runs in the foreign environment: imports nothing of densratio."""

from __future__ import annotations

import inspect

import numpy as np
from adapt.instance_based import IWC, KLIEP, KMM, RULSIF, ULSIF, NearestNeighborsWeighting

PACKAGES = ["adapt", "cvxopt", "tensorflow", "scikit-learn", "scipy", "numpy"]
METHODS = {
    "kmm": KMM,
    "kliep": KLIEP,
    "ulsif": ULSIF,
    "rulsif": RULSIF,
    "neighbors": NearestNeighborsWeighting,
    "classifier": IWC,
}


def fit(method, params, source, target, seed):
    """Weights (n_source,) as the library gives them, and rows (n, d) -> ratio (n,), or None where it weighs training rows alone."""
    np.random.seed(seed)  # noqa: NPY002  its least-squares methods draw centers from the global state
    model = METHODS[method](Xt=target, verbose=0, random_state=seed, **params)
    weights = model.fit_weights(source, target)
    takes_rows = "X" in inspect.signature(model.predict_weights).parameters
    return weights, model.predict_weights if takes_rows else None
