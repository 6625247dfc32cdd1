"""partial_fit: batches against whole fits, and what it refuses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from sklearn_cases import SOURCE_ANCHORED, TARGET_ANCHORED, new, problem, stacked

from densratio import Wasserstein, stack_domains


def test_kmm_partial_fit_repeated_reaches_the_optimum_of_fit():
    X, y = stacked("kmm")
    best = new("kmm", gamma=0.5).fit(X, y).objective_value_
    ratio = new("kmm", gamma=0.5)
    first = ratio.partial_fit(X, y).objective_value_
    for _ in range(400):
        ratio.partial_fit(X, y)
    # A single step from a cold start is far from the optimum: only a warm start gets there.
    assert first - best > 1e-2 * abs(best) + 1e-4
    assert ratio.objective_value_ - best <= 0.05 * (first - best)


@pytest.mark.parametrize("name", TARGET_ANCHORED)
def test_partial_fit_repeated_on_the_same_rows_is_fit(name):
    X, y = stacked(name)
    params = {"gamma": 0.5, "n_centers": None, "tol": 1e-9}
    whole, stream = new(name, **params).fit(X, y), new(name, **params)
    for _ in range(3):
        stream.partial_fit(X, y)
    assert stream.weights_ == pytest.approx(whole.weights_, abs=1e-6)
    assert stream.transform(X) == pytest.approx(whole.transform(X), abs=1e-6)


def test_wasserstein_partial_fit_repeated_stays_nearer_to_the_target_than_even_weights():
    source, target = problem("wasserstein")
    even = wasserstein_distance(source[:, 0], target[:, 0])
    ratio = Wasserstein()
    values = [ratio.partial_fit(*stack_domains(source, target)).objective_value_ for _ in range(50)]
    assert max(values[10:]) < even


@pytest.mark.parametrize("name", SOURCE_ANCHORED)
def test_steps_are_counted_over_calls_and_the_first_one_on_a_table_says_so(name):
    X, y = stacked(name)
    ratio = new(name, n_steps=3)
    with pytest.warns(UserWarning, match="takes 3 steps of a training loop .*: call fit") as told:
        assert [ratio.partial_fit(X, y).n_iter_ for _ in range(2)] == [3, 6]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new(name).partial_fit(X, y, index=np.arange(np.sum(y == 0)))


@pytest.mark.parametrize("name", SOURCE_ANCHORED)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_index_names_the_rows_whose_stored_weights_are_the_start(name, seed):
    source, target = problem(name)
    order = np.random.default_rng(seed).permutation(len(source))
    plain, shuffled = new(name, gamma=0.5), new(name, gamma=0.5)
    for ratio in (plain, shuffled):
        ratio.partial_fit(*stack_domains(source, target), index=np.arange(len(source)))
    plain.partial_fit(*stack_domains(source, target), index=np.arange(len(source)))
    shuffled.partial_fit(*stack_domains(source[order], target), index=order)
    assert shuffled.weights_ == pytest.approx(plain.weights_, abs=1e-7)


@pytest.mark.parametrize("name", SOURCE_ANCHORED)
def test_without_index_the_batch_is_all_the_source_rows(name):
    X, y = stacked(name)
    plain, indexed = new(name), new(name)
    for _ in range(3):
        plain.partial_fit(X, y)
        indexed.partial_fit(X, y, index=np.arange(40))
    assert np.array_equal(plain.weights_, indexed.weights_)


@pytest.mark.parametrize("as_tensor", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("name", SOURCE_ANCHORED)
def test_weights_grow_to_the_largest_index_and_are_one_for_rows_not_seen(name, as_tensor):
    ratio, put = new(name), torch.tensor if as_tensor else np.asarray
    source, target = (put(rows) for rows in problem(name, n_source=4))
    ratio.partial_fit(*stack_domains(source, target), index=put([1, 6, 3, 4]))
    assert ratio.weights_.shape == (7,)
    assert ratio.weights_[[0, 2, 5]].tolist() == [1.0, 1.0, 1.0]
    first = np.asarray(ratio.weights_).copy()
    assert np.ptp(first) > 0
    ratio.partial_fit(*stack_domains(source[:2] - 1.0, target), index=put([8, 0]))
    assert ratio.weights_.shape == (9,) and isinstance(ratio.weights_, type(source))
    assert np.asarray(ratio.weights_)[1:7].tolist() == first[1:].tolist()
    assert float(ratio.weights_[7]) == 1.0
    assert float(ratio.weights_[[0, 8]].mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SOURCE_ANCHORED)
def test_a_row_named_twice_in_a_batch_gets_the_mean_of_its_weights(name):
    source, target = problem(name, n_source=4)
    source = np.sort(source, axis=0)
    apart = new(name, gamma=0.5).partial_fit(*stack_domains(source, target), index=[0, 1, 2, 3])
    twice = new(name, gamma=0.5).partial_fit(*stack_domains(source, target), index=[0, 1, 2, 0])
    w = apart.weights_
    assert w[0] != w[3]
    assert twice.weights_ == pytest.approx([(w[0] + w[3]) / 2, w[1], w[2]], rel=1e-9)


@pytest.mark.parametrize("name", TARGET_ANCHORED)
def test_partial_fit_keeps_the_centers_and_the_bandwidth_of_its_first_batch(name):
    ratio = new(name, n_centers=8, random_state=0).partial_fit(*stacked(name))
    centers, gamma = ratio.centers_.copy(), ratio.gamma_
    ratio.partial_fit(*stacked(name, n_source=11, n_target=3, seed=4))
    assert np.array_equal(ratio.centers_, centers) and ratio.gamma_ == gamma
    assert ratio.weights_.shape == (11,) and ratio.weights_.mean() == pytest.approx(1.0)
