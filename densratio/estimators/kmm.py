"""Kernel mean matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..features import FEATURES, Features
from ..objectives import MaximumMeanDiscrepancy, Objective
from ..solvers import Solver
from .base import DensityRatio, from_registry
from .contract import Samples

__all__ = ["KMM"]


class KMM(DensityRatio):
    """Kernel mean matching: one weight for each source row, so that the source's kernel mean is the target's.

    Minimises the maximum mean discrepancy over 0 <= w <= max_weight with mean(w) = 1 within mean_tol, to a certified
    `gap_`. No density model, no centres to choose; memory is n_source^2 unless the kernel is an explicit map
    ("nystroem", "random_fourier"). Use it for weights of given rows; see `DensityRatio` for what is common to all.

    max_weight : float or None, upper bound of a weight. mean_tol : float in [0, 1) or "diw", how far the mean may be from 1.
    regularization : float >= 0, adds regularization |w|^2 / (2 n): spreads the weight over more rows; "cv" or a sequence: the
    best under k-fold cross-validation of the squared distance (see `score`).

    Source: Huang et al. (2007), Correcting sample selection bias by unlabeled data.
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
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        device: str | None = None,
        random_state: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "kmm", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.max_weight = max_weight
        self.mean_tol = mean_tol
        self.regularization = regularization

    def _make_objective(self) -> Objective:
        kind: Any = self.kernel if isinstance(self.kernel, Features) else from_registry("kernel", self.kernel, FEATURES)
        return MaximumMeanDiscrepancy(self.max_weight, self.mean_tol, self._chosen("regularization"), is_factored=kind.is_map)

    def _grid(self, name: str, samples: Samples) -> list[float]:
        return [0.0, *np.logspace(-3.0, 1.0, 5).tolist()] if name == "regularization" else super()._grid(name, samples)
