"""Spectral series: the ratio expanded in the eigenfunctions of a kernel operator under the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
from joblib import delayed

from .._arrays import Array, host_numbers, take_rows
from .._blocks import over_rows, row_slices
from .._progress import run_all
from .._threads import few_threads
from .._validation import check_count, check_rows, seed_of
from ..features import Features, Gaussian, Nystroem
from ..model_selection import Fold
from ..objectives.moments import Moments
from .base import RatioEstimator
from .samples import Samples, WeightedRows, weighted_sides
from .search import ParameterSearch, by_gamma, folds_by, in_order

__all__ = ["SpectralRatio"]

_LEAST_EIGENVALUE = 1e-6  # relative to the largest: below it eigenfunctions are sampling noise, and below 1e-12 rounding noise
_MOST_COMPONENTS = 100
_GAMMAS = np.logspace(-1.5, 1.5, 9)


def _gammas(ratio: SpectralRatio, samples: Samples) -> list[float]:
    width = _width(samples, "median")
    return [float(width * factor) for factor in _GAMMAS] if min(samples.sizes) > 1 else [width]


def _width(samples: Samples, gamma: Any) -> float:
    """The bandwidth that a number or a rule gives."""
    source, target = weighted_sides(samples)
    origin = None if samples.origin is None else host_numbers(samples.origin)
    return float(Gaussian(gamma=gamma).bandwidth(source.rows, target.rows, source.weight, target.weight, origin=origin))


def _numbers(ratio: SpectralRatio, samples: Samples) -> list[int]:
    most = min(_MOST_COMPONENTS, samples.sizes[0], ratio.n_centers or _MOST_COMPONENTS) if min(samples.sizes) > 1 else 1
    return np.unique(np.geomspace(1, most, 25).astype(int)).tolist()


def _scores(ratio: SpectralRatio, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    """Scores with one task per bandwidth, whose features serve all numbers of components."""
    if len(candidates) == min(samples.sizes) == 1:
        return np.zeros((1, 1))
    numbers = [_count(candidate.get("n_components", ratio.n_components)) for candidate in candidates]
    groups = by_gamma(ratio, candidates)
    maps = [ratio._map(samples, gamma) for gamma in groups]
    folds, members = folds_by(ratio.cv, samples), [[numbers[i] for i in places] for places in groups.values()]
    tasks = (delayed(_held_out_scores)(features, samples, folds, n) for features, n in zip(maps, members, strict=True))
    return in_order(groups, run_all(tasks, len(maps), "Search of SpectralRatio", ratio.n_jobs))


class SpectralRatio(RatioEstimator):
    """Spectral series: the ratio expanded in the eigenfunctions of the kernel operator under the source.

    The eigenfunctions psi_1, psi_2, ... of (K f)(x) = mean_i k(x, x_i) f(x_i), k(x, y) = exp(-gamma |x - y|^2), are orthonormal
    under the source and adapt to its shape, which in many columns often has a low intrinsic dimension. The ratio is

        r(x) = max(0, sum_{j <= n_components} beta_j psi_j(x)),   beta_j = mean psi_j over the target,

    where beta_j estimates the inner product of the true ratio with psi_j. With more than n_centers source rows the kernel is
    replaced by its Nystroem approximation with n_centers of them; all rows enter, in blocks, through n_centers x n_centers
    matrices. X may be a CSR matrix. Far from all source rows the ratio is 0, and nowhere is it larger than at a source row: in gaps
    of the source, as in the tail of a skewed column, eigenfunctions of small eigenvalues are far larger than at its rows.

    Parameters
    ----------
    gamma : float, {"median", "target_spread", "cv"} or a sequence of these
        Bandwidth, in the units that `scale` gives to the columns; rules as in `DensityRatio`, "cv": nine values from 1/32 to 32
        times the median rule.
    n_components : int, "cv" or a sequence of ints
        Number of eigenfunctions, by decreasing eigenvalue. "cv": about 25 values from 1 to 100. Eigenfunctions with an
        eigenvalue below 1e-6 times the largest are left out; `n_components_` is the number used.
    n_centers : int or None
        Number of source rows, drawn at random, in whose kernels the eigenfunctions are expanded; None: all, at cubic cost.
    random_state : int, RandomState, Generator or None
        Seed of the choice of centers; None draws others in each fit.
    cv, n_jobs :
        Folds (by default 5) and joblib processes of "cv" and sequences, which maximize
        mean r(target) - mean r(source)^2 / 2 on held-out rows, less its standard error over the folds: else a few rows of a heavy
        tail would choose. One decomposition per bandwidth and fold serves all numbers of
        components. If a domain has a single distinct row, nothing can be held out: "cv" then means one component, and the
        median rule.

    scale : {"auto", None}
        "auto": distances are in units of each column's spread, see `DensityRatio`. None: the columns are used as they are.

    Attributes
    ----------
    beta_, eigenvalues_ : (n_components_,) coefficients, and eigenvalues of the operator, which has trace 1.
    n_components_, gamma_, centers_ : number of components and bandwidth used, and the centers (k, d).
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Source: Izbicki, Lee & Schafer (2014), High-dimensional density ratio estimation with extensions to approximate likelihood
    computation.
    """

    _takes_sparse: ClassVar[bool] = True
    _search: ClassVar[ParameterSearch] = ParameterSearch({"gamma": _gammas, "n_components": _numbers}, _scores, is_cautious=True)
    _returns: ClassVar[tuple[str, ...]] = ("beta_", "centers_", "eigenvalues_")

    def __init__(
        self,
        *,
        gamma: float | str | Sequence[float | str] = "median",
        n_components: int | str | Sequence[int] = "cv",
        n_centers: int | None = 200,
        random_state: Any = 0,
        cv: Any = None,
        n_jobs: int | None = None,
        scale: str | None = "auto",
    ):
        self.scale = scale
        self.gamma = gamma
        self.n_components = n_components
        self.n_centers = n_centers
        self.random_state = random_state
        self.cv = cv
        self.n_jobs = n_jobs

    def eigenfunctions(self, X: Any) -> Any:
        """The eigenfunctions psi_1, ..., psi_{n_components_} (n, n_components_) at the rows of X (n, d)."""
        self._check_is_fitted()
        rows = check_rows(self, X, reset=False)
        placed, basis = self._scaled(self._placed(rows)), self._basis
        values = over_rows(lambda part: self._features(part) @ basis, placed, basis.shape[0])
        return self._returned(values, rows)

    def _fit(self, samples: Samples) -> Array:
        source, target = weighted_sides(samples)
        # The eigenfunctions are features(x) @ basis, basis (k, J).
        self._features = features = self._map(samples, self._chosen("gamma"))
        eigenvalues, basis = _eigenbasis(_moments(features, source, features.n_columns).second)
        n_components = min(_count(self._chosen("n_components")), len(eigenvalues))
        eigenvalues, basis = eigenvalues[:n_components], basis[:, :n_components]
        self._basis = _orthonormal(features, source, basis)
        self.beta_ = _moments(features, target, features.n_columns).mean @ self._basis
        self.eigenvalues_ = eigenvalues
        self.n_components_, self.gamma_ = n_components, float(features.gamma_)
        self.centers_ = self._unscaled(features.centers_.astype(samples.source.dtype))
        self._coef = self._basis @ self.beta_
        self._most = np.inf
        ratio = self._ratio(samples.source)
        self._most = float(ratio.max())
        return ratio

    def _ratio(self, rows: Array) -> Array:
        features = self._features
        ratio = over_rows(lambda part: features(part) @ self._coef, rows.astype(np.float64), features.n_columns)
        return np.clip(ratio, 0.0, self._most)

    def _map(self, samples: Samples, gamma: Any) -> Features:
        """The explicit map of the kernel that is exact on the centers, which are source rows."""
        n = samples.sizes[0]
        most = n if self.n_centers is None else check_count("n_centers", self.n_centers, more=" or None")
        keep = np.arange(n)
        if most < n:
            keep = np.sort(np.random.default_rng(seed_of(self.random_state)).permutation(n)[:most])
        centers = take_rows(host_numbers(samples.source), keep)
        return Nystroem(gamma=_width(samples, gamma), n_centers=len(keep)).fit(centers, centers[:0], anchors="source")


def _held_out_scores(features: Features, samples: Samples, folds: list[Fold], numbers: list[int]) -> np.ndarray:
    """mean r(target) - mean r(source)^2 / 2 (len(numbers), n_folds) on held-out rows, for each number of components."""
    totals = [_moments(features, domain, features.n_columns) for domain in _counted(samples)]
    scores = np.empty((len(numbers), len(folds)))
    for k, fold in enumerate(folds):
        learned, held_out = map(_counted, samples.split(fold))
        kept = [total.minus(_moments(features, part, features.n_columns)) for total, part in zip(totals, held_out, strict=True)]
        _, basis = _eigenbasis(kept[0].second)
        terms = basis * (kept[1].mean @ basis)[None, :]
        # As after a fit: in a gap of the source the series can be thousands of times larger than at its rows.
        sums = (part.max(axis=0) for _, part in _partial_sums(features, learned[0], terms))
        most = reduce(np.maximum, sums, np.zeros(terms.shape[1]))
        squares, ratios = (_partial_mean(features, part, terms, most, power) for part, power in zip(held_out, (2, 1), strict=True))
        scores[:, k] = (ratios - 0.5 * squares)[np.minimum(numbers, basis.shape[1]) - 1]
    return scores


def _partial_mean(features: Features, domain: WeightedRows, terms: np.ndarray, most: np.ndarray, power: int) -> np.ndarray:
    """Mean (J,) of r_j^power over a sample, r_j the sum of the first j columns of features @ terms within 0 and most_j."""
    parts = _partial_sums(features, domain, terms)
    return sum(weight @ np.clip(part, 0.0, most) ** power for weight, part in parts) / domain.weight.sum()


def _partial_sums(features: Features, domain: WeightedRows, terms: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the weights (b,) of the rows of a sample, and of the sums (b, J) of the first columns of features @ terms."""
    for block in row_slices(domain.rows.shape[0], terms.shape[0]):
        yield domain.weight[block], np.cumsum(features(domain.rows[block, :]) @ terms, axis=1)


def _moments(features: Callable[[np.ndarray], np.ndarray], domain: WeightedRows, width: int) -> Moments:
    """Moments of the features over a sample, computed in blocks of rows that take `width` entries each."""
    blocks = row_slices(domain.rows.shape[0], width)
    return reduce(Moments.plus, (Moments.of(features(domain.rows[block, :]), domain.weight[block]) for block in blocks))


def _eigenbasis(second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decreasing eigenvalues (J,), and the basis (k, J) in which features with this second moment (k, k) are orthonormal."""
    with few_threads(len(second)):
        eigenvalues, vectors = scipy.linalg.eigh(second)
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    usable = eigenvalues > _LEAST_EIGENVALUE * eigenvalues[0]
    return eigenvalues[usable], vectors[:, usable] / np.sqrt(eigenvalues[usable])[None, :]


def _orthonormal(features: Features, source: WeightedRows, basis: np.ndarray) -> np.ndarray:
    """The basis (k, J) orthonormalized again under the source, because small eigenvalues magnify rounding errors."""
    second = _moments(lambda rows: features(rows) @ basis, source, basis.shape[0]).second
    with few_threads(len(second)):
        lower = np.linalg.cholesky(second)
    return scipy.linalg.solve_triangular(lower, basis.T, lower=True).T


def _counted(samples: Samples) -> list[WeightedRows]:
    """The rows of both domains with their weights as given, so that they add up."""
    weights = (np.ones(rows.shape[0]) if w is None else w.astype(np.float64) for rows, w in samples.sides)
    return [WeightedRows(rows.astype(np.float64), w) for (rows, _), w in zip(samples.sides, weights, strict=True)]


def _count(n_components: Any) -> int:
    return check_count("n_components", n_components, more=', "cv" or a sequence of ints')
