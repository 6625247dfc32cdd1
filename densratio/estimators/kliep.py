"""KL importance estimation procedure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ..features import Features
from ..objectives import KullbackLeibler, Objective, Statistics
from ..objectives.kliep import LikelihoodStatistics
from ..solvers import Solver
from .base import DensityRatio
from .contract import Samples

__all__ = ["KLIEP"]

_KEPT_TARGETS = 20_000


class KLIEP(DensityRatio):
    """KL importance estimation: the kernel expansion of the ratio under which the target's likelihood is largest.

    Minimises KL(p_target | ratio p_source) over non-negative coefficients; the mean over the source rows is exactly 1.
    No strength of regularisation to choose. See `DensityRatio` for parameters and attributes.

    gamma="cv" or a sequence of values: likelihood cross-validation, the mean of log ratio over target rows left out. The
    kernel centres are those of the fit. A stream keeps at most 20,000 target rows, a random sample of those seen.

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

    def _make_objective(self) -> Objective:
        return KullbackLeibler()

    def _scores(self, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
        """Likelihood of held-out target rows; the source, which only fixes the scale, is used whole."""
        folds = [fold.target for fold in self._folds(samples)]
        tasks = (delayed(self._likelihoods)(candidate["gamma"], samples, folds) for candidate in candidates)
        return np.array(Parallel(n_jobs=self.n_jobs)(tasks))

    def _likelihoods(self, gamma: Any, samples: Samples, folds: list[np.ndarray]) -> list[float]:
        objective = KullbackLeibler()
        features = self._fitted_features(objective, samples, gamma)
        whole = self._statistics(objective, features, samples)
        assert isinstance(whole, LikelihoodStatistics)
        return [self._likelihood(whole, np.setdiff1d(np.arange(samples.target.shape[0]), fold), fold) for fold in folds]

    def _likelihood(self, whole: LikelihoodStatistics, kept: np.ndarray, held_out: np.ndarray) -> float:
        objective, *compact = KullbackLeibler().problem(whole.of_target_rows(kept), whole.target)
        solver = self._make_solver(objective, compact[1], to_convergence=True)
        coef = solver.run(objective, solver.init(objective, *compact), *compact).coef
        rest, mean, target = KullbackLeibler().problem(whole.of_target_rows(held_out), whole.target)
        return -float(rest.value_and_grad(coef, mean, target)[0])

    def _bounded(self, statistics: Statistics) -> Statistics:
        assert isinstance(statistics, LikelihoodStatistics)
        return statistics.thinned(_KEPT_TARGETS)
