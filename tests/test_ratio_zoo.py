"""Ratios by classifier, neighbours, kernel densities and Gaussians, against scipy, scikit-learn and brute force."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import expit, logsumexp
from scipy.stats import gaussian_kde, multivariate_normal, norm
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.covariance import oas
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from densratio import stack_domains
from densratio.datasets import make_gaussian_shift, make_heavy_tails, make_mixture_shift
from densratio.estimators import calibration
from densratio.estimators.calibration import Isotonic, Sigmoid
from densratio.estimators.contract import Samples
from densratio.estimators.counts import moments, oas_shrinkage, row_counts
from densratio.estimators.cross_fitting import Table, dealt
from densratio.estimators.default_classifiers import Landmarks, default_classifiers
from densratio.estimators.discriminator import Discriminator
from densratio.estimators.gaussian import GaussianRatio
from densratio.estimators.kde import KDERatio
from densratio.estimators.nearest_neighbors import NearestNeighborsRatio


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky", tol=1e-8))


ZOO = {
    "discriminator": Discriminator(logistic()),
    "isotonic": Discriminator(logistic(), calibration="isotonic"),
    "gaussian": GaussianRatio(),
    "shared gaussian": GaussianRatio(shared_covariance=True),
    "kde": KDERatio(),
    "isotropic kde": KDERatio(gamma=2.0),
    "neighbors": NearestNeighborsRatio(),
    "3 neighbors": NearestNeighborsRatio(n_neighbors=3),
}
DEFAULTS = {
    "discriminator": Discriminator(),
    "gaussian": GaussianRatio(),
    "kde": KDERatio(),
    "neighbors": NearestNeighborsRatio(),
}
UNIT_FREE = ["discriminator", "gaussian", "shared gaussian", "kde", "neighbors"]


def samples(n_source=60, n_target=40, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_source, d)), rng.normal(0.5, 0.8, size=(n_target, d))


def fitted(name, source, target, sample_weight=None):
    return clone(ZOO[name]).fit(*stack_domains(source, target), sample_weight=sample_weight)


def nmse(ratio, truth):
    return np.mean((ratio / ratio.mean() - truth / truth.mean()) ** 2)


# ---------------------------------------------------------------- what all have in common


@pytest.mark.parametrize("name", ["discriminator", "gaussian", "kde", "neighbors"])
def test_check_estimator_passes(name):
    results = check_estimator(clone(ZOO[name]), on_fail=None, on_skip=None)
    assert {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "failed"} == {}
    assert len(results) > 30


S, T = samples(30, 20, 3)
HARD = {
    "one source row": (S[:1], T),
    "one target row": (S, T[:1]),
    "one row each": (S[:1], T[:1]),
    "two rows each": (S[:2], T[:2]),
    "one point": (np.ones((5, 2)), np.ones((4, 2))),
    "two points": (np.zeros((5, 2)), np.ones((4, 2))),
    "constant column": (np.c_[S, np.ones(30)], np.c_[T, np.ones(20)]),
    "constant in the target": (S, np.c_[np.ones(20), T[:, 1:]]),
    "same column twice": (np.c_[S, S], np.c_[T, T]),
    "huge": (S * 1e6, T * 1e6),
    "tiny": (S * 1e-6, T * 1e-6),
    "offset": (S + 1e5, T + 1e5),
    "mixed scales": (S * [1.0, 1e6, 1e-6], T * [1.0, 1e6, 1e-6]),
    "far apart": (S, T + 1e4),
    "outlier": (np.r_[S, [[1e8, 0.0, 0.0]]], T),
    "duplicates": (np.round(S), np.round(T)),
    "zeros and ones": ((S[:, :1] > 0) * 1.0, (T[:, :1] > 0) * 1.0),
    "n << d": (np.random.default_rng(1).normal(size=(8, 50)), np.random.default_rng(2).normal(size=(6, 50))),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("name", ["discriminator", "isotonic", "gaussian", "kde", "neighbors"])
def test_weights_and_ratios_are_finite_for_any_finite_rows(name, case, dtype):
    source, target = (rows.astype(dtype) for rows in HARD[case])
    ratio = fitted(name, source, target)
    rows = np.r_[source, target]
    for values in (ratio.weights_, ratio.transform(rows), ratio.transform(1e3 + 1e3 * rows)):
        assert values.dtype == dtype and np.isfinite(values).all() and values.min() >= 0.0
    assert ratio.weights_.mean() == pytest.approx(1.0, rel=1e-5)
    assert np.isfinite(ratio.score(*stack_domains(source, target)))


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5)
def test_a_weight_of_k_is_k_copies_and_a_weight_of_zero_is_none(name, seed):
    source, target = samples(15, 12, seed=seed)
    X, y = stack_domains(source, target)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 7, len(y))
    counts[[0, 1, -1, -2]] = 1
    order = rng.permutation(counts.sum())
    weighted = clone(ZOO[name]).fit(X, y, sample_weight=counts)
    copied = clone(ZOO[name]).fit(np.repeat(X, counts, axis=0)[order], np.repeat(y, counts)[order])
    np.testing.assert_allclose(weighted.transform(X), copied.transform(X), rtol=1e-6, atol=1e-9)
    by_copy = np.empty(len(order))
    by_copy[order[np.repeat(y, counts)[order] == 0]] = copied.weights_
    counted = counts[y == 0] > 0
    first = np.cumsum(counts[y == 0]) - counts[y == 0]
    np.testing.assert_allclose(weighted.weights_[counted], by_copy[first[counted]], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ZOO)
def test_weights_that_are_no_whole_numbers_have_no_unit(name):
    X, y = stack_domains(*samples())
    weight = np.random.default_rng(3).uniform(0.1, 2.0, len(y))
    once, scaled = (clone(ZOO[name]).fit(X, y, sample_weight=factor * weight) for factor in (1.0, np.pi * 1e-3))
    np.testing.assert_allclose(once.weights_, scaled.weights_, rtol=1e-6)
    assert np.average(once.weights_, weights=weight[y == 0]) == pytest.approx(1.0)
    assert np.max(np.abs(once.weights_ - clone(ZOO[name]).fit(X, y).weights_)) > 0.01


def test_row_counts_are_copies_or_add_up_to_the_effective_sample_size():
    def counts(source_weight, target_weight):
        return row_counts(Samples(None, None, np.array(source_weight), np.array(target_weight), None, None, None))

    assert [c.tolist() for c in counts([2.0, 3.0], [1.0])] == [[2.0, 3.0], [1.0]]
    source, target = counts([0.5, 1.5], [4.0, 4.0, 4.0])
    np.testing.assert_allclose(source, [0.4, 1.2])
    np.testing.assert_allclose(target, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ZOO)
def test_the_order_of_the_rows_is_the_order_of_the_weights(name):
    X, y = stack_domains(*samples())
    order = np.random.default_rng(1).permutation(len(y))
    ratio, shuffled = clone(ZOO[name]).fit(X, y), clone(ZOO[name]).fit(X[order], y[order])
    np.testing.assert_allclose(shuffled.weights_, ratio.weights_[order[y[order] == 0]], rtol=1e-6)
    np.testing.assert_allclose(shuffled.transform(X), ratio.transform(X), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", UNIT_FREE)
def test_the_unit_of_the_rows_changes_nothing(name, scale):
    source, target = samples()
    ratio, scaled = fitted(name, source, target), fitted(name, scale * source, scale * target)
    np.testing.assert_allclose(scaled.weights_, ratio.weights_, rtol=1e-6)
    np.testing.assert_allclose(scaled.transform(scale * target), ratio.transform(target), rtol=1e-6)


@pytest.mark.parametrize("name", ["discriminator", "gaussian", "shared gaussian", "kde"])
def test_the_unit_of_one_column_changes_nothing(name):
    source, target = samples()
    units = [1e-3, 1e4]
    np.testing.assert_allclose(
        fitted(name, source * units, target * units).weights_, fitted(name, source, target).weights_, rtol=1e-6
    )


@pytest.mark.parametrize("name", ZOO)
def test_a_tensor_gives_what_its_array_gives(name):
    X, y = stack_domains(*samples())
    ratio = clone(ZOO[name]).fit(torch.tensor(X), torch.tensor(y))
    by_array = clone(ZOO[name]).fit(X, y)
    for out in (ratio.weights_, ratio.transform(torch.tensor(X))):
        assert isinstance(out, torch.Tensor) and out.dtype == torch.float64
    np.testing.assert_array_equal(ratio.weights_.numpy(), by_array.weights_)
    for attribute in ratio._returns:
        assert isinstance(getattr(ratio, attribute), torch.Tensor)


@pytest.mark.parametrize("name", ZOO)
def test_pickle_keeps_the_fit_and_clone_forgets_it(name):
    X, y = stack_domains(*samples())
    ratio = clone(ZOO[name]).fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(ratio)).transform(X), ratio.transform(X))
    copy = clone(ratio)
    assert not hasattr(copy, "weights_")
    assert np.array_equal(copy.fit(X, y).weights_, ratio.weights_)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_known_ratio_is_recovered_better_with_more_rows(name):
    errors = []
    for n in (100, 1600):
        shifts = [make_gaussian_shift(n, n, 2, shift=0.5, scale=0.8, random_state=seed) for seed in range(3)]
        fits = [clone(DEFAULTS[name]).fit(shift.X, shift.y) for shift in shifts]
        errors.append([np.mean([nmse(fit.weights_, s.ratio(s.X_source)) for fit, s in zip(fits, shifts, strict=True)])])
        errors[-1].append(np.mean([nmse(fit.transform(s.X), s.ratio(s.X)) for fit, s in zip(fits, shifts, strict=True)]))
    assert errors[1][0] < 0.5 * errors[0][0] and errors[1][1] < 0.5 * errors[0][1]
    # Weights of all ones have the variance of the ratio, 0.38.
    assert errors[1][0] < 0.07


@pytest.mark.parametrize(("name", "largest"), [("discriminator", 0.02), ("gaussian", 0.03), ("kde", 0.2), ("neighbors", 0.1)])
def test_equal_laws_give_weights_near_one(name, largest):
    X, y = stack_domains(*(np.random.default_rng(seed).normal(size=(600, 2)) for seed in (0, 1)))
    assert np.var(clone(DEFAULTS[name]).fit(X, y).weights_) < largest


# ---------------------------------------------------------------- Gaussians


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


# ---------------------------------------------------------------- kernel densities


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
    ratio = KDERatio(gamma=gamma).fit(*stack_domains(source, target))
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
    from densratio.estimators import kde, nearest_neighbors

    X, y = stack_domains(*samples())
    Z, _ = stack_domains(*samples(d=20))
    whole = [KDERatio().fit(X, y).weights_, NearestNeighborsRatio().fit(X, y).weights_, NearestNeighborsRatio().fit(Z, y).weights_]
    monkeypatch.setattr(kde, "_BLOCK", 200)
    monkeypatch.setattr(nearest_neighbors, "_BLOCK", 200)
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


# ---------------------------------------------------------------- neighbours


def by_counting(source, target, rows, k, own):
    """The ratio by sorting all distances."""
    ratio = []
    for i, x in enumerate(rows):
        to_source, to_target = (np.linalg.norm(x - other, axis=1) for other in (source, target))
        if own:
            to_source = np.delete(to_source, i)
        radius = np.sort(to_source)[k - 1] + 1e-9
        ratio.append(np.mean(to_target <= radius) / np.mean(to_source <= radius))
    return np.array(ratio)


@pytest.mark.parametrize("d", [1, 2, 20])
@pytest.mark.parametrize("k", [1, 7])
def test_the_ratio_is_that_of_the_counted_neighbours(d, k):
    source, target = samples(d=d)
    ratio = NearestNeighborsRatio(n_neighbors=k).fit(*stack_domains(source, target))
    weights = by_counting(source, target, source, k, own=True)
    np.testing.assert_allclose(ratio.weights_, weights / weights.mean(), rtol=1e-9)
    unseen = samples(d=d, seed=5)[1]
    expected = by_counting(source, target, unseen, k, own=False)
    np.testing.assert_allclose(ratio.transform(unseen), expected / weights.mean(), rtol=1e-9)


@pytest.mark.parametrize("d", [2, 20])
def test_the_default_is_the_mean_over_half_and_twice_as_many_neighbours(d):
    source, target = samples(d=d)
    ratio = NearestNeighborsRatio().fit(*stack_domains(source, target))
    k = ratio.n_neighbors_
    weights, expected = (
        np.mean([by_counting(source, target, rows, round(c * k), own=own) for c in (0.5, 1, 2)], axis=0)
        for rows, own in ((source, True), (target, False))
    )
    np.testing.assert_allclose(ratio.weights_, weights / weights.mean(), rtol=1e-9)
    np.testing.assert_allclose(ratio.transform(target), expected / weights.mean(), rtol=1e-9)


@pytest.mark.parametrize("d", [2, 20])
def test_an_origin_far_away_changes_no_neighbour(d):
    source, target = samples(d=d)
    near = NearestNeighborsRatio().fit(*stack_domains(source, target))
    far = NearestNeighborsRatio().fit(*stack_domains(source + 1e6, target + 1e6))
    np.testing.assert_allclose(far.weights_, near.weights_, rtol=1e-9)
    np.testing.assert_allclose(far.transform(target + 1e6), near.transform(target), rtol=1e-9)


@given(seed=st.integers(0, 2**16), k=st.integers(1, 10))
def test_rows_at_one_distance_count_together(seed, k):
    rng = np.random.default_rng(seed)
    source, target = 0.1 * rng.integers(-3, 4, size=(30, 2)), 0.1 * rng.integers(-2, 5, size=(20, 2))
    ratio = NearestNeighborsRatio(n_neighbors=k).fit(*stack_domains(source, target))
    weights = by_counting(source, target, source, k, own=True)
    np.testing.assert_allclose(ratio.weights_, weights / weights.mean(), rtol=1e-9)


@pytest.mark.parametrize("n_columns", [3, 20])
def test_csr_rows_give_what_dense_rows_give(n_columns):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, n_columns)) * (rng.random((100, n_columns)) < 0.3)
    y = np.repeat([0, 1], 50)
    for ratio in (NearestNeighborsRatio(), Discriminator(LogisticRegression(tol=1e-10), calibration=None)):
        dense, sparse = clone(ratio).fit(X, y), clone(ratio).fit(scipy.sparse.csr_array(X), y)
        np.testing.assert_allclose(sparse.weights_, dense.weights_, rtol=1e-5)
        np.testing.assert_allclose(sparse.transform(scipy.sparse.csr_array(X)), dense.transform(X), rtol=1e-5)


def test_on_frequent_values_the_ratio_is_that_of_the_frequencies():
    source, target = np.repeat([0.0, 1.0, 2.0], [50, 100, 50])[:, None], np.repeat([0.0, 1.0, 2.0], [120, 60, 20])[:, None]
    ratio = NearestNeighborsRatio(n_neighbors=20).fit(*stack_domains(source, target))
    expected = np.array([0.6, 0.3, 0.1]) / [0.25, 0.5, 0.25]
    np.testing.assert_allclose(ratio.transform([[0.0], [1.0], [2.0]]), expected, rtol=0.03)


def test_more_neighbours_than_rows_are_refused():
    X, y = stack_domains(*samples(20, 30))
    assert NearestNeighborsRatio(n_neighbors=20).fit(X, y).n_neighbors_ == 20
    with pytest.raises(ValueError, match=r"n_neighbors=21 is more than the source's 20 rows"):
        NearestNeighborsRatio(n_neighbors=21).fit(X, y)


@pytest.mark.parametrize("n_neighbors", [0, -1, 2.5, "sqrt", True, None])
def test_a_number_of_neighbours_that_cannot_be_is_refused(n_neighbors):
    with pytest.raises(ValueError, match="n_neighbors must be an int >= 1"):
        NearestNeighborsRatio(n_neighbors=n_neighbors).fit(*stack_domains(*samples()))


@pytest.mark.parametrize(
    ("sizes", "d", "k"), [((1000, 1000), 1, 126), ((1000, 1000), 2, 50), ((1000, 1000), 9, 32), ((4000, 1000), 9, 126)]
)
def test_the_default_number_of_neighbours_is_a_share_of_the_smaller_domain(sizes, d, k):
    X, y = stack_domains(*samples(*sizes, d=d))
    assert NearestNeighborsRatio().fit(X, y).n_neighbors_ == k


def test_cross_validation_chooses_the_number_of_neighbours_of_the_highest_score():
    X, y = stack_domains(*samples(200, 150))
    ratio = NearestNeighborsRatio(n_neighbors=[2, 30, 80]).fit(X, y)
    scores = ratio.cv_results_["mean_test_score"]
    assert ratio.n_neighbors_ == ratio.best_params_["n_neighbors"] == [2, 30, 80][int(np.argmax(scores))]
    assert ratio.n_neighbors_ != 2
    assert len(NearestNeighborsRatio(n_neighbors="cv").fit(X, y).cv_results_["params"]) == 7


# ---------------------------------------------------------------- classifiers: cross-fitting


def test_uncalibrated_weights_are_the_held_out_odds_by_hand():
    X, y = stack_domains(*samples())
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(X, y))
    ratio = Discriminator(logistic(), cv=folds, calibration=None).fit(X, y)
    held_out = cross_val_predict(logistic(), X, y, cv=folds, method="predict_proba")[:, 1]
    odds = (held_out / (1 - held_out))[y == 0]
    np.testing.assert_allclose(ratio.weights_, odds / odds.mean(), rtol=1e-6)
    np.testing.assert_allclose(ratio.probabilities_, held_out, rtol=1e-6)
    assert ratio.normalization_ == pytest.approx(60 / 40 * odds.mean(), rel=1e-6)
    assert ratio.n_folds_ == len(ratio.classifiers_) == 4
    unseen = samples(seed=7)[1]
    mean_odds = np.exp(np.mean([logistic().fit(X[a], y[a]).decision_function(unseen) for a, _ in folds], axis=0))
    np.testing.assert_allclose(ratio.transform(unseen), mean_odds / odds.mean(), rtol=1e-6)


def test_held_out_probabilities_are_in_the_order_of_the_rows_and_nan_where_a_row_does_not_count():
    X, y = stack_domains(*samples())
    order, weight = np.random.default_rng(0).permutation(len(y)), np.ones(len(y))
    weight[[3, 70]] = 0.0
    straight = Discriminator(logistic()).fit(X, y, sample_weight=weight).probabilities_
    shuffled = Discriminator(logistic()).fit(X[order], y[order], sample_weight=weight[order]).probabilities_
    np.testing.assert_allclose(shuffled, straight[order], rtol=1e-6)
    assert np.flatnonzero(np.isnan(straight)).tolist() == [3, 70]


class Memory(ClassifierMixin, BaseEstimator):
    """Certain of the rows that it has seen, undecided on others; rows must match to the bit."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen_ = {row.tobytes(): label for row, label in zip(X, y, strict=True)}
        return self

    def predict_proba(self, X):
        p = np.array([self.seen_.get(row.tobytes(), 0.5) for row in X])
        return np.c_[1 - p, p]


def test_no_row_is_weighed_by_a_classifier_that_has_seen_it_or_a_copy_of_it():
    source, target = samples()
    source, target = np.r_[source, source[:9]], np.r_[target, source[3:6]]
    X, y = stack_domains(source, target)
    for cv in (5, GroupKFold(3).split(X, y, np.unique(X, axis=0, return_inverse=True)[1])):
        ratio = Discriminator(Memory(), cv=cv, calibration=None).fit(X, y)
        np.testing.assert_allclose(ratio.probabilities_, 0.5)
        np.testing.assert_allclose(ratio.weights_, 1.0)


def test_a_frequent_value_is_held_out_in_part_so_that_every_classifier_knows_it():
    source, target = np.repeat([0.0, 1.0], [80, 20])[:, None], np.repeat([0.0, 1.0], [10, 40])[:, None]
    ratio = Discriminator(DecisionTreeClassifier(), calibration=None).fit(*stack_domains(source, target))
    np.testing.assert_allclose(ratio.transform([[0.0], [1.0]]), [0.2 / 0.8, 0.8 / 0.2], rtol=1e-6)


@given(
    values=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    split=st.integers(1, 39),
    counts=st.lists(st.integers(1, 9), min_size=40, max_size=40),
    n_folds=st.integers(2, 7),
)
@settings(max_examples=60)
def test_the_deal_leaves_rows_of_both_domains_in_every_fold(values, split, counts, n_folds):
    kind, split = np.unique(values, return_inverse=True)[1], min(split, len(values) - 1)
    y = (np.arange(len(kind)) >= split).astype(int)
    table = Table(np.zeros((len(kind), 1)), y, np.array(counts[: len(kind)], dtype=float), kind)
    shares = dealt(table, n_folds, seed=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares.min() >= 0.0 and 1 <= shares.shape[1] <= n_folds
    held = table.counts[:, None] * shares
    np.testing.assert_allclose(held, np.rint(held), atol=1e-9)
    total = np.bincount(kind, table.counts)
    for domain in (0, 1):
        of_domain = y == domain
        kept = table.counts[of_domain].sum() - held[of_domain].sum(axis=0)
        assert shares.shape[1] == 1 or kept.min() > 0.5
        for k in np.unique(kind[of_domain]):
            parts = held[of_domain & (kind == k)].sum(axis=0)
            if total[k] >= n_folds:
                assert np.ptp(parts) <= 1.0 + 1e-9
            else:
                assert np.count_nonzero(parts) == 1
    for k in np.flatnonzero(total < n_folds):
        assert np.count_nonzero(held[kind == k].sum(axis=0)) == 1


def test_the_seed_deals_and_equal_seeds_deal_alike():
    X, y = stack_domains(*samples())
    first, again, other = (Discriminator(logistic(), random_state=seed).fit(X, y).weights_ for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_folds_that_never_hold_a_row_out_are_refused():
    X, y = stack_domains(*samples())
    folds = list(StratifiedKFold(4).split(X, y))[:2]
    with pytest.raises(ValueError, match="cv holds out 50 of 100 rows"):
        Discriminator(logistic(), cv=folds).fit(X, y)
    with pytest.raises(ValueError, match="cv must be an int >= 2"):
        Discriminator(logistic(), cv=1).fit(X, y)


@pytest.mark.parametrize("sizes", [(1, 30), (30, 1)])
def test_a_domain_of_one_row_is_fitted_without_cross_fitting(sizes):
    X, y = stack_domains(*samples(*sizes))
    ratio = Discriminator().fit(X, y)
    assert ratio.n_folds_ == len(ratio.classifiers_) == 1 and ratio.calibration_ is None
    linear = default_classifiers(2, is_sparse=False)[0].fit(X, y)
    expected = np.clip(linear.predict_proba(X)[:, 1], 1 / 33, 32 / 33)
    np.testing.assert_allclose(ratio.probabilities_, expected, rtol=1e-5)


# ---------------------------------------------------------------- classifiers: calibration


@given(seed=st.integers(0, 2**16), separation=st.sampled_from([0.0, 1.0, 100.0]))
def test_the_sigmoid_has_the_largest_likelihood_of_platts_targets(seed, separation):
    rng = np.random.default_rng(seed)
    y, counts = np.repeat([0, 1], [30, 20]), rng.integers(1, 4, 50).astype(float)
    scores = 5.0 + 3.0 * (rng.normal(size=50) + separation * y)
    sigmoid = Sigmoid().fit(scores, y, counts)
    n_source, n_target = counts[y == 0].sum(), counts[y == 1].sum()
    soft = np.where(y == 1, (n_target + 1) / (n_target + 2), 1 / (n_source + 2))

    def loss(line):
        z = line[0] * scores + line[1]
        return counts @ (np.logaddexp(0.0, z) - soft * z)

    best = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(0.0, None), (None, None)], options={"ftol": 1e-14, "gtol": 1e-9})
    assert np.isfinite(sigmoid.slope_) and sigmoid.slope_ >= 0.0
    assert loss([sigmoid.slope_, sigmoid.intercept_]) <= best.fun + 1e-2


def test_scores_that_are_upside_down_or_equal_calibrate_to_the_share_of_the_target():
    y = np.repeat([0, 1], [30, 20])
    for scores in (-1.0 * y, np.full(50, 3.0)):
        sigmoid = Sigmoid().fit(scores, y, np.ones(50))
        np.testing.assert_allclose(expit(sigmoid(scores)), 21 / 52)


@given(seed=st.integers(0, 2**16), separation=st.sampled_from([0.0, 1.0, 100.0]))
def test_the_isotonic_map_rises_and_is_certain_of_nothing(seed, separation):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [30, 20])
    scores = rng.normal(size=50) + separation * y
    log_odds = Isotonic().fit(scores, y, np.ones(50))(np.linspace(-10.0, 110.0, 200))
    assert np.all(np.diff(log_odds) >= 0.0) and np.all(np.isfinite(log_odds))
    # A step of at most 30 rows of one kind, and one row of share 0.4.
    assert expit(log_odds).min() >= 0.4 / 31 - 1e-12 and expit(log_odds).max() <= 20.4 / 21 + 1e-12


def test_isotonic_steps_are_the_shares_with_one_row_of_the_overall_share():
    scores, y = np.repeat([0.0, 1.0], [10, 10]), np.repeat([0, 1, 0, 1], [8, 2, 3, 7])
    steps = expit(Isotonic().fit(scores, y, np.ones(20))(np.array([0.0, 1.0])))
    np.testing.assert_allclose(steps, [(2 + 0.45) / 11, (7 + 0.45) / 11])


@pytest.mark.parametrize("classifier", [RidgeClassifier(), LinearSVC()], ids=str)
def test_a_classifier_without_probabilities_is_calibrated(classifier):
    shift = make_gaussian_shift(400, 400, 2, shift=1.0, scale=1.0, random_state=0)
    ratio = Discriminator(classifier).fit(shift.X, shift.y)
    truth = shift.ratio(shift.X_source)
    assert nmse(ratio.weights_, truth) < 0.5 * nmse(np.ones(400), truth)
    with pytest.raises(ValueError, match=r"has no predict_proba.*calibration=\"sigmoid\""):
        clone(ratio).set_params(calibration=None).fit(shift.X, shift.y)


def test_class_weights_are_calibrated_away_and_do_not_change_weights():
    X, y = stack_domains(*samples(600, 100))
    plain, balanced = (Discriminator(LogisticRegression(class_weight=w)).fit(X, y) for w in (None, "balanced"))
    assert plain.probabilities_.mean() == pytest.approx(100 / 700, abs=0.01)
    assert balanced.probabilities_.mean() == pytest.approx(100 / 700, abs=0.01)
    np.testing.assert_allclose(balanced.weights_, plain.weights_, rtol=0.1, atol=0.02)


def test_certain_probabilities_are_drawn_in_by_the_size_of_the_samples():
    X, y = stack_domains(*samples())
    ratio = Discriminator(KNeighborsClassifier(1), calibration=None).fit(X, y)
    assert np.unique(np.round(ratio.probabilities_, 9)).tolist() == pytest.approx([1 / 102, 101 / 102])


def test_calibration_and_cross_fitting_keep_a_tree_from_believing_in_chance():
    X, y = stack_domains(*(np.random.default_rng(seed).normal(size=(400, 2)) for seed in (0, 1)))
    assert np.var(Discriminator(DecisionTreeClassifier(random_state=0)).fit(X, y).weights_) < 0.05


def test_an_unknown_calibration_is_refused():
    assert sorted(calibration.CALIBRATIONS) == ["isotonic", "sigmoid"]
    with pytest.raises(ValueError, match=r"calibration='platt' is not known; use one of \['isotonic', 'sigmoid'\] or None"):
        Discriminator(logistic(), calibration="platt").fit(*stack_domains(*samples()))


# ---------------------------------------------------------------- classifiers: which one, and its weights


def test_the_default_chooses_the_simplest_classifier_that_fits():
    chosen = {
        name: Discriminator().fit(shift.X, shift.y).best_params_["classifier"][-2]
        for name, shift in {
            "linear": make_gaussian_shift(600, 600, 2, shift=0.7, scale=1.0, random_state=1),
            "quadratic": make_gaussian_shift(600, 600, 2, shift=0.5, scale=0.7, random_state=1),
            "kernel": make_heavy_tails(600, 600, 2, random_state=1),
        }.items()
    }
    assert {name: type(step).__name__ for name, step in chosen.items()} == {
        "linear": "StandardScaler",
        "quadratic": "PolynomialFeatures",
        "kernel": "Landmarks",
    }


@pytest.mark.parametrize("d", [1, 5])
def test_a_log_linear_ratio_is_recovered_as_well_as_by_plain_logistic_regression(d):
    ours, plain = [], []
    for seed in range(10):
        shift = make_gaussian_shift(600, 400, d, shift=0.5, scale=1.0, random_state=seed)
        fresh = np.random.default_rng(1000 + seed).normal(size=(2000, d))
        truth = shift.ratio(fresh)
        ours.append(nmse(Discriminator().fit(shift.X, shift.y).transform(fresh), truth))
        plain.append(nmse(np.exp(LogisticRegression().fit(shift.X, shift.y).decision_function(fresh)), truth))
    assert np.mean(ours) <= 1.15 * np.mean(plain)


def test_of_several_classifiers_the_likelier_is_taken_and_none_is_touched():
    shift = make_gaussian_shift(300, 300, 2, shift=0.5, scale=0.6, random_state=0)
    given = [logistic(), GaussianNB()]
    ratio = Discriminator(given).fit(shift.X, shift.y)
    assert isinstance(ratio.best_params_["classifier"], GaussianNB)
    assert all(isinstance(model, GaussianNB) for model in ratio.classifiers_)
    assert not hasattr(given[1], "theta_") and ratio.classifier is given
    assert ratio.cv_results_["mean_test_score"].shape == (2,)


def test_the_quadratic_is_left_out_where_it_would_have_over_1000_columns():
    assert [len(default_classifiers(d, is_sparse=False)) for d in (2, 43, 44)] == [3, 3, 2]
    assert len(default_classifiers(5, is_sparse=True)) == 1


def test_landmarks_give_the_gaussian_kernel_between_them_and_ignore_copies():
    X = samples()[0]
    features = Landmarks(gamma=0.3).fit(X).transform(X)
    np.testing.assert_allclose(features @ features.T, np.exp(-0.3 * cdist(X, X, "sqeuclidean")), atol=1e-8)
    few = Landmarks(n_landmarks=10).fit(X)
    copies = Landmarks(n_landmarks=10).fit(np.r_[X[::-1], X[:20]])
    np.testing.assert_allclose(few.transform(X), copies.transform(X), atol=1e-12)
    assert few.transform(X).shape == (60, 10) and few.map_.gamma == pytest.approx(0.5 / 2**0.5)


WEIGHTED = {
    "plain": LogisticRegression(tol=1e-10),
    "pipeline": logistic(),
    "pipeline in a pipeline": make_pipeline("passthrough", logistic()),
    "search": GridSearchCV(LogisticRegression(tol=1e-10), {"C": [1.0]}, cv=2),
    "calibrated": CalibratedClassifierCV(GaussianNB(), cv=2),
}


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", WEIGHTED)
def test_sample_weights_reach_the_classifier(name, routing):
    X, y = stack_domains(*samples())
    weight = np.where(X[:, 0] > 0.0, 0.1, 1.9)
    with sklearn.config_context(enable_metadata_routing=routing):
        with_weight = Discriminator(WEIGHTED[name]).fit(X, y, sample_weight=weight)
        without = Discriminator(WEIGHTED[name]).fit(X, y)
    assert np.max(np.abs(with_weight.weights_ - without.weights_)) > 0.05


def test_sample_weights_reach_every_step_of_a_pipeline():
    X, y = stack_domains(*samples())
    counts = np.random.default_rng(0).integers(1, 4, len(y))
    ratio = Discriminator(logistic(), cv=3).fit(X, y, sample_weight=counts)
    scalers = [model[0] for model in ratio.classifiers_]
    assert sum(scaler.n_samples_seen_ for scaler in scalers) == pytest.approx(2 * counts.sum())


def test_a_classifier_that_takes_no_sample_weight_is_named_where_there_are_weights():
    X, y = stack_domains(*samples())
    for classifier in (KNeighborsClassifier(), make_pipeline(StandardScaler(), KNeighborsClassifier())):
        Discriminator(classifier).fit(X, y)
        with pytest.raises(ValueError, match=r"KNeighborsClassifier takes no sample_weight in fit.*leave sample_weight out"):
            Discriminator(classifier).fit(X, y, sample_weight=1.0 + (X[:, 0] > 0))


@pytest.mark.parametrize("classifier", ["logistic", None, 3])
def test_what_is_no_classifier_is_refused(classifier):
    with pytest.raises(ValueError, match="classifier must be a scikit-learn classifier"):
        Discriminator(classifier).fit(*stack_domains(*samples()))


def test_csr_rows_are_taken_where_the_classifier_takes_them():
    X, y = stack_domains(*(scipy.sparse.csr_array(np.round(rows)) for rows in samples()))
    assert Discriminator().fit(X, y).best_params_["classifier"][-1].solver == "lbfgs"
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        Discriminator(GaussianNB()).fit(X, y)


def test_the_ratio_of_normal_densities_is_their_odds_whatever_the_sizes():
    rng = np.random.default_rng(0)
    source, target, grid = rng.normal(size=(8000, 1)), rng.normal(1.0, 1.0, size=(1000, 1)), np.linspace(-1.0, 2.0, 7)
    truth = norm.pdf(grid, 1.0) / norm.pdf(grid)
    for ratio in (Discriminator(), GaussianRatio()):
        np.testing.assert_allclose(ratio.fit(*stack_domains(source, target)).transform(grid[:, None]), truth, rtol=0.2)
