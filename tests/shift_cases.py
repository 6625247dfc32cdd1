"""Shifts with known ratios, for the tests of their densities and of what their makers return."""

from __future__ import annotations

import numpy as np
import pytest

from densratio.datasets import (
    SELECTION_KINDS,
    make_gaussian_shift,
    make_heavy_tails,
    make_mixture_shift,
    make_selection_bias,
    make_subspace_shift,
)

THREE_MEANS = np.array([[0.0, 0.0], [3.0, -1.0], [-2.0, 2.0]])
MOVED_MEANS = THREE_MEANS + np.array([[0.5, 0.0], [0.0, 0.3], [-0.2, 0.2]])
DRAWN = {
    "gaussian": lambda **more: make_gaussian_shift(**more),
    "gaussian, equal spread": lambda **more: make_gaussian_shift(n_columns=3, scale=1.0, shift=[0.5, -0.3, 0.0], **more),
    "gaussian, narrower alone": lambda **more: make_gaussian_shift(n_columns=2, scale=0.8, shift=0.0, **more),
    "gaussian, wider": lambda **more: make_gaussian_shift(n_columns=2, scale=1.1, shift=0.2, **more),
    "mixture": lambda **more: make_mixture_shift(**more),
    "mixture, moved": lambda **more: make_mixture_shift(
        means=THREE_MEANS, target_means=MOVED_MEANS, source_weights=[2, 1, 1], target_weights=[1, 1, 2],
        scales=[1.0, 1.4, 0.5], **more
    ),
    "mixture, a component in the source alone": lambda **more: make_mixture_shift(
        n_columns=1, source_weights=[1, 1], target_weights=[0, 1], scales=[2.0, 0.5], **more
    ),
    "heavy tails": lambda **more: make_heavy_tails(**more),
    "heavy tails, three columns": lambda **more: make_heavy_tails(
        n_columns=3, df_source=2.5, df_target=4.0, shift=[0.3, 0.0, -0.4], scale=0.9, **more
    ),
    "subspace": lambda **more: make_subspace_shift(**more),
    "subspace, one direction": lambda **more: make_subspace_shift(n_columns=50, n_directions=1, shift=0.7, scale=0.9, **more),
    "subspace, all directions": lambda **more: make_subspace_shift(n_columns=3, n_directions=3, shift=0.0, **more),
}  # fmt: skip
TABLES = {kind: lambda kind=kind, **more: make_selection_bias(kind=kind, **more) for kind in SELECTION_KINDS}
MAKERS = {**DRAWN, **TABLES}
by_drawn = pytest.mark.parametrize("name", sorted(DRAWN))
by_maker = pytest.mark.parametrize("name", sorted(MAKERS))


def assert_within_five_standard_errors(values, expected=0.0, others=None):
    """Mean of `values` (n,) is `expected`, or the mean of the independent sample `others`."""
    variance = values.var(ddof=1) / len(values)
    if others is not None:
        expected, variance = others.mean(), variance + others.var(ddof=1) / len(others)
    assert abs(values.mean() - expected) <= 5 * np.sqrt(variance) + 1e-12
