"""The data: samples from known laws, with rows kept apart to judge on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densratio.datasets.covariate_shift import (
    Shift,
    make_gaussian_shift,
    make_heavy_tails,
    make_mixture_shift,
    make_subspace_shift,
)

__all__ = ["SHIFTS", "Problem", "draw"]


def _subspace(n: int, m: int, d: int, *, random_state: int) -> Shift:
    return make_subspace_shift(n, m, d, n_directions=min(2, d), random_state=random_state)


SHIFTS: dict[str, Callable[..., Shift]] = {
    "gaussian": make_gaussian_shift,
    "mixture": make_mixture_shift,
    "heavy tails": make_heavy_tails,
    "subspace": _subspace,
}
"""Shifts by name: (n_source, n_target, d, random_state=) -> Shift, with the defaults of densratio.datasets."""


class Problem(NamedTuple):
    """What a contender sees (source, target, fresh source rows) and what it is judged by."""

    source: np.ndarray
    target: np.ndarray
    fresh: np.ndarray
    ratio_source: np.ndarray
    ratio_fresh: np.ndarray
    labels_source: np.ndarray
    fresh_target: np.ndarray
    labels_fresh_target: np.ndarray

    def save(self, path: Path) -> None:
        """Write what a contender sees; the truth stays here."""
        np.savez(path, source=self.source, target=self.target, fresh=self.fresh)


def draw(shift: str, n: int, m: int, d: int, seed: int, n_fresh: int) -> Problem:
    """n source and m target rows of the shift in d columns, and n_fresh more of each domain."""
    # One draw cut in two: the subspace of the shift is drawn too, so that another seed would be another law.
    data = SHIFTS[shift](n + n_fresh, m + n_fresh, d, random_state=seed)
    source, target = data.X_source, data.X_target
    labels_source, labels_target = data.labels_source, data.labels_target
    assert labels_source is not None and labels_target is not None
    return Problem(
        source=source[:n],
        target=target[:m],
        fresh=source[n:],
        ratio_source=data.ratio(source[:n]),
        ratio_fresh=data.ratio(source[n:]),
        labels_source=labels_source[:n],
        fresh_target=target[m:],
        labels_fresh_target=labels_target[m:],
    )
