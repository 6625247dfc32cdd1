"""hoxo-m's densratio. Runs in its own environment, for it has our import name: imports nothing of ours."""

from __future__ import annotations

import numpy as np

from densratio import densratio, set_compute_kernel_target

PACKAGES = ["densratio", "numba", "numpy"]


def fit(method, params, source, target, seed):
    """Weights (n_source,) as the library gives them, and rows (n, d) -> ratio (n,).

    params may name `kernel_target`: "numpy" computes kernels as an installation without numba does.
    """
    np.random.seed(seed)  # noqa: NPY002  it draws its centers from the global state
    params = dict(params)
    set_compute_kernel_target(params.pop("kernel_target", "cpu"))
    # Its first sample is the numerator.
    model = densratio(target, source, method=method, verbose=False, **params)
    return model.compute_density_ratio(source), model.compute_density_ratio
