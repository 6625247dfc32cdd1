"""Least-squares importance fitting, constrained and unconstrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from joblib import Parallel, delayed

from .._arrays import Array, take_rows, to_host
from ..features import Features
from ..model_selection import Fold, leave_one_out_scores, stratified_folds
from ..objectives import SquaredDistance
from ..objectives.lsif import SquaredDistanceStatistics
from ..solvers import Solver
from .base import DensityRatio
from .contract import Samples

__all__ = ["LSIF"]


class LSIF(DensityRatio):
    """Least-squares importance fitting: the kernel expansion nearest to the ratio in mean square over the source.

    Minimises the squared distance with an elastic-net penalty. nonnegative=True (default) keeps the coefficients and so the
    ratio >= 0; nonnegative=False with l1_ratio=0 is uLSIF, in closed form, and clips negative ratios to 0. alpha > 0 is
    RuLSIF: `transform` then gives the relative ratio p_target / (alpha p_target + (1 - alpha) p_source), which never passes
    1 / alpha before it is divided by `normalization_`. See `DensityRatio` for what is common to all.

    regularization : float >= 0, strength of the penalty, "cv" (nine values from 0.001 to 10) or a sequence of values.
    l1_ratio : float in [0, 1], 0 = L2 alone, 1 = L1 alone.
    alpha : float in [0, 1), share of the target in the denominator.

    "cv" and sequences (of gamma too) choose by the closed-form leave-one-out score where the fit has a closed form, cv is None and
    rows count once, and by k-fold cross-validation of the squared distance elsewhere. The kernel centres are those of the fit.

    Source: Kanamori, Hido & Sugiyama (2009), A least-squares approach to direct importance estimation; Yamada et al. (2013),
    Relative density-ratio estimation for robust distribution comparison.
    """

    _choosable: ClassVar[tuple[str, ...]] = ("gamma", "regularization")

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        n_centers: int | None = 100,
        regularization: float | str | Sequence[float] = 0.01,
        l1_ratio: float = 0.0,
        nonnegative: bool = True,
        alpha: float = 0.0,
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
            "lsif", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.regularization = regularization
        self.l1_ratio = l1_ratio
        self.nonnegative = nonnegative
        self.alpha = alpha

    def _make_objective(self) -> SquaredDistance:
        return self._objective_with(self._chosen("regularization"))

    def _objective_with(self, regularization: float) -> SquaredDistance:
        return SquaredDistance(regularization, self.l1_ratio, self.nonnegative, self.alpha)

    def _grid(self, name: str, samples: Samples) -> list[float]:
        return np.logspace(-3.0, 1.0, 9).tolist() if name == "regularization" else super()._grid(name, samples)

    def _scores(self, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
        """One task a bandwidth: its features serve every strength of regularisation."""
        points = [(c.get("gamma", self.gamma), c.get("regularization", self.regularization)) for c in candidates]
        objectives = [self._objective_with(strength) for _, strength in points]
        folds = None if self._has_closed_form(objectives, samples) else self._folds(samples)
        bandwidths = list(dict.fromkeys(gamma for gamma, _ in points))
        members = [[i for i, (gamma, _) in enumerate(points) if gamma == g] for g in bandwidths]
        rows = Parallel(n_jobs=self.n_jobs)(
            delayed(self._scores_at)(gamma, [objectives[i] for i in of_gamma], samples, folds)
            for gamma, of_gamma in zip(bandwidths, members, strict=True)
        )
        scores = np.empty((len(candidates), 1 if folds is None else len(folds)))
        for of_gamma, values in zip(members, rows, strict=True):
            scores[of_gamma] = values
        return scores

    def _has_closed_form(self, objectives: list[SquaredDistance], samples: Samples) -> bool:
        return self.cv is None and samples.source_weight is None and all(objective.has_closed_form for objective in objectives)

    def _scores_at(
        self, gamma: Any, objectives: list[SquaredDistance], samples: Samples, folds: list[Fold] | None
    ) -> np.ndarray:
        features = self._fitted_features(objectives[0], samples, gamma)
        if folds is None:
            # The rows that are left out in pairs are the first of each sample: shuffled, so that their order says nothing.
            rng = np.random.default_rng(0)
            source, target = (take_rows(x, rng.permutation(x.shape[0])) for x in (samples.source, samples.target))
            strengths = [objective.regularization for objective in objectives]
            return to_host(leave_one_out_scores(features(source), features(target), strengths, alpha=self.alpha))[:, None]
        held_out = [self._fold_statistics(objectives[0], features, samples, fold) for fold in folds]
        total = held_out[0]
        for part in held_out[1:]:
            total = total.plus(part)
        like = features(samples.source[:1, :])
        return np.array([[self._fold_score(o, total.minus(part), part, like) for part in held_out] for o in objectives])

    def _fold_statistics(
        self, objective: SquaredDistance, features: Features, samples: Samples, fold: Fold
    ) -> SquaredDistanceStatistics:
        statistics = self._statistics(objective, features, samples.taking(fold.source, fold.target))
        assert isinstance(statistics, SquaredDistanceStatistics)
        return statistics

    def _fold_score(
        self, objective: SquaredDistance, kept: SquaredDistanceStatistics, held_out: SquaredDistanceStatistics, like: Array
    ) -> float:
        equal, *compact = objective.problem(kept, like)
        solver = self._make_solver(equal, compact[0], to_convergence=True)
        coef = solver.run(equal, solver.init(equal, *compact), *compact).coef
        return float(objective.held_out_score(coef, kept, held_out))
