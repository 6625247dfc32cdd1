"""Selection of rows of a table: its ratio against exact sums over the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from shift_cases import assert_within_five_standard_errors
from sklearn.datasets import load_breast_cancer

from densratio.datasets import (
    SELECTION_KINDS,
    make_selection_bias,
)

by_kind = pytest.mark.parametrize("kind", SELECTION_KINDS)
BREAST = load_breast_cancer()


@by_kind
def test_the_ratio_times_the_selection_probability_is_its_mean_over_the_table(kind):
    shift = make_selection_bias(kind=kind)
    probability = shift.ratio.selection(BREAST.data)
    assert_allclose(shift.ratio(BREAST.data) * probability, probability.mean(), rtol=1e-12)
    # A source row is row i with probability P_i / sum P: the mean of the ratio is then exactly one.
    assert_allclose(np.average(shift.ratio(BREAST.data), weights=probability), 1.0, rtol=1e-12)
    means = np.average(BREAST.data, axis=0, weights=probability * shift.ratio(BREAST.data))
    assert_allclose(means, BREAST.data.mean(axis=0), rtol=1e-12)


def test_the_feature_kind_keeps_a_fifth_below_the_median_and_four_fifths_above():
    probability = make_selection_bias(kind="feature", column=3).ratio.selection(BREAST.data)
    is_low = BREAST.data[:, 3] <= np.median(BREAST.data[:, 3])
    assert_allclose(probability, np.where(is_low, 0.2, 0.8), rtol=1e-14)
    named = make_selection_bias(kind="feature", column="mean area")
    assert_array_equal(named.X, make_selection_bias(kind="feature", column=3).X)


def test_the_distance_kind_is_the_papers_on_nine_columns():
    X = BREAST.data[:, :9]
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    shift = make_selection_bias(X, BREAST.target, kind="distance")
    assert_allclose(shift.ratio.selection(X), np.exp(-(z**2).sum(axis=1) / 20), rtol=1e-10)


@by_kind
def test_weighted_totals_of_the_source_are_the_tables_on_average_over_seeds(kind):
    rng, n_seeds = np.random.default_rng(0), 400
    X = rng.standard_normal((60, 3))
    value = np.column_stack([np.ones(60), X[:, 0], np.sin(3 * X[:, 1])])
    totals, counts = np.empty((n_seeds, 3)), np.empty(n_seeds)
    for seed in range(n_seeds):
        shift = make_selection_bias(X, kind=kind, random_state=seed)
        kept = shift.index[shift.y == 0]
        totals[seed] = shift.ratio(shift.X_source) @ value[kept]
        counts[seed] = len(kept)
    expected_count = 30 * shift.ratio.selection(X).mean()
    assert_within_five_standard_errors(counts, expected_count)
    for column in range(3):
        assert_within_five_standard_errors(totals[:, column], expected_count * value[:, column].mean())


@by_kind
def test_no_row_is_in_both_samples_and_the_index_leads_back_to_the_table(kind):
    shift = make_selection_bias(kind=kind)
    assert len(np.unique(shift.index)) == len(shift.index) and (shift.y == 1).sum() == 569 // 2
    assert_array_equal(BREAST.data[shift.index], shift.X)
    assert_array_equal(BREAST.target[shift.index], shift.labels)
    assert set(np.unique(shift.labels)) == {0, 1}


@by_kind
def test_asking_for_fewer_source_rows_takes_some_of_those_kept(kind):
    everything, some = make_selection_bias(kind=kind), make_selection_bias(kind=kind, n_source=10)
    assert len(some.X_source) == 10 and set(some.index) <= set(everything.index)
    assert_array_equal(some.X_target, everything.X_target)


def test_a_persons_frame_is_taken_with_its_column_names_and_labels_of_any_kind():
    frame = pd.DataFrame({"age": [20, 30, 40, 50, 60, 70], "sex": [0, 1, 0, 1, 1, 0]})
    labels = pd.Series(list("abcabc"), index=range(10, 16))
    shift = make_selection_bias(frame, labels, column="age", threshold=45, probabilities=(1.0, 0.5), n_target=2)
    assert_allclose(shift.ratio(frame), [0.75, 0.75, 0.75, 1.5, 1.5, 1.5], rtol=1e-14)
    assert_array_equal(shift.labels, labels.to_numpy()[shift.index])
    assert make_selection_bias(frame, column="age", threshold=45, probabilities=(1.0, 1.0)).labels is None


def test_without_labels_the_parts_have_none():
    shift = make_selection_bias(BREAST.data)
    assert shift.labels is None and shift.labels_source is None and shift.labels_target is None


def test_equal_probabilities_or_no_strength_give_a_ratio_of_one():
    for shift in (make_selection_bias(probabilities=(0.3, 0.3)), make_selection_bias(kind="distance", strength=0.0)):
        assert_allclose(shift.ratio(shift.X), 1.0, rtol=1e-12)


def test_constant_and_huge_columns_leave_the_distance_finite():
    X = np.random.default_rng(0).standard_normal((40, 4))
    awkward = X * [1.0, 1e200, 1e-200, 0.0] + [0.0, 0.0, 0.0, 0.1]
    ratio, plain = (make_selection_bias(rows, kind="distance", strength=0.4).ratio(rows) for rows in (awkward, X[:, :3]))
    # A constant column adds nothing to the sum, only to the number of columns it is divided by.
    scaled = make_selection_bias(X[:, :3], kind="distance", strength=0.3).ratio(X[:, :3])
    assert_allclose(ratio, scaled, rtol=1e-10)
    assert not np.allclose(ratio, plain)


def test_a_selection_too_rare_for_float64_keeps_its_log_ratio():
    X = np.vstack([np.zeros((50, 1)), [[1.0]]])
    shift = make_selection_bias(X, kind="distance", strength=100.0)
    assert np.isfinite(shift.ratio.log(X)).all() and shift.ratio.log(X)[-1] > 4000
