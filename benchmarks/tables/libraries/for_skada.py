"""skada's reweighting adapters. Runs in the foreign environment: imports nothing of densratio."""

from __future__ import annotations

import inspect

import numpy as np
from skada import (
    DensityReweightAdapter,
    DiscriminatorReweightAdapter,
    GaussianReweightAdapter,
    KLIEPReweightAdapter,
    KMMReweightAdapter,
    NearestNeighborReweightAdapter,
)

PACKAGES = ["skada", "POT", "scikit-learn", "scipy", "numpy"]
METHODS = {
    "kmm": KMMReweightAdapter,
    "kliep": KLIEPReweightAdapter,
    "density": DensityReweightAdapter,
    "gaussian": GaussianReweightAdapter,
    "classifier": DiscriminatorReweightAdapter,
    "neighbors": NearestNeighborReweightAdapter,
}
PIPELINE_DEFAULTS = {"kliep": {"gamma": 1.0}}
"""Defaults that skada's pipeline functions give to parameters for which the adapter has none."""
ROWS_ALONE = {"neighbors"}
"""Methods whose weights of new rows are a new fit that needs the target again."""


def fit(method, params, source, target, seed):
    """Weights (n_source,) as the library gives them, and rows (n, d) -> ratio (n,), or None where it weighs training rows alone."""
    np.random.seed(seed)  # noqa: NPY002
    kind = METHODS[method]
    seeded = {"random_state": seed} if "random_state" in inspect.signature(kind.__init__).parameters else {}
    model = kind(**{**PIPELINE_DEFAULTS.get(method, {}), **params, **seeded})
    rows, domain = np.concatenate([source, target]), np.repeat([1, -2], [len(source), len(target)])
    weights = model.fit(rows, sample_domain=domain).compute_weights(rows, sample_domain=domain)[: len(source)]

    def transform(new):
        return model.compute_weights(new, sample_domain=np.ones(len(new), dtype=int))

    return weights, None if method in ROWS_ALONE else transform
