"""Least-squares importance fitting, constrained and unconstrained."""

from __future__ import annotations

from typing import Any

from ..features import Features
from ..objectives import Objective, SquaredDistance
from ..solvers import Solver
from .base import DensityRatio

__all__ = ["LSIF"]


class LSIF(DensityRatio):
    """Least-squares importance fitting: the kernel expansion nearest to the ratio in mean square over the source.

    Minimises the squared distance with an elastic-net penalty. nonnegative=True (default) keeps the coefficients and so the
    ratio >= 0; nonnegative=False with l1_ratio=0 is uLSIF, in closed form, and clips negative ratios to 0.
    See `DensityRatio` for what is common to all.

    regularization : float >= 0, strength of the penalty. l1_ratio : float in [0, 1], 0 = L2 alone, 1 = L1 alone.

    Source: Kanamori, Hido & Sugiyama (2009), A least-squares approach to direct importance estimation.
    """

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str = "median",
        n_centers: int | None = 100,
        regularization: float = 0.01,
        l1_ratio: float = 0.0,
        nonnegative: bool = True,
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        device: str | None = None,
        random_state: Any = None,
    ):
        super().__init__(
            "lsif", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, device=device, random_state=random_state,
        )  # fmt: skip
        self.regularization = regularization
        self.l1_ratio = l1_ratio
        self.nonnegative = nonnegative

    def _make_objective(self) -> Objective:
        return SquaredDistance(self.regularization, self.l1_ratio, self.nonnegative)
