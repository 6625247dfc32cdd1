"""Concentration of weights: effective sample size, shares of the total, and the shape of the tail."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import to_host
from .._columns import check_container
from .._validation import check_number

__all__ = [
    "ParetoTail", "effective_sample_size", "largest_share", "pareto_k", "pareto_tail", "top_share", "weight_shares",
    "weights_are_equal",
]  # fmt: skip

_MIN_TAIL = 5  # fewer values do not determine the two parameters
_DISTINCT = 0.25  # least share of distinct weights in a tail; the weights of a few levels have no tail
_ROUNDING = 1e-9


def effective_sample_size(weights: Any) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2: the number of equally weighted rows that estimate a mean as precisely.

    weights (n,), >= 0, of any scale. Between 1 (one row has all the weight) and n (all are equal).
    Raises ValueError for weights that are empty, negative, not finite, or all 0. Source: Kish (1965), Survey Sampling.
    """
    shares = weight_shares(weights)
    return float(1.0 / np.sum(shares * shares))


def largest_share(weights: Any) -> float:
    """Share of the total weight that the heaviest row carries. weights (n,), >= 0, of any scale."""
    return float(np.max(weight_shares(weights)))


def top_share(weights: Any, fraction: float = 0.01) -> float:
    """Share of the total weight on the heaviest `fraction` of the rows, rounded up to whole rows. weights (n,) >= 0."""
    check_number("fraction", fraction, "(0, 1]")
    shares = weight_shares(weights)
    return float(np.sum(np.sort(shares)[-rows_in(len(shares), fraction) :]))


def pareto_k(weights: Any) -> float:
    """Shape k of a generalized Pareto distribution fitted to the largest weights, which tells how many moments they have.

    Moments above 1/k do not exist: from k = 0.5 on the variance of a weighted mean is infinite, and above 0.7 the mean itself
    does not converge at any practical number of rows. The tail is the ceil(min(n / 5, 3 sqrt n)) largest of the weights (n,), minus
    the next largest; k is the posterior mean of Zhang & Stephens, shrunk to 0.5 with the strength of ten observations.

    -inf: the weights are equal, so there is no tail. NaN: the tail cannot be estimated, because fewer than five weights are above
    its threshold, as with few rows or many weights at a common upper bound, or because fewer than five or a fourth of these are
    distinct, as with the weights of the levels of a category.
    Raises ValueError as `effective_sample_size` does. Sources: Zhang & Stephens (2009), Technometrics 51(3); Vehtari, Simpson,
    Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72).
    """
    shares = weight_shares(weights)
    if weights_are_equal(shares):
        return float("-inf")
    tail = pareto_tail(shares)
    return float("nan") if tail is None else tail.shape


class ParetoTail(NamedTuple):
    """The largest of n weights, ascending, and the generalized Pareto distribution of their excess over the next largest.

    rows (k,): their positions. threshold, scale: in the units of the weights. shape: as in `pareto_k`.
    """

    rows: np.ndarray
    threshold: float
    shape: float
    scale: float


def pareto_tail(weights: np.ndarray) -> ParetoTail | None:
    """The tail of checked weights (n,), as in `pareto_k`; None if too few distinct weights are above its threshold."""
    n = len(weights)
    order = np.argsort(weights, kind="stable")
    n_tail = int(np.ceil(min(0.2 * n, 3.0 * np.sqrt(n))))
    threshold = float(weights[order[-n_tail - 1]]) if n_tail < n else 0.0
    rows = order[-n_tail:]
    # A weight at the threshold has no excess, and with an excess of 0 the likelihood is unbounded.
    rows = rows[weights[rows] > threshold]
    n_distinct = 1 + np.sum(np.diff(weights[rows]) > _ROUNDING * weights[order[-1]])
    if len(rows) < _MIN_TAIL or n_distinct < max(_MIN_TAIL, _DISTINCT * len(rows)):
        return None
    shape, scale = _generalized_pareto(weights[rows] - threshold)
    return ParetoTail(rows, threshold, (len(rows) * shape + 10 * 0.5) / (len(rows) + 10), scale)


def weight_shares(weights: Any, n_source: int | None = None) -> np.ndarray:
    """Checked weights (n,) divided by their sum, in float64; n_source, if given, is their required number."""
    weights = np.asarray(to_host(check_container(weights, "weights")), dtype=np.float64)
    if weights.ndim != 1 or len(weights) == 0:
        raise ValueError(f"weights must be (n,), one for each row, with n >= 1; got shape {weights.shape}.")
    if n_source not in (None, len(weights)):
        raise ValueError(
            f"weights must hold one number for each source row; got {len(weights)} weights for {n_source} source rows."
        )
    if not np.all(np.isfinite(weights)):
        raise ValueError(f"weights must be finite; {int(np.sum(~np.isfinite(weights)))} of {len(weights)} are NaN or infinite.")
    if np.min(weights) < 0.0:
        raise ValueError(f"weights must be >= 0; the smallest is {np.min(weights):.3g}.")
    largest = np.max(weights)
    if largest == 0.0:
        raise ValueError("All weights are 0: the ratio sees no overlap between these source rows and the target.")
    # Dividing by the largest first keeps sums of huge weights finite.
    scaled = weights / largest
    return scaled / np.sum(scaled)


def weights_are_equal(shares: np.ndarray, tolerance: float = 1e-12) -> bool:
    """Whether shares are equal up to a relative `tolerance`: 1e-12 is rounding, 1e-6 is negligible in practice."""
    return bool(np.ptp(shares) <= tolerance * np.max(shares))


def rows_in(n: int, fraction: float) -> int:
    """Number of rows in a `fraction` of n, rounded up, at least one."""
    # Rounding in fraction * n must not add a row: 0.07 * 100 is 7.000000000000001.
    return max(1, int(np.ceil(fraction * n * (1.0 - 1e-12))))


def _generalized_pareto(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of the generalized Pareto distribution of `excess` (n,), ascending and > 0.

    With theta = -shape / scale, shape(theta) = mean log(1 - theta x) and the profile log-likelihood is
    n (log(-theta / shape) - shape - 1); theta is the mean over a grid of it.
    """
    n, largest = len(excess), excess[-1]
    excess = excess / largest
    n_grid = 30 + int(np.sqrt(n))
    quartile = excess[int(n / 4 + 0.5) - 1]
    theta = 1.0 + (1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))) / (3.0 * quartile)
    log_likelihood = n * (np.log(_rate(theta, excess)) - np.mean(np.log1p(-np.outer(theta, excess)), axis=1) - 1.0)
    posterior = np.exp(log_likelihood - np.max(log_likelihood))
    mean_theta = np.sum(theta * posterior, keepdims=True) / np.sum(posterior)
    return float(np.mean(np.log1p(-mean_theta * excess))), float(largest / _rate(mean_theta, excess)[0])


def _rate(theta: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """1 / scale = -theta / shape for each theta (k,); at theta = 0 the distribution is exponential, and it is 1 / mean."""
    is_exponential = np.abs(theta) < 1e-14
    shape = np.mean(np.log1p(-np.outer(theta, excess)), axis=1)
    return np.where(is_exponential, 1.0 / np.mean(excess), -theta / np.where(is_exponential, 1.0, shape))
