"""Ratios of Gaussians, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.covariance import oas
from zoo_cases import nmse, samples

from densratio import stack_domains
from densratio.datasets import make_gaussian_shift
from densratio.estimators.gaussian import GaussianRatio
from densratio.estimators.samples import moments, oas_shrinkage


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("d", [1, 3])
def test_the_gaussian_ratio_is_that_of_scipys_densities(d, shared):
    source, target = samples(d=d)
    ratio = GaussianRatio(shared_covariance=shared).fit(*stack_domains(source, target))
    densities = [
        multivariate_normal(mean, covariance).pdf(source)
        for mean, covariance in (
            (ratio.target_mean_, ratio.target_covariance_),
            (ratio.source_mean_, ratio.source_covariance_),
        )
    ]
    expected = densities[0] / densities[1]
    np.testing.assert_allclose(ratio.weights_, expected / expected.mean(), rtol=1e-9)
    np.testing.assert_allclose(ratio.source_mean_, source.mean(axis=0), rtol=1e-12)


def test_without_shrinkage_the_covariances_are_the_moments():
    source, target = samples(d=3)
    ratio = GaussianRatio(shrinkage=0.0).fit(*stack_domains(source, target))
    np.testing.assert_allclose(ratio.source_covariance_, np.cov(source.T, bias=True), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ratio.target_covariance_, np.cov(target.T, bias=True), rtol=1e-6, atol=1e-8)
    pooled = (60 * np.cov(source.T, bias=True) + 40 * np.cov(target.T, bias=True)) / 100
    shared = GaussianRatio(shrinkage=0.0, shared_covariance=True).fit(*stack_domains(source, target))
    np.testing.assert_allclose(shared.source_covariance_, pooled, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(shared.source_covariance_, shared.target_covariance_)


@given(seed=st.integers(0, 2**16), n=st.integers(2, 40), d=st.integers(1, 8))
def test_the_shrinkage_is_scikit_learns(seed, n, d):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    covariance = moments(X, np.ones(n))[1]
    expected, share = oas(X)
    ours = oas_shrinkage(covariance, n)
    np.testing.assert_allclose(
        (1 - ours) * covariance + ours * np.trace(covariance) / d * np.eye(d), expected, rtol=1e-9, atol=1e-9
    )
    if d > 1:
        assert ours == pytest.approx(share, rel=1e-9)


def test_shrinkage_all_the_way_leaves_one_variance_in_scaled_columns():
    source, target = samples(d=3)
    units = np.array([1.0, 10.0, 100.0])
    ratio = GaussianRatio(shrinkage=1.0).fit(*stack_domains(source * units, target * units))
    pooled = (60 * source.var(axis=0) + 40 * target.var(axis=0)) / 100 * units**2
    for rows, covariance in ((source, ratio.source_covariance_), (target, ratio.target_covariance_)):
        expected = np.mean(rows.var(axis=0) * units**2 / pooled) * np.diag(pooled)
        np.testing.assert_allclose(covariance, expected, rtol=1e-6)


@pytest.mark.parametrize("shrinkage", [-0.1, 1.5, "ledoit", None, True])
def test_a_shrinkage_that_cannot_be_is_refused(shrinkage):
    with pytest.raises(ValueError, match=r"shrinkage must be a number in \[0, 1\] or \"auto\""):
        GaussianRatio(shrinkage=shrinkage).fit(*stack_domains(*samples()))


def test_shrinkage_helps_where_rows_are_few():
    shifts = [make_gaussian_shift(40, 40, 5, shift=0.5, scale=0.8, random_state=seed) for seed in range(10)]
    errors = [
        np.median([nmse(GaussianRatio(shrinkage=s).fit(p.X, p.y).weights_, p.ratio(p.X_source)) for p in shifts])
        for s in ("auto", 0.0)
    ]
    assert errors[0] < 0.6 * errors[1]
