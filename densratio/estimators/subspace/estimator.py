"""Least-squares importance fitting in the subspace where the two domains differ."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from joblib import Parallel, delayed

from ..._arrays import Array
from ..._blocks import over_rows
from ..._validation import seed_of
from ...model_selection import Fold
from ..base import RatioEstimator
from ..samples import Measure, Samples, distinct_folds, measures
from .divergence import gaussian
from .search import Search, Whitening

__all__ = ["SubspaceLSIF"]

_GAMMAS = (0.1, 0.316, 1.0, 3.16, 10.0)  # times the median rule's
_STRENGTHS = (0.01, 0.0316, 0.1, 0.316, 1.0)
_LONG = 60  # ascent steps that "cv" compares with none


class SubspaceLSIF(RatioEstimator):
    """Least-squares ratio in the few directions of the data along which source and target differ, which it searches.

    The rows are whitened (the ratio is the same under every invertible linear map), and of all k-dimensional projections U the
    search takes the one under which the samples have the largest relative Pearson divergence

        PE(U) = h'a / 2 - 1/2,   a = (H + lambda I)^-1 h,   see `densratio.objectives.projected_divergence`,

    by ascent on the Grassmann manifold: from the directions in which means or covariances differ and from those where a
    narrower kernel gains most, then n_restarts times from the best with its weakest direction drawn anew. The kernel is chosen anew
    every 15 steps by the closed-form leave-one-out score, which also tells the best start. uLSIF in the subspace is the fit.
    Where n_components is at least the number of directions the data have, it is plain uLSIF on whitened rows.

    Parameters
    ----------
    n_components : int, "cv" (1, 2, 3, 5) or a sequence of ints
        Dimension k of the subspace.
    gamma : float, {"median", "target_spread", "cv"} or a sequence of these
        Bandwidth in the projected whitened coordinates, where the pooled variance of each direction is 1; "cv": five values from
        0.1 to 10 times the median rule's on a hundred rows of each sample.
    regularization : float > 0, "cv" (five values from 0.01 to 1) or a sequence of values
        Both are chosen by the leave-one-out score of the relative divergence.
    n_centers : int
        Target rows that serve as kernel centers.
    max_iter : int, "cv" or a sequence of ints
        Most ascent steps from each start; 0: the best of the analytic starts. On few rows the ascent fits their noise, and "cv"
        compares 60 steps with 0 on rows held out. That choice is noisy: of 40 tables whose best is 0 (20 columns, 1000 rows each)
        it took 60 in two. Give 0 where the domains are near Gaussian, whose difference first and second moments tell.
    n_restarts : int
    search_alpha : float in [0, 1)
        alpha of the divergence by which subspace and kernel are chosen; 0 is the Pearson divergence of the paper, which follows
        single rows of large ratio. The ratio that is fitted is always that of alpha = 0.
    random_state : int, RandomState, Generator or None
        Choice of centers, redrawn directions.
    cv, n_jobs :
        Folds (an int counts folds of the distinct rows) and joblib processes by which n_components and max_iter are chosen. Where a
        domain has one distinct row nothing can be held out: "cv" stands for n_components 1, max_iter 0, the median rule
        and regularization 0.1.

    Attributes
    ----------
    subspace_ : (d, k) orthonormal columns; the ratio of a row x depends on x @ subspace_ alone.
    gamma_, regularization_, coef_ : the kernel expansion in the subspace.
    divergence_ : the Pearson divergence h'a - a'Ha/2 - 1/2 (alpha = 0) of the projected samples.
    n_components_, n_iter_ : k, and the ascent steps of all starts, the final solve counted as one.
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Source: Sugiyama et al. (2011), Direct density-ratio estimation with dimensionality reduction via least-squares
    hetero-distributional subspace analysis; Cook & Weisberg (1991) for the start by second moments.
    """

    _choosable: ClassVar[tuple[str, ...]] = ("n_components", "max_iter")
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
        random_state: Any = None,
        cv: Any = 2,
        n_jobs: int | None = None,
    ):
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

    # ------------------------------------------------------------ parts

    def _fit(self, samples: Samples) -> Array:
        n_components, max_iter = self._chosen("n_components"), self._chosen("max_iter")
        self._fitted = fitted = self._searched(*measures(samples), n_components, max_iter, seed_of(self.random_state))
        self.subspace_ = fitted.whitening.subspace(fitted.basis)
        self.n_components_ = fitted.basis.shape[1]
        self.coef_, self.gamma_, self.regularization_ = fitted.coef, fitted.gamma, fitted.regularization
        self.divergence_, self.n_iter_ = fitted.divergence, fitted.n_iter
        return self._ratio(samples.source)

    def _ratio(self, rows: Array) -> Array:
        return self._fitted.ratio(rows)

    def _grid(self, name: str, samples: Samples) -> list[int]:
        if min(len(domain.rows) for domain in measures(samples)) < 2:
            return [1 if name == "n_components" else 0]
        if name == "max_iter":
            return [0, _LONG]
        return [k for k in (1, 2, 3, 5) if k <= samples.source.shape[1]]

    def _folds(self, samples: Samples) -> list[Fold]:
        if self.cv is None or isinstance(self.cv, Integral):
            return distinct_folds(samples, 5 if self.cv is None else int(self.cv))
        return super()._folds(samples)

    def _scores(self, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
        if len(candidates) == 1 and min(len(domain.rows) for domain in measures(samples)) < 2:
            return np.zeros((1, 1))
        folds, seed = self._folds(samples), seed_of(self.random_state)
        points = [(c.get("n_components", self.n_components), c.get("max_iter", self.max_iter)) for c in candidates]
        scores = Parallel(n_jobs=self.n_jobs)(
            delayed(self._held_out_score)(samples, fold, *point, seed) for point in points for fold in folds
        )
        return np.reshape(scores, (len(points), len(folds)))

    def _held_out_score(self, samples: Samples, fold: Fold, n_components: int, max_iter: int, seed: int) -> float:
        source, target = measures(samples.taking(*fold.rest(*samples.sizes)))
        fitted = self._searched(source, target, n_components, max_iter, seed)
        mean = float(source.mean(fitted.ratio(source.rows)))
        test = samples.taking(*fold)
        at_source, at_target = (fitted.ratio(rows) / (mean if mean > 0.0 else 1.0) for rows in (test.source, test.target))
        return float(self._agreement(at_source, at_target, test.source_weight, test.target_weight))

    def _searched(self, source: Measure, target: Measure, n_components: int, max_iter: int, seed: int) -> _Fitted:
        self._check(n_components, max_iter)
        whitening = Whitening.of(source, target)
        source, target = (_in_canonical_order(domain, whitening) for domain in (source, target))
        rng = np.random.default_rng(seed)
        centers = target.rows[np.sort(rng.permutation(len(target.rows))[: self.n_centers])]
        search = self._search(source, target, centers)
        basis, choice, n_iter = search.best(n_components, max_iter, self.n_restarts, rng)
        coef, divergence = search.criterion(choice, 0.0).solve(basis)
        return _Fitted(whitening, basis, centers @ basis, coef, choice.gamma, choice.regularization, divergence, 1 + n_iter)

    def _search(self, source: Measure, target: Measure, centers: np.ndarray) -> Search:
        can_leave_out = min(len(source.rows), len(target.rows)) >= 2
        gammas, strengths = _listed(self.gamma), _listed(self.regularization)
        if gammas_are_relative := _is_cv(self.gamma):
            gammas = list(_GAMMAS) if can_leave_out else [1.0]
        if _is_cv(self.regularization):
            strengths = list(_STRENGTHS) if can_leave_out else [0.1]
        return Search(source, target, centers, gammas, gammas_are_relative, strengths, self.search_alpha)

    def _check(self, n_components: Any, max_iter: Any) -> None:
        for name, value, least in (
            ("n_components", n_components, 1), ("max_iter", max_iter, 0),
            ("n_centers", self.n_centers, 1), ("n_restarts", self.n_restarts, 0),
        ):  # fmt: skip
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(f"{name} must be an int >= {least}; got {value!r}.")
        for strength in [] if _is_cv(self.regularization) else _listed(self.regularization):
            if isinstance(strength, bool) or not isinstance(strength, Real) or not 0.0 < float(strength) < float("inf"):
                raise ValueError(f'regularization must be a finite number > 0, "cv" or a sequence of numbers; got {strength!r}.')
        for name in ("gamma", "regularization"):
            if not len(_listed(getattr(self, name))):
                raise ValueError(f'{name} is an empty sequence: give at least one value, or "cv".')
        if not 0.0 <= self.search_alpha < 1.0:
            raise ValueError(f"search_alpha must be in [0, 1); got {self.search_alpha!r}.")


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
        """The ratio (n,), >= 0, of rows (n, d) of the data."""

        def part(block: np.ndarray) -> np.ndarray:
            return gaussian(self.whitening(block) @ self.basis, self.centers, self.gamma) @ self.coef

        return np.maximum(over_rows(part, rows, max(len(self.coef), rows.shape[1])), 0.0)


def _in_canonical_order(domain: Measure, whitening: Whitening) -> Measure:
    """Whitened rows in an order that rotating the data does not change: by distance from the middle, then shuffled."""
    white = whitening(domain.rows)
    # Rounded, so that rows at equal distances stay in the order of the measure.
    order = np.argsort(np.round(np.sum(white * white, axis=1), 9), kind="stable")
    order = order[np.random.default_rng(0).permutation(len(order))]
    return Measure(white[order], domain.weight[order])


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _is_cv(value: Any) -> bool:
    return isinstance(value, str) and value == "cv"
