"""Ratios of kernel densities, against scikit-learn and brute force."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, multivariate_normal
from zoo_cases import nmse, samples

from densratio import stack_domains
from densratio.datasets import make_mixture_shift
from densratio.estimators.kde import KDERatio
from densratio.estimators.nearest_neighbors import NearestNeighborsRatio
from densratio.estimators.samples import oas_shrinkage


@pytest.mark.parametrize("rule", ["scott", "silverman"])
def test_in_one_column_the_densities_are_scipys(rule):
    source, target = samples(d=1)
    ratio = KDERatio(gamma=rule).fit(*stack_domains(source, target))
    expected = gaussian_kde(target.T, bw_method=rule)(source.T) / gaussian_kde(source.T, bw_method=rule)(source.T)
    np.testing.assert_allclose(ratio.weights_, expected / expected.mean(), rtol=1e-6)


@pytest.mark.parametrize("rule", ["scott", "silverman", "wide"])
def test_in_several_columns_the_kernels_have_the_domains_shrunk_covariances(rule):
    source, target = samples(d=3)
    target = target @ np.linalg.cholesky([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 4.0]]).T
    ratio = KDERatio(gamma=rule).fit(*stack_domains(source, target))
    for rows, bandwidth in ((source, ratio.source_bandwidth_), (target, ratio.target_bandwidth_)):
        deviation, n = rows.std(axis=0, ddof=1), len(rows)
        factor = {"scott": n ** (-1 / 7), "silverman": (n * 5 / 4) ** (-1 / 7), "wide": 1.4 * n ** (-1 / 7)}[rule]
        covariance = np.cov((rows / deviation).T)
        shrunk = covariance * (1.0 - oas_shrinkage(covariance, n))
        np.fill_diagonal(shrunk, 1.0)
        np.testing.assert_allclose(bandwidth, factor**2 * shrunk * np.outer(deviation, deviation), rtol=1e-6, atol=1e-9)
    densities = [
        np.mean([multivariate_normal(row, bandwidth).pdf(source) for row in rows], axis=0)
        for rows, bandwidth in ((target, ratio.target_bandwidth_), (source, ratio.source_bandwidth_))
    ]
    expected = densities[0] / densities[1]
    np.testing.assert_allclose(ratio.weights_, expected / expected.mean(), rtol=1e-8)


@given(seed=st.integers(0, 2**16), gamma=st.floats(1e-3, 1e2))
def test_a_number_gamma_is_the_kernel_in_data_units(seed, gamma):
    source, target = samples(20, 15, seed=seed)
    ratio = KDERatio(gamma=gamma, scale=None).fit(*stack_domains(source, target))
    logs = [logsumexp(-gamma * cdist(source, rows, "sqeuclidean"), axis=1) for rows in (target, source)]
    expected = np.exp(logs[0] - logs[1] - np.max(logs[0] - logs[1]))
    np.testing.assert_allclose(ratio.weights_, expected / expected.mean(), rtol=1e-8, atol=1e-12)


def test_an_unseen_row_has_at_most_the_largest_ratio_of_the_source_rows():
    source, target = samples()
    ratio = KDERatio().fit(*stack_domains(source, target))
    values = ratio.transform(np.random.default_rng(2).normal(0.5, 5.0, size=(500, 2)))
    assert values.max() == pytest.approx(ratio.weights_.max(), rel=1e-12)
    assert ratio.transform(source) == pytest.approx(ratio.weights_, rel=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch):

    X, y = stack_domains(*samples())
    Z, _ = stack_domains(*samples(d=20))
    whole = [KDERatio().fit(X, y).weights_, NearestNeighborsRatio().fit(X, y).weights_, NearestNeighborsRatio().fit(Z, y).weights_]
    monkeypatch.setattr("densratio._blocks.BLOCK", 200)
    blocks = [KDERatio().fit(X, y).weights_, NearestNeighborsRatio().fit(X, y).weights_, NearestNeighborsRatio().fit(Z, y).weights_]
    for a, b in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize(
    ("gamma", "message"), [(-1.0, "number > 0"), (0.0, "number > 0"), ("median", "not a known rule"), (None, "number > 0")]
)
def test_a_gamma_that_cannot_be_is_refused(gamma, message):
    with pytest.raises(ValueError, match=message):
        KDERatio(gamma=gamma).fit(*stack_domains(*samples()))


def test_cross_validation_finds_a_bandwidth_for_two_far_clusters():
    shift = make_mixture_shift(500, 500, 1, means=[[-20.0], [20.0]], target_means=[[-19.0], [21.0]], random_state=0)
    chosen, rule = KDERatio(gamma="cv").fit(shift.X, shift.y), KDERatio().fit(shift.X, shift.y)
    assert chosen.best_params_["gamma"] != "wide" and len(chosen.cv_results_["params"]) == 8
    assert chosen.gamma == "cv"
    truth = shift.ratio(shift.X_source)
    assert nmse(chosen.weights_, truth) < 0.5 * nmse(rule.weights_, truth)


@given(power=st.integers(-300, 300), seed=st.integers(0, 99))
def test_columns_of_any_size_warn_of_nothing(power, seed):
    source, target = np.split(np.random.default_rng(seed).normal(size=(40, 2)), 2)
    expected = KDERatio().fit(*stack_domains(source, target)).weights_
    unit = np.array([1.0, 10.0**power])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ratio = KDERatio().fit(*stack_domains(source * unit, target * unit))
    np.testing.assert_allclose(ratio.weights_, expected, rtol=1e-6)
    assert not np.isnan(ratio.source_bandwidth_).any()
