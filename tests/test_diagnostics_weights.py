"""Measures of weights, each against an oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from densratio.diagnostics import (
    effective_sample_size,
    pareto_k,
)
from densratio.diagnostics.weights import largest_share, rows_in, top_share

WEIGHTS = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(1e-3, 1e3))


@given(WEIGHTS, st.floats(1e-200, 1e200))
def test_the_effective_sample_size_is_kishs_at_any_scale(weights, scale):
    kish = math.fsum(weights) ** 2 / math.fsum(weights**2)
    np.testing.assert_allclose(effective_sample_size(weights * scale), kish, rtol=1e-9)


def test_equal_weights_count_in_full_and_one_weight_counts_once():
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7.0, rel=1e-15)
    assert effective_sample_size([0.0, 0.0, 5.0]) == 1.0


@given(WEIGHTS, st.sampled_from([0.01, 0.05, 0.5, 1.0]))
def test_the_top_share_is_the_sum_over_the_heaviest_rows(weights, fraction):
    n_top = max(1, math.ceil(round(fraction * len(weights), 9)))
    assert rows_in(len(weights), fraction) == n_top
    np.testing.assert_allclose(top_share(weights, fraction), sum(sorted(weights)[-n_top:]) / sum(weights), rtol=1e-12)
    np.testing.assert_allclose(largest_share(weights), max(weights) / sum(weights), rtol=1e-12)


def generalized_pareto_shape_term_by_term(excess):
    """Zhang & Stephens (2009), section 3, in the paper's own units and sign (its k is minus ours), with sums written out."""
    n, x = len(excess), sorted(excess)
    m = 30 + math.floor(math.sqrt(n))
    theta = [1 / x[-1] + (1 - math.sqrt(m / (j - 0.5))) / (3 * x[math.floor(n / 4 + 0.5) - 1]) for j in range(1, m + 1)]

    def log_likelihood(t):
        k = -sum(math.log1p(-t * value) for value in x) / n
        return n * (math.log(t / k) + k - 1)

    heights = [log_likelihood(t) for t in theta]
    weight = [1 / sum(math.exp(min(700.0, other - own)) for other in heights) for own in heights]
    best = sum(t * w for t, w in zip(theta, weight, strict=True))
    return sum(math.log1p(-best * value) for value in x) / n


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [40, 225, 1000])
def test_k_hat_is_zhang_and_stephens_shape_of_the_tail_drawn_to_a_half(seed, n):
    weights = np.exp(np.random.default_rng(seed).standard_normal(n) * (0.5 + seed / 2))
    n_tail = math.ceil(min(n / 5, 3 * math.sqrt(n)))
    tail = np.sort(weights)[-n_tail:] - np.sort(weights)[-n_tail - 1]
    expected = (n_tail * generalized_pareto_shape_term_by_term(tail) + 5) / (n_tail + 10)
    np.testing.assert_allclose(pareto_k(weights), expected, rtol=1e-8)
    np.testing.assert_allclose(pareto_k(1e150 * weights), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("weights", "k"),
    [
        (1.0 / np.arange(1, 101), 0.658245612559123),
        (np.exp(np.linspace(0, 3, 100) ** 1.5 / 2), -0.2173864161909916),
        (np.arange(1.0, 101) ** -0.5, 0.3987264415077323),
        (np.arange(1.0, 101), -0.4046214803552266),
    ],
)
def test_k_hat_is_what_arviz_gives(weights, k):
    # From arviz-stats 0.8.0, psislw(-log(weights))[1].
    np.testing.assert_allclose(pareto_k(weights), k, rtol=1e-10)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_k_hat_recovers_the_shape_of_a_pareto_tail(k):
    n = 40_000
    weights = scipy.stats.genpareto(k).rvs(n, random_state=1)
    n_tail = 3 * math.sqrt(n)
    # The asymptotic standard deviation of the shape is (1 + k) / sqrt(tail); the prior moves it by 10 / tail of the way to 0.5.
    assert abs(pareto_k(weights) - k) < 4 * (1 + k) / math.sqrt(n_tail) + 10 / n_tail


def test_k_hat_of_equal_weights_is_no_tail_at_all():
    assert pareto_k(np.ones(1000)) == -math.inf
    assert pareto_k(np.full(50, 0.1) * (1 + 1e-16)) == -math.inf
    assert pareto_k([3.0]) == -math.inf


@pytest.mark.parametrize("weights", [np.arange(1.0, 20.0), np.r_[np.ones(900), np.full(100, 5.0)], [1.0, 2.0]])
def test_k_hat_is_nan_where_the_tail_has_fewer_than_five_values_above_its_threshold(weights):
    assert math.isnan(pareto_k(weights))


@given(seed=st.integers(0, 999), n_levels=st.integers(2, 60), n=st.sampled_from([300, 1000, 5000]))
def test_weights_of_few_levels_have_no_tail(seed, n_levels, n):
    rng = np.random.default_rng(seed)
    levels = rng.pareto(1.0, n_levels) + 0.01
    weights = levels[rng.integers(0, n_levels, n)]
    # Rounding makes no levels of its own.
    assert math.isnan(pareto_k(weights)) and math.isnan(pareto_k(weights * (1.0 + 1e-14 * rng.random(n))))


def test_copies_of_rows_have_a_tail():
    weights = scipy.stats.genpareto(0.5).rvs(1000, random_state=1)
    assert pareto_k(np.repeat(weights, 3)) == pytest.approx(pareto_k(weights), abs=0.3)


@pytest.mark.parametrize("measure", [effective_sample_size, pareto_k, largest_share, top_share])
@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([], "with n >= 1"),
        ([[1.0]], "got shape"),
        ([1, np.nan], "NaN or infinite"),
        ([1, -2], "must be >= 0"),
        ([0, 0], "no overlap"),
    ],
)
def test_weights_that_are_none_are_refused(measure, weights, words):
    with pytest.raises(ValueError, match=words):
        measure(weights)


def test_weights_may_be_tensors_and_single_precision():
    torch = pytest.importorskip("torch")
    weights = np.random.default_rng(0).exponential(size=200).astype(np.float32)
    for measure in (effective_sample_size, pareto_k, top_share):
        assert measure(torch.tensor(weights, requires_grad=True)) == measure(weights) == measure(weights.astype(np.float64))
