"""Kullback-Leibler importance estimation procedure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..features import Features
from ..solvers import Solver
from .density_ratio import DensityRatio

__all__ = ["KLIEP"]


class KLIEP(DensityRatio):
    """Kullback-Leibler importance estimation: the kernel expansion of the ratio that maximizes the likelihood of the target.

    Minimizes KL(p_target | ratio p_source) over nonnegative coefficients; the mean over the source rows is exactly 1. There is
    no regularization to choose. See `DensityRatio` for parameters and attributes.

    gamma="cv" or a sequence of values: likelihood cross-validation by `score` on held-out rows of both domains; the held-out
    source rows penalize a kernel that is too narrow. The kernel centers are those of the fit.
    `partial_fit` keeps at most 20,000 target rows, a random sample of those seen.

    Source: Sugiyama et al. (2008), Direct importance estimation for covariate shift adaptation.
    """

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        n_centers: int | None = 100,
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        scale: str | None = "auto",
        device: str | None = None,
        random_state: Any = 0,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "kliep", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, scale=scale, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
