"""The quotient of two fitted Gaussian densities."""

from __future__ import annotations

from numbers import Real
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.linalg

from .._arrays import Array
from .base import RatioEstimator
from .samples import Samples, moments, oas_shrinkage, row_counts, varying_columns, with_all_columns

__all__ = ["GaussianRatio"]

_FLOOR = 1e-9  # least variance of any direction, relative to the pooled variances, so that constant and collinear columns cancel
_FAR = 1e150  # standard deviations at which distances are clipped, so that their squares do not overflow


class GaussianRatio(RatioEstimator):
    """Quotient of two Gaussian densities, one fitted to each domain: the logarithm of the ratio is a quadratic of the row.

        log r(x) = (x - m_s)' S_s^-1 (x - m_s) / 2 - (x - m_t)' S_t^-1 (x - m_t) / 2 + constant

    with means m and shrunk covariances S. It is the best method for Gaussian domains, and cheap: d^2 (n + m) operations. It
    extrapolates: if S_t is larger than S_s in some direction, the ratio grows without bound along that direction.
    Before shrinkage, columns are divided by their pooled standard deviation about the domain means, so their units do not
    matter. Columns that are constant in both domains are left out. Copied columns, a single row and n << d are allowed: a domain
    whose rows are all equal gets unit covariance in scaled columns, and every variance is at least 1e-9 times the pooled one.

    Parameters
    ----------
    shrinkage : "auto" or float in [0, 1]
        S is replaced by (1 - shrinkage) S + shrinkage (trace S / d) I, in scaled columns. "auto": oracle approximating
        shrinkage of each domain. Whole numbers in sample_weight count as copies; others enter by their effective sample size.
    shared_covariance : bool
        Whether both Gaussians share the pooled covariance; log r is then linear (linear discriminant analysis).

    Attributes
    ----------
    source_mean_, target_mean_ : (d,).
    source_covariance_, target_covariance_ : (d, d) shrunk covariances, divided by the number of rows, in squared data
        units; 0 in columns that are left out.
    source_shrinkage_, target_shrinkage_ : the shrinkage used.
    weights_, normalization_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Raises ValueError for a shrinkage outside [0, 1].
    Source: Chen, Wiesel, Eldar & Hero (2010) for the shrinkage; Shimodaira (2000) for the weights.
    """

    _has_units: ClassVar[bool] = False
    _returns: ClassVar[tuple[str, ...]] = ("source_mean_", "target_mean_", "source_covariance_", "target_covariance_")

    def __init__(self, *, shrinkage: float | str = "auto", shared_covariance: bool = False):
        self.shrinkage = shrinkage
        self.shared_covariance = shared_covariance

    def _fit(self, samples: Samples) -> Array:
        counts, d = row_counts(samples), samples.source.shape[1]
        self._varies = varying_columns(samples)
        given = [part[:, self._varies].astype(np.float64) for part in (samples.source, samples.target)]
        # A value of the column itself, so that differences to it are exact in spite of a large offset.
        self._origin = np.quantile(np.concatenate(given), 0.5, axis=0, method="lower")
        rows = [_minus(part, self._origin) for part in given]
        sizes = [float(count.sum()) for count in counts]
        scale = _scale(rows, counts)
        means, covariances = zip(*(moments(part / scale, count) for part, count in zip(rows, counts, strict=True)), strict=True)
        pooled = sum(size * covariance for size, covariance in zip(sizes, covariances, strict=True)) / sum(sizes)
        if self.shared_covariance:
            covariances, sizes = (pooled, pooled), [sum(sizes)] * 2
        shrunk = [self._shrunk(covariance, size) for covariance, size in zip(covariances, sizes, strict=True)]
        self._scale = scale
        self._source, self._target = (
            _Gaussian(mean, scipy.linalg.cholesky(covariance, lower=True))
            for mean, (covariance, _) in zip(means, shrunk, strict=True)
        )
        full = [with_all_columns(self._origin + mean * scale, self._varies, d) for mean in means]
        constant = np.setdiff1d(np.arange(d), self._varies)
        for mean in full:
            mean[constant] = samples.source[0, constant]
        self.source_mean_, self.target_mean_ = full
        with np.errstate(over="ignore"):  # infinite for columns whose squares overflow
            self.source_covariance_, self.target_covariance_ = (
                with_all_columns(covariance * scale[:, None] * scale, self._varies, d) for covariance, _ in shrunk
            )
        self.source_shrinkage_, self.target_shrinkage_ = (share for _, share in shrunk)
        at_source = self._log_ratio(samples.source)
        self._largest = float(at_source.max())
        return _bounded_exp(at_source - self._largest, samples.source.dtype)

    def _shrunk(self, covariance: np.ndarray, size: float) -> tuple[np.ndarray, float]:
        """The shrunk covariance (d, d) in scaled columns, and the shrinkage."""
        given, identity = self.shrinkage, np.eye(len(covariance))
        is_share = isinstance(given, Real) and not isinstance(given, bool) and 0.0 <= given <= 1.0
        if not is_share and not (isinstance(given, str) and given == "auto"):
            raise ValueError(f'shrinkage must be a number in [0, 1] or "auto"; got {given!r}.')
        mean_variance = np.trace(covariance) / len(covariance)
        if mean_variance == 0.0:
            # Equal rows determine no covariance; in scaled columns the variance of the other domain is about 1.
            return identity, 1.0
        share = float(given) if is_share else oas_shrinkage(covariance, size)
        return (1.0 - share) * covariance + (share * mean_variance + _FLOOR) * identity, share

    def _log_ratio(self, rows: np.ndarray) -> np.ndarray:
        scaled = _minus(rows[:, self._varies].astype(np.float64), self._origin) / self._scale
        return self._target.log_density(scaled) - self._source.log_density(scaled)

    def _ratio(self, rows: Array) -> Array:
        return _bounded_exp(self._log_ratio(rows) - self._largest, rows.dtype)


class _Gaussian(NamedTuple):
    """A mean (d,) and the lower Cholesky factor (d, d) of a covariance."""

    mean: np.ndarray
    lower: np.ndarray

    def log_density(self, rows: np.ndarray) -> np.ndarray:
        """Logarithm (n,) of the density, without the common power of 2 pi."""
        whitened = scipy.linalg.solve_triangular(self.lower, (rows - self.mean).T, lower=True)
        distance = np.sum(np.clip(whitened, -_FAR, _FAR) ** 2, axis=0)
        return -0.5 * distance - np.sum(np.log(np.diag(self.lower)))


def _minus(rows: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Rows (n, d) less the origin (d,), at most the largest number."""
    with np.errstate(over="ignore"):
        return np.nan_to_num(rows - origin)


def _scale(rows: list[np.ndarray], counts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Standard deviation (d,) of each column about its domain mean; if 0, the distance of the means; if that is 0 too, 1."""
    # Divided by the largest entry first: the square of a huge column would overflow.
    largest = np.maximum(*(np.max(np.abs(part), axis=0) for part in rows))
    largest = np.where(largest > 0.0, largest, 1.0)
    (mean_s, cov_s), (mean_t, cov_t) = (moments(part / largest, count) for part, count in zip(rows, counts, strict=True))
    total = [count.sum() for count in counts]
    spread = np.sqrt((total[0] * np.diag(cov_s) + total[1] * np.diag(cov_t)) / sum(total))
    spread = np.where(spread > 0.0, spread, np.abs(mean_t - mean_s))
    return largest * np.where(spread > 0.0, spread, 1.0)


def _bounded_exp(log_ratio: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """exp (n,), bounded so that division by a mean far below 1 does not overflow `dtype`."""
    return np.exp(np.clip(log_ratio, None, 0.8 * np.log(float(np.finfo(dtype).max))))
