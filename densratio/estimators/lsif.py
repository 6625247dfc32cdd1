"""Least-squares importance fitting, constrained and unconstrained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .._arrays import Array, put, to_host
from .._scale import some_of
from ..features import Features, at_bandwidths
from ..model_selection import leave_one_out_scores
from ..objectives.lsif import LeastSquares
from ..solvers import Solver
from .density_ratio import DensityRatio, bandwidths
from .samples import Samples, row_counts
from .search import ParameterSearch, by_gamma, in_order
from .solve import assemble, objective_of
from .sum_search import scores_from_sums

__all__ = ["LSIF"]

_LEFT_OUT = 1000  # rows of each sample, enough for the mean change by leaving one out


def _scores(ratio: LSIF, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    objectives: list[Any] = [objective_of(ratio, candidate) for candidate in candidates]
    if ratio.cv is not None or any(objective.nonnegative or objective.l1 > 0.0 for objective in objectives):
        return scores_from_sums(ratio, candidates, samples)
    groups = by_gamma(ratio, candidates)
    features = [assemble(ratio, samples, gamma, objectives[0]).features for gamma in groups]
    counts = [None if samples.source_weight is None else put(count, samples.source) for count in row_counts(samples)]
    n, m = samples.sizes
    left_out = (some_of(n, _LEFT_OUT), some_of(m, _LEFT_OUT)) if max(n, m) > _LEFT_OUT else None
    sides = (at_bandwidths(features, rows) for rows in (samples.source, samples.target))
    parts = []
    for places, source, target in zip(groups.values(), *sides, strict=True):
        strengths = [objectives[i].regularization for i in places]
        scores = leave_one_out_scores(
            source, target, strengths, alpha=ratio.alpha, source_weight=counts[0], target_weight=counts[1], left_out=left_out
        )
        parts.append(to_host(scores)[:, None])
    return in_order(groups, parts)


class LSIF(DensityRatio):
    """Least-squares importance fitting: the kernel expansion with the least mean squared error over the source.

    Minimizes the squared distance with an elastic-net penalty. nonnegative=True (default) keeps the coefficients, and so the
    ratio, >= 0; nonnegative=False with l1_ratio=0 is uLSIF, which has a closed form and clips negative ratios to 0. alpha > 0 is
    RuLSIF: `transform` then returns an estimate of the relative ratio p_target / (alpha p_target + (1 - alpha) p_source), which
    is at most 1 / alpha before division by `normalization_`. See `DensityRatio` for the common parameters and attributes.

    regularization : float >= 0, strength of the penalty, "cv" (nine values from 0.001 to 10) or a sequence of values.
    l1_ratio : float in [0, 1], 0 = L2 penalty only, 1 = L1 penalty only.
    alpha : float in [0, 1), share of the target in the denominator.

    "cv" and sequences (also of gamma) use the closed-form leave-one-out score if the fit has a closed form and cv is None, and
    k-fold cross-validation of the squared distance otherwise. The kernel centers are those of the fit.

    Source: Kanamori, Hido & Sugiyama (2009), A least-squares approach to direct importance estimation; Yamada et al. (2013),
    Relative density-ratio estimation for robust distribution comparison.
    """

    _of_objective: ClassVar[tuple[str, ...]] = ("regularization", "l1_ratio", "nonnegative", "alpha")
    _search: ClassVar[ParameterSearch] = ParameterSearch(
        {"gamma": bandwidths, "regularization": lambda ratio, samples: np.logspace(-3.0, 1.0, 9).tolist()}, _scores
    )

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
        scale: str | None = "auto",
        device: str | None = None,
        random_state: Any = 0,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "lsif", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, scale=scale, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.regularization = regularization
        self.l1_ratio = l1_ratio
        self.nonnegative = nonnegative
        self.alpha = alpha

    def _score_of(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
    ) -> Array:
        if self.alpha == 0.0:
            return super()._score_of(source_ratio, target_ratio, source_weight, target_weight)
        # `transform` has mean 1 over the source, but a relative ratio has mean 1 over the mixture.
        assert isinstance(self._problem, LeastSquares)
        mean = float(self._problem.mixture_mean(self._coef))
        scale = self.normalization_ / mean if mean > 0.0 else 1.0
        return super()._score_of(scale * source_ratio, scale * target_ratio, source_weight, target_weight)
