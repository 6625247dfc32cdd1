"""ratio_test: a permutation test of whether two samples differ, with the score of a least-squares density ratio."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .._sentinels import warn_of_sentinels
from .._validation import check_count
from ..features import Gaussian
from .columns import dense_rows, two_samples
from .two_sample import TwoSampleTest, draw_rows, mixed_bandwidth, permutation_p_value, relabelings, standardized

__all__ = ["ratio_test"]


def ratio_test(
    X_source: Any,
    X_target: Any,
    *,
    n_permutations: int = 999,
    gamma: float | str = "median",
    n_centers: int = 100,
    regularization: float = 0.01,
    max_rows: int = 10_000,
    random_state: Any = 0,
) -> TwoSampleTest:
    """Permutation test of whether the samples differ, with the score of the best-fitting relative ratio p_target / p_pooled.

        statistic = h'(C + regularization I)^-1 h / 2,   h = mean_target psi,   C = mean_pooled psi psi',
        psi = phi - mean_pooled phi

    phi are Gaussian kernels at pooled rows drawn at random. The statistic is the Pearson divergence of the target from the pooled
    samples under the least-squares ratio 1 + psi'a. The kernels and C do not depend on the sample of any row, so all permutations
    share one factorization and cost one matrix product: (n + m) n_centers numbers of memory, while `two_sample_test` takes
    (n + m)^2. As there, p_value = (1 + b) / (1 + n_permutations), and P(p <= a) <= a if the samples do not differ.

    X_source (n, d), X_target (m, d): arrays or frames, with text, dates and gaps; columns are in units of their pooled spread, see
    `Scale`, clipped at 4 units. gamma: a number in 1 / (these units)^2, or "median" of the pooled rows. Above max_rows rows in
    total a subsample is used. random_state seeds the draws.
    Raises ValueError for samples with different columns and for settings out of range.
    Source: Sugiyama, Suzuki, Ito, Kanamori & Kimura (2011), Least-squares two-sample test, Neural Networks 24.
    """
    check_count("n_permutations", n_permutations)
    if n_centers < 1 or not 0.0 < regularization < np.inf:
        raise ValueError(f"n_centers must be >= 1 and regularization > 0; got {n_centers!r} and {regularization!r}.")
    warn_of_sentinels({"X_source": X_source, "X_target": X_target}, 2)
    source, target = two_samples(X_source, X_target, has_gaps=True)
    rng = np.random.default_rng(random_state)
    rows = draw_rows(source.shape[0], target.shape[0], max_rows, rng)
    pooled = standardized(dense_rows(source, rows[0]), dense_rows(target, rows[1]))
    features = _features(pooled, gamma, n_centers, rng)
    covariance = features.T @ features / len(features) + regularization * np.eye(features.shape[1])
    root = cho_factor(covariance)
    is_target = np.arange(len(features)) >= len(rows[0])

    def scores(labels: np.ndarray) -> np.ndarray:
        means = labels @ features / len(rows[1])
        return 0.5 * np.sum(means.T * cho_solve(root, means.T), axis=0)

    statistic = float(scores(is_target[None, :].astype(np.float64))[0])
    parts = [scores(some.astype(np.float64)) for some in relabelings(is_target, n_permutations, rng)]
    return TwoSampleTest(statistic, permutation_p_value(statistic, np.concatenate(parts)))


def _features(pooled: np.ndarray, gamma: float | str, n_centers: int, rng: np.random.Generator) -> np.ndarray:
    """Kernels (N, k) of the pooled rows, centered at some of them, with column means 0."""
    bandwidth = mixed_bandwidth(pooled, gamma, rng)
    centers = pooled[rng.permutation(len(pooled))[:n_centers]]
    kernels = np.asarray(Gaussian(gamma=bandwidth).fit(centers, centers, anchors="source")(pooled))
    return kernels - np.mean(kernels, axis=0)
