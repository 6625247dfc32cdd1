"""Least-squares hetero-distributional subspace search: uLSIF in the subspace in which the domains differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from joblib import delayed

from ..._arrays import Array
from ..._blocks import over_rows
from ..._progress import run_all
from ..._validation import check_count, check_number, seed_of
from ...model_selection import Fold
from ...model_selection.leave_one_out import LEAST_ROWS
from ..base import RatioEstimator
from ..samples import Samples, WeightedRows, weighted_sides
from ..search import ParameterSearch, folds_by
from .divergence import gaussian
from .search import Search, Whitening

__all__ = ["SubspaceLSIF"]

_GAMMAS = (0.1, 0.316, 1.0, 3.16, 10.0)  # times the median rule
_STRENGTHS = (0.01, 0.0316, 0.1, 0.316, 1.0)
_FAR = 10.0  # spreads at which entries are clipped in the covariance
_LONG = 60  # ascent steps that "cv" compares with 0


def _numbers(ratio: SubspaceLSIF, samples: Samples) -> list[int]:
    return [k for k in (1, 2, 3, 5) if k <= samples.source.shape[1]] if min(samples.sizes) > 1 else [1]


def _lengths(ratio: SubspaceLSIF, samples: Samples) -> list[int]:
    return [0, _LONG] if min(samples.sizes) > 1 else [0]


def _scores(ratio: SubspaceLSIF, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    if len(candidates) == min(samples.sizes) == 1:
        return np.zeros((1, 1))
    folds, seed = folds_by(ratio.cv, samples), seed_of(ratio.random_state)
    points = [(c.get("n_components", ratio.n_components), c.get("max_iter", ratio.max_iter)) for c in candidates]
    tasks = (delayed(ratio._held_out_score)(samples, fold, *point, seed) for point in points for fold in folds)
    scores = run_all(tasks, len(points) * len(folds), "Search of SubspaceLSIF", ratio.n_jobs)
    return np.reshape(scores, (len(points), len(folds)))


class SubspaceLSIF(RatioEstimator):
    """Least-squares hetero-distributional subspace search: uLSIF in the subspace in which source and target differ most.

    The rows are whitened (invertible linear maps do not change the ratio). The search maximizes the relative Pearson divergence
    over k-dimensional projections U,

        PE(U) = h'a / 2 - 1/2,   a = (H + lambda I)^-1 h,   see `densratio.estimators.subspace.divergence`,

    by ascent on the Grassmann manifold. It starts from the directions in which means or covariances differ and from those in
    which a narrower kernel helps most, then restarts n_restarts times from the best result with its weakest direction redrawn.
    Every 15 steps the kernel is chosen again by the closed-form leave-one-out score, which also selects the best start. The fit
    is uLSIF in that subspace. If n_components is at least the rank of the data, it is plain uLSIF on whitened rows.

    Parameters
    ----------
    n_components : int, "cv" (1, 2, 3, 5) or a sequence of ints
        Dimension k of the subspace.
    gamma : float, {"median", "target_spread", "cv"} or a sequence of these
        Bandwidth in the projected whitened coordinates, in which every direction has pooled variance 1; "cv": five values from
        0.1 to 10 times the median rule on a hundred rows of each sample.
    regularization : float > 0, "cv" (five values from 0.01 to 1) or a sequence of values
        Strength of the L2 penalty. gamma and regularization are chosen by the leave-one-out score of the relative divergence.
    n_centers : int
        Number of target rows used as kernel centers.
    max_iter : int, "cv" or a sequence of ints
        Largest number of ascent steps from each start; 0: the best of the analytic starts. On few rows the ascent overfits, and
        "cv" compares 60 steps with 0 on held-out rows. This choice is noisy: on 40 tables for which 0 is best (20 columns, 1000
        rows each) it chose 60 twice. Use 0 if the domains are nearly Gaussian and so differ in their first two moments.
    n_restarts : int
        Number of restarts.
    search_alpha : float in [0, 1)
        alpha of the divergence that selects subspace and kernel; 0 is the Pearson divergence of the paper, which is sensitive to
        single rows with a large ratio. The fitted ratio always has alpha = 0.
    random_state : int, RandomState, Generator or None
        Seed of the choice of centers and of redrawn directions; None draws others in each fit.
    cv, n_jobs :
        Folds and joblib processes of the choice of n_components and max_iter. If a domain has
        a single distinct row, nothing can be held out: "cv" then means n_components 1, max_iter 0, the median rule and
        regularization 0.1.
    scale : {"auto", None}
        "auto": columns are in units of their spreads first, see `DensityRatio`, which a few far values do not change. None: the
        columns are whitened as they are.

    Attributes
    ----------
    subspace_ : (d, k) orthonormal columns; the ratio at x depends only on x @ subspace_.
    gamma_, regularization_, coef_ : the kernel expansion in the subspace.
    divergence_ : the Pearson divergence h'a - a'Ha/2 - 1/2 (alpha = 0) of the projected samples.
    n_components_, n_iter_ : k, and the number of ascent steps over all starts plus one for the final solve.
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Source: Sugiyama et al. (2011), Direct density-ratio estimation with dimensionality reduction via least-squares
    hetero-distributional subspace analysis; Cook & Weisberg (1991) for the start from second moments.
    """

    _search: ClassVar[ParameterSearch] = ParameterSearch({"n_components": _numbers, "max_iter": _lengths}, _scores)
    _returns: ClassVar[tuple[str, ...]] = ("coef_", "subspace_")

    def __init__(
        self,
        n_components: int | str | Sequence[int] = 2,
        *,
        gamma: float | str | Sequence[float | str] = "cv",
        regularization: float | str | Sequence[float] = "cv",
        n_centers: int = 100,
        max_iter: int | str | Sequence[int] = "cv",
        n_restarts: int = 2,
        search_alpha: float = 0.5,
        random_state: Any = 0,
        cv: Any = 2,
        n_jobs: int | None = None,
        scale: str | None = "auto",
    ):
        self.scale = scale
        self.n_components = n_components
        self.gamma = gamma
        self.regularization = regularization
        self.n_centers = n_centers
        self.max_iter = max_iter
        self.n_restarts = n_restarts
        self.search_alpha = search_alpha
        self.random_state = random_state
        self.cv = cv
        self.n_jobs = n_jobs

    def _fit(self, samples: Samples) -> Array:
        n_components, max_iter = self._chosen("n_components"), self._chosen("max_iter")
        self._fitted = fitted = self._searched(*weighted_sides(samples), n_components, max_iter, seed_of(self.random_state))
        unit = np.ones(samples.source.shape[1]) if self._unit is None else self._unit.spread
        self.subspace_ = fitted.whitening.subspace(fitted.basis, unit)
        self.n_components_ = fitted.basis.shape[1]
        self.coef_, self.gamma_, self.regularization_ = fitted.coef, fitted.gamma, fitted.regularization
        self.divergence_, self.n_iter_ = fitted.divergence, fitted.n_iter
        return self._ratio(samples.source)

    def _ratio(self, rows: Array) -> Array:
        return self._fitted.ratio(rows)

    def _held_out_score(self, samples: Samples, fold: Fold, n_components: int, max_iter: int, seed: int) -> float:
        kept, test = samples.split(fold)
        source, target = weighted_sides(kept)
        fitted = self._searched(source, target, n_components, max_iter, seed)
        mean = float(source.mean(fitted.ratio(source.rows)))
        at_source, at_target = (fitted.ratio(rows) / (mean if mean > 0.0 else 1.0) for rows in (test.source, test.target))
        return float(self._score_of(at_source, at_target, test.source_weight, test.target_weight))

    def _searched(self, source: WeightedRows, target: WeightedRows, n_components: int, max_iter: int, seed: int) -> _Fitted:
        self._check(n_components, max_iter)
        whitening = Whitening.of(source, target, np.inf if self.scale is None else _FAR)
        source, target = (_in_canonical_order(domain, whitening) for domain in (source, target))
        rng = np.random.default_rng(seed)
        centers = target.rows[np.sort(rng.permutation(len(target.rows))[: self.n_centers])]
        search = self._subspace_search(source, target, centers)
        basis, choice, n_iter = search.best(n_components, max_iter, self.n_restarts, rng)
        coef, divergence = search.criterion(choice, 0.0).solve(basis)
        return _Fitted(whitening, basis, centers @ basis, coef, choice.gamma, choice.regularization, divergence, 1 + n_iter)

    def _subspace_search(self, source: WeightedRows, target: WeightedRows, centers: np.ndarray) -> Search:
        can_leave_out = min(source.weight.sum(), target.weight.sum()) >= LEAST_ROWS
        gammas, strengths = _listed(self.gamma), _listed(self.regularization)
        if gammas_are_relative := _is_cv(self.gamma):
            gammas = list(_GAMMAS) if can_leave_out else [1.0]
        if _is_cv(self.regularization):
            strengths = list(_STRENGTHS) if can_leave_out else [0.1]
        return Search(source, target, centers, gammas, gammas_are_relative, strengths, self.search_alpha)

    def _check(self, n_components: Any, max_iter: Any) -> None:
        check_count("n_components", n_components)
        check_count("max_iter", max_iter, 0)
        check_count("n_centers", self.n_centers)
        check_count("n_restarts", self.n_restarts, 0)
        for strength in [] if _is_cv(self.regularization) else _listed(self.regularization):
            check_number("regularization", strength, "(0, inf)", ', "cv" or a sequence of numbers')
        for name in ("gamma", "regularization"):
            if not len(_listed(getattr(self, name))):
                raise ValueError(f'{name} is an empty sequence: give at least one value, or "cv".')
        check_number("search_alpha", self.search_alpha, "[0, 1)")


class _Fitted(NamedTuple):
    """A least-squares ratio in a subspace of whitened rows."""

    whitening: Whitening
    basis: np.ndarray
    centers: np.ndarray
    coef: np.ndarray
    gamma: float
    regularization: float
    divergence: float
    n_iter: int

    def ratio(self, rows: np.ndarray) -> np.ndarray:
        """The ratio (n,), >= 0, at unwhitened rows (n, d)."""

        def part(block: np.ndarray) -> np.ndarray:
            return gaussian(self.whitening(block) @ self.basis, self.centers, self.gamma) @ self.coef

        return np.maximum(over_rows(part, rows, max(len(self.coef), rows.shape[1])), 0.0)


def _in_canonical_order(domain: WeightedRows, whitening: Whitening) -> WeightedRows:
    """Whitened rows in an order invariant to rotations of the data: sorted by distance from the center, then shuffled."""
    white = whitening(domain.rows)
    # Round, so that rows at equal distances keep their order.
    order = np.argsort(np.round(np.sum(white * white, axis=1), 9), kind="stable")
    order = order[np.random.default_rng(0).permutation(len(order))]
    return WeightedRows(white[order], domain.weight[order])


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _is_cv(value: Any) -> bool:
    return isinstance(value, str) and value == "cv"
