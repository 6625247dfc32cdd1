"""Wasserstein-1 matching of one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..features import Features
from ..solvers import Solver
from .density_ratio import DensityRatio

__all__ = ["Wasserstein"]


class Wasserstein(DensityRatio):
    """Wasserstein-1 matching of one column: the source weights with the least Wasserstein-1 distance to the target.

    Exact: one sort per step, no critic and no bandwidth to choose (only `transform` on unseen rows uses kernel and gamma).
    Rows must have one column, such as losses; the most robust choice in training loops. See `DensityRatio` for the common
    parameters and attributes.

    max_weight : float or None, upper bound on each weight.

    Source: the Wasserstein variant of the ADIW paper, with the one-dimensional closed form instead of a critic.
    """

    _takes_sparse = False
    _of_objective: ClassVar[tuple[str, ...]] = ("max_weight",)

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        max_weight: float | None = 1000.0,
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        scale: str | None = "auto",
        device: str | None = None,
        random_state: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "wasserstein", kernel=kernel, gamma=gamma, n_centers=None, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, scale=scale, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.max_weight = max_weight
