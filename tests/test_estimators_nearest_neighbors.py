"""Ratios by neighbors, against counting."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from zoo_cases import samples

from densratio import stack_domains
from densratio.estimators.discriminator import Discriminator
from densratio.estimators.nearest_neighbors import NearestNeighborsRatio, _Brute, _smallest, _Tree


def by_counting(source, target, rows, k, own):
    """The ratio by sorting all distances."""
    ratio = []
    for i, x in enumerate(rows):
        to_source, to_target = (np.linalg.norm(x - other, axis=1) for other in (source, target))
        if own:
            to_source = np.delete(to_source, i)
        radius = np.sort(to_source)[k - 1] + 1e-9
        held, before = np.sum(to_source <= radius), to_source < radius - 2e-9
        # Many rows at that distance: the ball that ends before them may hold a number nearer to k, as a factor.
        if held > 1.5 * k and np.sum(before) * held > k * k:
            radius = to_source[before].max() + 1e-9
        ratio.append(np.mean(to_target <= radius) / np.mean(to_source <= radius))
    return np.array(ratio)


@pytest.mark.parametrize("d", [1, 2, 20])
@pytest.mark.parametrize("k", [1, 7])
def test_the_ratio_is_that_of_the_counted_neighbors(d, k):
    source, target = samples(d=d)
    ratio = NearestNeighborsRatio(n_neighbors=k, scale=None).fit(*stack_domains(source, target))
    weights = by_counting(source, target, source, k, own=True)
    np.testing.assert_allclose(ratio.weights_, weights / weights.mean(), rtol=1e-9)
    unseen = samples(d=d, seed=5)[1]
    expected = by_counting(source, target, unseen, k, own=False)
    np.testing.assert_allclose(ratio.transform(unseen), expected / weights.mean(), rtol=1e-9)


@pytest.mark.parametrize(("d", "rule"), [(2, "auto"), (20, "auto"), (2, "many")])
def test_a_rule_is_the_mean_over_half_and_twice_as_many_neighbors(d, rule):
    source, target = samples(d=d)
    ratio = NearestNeighborsRatio(n_neighbors=rule, scale=None).fit(*stack_domains(source, target))
    k = ratio.n_neighbors_
    weights, expected = (
        np.mean([by_counting(source, target, rows, round(c * k), own=own) for c in (0.5, 1, 2)], axis=0)
        for rows, own in ((source, True), (target, False))
    )
    np.testing.assert_allclose(ratio.weights_, weights / weights.mean(), rtol=1e-9)
    np.testing.assert_allclose(ratio.transform(target), expected / weights.mean(), rtol=1e-9)


@pytest.mark.parametrize("d", [2, 20])
def test_an_origin_far_away_changes_no_neighbor(d):
    source, target = samples(d=d)
    near = NearestNeighborsRatio().fit(*stack_domains(source, target))
    far = NearestNeighborsRatio().fit(*stack_domains(source + 1e6, target + 1e6))
    np.testing.assert_allclose(far.weights_, near.weights_, rtol=1e-9)
    np.testing.assert_allclose(far.transform(target + 1e6), near.transform(target), rtol=1e-9)


@given(seed=st.integers(0, 2**16), k=st.integers(1, 10))
def test_rows_at_one_distance_count_together(seed, k):
    rng = np.random.default_rng(seed)
    source, target = 0.1 * rng.integers(-3, 4, size=(30, 2)), 0.1 * rng.integers(-2, 5, size=(20, 2))
    ratio = NearestNeighborsRatio(n_neighbors=k, scale=None).fit(*stack_domains(source, target))
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


@pytest.mark.parametrize("d", [1, 2, 20])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 3.0]])
def test_every_radius_is_that_of_all_sorted_distances(d, weights):
    rng = np.random.default_rng(0)
    source, rows = rng.integers(0, 4, size=(300, d)) / 3.0, rng.random((50, d))
    counts = np.ones(300) if weights is None else rng.choice(weights, 300)
    sought = np.outer([3.0, 40.0, counts.sum()], np.ones(50))
    index = (_Brute if d == 20 else _Tree)(source, counts, 1.0)
    radii, inside = index.balls(rows, sought)
    for x, radius, held in zip(rows, radii.T, inside.T, strict=True):
        distance = np.linalg.norm(x - source, axis=1)
        order = np.argsort(distance)
        expected = distance[order][np.searchsorted(np.cumsum(counts[order]), sought[:, 0] - 1e-9)]
        np.testing.assert_allclose(radius, expected, rtol=1e-9)
        assert held.tolist() == [counts[distance <= r + 1e-6].sum() for r in expected]


@pytest.mark.parametrize("order", ["drawn", "ascending", "periodic"])
def test_the_smallest_values_are_found_in_any_order(order):
    values = np.random.default_rng(0).random((20, 4000))
    values[0] = 0.5
    if order != "drawn":
        values.sort(axis=1)
    if order == "periodic":  # every eighth value is among the smallest, or none is
        values = values.reshape(20, 8, 500).transpose(0, 2, 1).reshape(20, 4000)
        values[1::2] = values[1::2, ::-1]
    for n in (1, 30, 126, 3999, 4000):
        assert np.array_equal(_smallest(values, n), np.sort(values, axis=1)[:, :n])


def test_on_frequent_values_the_ratio_is_that_of_the_frequencies():
    source, target = np.repeat([0.0, 1.0, 2.0], [50, 100, 50])[:, None], np.repeat([0.0, 1.0, 2.0], [120, 60, 20])[:, None]
    ratio = NearestNeighborsRatio(n_neighbors=20).fit(*stack_domains(source, target))
    expected = np.array([0.6, 0.3, 0.1]) / [0.25, 0.5, 0.25]
    np.testing.assert_allclose(ratio.transform([[0.0], [1.0], [2.0]]), expected, rtol=0.03)


def test_more_neighbors_than_rows_are_refused():
    X, y = stack_domains(*samples(20, 30))
    assert NearestNeighborsRatio(n_neighbors=20).fit(X, y).n_neighbors_ == 20
    with pytest.raises(ValueError, match=r"n_neighbors=21 is more than the source's 20 rows"):
        NearestNeighborsRatio(n_neighbors=21).fit(X, y)


@pytest.mark.parametrize("n_neighbors", [0, -1, 2.5, "sqrt", True, None])
def test_a_number_of_neighbors_that_cannot_be_is_refused(n_neighbors):
    with pytest.raises(ValueError, match="n_neighbors must be an int >= 1"):
        NearestNeighborsRatio(n_neighbors=n_neighbors).fit(*stack_domains(*samples()))


@pytest.mark.parametrize(
    ("sizes", "d", "rule", "k"),
    [
        ((1000, 1000), 1, "auto", 126), ((1000, 1000), 2, "auto", 50), ((1000, 1000), 9, "auto", 32),
        ((4000, 1000), 9, "auto", 126), ((1000, 1000), 2, "many", 126), ((4000, 1000), 9, "many", 506), ((80, 100), 2, "many", 20),
    ],
)  # fmt: skip
def test_a_rule_takes_a_share_of_the_smaller_domain(sizes, d, rule, k):
    X, y = stack_domains(*samples(*sizes, d=d))
    assert NearestNeighborsRatio(n_neighbors=rule).fit(X, y).n_neighbors_ == k


def test_many_neighbors_are_few_where_few_rows_carry_the_weight():
    X, y = stack_domains(*samples(60, 50))
    weight = np.where(np.arange(len(y)) < 6, 10.0, 1e-3)
    assert NearestNeighborsRatio(n_neighbors="many").fit(X, y, sample_weight=weight).n_neighbors_ == 1


def test_cross_validation_chooses_the_number_of_neighbors_of_the_highest_score():
    X, y = stack_domains(*samples(200, 150))
    ratio = NearestNeighborsRatio(n_neighbors=[2, 30, 80]).fit(X, y)
    scores = ratio.cv_results_["mean_test_score"]
    assert ratio.n_neighbors_ == ratio.best_params_["n_neighbors"] == [2, 30, 80][int(np.argmax(scores))]
    assert ratio.n_neighbors_ != 2
    assert len(NearestNeighborsRatio(n_neighbors="cv").fit(X, y).cv_results_["params"]) == 7
