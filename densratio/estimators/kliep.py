"""KL importance estimation procedure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..features import Features
from ..solvers import Solver
from .density_ratio import DensityRatio

__all__ = ["KLIEP"]


class KLIEP(DensityRatio):
    """KL importance estimation: the kernel expansion of the ratio under which the target's likelihood is largest.

    Minimizes KL(p_target | ratio p_source) over non-negative coefficients; the mean over the source rows is exactly 1.
    No strength of regularization to choose. See `DensityRatio` for parameters and attributes.

    gamma="cv" or a sequence of values: likelihood cross-validation, by `score` on rows left out of both domains; those of the
    source tell a narrow kernel, whose ratio is large at the rows that it saw alone. The kernel centers are those of the fit.
    A stream keeps at most 20,000 target rows, a random sample of those seen.

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
        device: str | None = None,
        random_state: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "kliep", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
