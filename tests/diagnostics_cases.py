"""Weights and tables for the tests of the diagnostics."""

from __future__ import annotations

import numpy as np


def gaussian_shift(seed, n=500, m=500, d=2, delta=0.6):
    """Source N(0, I), target N(delta e_1, I), and the exact ratio."""
    rng = np.random.default_rng(seed)
    source, target = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    target[:, 0] += delta
    return source, target, lambda x: np.exp(delta * np.asarray(x)[:, 0] - delta**2 / 2)
