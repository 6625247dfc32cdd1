"""The quotient of two kernel density estimates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.linalg
from scipy.special import logsumexp

from .._arrays import Array
from .._blocks import over_rows
from .._distances import squared_euclidean
from ..features import rule_of
from .base import RatioEstimator
from .samples import Samples, moments, oas_shrinkage, row_counts, varying_columns, with_all_columns
from .search import ParameterSearch

__all__ = ["BANDWIDTH_RULES", "KDERatio"]

_FAR = 1e150  # bandwidths at which distances are clipped, so that their squares do not overflow
_GRID = 4.0 ** np.arange(-1, 6)  # gammas that "cv" tries, as multiples of the default; separate clusters need large ones


def scott(size: float, d: int) -> float:
    """size^(-1 / (d + 4)): the optimal bandwidth for a Gaussian in standard deviations, up to a factor near 1."""
    return size ** (-1.0 / (d + 4))


def silverman(size: float, d: int) -> float:
    """(size (d + 2) / 4)^(-1 / (d + 4)): the optimal bandwidth for a Gaussian, in standard deviations."""
    return (size * (d + 2) / 4.0) ** (-1.0 / (d + 4))


def wide(size: float, d: int) -> float:
    """1.4 times Scott's rule: a quotient has the noise of two densities, and is most sensitive where the denominator is small."""
    return 1.4 * scott(size, d)


BANDWIDTH_RULES: dict[str, Callable[[float, int], float]] = {"scott": scott, "silverman": silverman, "wide": wide}
"""Standard deviation of the kernel, in standard deviations of the domain, from its number of rows and columns."""


def _gammas(ratio: Any, samples: Samples) -> list[float | str]:
    counts = row_counts(samples)
    pooled = np.concatenate([samples.source, samples.target])[:, varying_columns(samples)].astype(np.float64)
    variance = float(np.mean(pooled.var(axis=0))) or 1.0
    factor = wide(min(float(count.sum()) for count in counts), pooled.shape[1])
    return ["wide", *(float(0.5 / (factor**2 * variance) * multiple) for multiple in _GRID)]


class KDERatio(RatioEstimator):
    """Quotient of two Gaussian kernel density estimates, one for each domain, computed as a difference of logarithms.

        log r(x) = log mean_j k_t(x, v_j) - log mean_i k_s(x, x_i) + constant

    Kernel values are computed in blocks: memory n + m, time n m. The ratio at an unseen row is at most the largest ratio at a
    source row: farther from the source its density estimate is meaningless, and the quotient would grow without bound. The
    density at a source row includes the row's own kernel; without it, a row far from the others would get all the weight.
    Good in one to three columns; in many columns the densities are too noisy.

    Parameters
    ----------
    gamma : float, {"wide", "scott", "silverman", "cv"} or a sequence of these
        A float: k(x, y) = exp(-gamma |x - y|^2) in both domains, in the units that `scale` gives to the columns. A rule: the
        kernel of each domain has the covariance of the domain times the square of a factor, n = rows of the domain: "scott"
        n^(-1 / (d + 4)), "silverman" (n (d + 2) / 4)^(-1 / (d + 4)), "wide" 1.4 times Scott's. The covariance is divided by
        n - 1, and its correlations are shrunk by oracle approximating shrinkage; a column that is constant in one domain gets
        its pooled variance. A column that is constant in both is left out, and d does not count it. "cv": the best of "wide"
        and seven values of gamma, from 1/4 to 1024
        times the gamma of "wide" for pooled rows with equal variances.
    cv, n_jobs :
        Folds (5 by default) and joblib processes of "cv" and sequences, which maximize
        mean r(target) - mean r(source)^2 / 2 on held-out rows.
    scale : {"auto", None}
        "auto": a number for gamma is in units of each column's spread, see `DensityRatio`. None: in the columns' own units.

    Whole numbers in sample_weight count as copies; others enter the rules by their effective sample size.

    Attributes
    ----------
    source_bandwidth_, target_bandwidth_ : (d, d) covariance of each domain's kernel, in squared data units; 0 in columns
        that are left out.
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Raises ValueError for a gamma that is neither a number > 0 nor a rule.
    Source: Scott (1992), Multivariate density estimation; Silverman (1986), Density estimation for statistics and data analysis.
    """

    _search: ClassVar[ParameterSearch] = ParameterSearch({"gamma": _gammas})
    _merges_copies: ClassVar[bool] = False
    _returns: ClassVar[tuple[str, ...]] = ("source_bandwidth_", "target_bandwidth_")

    def __init__(
        self,
        *,
        gamma: float | str | Sequence[float | str] = "wide",
        cv: Any = None,
        n_jobs: int | None = None,
        scale: str | None = "auto",
    ):
        self.scale = scale
        self.gamma = gamma
        self.cv = cv
        self.n_jobs = n_jobs

    def _fit(self, samples: Samples) -> Array:
        gamma, counts = self._chosen("gamma"), row_counts(samples)
        self._varies, d = varying_columns(samples), samples.source.shape[1]
        rows = [part[:, self._varies].astype(np.float64) for part in (samples.source, samples.target)]
        rule = rule_of(gamma, BANDWIDTH_RULES)
        bandwidths = [np.eye(rows[0].shape[1]) * (0.5 / gamma)] * 2 if rule is None else _rule_bandwidths(rule, rows, counts)
        self._source, self._target = (_Density.of(*parts) for parts in zip(rows, counts, bandwidths, strict=True))
        unit = np.ones(d) if self._unit is None else np.where(self.scale_ > 0.0, self.scale_, 1.0)
        with np.errstate(over="ignore"):  # infinite for columns whose squares overflow; the densities are in units of the columns
            both = [with_all_columns(bandwidth, self._varies, d) * unit[:, None] * unit[None, :] for bandwidth in bandwidths]
        self.source_bandwidth_, self.target_bandwidth_ = both
        at_source = self._log_ratio(rows[0])
        self._largest = float(at_source.max())
        return np.exp(at_source - self._largest)

    def _log_ratio(self, rows: np.ndarray) -> np.ndarray:
        return self._target.log(rows) - self._source.log(rows)

    def _ratio(self, rows: Array) -> Array:
        at = self._log_ratio(rows[:, self._varies].astype(np.float64))
        return np.exp(np.minimum(at - self._largest, 0.0))


class _Density(NamedTuple):
    """A kernel density estimate: whitened centers (k, d), the logarithms (k,) of their shares, and the whitening."""

    centers: np.ndarray
    log_share: np.ndarray
    lower: np.ndarray
    origin: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, counts: np.ndarray, bandwidth: np.ndarray) -> _Density:
        lower = scipy.linalg.cholesky(bandwidth, lower=True)
        log_share = np.log(counts / counts.sum()) - np.sum(np.log(np.diag(lower)))
        return cls(_whitened(rows, rows[0], lower), log_share, lower, rows[0])

    def log(self, rows: np.ndarray) -> np.ndarray:
        """Logarithm (n,) of the density, without the common power of 2 pi."""

        def part(x: np.ndarray) -> np.ndarray:
            return logsumexp(self.log_share - 0.5 * squared_euclidean(x, self.centers, 1.0), axis=1)

        return over_rows(part, _whitened(rows, self.origin, self.lower), len(self.centers))


def _whitened(rows: np.ndarray, origin: np.ndarray, lower: np.ndarray) -> np.ndarray:
    return np.clip(scipy.linalg.solve_triangular(lower, (rows - origin).T, lower=True).T, -_FAR, _FAR)


def _rule_bandwidths(
    rule: Callable[[float, int], float], rows: list[np.ndarray], counts: tuple[np.ndarray, np.ndarray]
) -> list[np.ndarray]:
    """The covariances (d, d) of the two kernels, source first."""
    pooled, d = moments(np.concatenate(rows), np.concatenate(counts))[1], rows[0].shape[1]
    spare = np.where(np.diag(pooled) > 0.0, np.diag(pooled), 1.0)
    bandwidths = []
    for part, count in zip(rows, counts, strict=True):
        size, covariance = float(count.sum()), moments(part, count)[1]
        if size > 1.0:
            covariance = covariance * (size / (size - 1.0))
        deviation = np.sqrt(np.where(np.diag(covariance) > 0.0, np.diag(covariance), spare))
        correlation = covariance / np.outer(deviation, deviation)
        share = oas_shrinkage(correlation, size)
        correlation *= 1.0 - share
        # Collinear columns leave a direction without variance, and rounding could make its variance negative.
        np.fill_diagonal(correlation, 1.0 + 1e-9)
        bandwidths.append(correlation * np.outer(deviation, deviation) * rule(size, d) ** 2)
    return bandwidths
