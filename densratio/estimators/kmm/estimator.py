"""Kernel mean matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ..._arrays import Array, is_sparse
from ...features import Features
from ...objectives import Problem
from ...solvers import Solver
from ..density_ratio import DensityRatio, bandwidths
from ..explicit_map import MAPS, MapAverage, map_error
from ..off_sample import Predictor
from ..samples import Samples
from ..search import ParameterSearch, scores_of_clones
from ..solve import Assembly, make_features, objective_of
from .pair_search import scores_from_pairs
from .witness import MISS, Witness

__all__ = ["KMM"]


def _scores(ratio: KMM, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    # The kernel matrix of all rows serves all folds and regularizations; an explicit map would be fitted to each fold.
    features = make_features(ratio, objective_of(KMM()), samples.sizes[0], ratio.n_centers, "median")
    can_share = ratio.cv is None and not features.is_map and not is_sparse(samples.source)
    return (scores_from_pairs if can_share else scores_of_clones)(ratio, candidates, samples)


class KMM(DensityRatio):
    """Kernel mean matching: source weights that match the kernel mean of the source to that of the target.

    Minimizes the maximum mean discrepancy over 0 <= w <= max_weight with mean(w) = 1 within mean_tol, to a certified `gap_`.
    There is no density model and there are no centers to choose. Use it to weight given rows; see `DensityRatio` for the common
    parameters and attributes.

    max_weight : float or None, upper bound on each weight. mean_tol : float in [0, 1) or "diw", how far the mean may be from 1.
    regularization : float >= 0, adds regularization |w|^2 / (2 n); "cv" (five values from 0.01 to 100) or a sequence: the best by
    k-fold cross-validation of the squared distance (see `score`). At 0 a few rows get most of the weight, and the optimum is
    hardly unique: rounding, as of columns in other units, may move weight between rows whose kernel values are nearly alike,
    seen up to 1 % of the largest weight. The squared distance and the gap do not change by that.
    exact_up_to : int or None, largest number of source rows with the exact kernel, which takes memory n_source^2 and time up
    to n_source^3. With more rows the Gaussian kernel is approximated by an explicit map with n_centers columns, in memory and
    time linear in the rows; all rows are used. None: always exact.
    approximation : {"nystroem", "random_fourier"}, that map. kernel="nystroem" or "random_fourier" always uses it.

    `fit` also sets approximation_, "exact" or the name of the map, and approximation_error_, the relative error of the
    objective at the weights due to the map, estimated on at most 2000 rows of each sample (a seeded draw). The weights are the
    exact solution of the approximate problem; features of more than 2^24 entries are in single precision.

    With regularization > 0 `transform` returns the weight of a source row, and evaluates the formula of the optimality
    conditions at any other row. At 0, or if regularization is so small that the formula magnifies solver errors, it returns the
    kernel average of the weights near the row.

    A row with sample_weight k counts as k copies. The kernel sums grow with the number of rows but regularization does not:
    for the same weights, twice the rows or twice the sample_weight need twice the regularization.

    Source: Huang et al. (2007), Correcting sample selection bias by unlabeled data. Maps: Williams & Seeger (2001), Rahimi &
    Recht (2007).
    """

    _of_objective: ClassVar[tuple[str, ...]] = ("max_weight", "mean_tol", "regularization")
    _of_map: ClassVar[tuple[str, ...]] = ("exact_up_to", "approximation")
    _search: ClassVar[ParameterSearch] = ParameterSearch(
        {"gamma": bandwidths, "regularization": lambda ratio, samples: np.logspace(-2.0, 2.0, 5).tolist()},
        _scores,
        most_rows=1000,  # the time of a fit grows with their cube
    )

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        n_centers: int | None = None,
        max_weight: float | None = 1000.0,
        mean_tol: float | str = 0.0,
        regularization: float | str | Sequence[float] = 1.0,
        exact_up_to: int | None = 3000,
        approximation: str = "nystroem",
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
            "kmm", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, scale=scale, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.max_weight = max_weight
        self.mean_tol = mean_tol
        self.regularization = regularization
        self.exact_up_to = exact_up_to
        self.approximation = approximation

    def _fit(self, samples: Samples) -> Array:
        raw = super()._fit(samples)
        self.approximation_error_ = map_error(self.features_, samples, self._coef)
        return raw

    def _predictor_of(self, assembly: Assembly, problem: Problem, samples: Samples) -> Predictor:
        names = {kind: name for name, kind in MAPS.items()}
        self.approximation_ = names.get(type(assembly.features), "exact")
        if hasattr(self, "approximation_error_"):
            # Left from an earlier fit.
            del self.approximation_error_
        average, strength = super()._predictor_of(assembly, problem, samples), self._chosen("regularization")
        if strength == 0.0:
            return average
        weighted = average.weighted if isinstance(average, MapAverage) else None
        witness = Witness.of(assembly.features, samples, self._coef, strength, self.max_weight, weighted)
        # If regularization is so small that the formula magnifies solver errors, use the average instead.
        return witness if witness.misses(samples.source, self._coef) <= MISS else average
