"""How many rows a weighted row stands for, and the first two moments of rows that count."""

from __future__ import annotations

import numpy as np

from .._arrays import to_host
from .contract import Samples

__all__ = ["moments", "oas_shrinkage", "row_counts"]


def row_counts(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """How many rows each row stands for, in the source (n_s,) and in the target (n_t,): what smoothing rules take for sizes.

    Weights that are all whole numbers are numbers of copies. Other weights have no unit, so they are scaled in each domain to
    the sum (sum w)^2 / sum w^2, the effective sample size (Kish, 1965). Without weights every row stands for one.
    """
    if samples.source_weight is None:
        return np.ones(samples.sizes[0]), np.ones(samples.sizes[1])
    source, target = (to_host(w).astype(np.float64) for w in (samples.source_weight, samples.target_weight))
    if all(np.array_equal(w, np.rint(w)) for w in (source, target)):
        return source, target
    # Divided by the largest first: squares of huge or tiny weights leave the range.
    source, target = source / source.max(), target / target.max()
    return source * (source.sum() / (source @ source)), target * (target.sum() / (target @ target))


def moments(rows: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d), divided by the number of rows, of rows (n, d) that stand for counts (n,) rows."""
    share = counts / counts.sum()
    mean = share @ rows
    centred = rows - mean
    # Twice: the first mean of many equal rows is off by rounding, which a constant column would show as a variance.
    correction = share @ centred
    mean, centred = mean + correction, centred - correction
    constant = np.ptp(rows, axis=0) == 0.0
    centred[:, constant] = 0.0
    return np.where(constant, rows[0], mean), centred.T @ (centred * share[:, None])


def oas_shrinkage(covariance: np.ndarray, size: float) -> float:
    """Share of trace / d I in the oracle approximating shrinkage of a covariance (d, d) of `size` rows, between 0 and 1.

    Source: Chen, Wiesel, Eldar & Hero (2010), Shrinkage algorithms for MMSE covariance estimation, in scikit-learn's form.
    """
    d = len(covariance)
    squares, mean_variance = np.mean(covariance**2), np.trace(covariance) / d
    excess = (size + 1.0) * (squares - mean_variance**2 / d)
    return 1.0 if excess <= 0.0 else float(min(1.0, (squares + mean_variance**2) / excess))
