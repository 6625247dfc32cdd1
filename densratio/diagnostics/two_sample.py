"""Maximum mean discrepancy between two samples, and a permutation test of whether they differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._blocks import over_rows, row_slices
from .._scale import Scale
from .._sentinels import warn_of_sentinels
from .._validation import check_count
from ..features import Gaussian
from .balance import centered
from .columns import dense_rows, two_samples
from .weights import weight_shares

__all__ = ["TwoSampleTest", "mmd", "two_sample_test"]

_FARTHEST = 4.0  # spreads of a column
_ROUNDING = 1e-12  # of a sum of kernel values (<= 1) with weights that add up to 2; statistics that matter are far larger


class TwoSampleTest(NamedTuple):
    """Squared MMD of the samples, and the probability of a value at least as large if the samples do not differ."""

    statistic: float
    p_value: float


def mmd(
    X_source: Any,
    X_target: Any,
    weights: Any = None,
    *,
    gamma: float | str = "median",
    max_rows: int | None = None,
    random_state: Any = 0,
) -> float:
    """Squared maximum mean discrepancy between the weighted source and the target: 0 if their kernel means agree.

        MMD^2 = sum_ij w_i w_j k(x_i, x_j) - (2/m) sum_ij w_i k(x_i, v_j) + (1/m^2) sum_ij k(v_i, v_j),   sum_i w_i = 1

    with the Gaussian kernel exp(-gamma |x - v|^2). It is the distance between the two samples themselves, so samples from one
    distribution give about 1/n + 1/m, not 0. Put columns of different units on one scale first.

    X_source (n, d), X_target (m, d); weights (n,), >= 0, of any scale, None for equal ones. gamma: a number in
    1 / (data units)^2, or "median". max_rows: None uses all rows, in memory n + m and time (n + m)^2; a number uses at most
    that many rows in total, drawn with random_state, with their weights rescaled to sum 1.
    Source: Gretton, Borgwardt, Rasch, Schoelkopf & Smola (2012), A kernel two-sample test, JMLR 13.
    """
    source, target = two_samples(X_source, X_target)
    n_source = source.shape[0]
    shares = weight_shares(np.ones(n_source) if weights is None else weights, n_source)
    rows = draw_rows(n_source, target.shape[0], max_rows, np.random.default_rng(random_state))
    x, v = dense_rows(source, rows[0]), dense_rows(target, rows[1])
    pooled, labels = np.concatenate([x, v]), signed_labels(len(x), len(v), shares[rows[0]])
    bandwidth = float(Gaussian(gamma=gamma).fit(x, v, anchors="source").gamma_)
    kernel = Gaussian(gamma=bandwidth).fit(pooled, pooled, anchors="source")
    # Rounding can make an MMD of 0 negative.
    return max(0.0, float(labels @ over_rows(lambda part: kernel(part) @ labels, pooled, len(pooled))))


def two_sample_test(
    X_source: Any,
    X_target: Any,
    *,
    n_permutations: int = 999,
    gamma: float | str = "median",
    max_rows: int = 2000,
    random_state: Any = 0,
) -> TwoSampleTest:
    """Permutation test of whether the samples differ, with the squared MMD; it does not involve weights.

    p_value = (1 + b) / (1 + n_permutations), b the number of random relabelings whose MMD is at least the observed one: it is
    never 0, and P(p <= a) <= a if both samples are independent draws from one distribution.

    X_source (n, d), X_target (m, d), in raw units: put columns of different units on one scale first. Beyond max_rows rows in
    total the test uses a subsample of max_rows, about half from each sample: it takes at most max_rows^2 numbers of memory
    and misses differences too small for that many rows. gamma: a number in 1 / (data units)^2, or "median" of the pooled
    rows. random_state seeds the draw and the permutations. Source: as `mmd`; Phipson & Smyth (2010) for the p value.
    """
    warn_of_sentinels({"X_source": X_source, "X_target": X_target}, 2)
    source, target = two_samples(X_source, X_target, has_gaps=True)
    rng = np.random.default_rng(random_state)
    rows = draw_rows(source.shape[0], target.shape[0], max_rows, rng)
    pooled = np.concatenate([dense_rows(source, rows[0]), dense_rows(target, rows[1])])
    labels = signed_labels(len(rows[0]), len(rows[1]))
    kernel = kernel_matrix(pooled, gamma, rng)
    statistic, permuted = quadratic_form(kernel, labels), permuted_statistics(kernel, labels, n_permutations, rng)
    return TwoSampleTest(statistic, permutation_p_value(statistic, permuted))


def draw_rows(n_source: int, n_target: int, max_rows: int | None, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ascending row numbers of each sample, max_rows in total: half from each, or all of one and the rest from the other."""
    check_max_rows(max_rows)
    if max_rows is None or n_source + n_target <= max_rows:
        return np.arange(n_source), np.arange(n_target)
    half = max_rows // 2
    keep = min(n_source, max(half, max_rows - n_target))
    drawn = [rng.choice(n, size, replace=False) for n, size in ((n_source, keep), (n_target, max_rows - keep))]
    return np.sort(drawn[0]), np.sort(drawn[1])


def kernel_matrix(pooled: np.ndarray, gamma: float | str, rng: np.random.Generator) -> np.ndarray:
    """Gaussian kernel (N, N) of the pooled rows."""
    return Gaussian(gamma=mixed_bandwidth(pooled, gamma, rng)).fit(pooled, pooled, anchors="source")(pooled)


def mixed_bandwidth(pooled: np.ndarray, gamma: float | str, rng: np.random.Generator) -> float:
    """The coefficient gamma of a Gaussian kernel on the pooled rows, which does not depend on the sample of any row.

    Otherwise the observed labels would not be exchangeable with the permuted ones.
    """
    mixed = pooled[rng.permutation(len(pooled))]
    half = len(pooled) // 2
    return float(Gaussian(gamma=gamma).fit(mixed[:half], mixed[half:], anchors="target").gamma_)


def check_max_rows(max_rows: Any) -> None:
    """Raise ValueError unless max_rows is a whole number >= 2 or None."""
    if max_rows is not None:
        check_count("max_rows", max_rows, 2, ", at least one row of each sample")


def signed_labels(n_source: int, n_target: int, weights: Any = None) -> np.ndarray:
    """The vector a (N,) for which a'Ka is the squared MMD: the shares of the weights at source rows, -1/n_target at target rows."""
    shares = weight_shares(np.ones(n_source) if weights is None else weights)
    return np.concatenate([shares, np.full(n_target, -1.0 / n_target)])


def quadratic_form(kernel: np.ndarray, labels: np.ndarray) -> float:
    """The squared length labels' kernel labels."""
    return max(0.0, float(labels @ kernel @ labels))


def permuted_statistics(kernel: np.ndarray, labels: np.ndarray, n_permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Squared MMD (n_permutations,) of random relabelings: label vectors times the kernel, with one product per block."""
    check_count("n_permutations", n_permutations)
    parts = [np.sum((some @ kernel) * some, axis=1) for some in relabelings(labels, n_permutations, rng)]
    return np.maximum(np.concatenate(parts), 0.0)


def relabelings(labels: np.ndarray, n_permutations: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks (b, N) of labels (N,) in random order, n_permutations rows in all."""
    for block in row_slices(n_permutations, len(labels)):
        yield rng.permuted(np.tile(labels, (block.stop - block.start, 1)), axis=1)


def permutation_p_value(statistic: float, permuted: np.ndarray) -> float:
    """(1 + b) / (1 + permutations); a relabeling that ties with the observed one up to rounding counts."""
    return float((1 + np.sum(permuted >= statistic - _ROUNDING)) / (1 + len(permuted)))


def standardized(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pooled rows (N, d), source first, each column in units of its spread, no farther than 4 from its median; constant ones are 0.

    The spread is that of `Scale` for all rows as one sample, so that it does not depend on the sample of any row. A few outliers or
    sentinels do not change it, nor the distances of the other rows.
    """
    pooled = np.concatenate(centered(source, target))
    return np.clip(np.asarray(Scale.of((pooled, None))(pooled)), -_FARTHEST, _FARTHEST)
