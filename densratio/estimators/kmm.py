"""Kernel mean matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .._arrays import Array
from ..features import FEATURES, Features, Gaussian
from ..objectives import MaximumMeanDiscrepancy, Objective
from ..solvers import Solver, State
from .base import DensityRatio, Update, _seed, from_registry
from .contract import Samples
from .explicit_map import map_error, mapped, mean_mapped

__all__ = ["KMM"]

_MAPS = {name: kind for name, kind in FEATURES.items() if kind.is_map}


class KMM(DensityRatio):
    """Kernel mean matching: one weight for each source row, so that the source's kernel mean is the target's.

    Minimises the maximum mean discrepancy over 0 <= w <= max_weight with mean(w) = 1 within mean_tol, to a certified
    `gap_`. No density model, no centres to choose. Use it for weights of given rows; see `DensityRatio` for what is common
    to all.

    max_weight : float or None, upper bound of a weight. mean_tol : float in [0, 1) or "diw", how far the mean may be from 1.
    regularization : float >= 0, adds regularization |w|^2 / (2 n): spreads the weight over more rows; "cv" or a sequence: the
    best under k-fold cross-validation of the squared distance (see `score`).
    exact_up_to : int or None, source rows up to which the kernel is exact, in memory of n_source^2 entries. `fit` on more
    matches the Gaussian kernel through an explicit map, in memory of n_source times its n_centers columns, and no row is
    left out; None: exact for any number.
    approximation : {"nystroem", "random_fourier"}, that map. kernel="nystroem" or "random_fourier" uses it for any number.

    Fitted besides: approximation_, "exact" or the name of the map that approximates the kernel; approximation_error_, the
    relative error of the value at the weights under that map, against the exact kernel, estimated on 2000 rows of each
    sample (drawn by a fixed seed; all where there are no more). The weights are the exact solution of the approximate problem.

    With sample_weight a row counts as so many copies of it would; regularization is in the unit of the kernel of n rows, so
    twice the rows take twice the regularization for the same weights.

    Source: Huang et al. (2007), Correcting sample selection bias by unlabeled data. Maps: Williams & Seeger (2001), Rahimi &
    Recht (2007).
    """

    _choosable: ClassVar[tuple[str, ...]] = ("gamma", "regularization")

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        n_centers: int | None = None,
        max_weight: float | None = 1000.0,
        mean_tol: float | str = 0.0,
        regularization: float | str | Sequence[float] = 0.0,
        exact_up_to: int | None = 10_000,
        approximation: str = "nystroem",
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        device: str | None = None,
        random_state: Any = None,
        cv: int = 5,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "kmm", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.max_weight = max_weight
        self.mean_tol = mean_tol
        self.regularization = regularization
        self.exact_up_to = exact_up_to
        self.approximation = approximation

    def update(self, source: Array, target: Array, coef: Array | None = None, *, features: Features | None = None) -> Update:
        """See `DensityRatio.update`. Raises ValueError for a batch whose kernel matrix would pass exact_up_to rows."""
        if not self._uses_map() and self._is_beyond(source.shape[0]):
            raise ValueError(
                f"A batch of {source.shape[0]} source rows needs a kernel matrix of as many columns, and exact_up_to is "
                f'{self.exact_up_to}. Take smaller batches, kernel="nystroem", or exact_up_to=None.'
            )
        return super().update(source, target, coef, features=features)

    def _fit(self, samples: Samples) -> Array:
        self._is_approximated = not self._kernel_kind().is_map and self._is_beyond(samples.source.shape[0])
        if self._is_approximated and not issubclass(self._kernel_kind(), Gaussian) or self._kernel_name() == "laplacian":
            pass
        raw = super()._fit(samples)
        return raw
