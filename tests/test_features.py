"""Features against scikit-learn's kernels, the approximations against what they approximate, and the bandwidth rules."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from densratio.features import FEATURES, Gaussian, Laplacian, Nystroem, RandomFourier, at_bandwidths
from densratio.testing import draw_problem, gaussian_shift, problems

KERNELS = {Gaussian: rbf_kernel, Laplacian: laplacian_kernel}
ORDINARY = ["shift", "constant_column", "duplicate_rows", "offset", "heavy_tails"]


@pytest.mark.parametrize("kind", KERNELS)
@given(problem=problems(ORDINARY, n_rows=(1, 60)))
def test_a_kernel_is_scikit_learns(kind, problem):
    features = kind(gamma=0.3).fit(problem.source, problem.target, anchors="target")
    expected = KERNELS[kind](problem.source, problem.target, gamma=0.3)
    np.testing.assert_allclose(features(problem.source), expected, atol=1e-9)


@pytest.mark.parametrize("anchors", ["source", "target"])
@pytest.mark.parametrize("kind", KERNELS)
def test_the_centers_are_rows_of_the_anchor_sample_in_their_order(kind, anchors):
    problem = gaussian_shift(30, 20, 2)
    rows = {"source": problem.source, "target": problem.target}[anchors]
    np.testing.assert_array_equal(kind().fit(problem.source, problem.target, anchors=anchors).centers_, rows)
    chosen = kind(n_centers=7).fit(problem.source, problem.target, anchors=anchors).centers_
    positions = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in chosen]
    assert len(set(positions)) == 7
    assert positions == sorted(positions)


def test_another_seed_chooses_other_centers_and_the_same_seed_the_same():
    problem = gaussian_shift(30, 60, 2)

    def centers(seed):
        return Gaussian(n_centers=7, random_state=seed).fit(problem.source, problem.target, anchors="target").centers_

    np.testing.assert_array_equal(centers(1), centers(1))
    assert not np.array_equal(centers(1), centers(2))


def test_large_kernels_are_computed_in_blocks_of_the_same_values(monkeypatch):
    problem = gaussian_shift(50, 40, 3)
    features = Gaussian(gamma=0.5).fit(problem.source, problem.target, anchors="target")
    whole = features(problem.source)
    monkeypatch.setattr("densratio._blocks.BLOCK", 130)
    np.testing.assert_allclose(features(problem.source), whole, atol=1e-14)


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("library", [np.asarray, torch.asarray], ids=["numpy", "torch"])
@given(problem=problems(ORDINARY, n_rows=(2, 40)))
@settings(max_examples=10)
def test_features_at_several_bandwidths_are_those_of_each(name, library, problem):
    source, target = library(problem.source), library(problem.target)
    features = [FEATURES[name](gamma=g).fit(source, target, anchors="target") for g in (1e-3, 0.3, 1e4)]
    for one, found in zip(features, at_bandwidths(features, source), strict=True):
        # Traces of kernels are raised to what changes no sum.
        np.testing.assert_allclose(np.asarray(found), np.asarray(one(source)), rtol=1e-8, atol=1e-10)


def test_csr_rows_share_their_distances_too():
    rows = np.random.default_rng(0).poisson(0.5, (20, 6)).astype(float)
    features = [Gaussian(gamma=g).fit(rows, rows[:8], anchors="target") for g in (0.1, 2.0)]
    for dense, sparse in zip(at_bandwidths(features, rows), at_bandwidths(features, csr_array(rows)), strict=True):
        np.testing.assert_allclose(sparse, dense, rtol=1e-10)


def inner_products(features, problem):
    fitted = features.fit(problem.source, problem.target, anchors="target")
    return fitted(problem.source) @ fitted(problem.target).T


def mean_error(kind, n_centers, problem):
    exact = rbf_kernel(problem.source, problem.target, gamma=0.5)
    errors = [
        np.sqrt(np.mean((inner_products(kind(gamma=0.5, n_centers=n_centers, random_state=seed), problem) - exact) ** 2))
        for seed in range(5)
    ]
    return np.mean(errors)


def test_random_fourier_features_converge_at_the_monte_carlo_rate():
    problem = gaussian_shift(60, 50, 3)
    coarse, fine = mean_error(RandomFourier, 100, problem), mean_error(RandomFourier, 6400, problem)
    assert fine < 0.012  # about 1 / sqrt(2 * 3200 pairs)
    assert 5.0 < coarse / fine < 13.0  # sqrt(64) = 8


def test_nystroem_converges_to_the_kernel():
    problem = gaussian_shift(60, 50, 1)
    coarse, fine = mean_error(Nystroem, 2, problem), mean_error(Nystroem, 20, problem)
    assert fine < 2e-4
    assert fine < 1e-2 * coarse


@given(problems(ORDINARY, n_rows=(1, 60)))
def test_nystroem_is_exact_at_its_centers(problem):
    fitted = Nystroem(gamma=0.5, n_centers=8).fit(problem.source, problem.target, anchors="target")
    at_centers = fitted(fitted.centers_)
    np.testing.assert_allclose(at_centers @ at_centers.T, rbf_kernel(fitted.centers_, gamma=0.5), atol=1e-7)


def test_nystroem_with_every_row_is_the_kernel():
    problem = gaussian_shift(30, 20, 2)
    found = inner_products(Nystroem(gamma=0.5, n_centers=50), problem)
    np.testing.assert_allclose(found, rbf_kernel(problem.source, problem.target, gamma=0.5), atol=1e-7)


@pytest.mark.parametrize("n_centers", [None, 6, 7])
def test_an_explicit_map_has_as_many_columns_as_asked_for(n_centers):
    problem = gaussian_shift(300, 300, 2)
    fourier = RandomFourier(n_centers=n_centers).fit(problem.source, problem.target, anchors="target")
    nystroem = Nystroem(n_centers=n_centers).fit(problem.source, problem.target, anchors="target")
    assert fourier(problem.source).shape[1] == {None: 200, 6: 6, 7: 8}[n_centers]
    assert nystroem(problem.source).shape[1] == (n_centers or 200)


# ---------------------------------------------------------------- bandwidths


def gamma_of(features, source, target):
    return float(features.fit(source, target, anchors="target").gamma_)


def test_the_median_rule_is_one_over_twice_the_median_squared_distance():
    problem = gaussian_shift(20, 21, 2)
    pooled = np.concatenate([problem.source, problem.target])
    distances = ((pooled[:, None] - pooled[None]) ** 2).sum(axis=2)[np.triu_indices(len(pooled), 1)]
    # The rule's median is the upper one of an even number of pairs.
    expected = 1.0 / (2.0 * np.sort(distances)[len(distances) // 2])
    assert gamma_of(Gaussian(), problem.source, problem.target) == pytest.approx(expected, rel=1e-12)


def test_the_median_rule_on_many_rows_is_near_the_whole_samples():
    problem = gaussian_shift(5000, 5000, 1, shift=0.0)
    # The difference of two standard normals has variance 2, and the median of its square is 2 * 0.4549.
    assert gamma_of(Gaussian(), problem.source, problem.target) == pytest.approx(1.0 / (4.0 * 0.4549), rel=0.15)


def test_the_target_spread_is_that_of_the_target_alone():
    target = np.linspace(0.0, 10.0, 11)[:, None]
    for source in (np.zeros((5, 1)), 1e3 * np.ones((50, 1))):
        assert gamma_of(Gaussian(gamma="target_spread"), source, target) == pytest.approx(1.0 / 8.0**2)
        assert gamma_of(Laplacian(gamma="target_spread"), source, target) == pytest.approx(1.0 / 8.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Gaussian, Laplacian])
def test_a_spread_of_the_size_of_rounding_is_none(kind, dtype):
    """0.3 and 0.1 + 0.2 are one value: the range of both samples is taken, and where that is rounding too there is no scale."""
    target = np.array([[0.3], [0.1 + 0.2]] * 5, dtype=dtype)
    target[1::2] = np.nextafter(target[::2], dtype(1))
    source = np.linspace(0.0, 2.0, 9, dtype=dtype)[:, None]
    assert gamma_of(kind(gamma="target_spread"), source, target) == pytest.approx(0.25 if kind is Gaussian else 0.5)
    assert gamma_of(kind(gamma="target_spread"), target[:3], target) == 1.0
    # A spread that is small, and not rounding, stays what it is.
    small = (0.3 + 1e-4 * np.linspace(0.0, 1.0, 11))[:, None].astype(dtype)
    width = 0.8e-4
    assert gamma_of(kind(gamma="target_spread"), source, small) == pytest.approx(
        1.0 / width**2 if kind is Gaussian else 1.0 / width, rel=5e-3
    )


def test_data_without_a_scale_have_gamma_one():
    problem = draw_problem("one_value", 10, 5, 2)
    for rule in ("median", "target_spread"):
        assert gamma_of(Gaussian(gamma=rule), problem.source, problem.target) == 1.0


def test_a_target_of_one_value_takes_the_pooled_range():
    source, target = np.linspace(0.0, 10.0, 10)[:, None], np.full((1, 1), 12.0)
    assert gamma_of(Gaussian(gamma="target_spread"), source, target) == pytest.approx(1.0 / 12.0**2)


def test_the_median_is_that_of_the_pairs_that_are_apart():
    source, target = np.zeros((20, 1)), np.concatenate([np.zeros((19, 1)), np.ones((1, 1)), np.full((1, 1), 3.0)])
    # 39 pairs at distance 1, 39 at 9 and one at 4; all others are copies.
    assert gamma_of(Gaussian(), source, target) == pytest.approx(1.0 / (2.0 * 4.0))


@given(seed=st.integers(0, 2**16), d=st.integers(1, 3))
def test_a_row_of_weight_two_is_two_rows_to_the_median_rule(seed, d):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 5, (n, d)) * 0.7 for n in rng.integers(2, 12, 2)]
    counts = [rng.integers(1, 4, len(part)) for part in rows]
    copied = [np.repeat(part, count, axis=0) for part, count in zip(rows, counts, strict=True)]
    weighted = Gaussian().bandwidth(*rows, *(count.astype(float) for count in counts))
    assert float(weighted) == pytest.approx(float(Gaussian().bandwidth(*copied)), rel=1e-12)


@given(seed=st.integers(0, 99))
def test_csr_rows_have_the_features_of_dense_ones(seed):
    rng = np.random.default_rng(seed)
    source, target = (rng.poisson(0.4, (n, 6)).astype(float) for n in (15, 12))
    for kind in (Gaussian, RandomFourier, Nystroem):
        dense = kind().fit(source, target, anchors="target")
        sparse = kind().fit(csr_array(source), csr_array(target), anchors="target")
        assert sparse(csr_array(source)) == pytest.approx(dense(source), abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf"), "medium"])
@pytest.mark.parametrize("name", FEATURES)
def test_a_gamma_out_of_range_is_a_value_error_that_lists_the_rules(name, gamma):
    problem = gaussian_shift(3, 3)
    with pytest.raises(ValueError, match=r"'median', 'target_spread'"):
        FEATURES[name](gamma=gamma).fit(problem.source, problem.target, anchors="target")


@pytest.mark.parametrize("name", FEATURES)
def test_single_precision_stays_single_and_near_double(name):
    problem = gaussian_shift(40, 30, 2)
    rows = [torch.asarray(x, dtype=torch.float32) for x in (problem.source, problem.target)]
    single = FEATURES[name](gamma=0.5).fit(*rows, anchors="target")
    double = FEATURES[name](gamma=0.5).fit(problem.source, problem.target, anchors="target")
    values, exact = single(rows[0]), double(problem.source)
    assert values.dtype == torch.float32
    values = values.numpy().astype(float)
    if double.is_map:  # the basis is arbitrary, the inner products are not
        values, exact = values @ values.T, exact @ exact.T
    np.testing.assert_allclose(values, exact, atol=1e-3)
