"""Maximum mean discrepancy and the two-sample test, against sums over pairs and over permutations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from diagnostics_cases import gaussian_shift
from hypothesis import given
from hypothesis import strategies as st

from densratio import stack_domains
from densratio.diagnostics import (
    diagnose,
    mmd,
    standardized_mean_difference,
    two_sample_test,
)
from densratio.diagnostics import two_sample as two_sample_module

# ---------------------------------------------------------------- maximum mean discrepancy


def mmd_pair_by_pair(source, target, weights, gamma):
    w = weights / weights.sum()
    a = np.concatenate([w, np.full(len(target), -1 / len(target))])
    rows = np.concatenate([source, target])
    return sum(a[i] * a[j] * math.exp(-gamma * ((rows[i] - rows[j]) ** 2).sum()) for i in range(len(a)) for j in range(len(a)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.sampled_from([0.01, 0.7, 30.0]))
def test_mmd_is_the_sum_over_all_pairs(seed, n, m, d, gamma):
    rng = np.random.default_rng(seed)
    source, target, weights = rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 0.5, rng.exponential(size=n)
    np.testing.assert_allclose(
        mmd(source, target, weights, gamma=gamma), mmd_pair_by_pair(source, target, weights, gamma), rtol=1e-9, atol=1e-14
    )
    np.testing.assert_allclose(mmd(source, target, gamma=gamma), mmd(source, target, np.full(n, 7.0), gamma=gamma), rtol=1e-12)


def test_a_weight_of_two_is_a_row_twice():
    source, target, _ = gaussian_shift(0, 30, 20)
    twice = np.concatenate([source, source[:10]])
    weights = np.r_[np.full(10, 2.0), np.ones(20)]
    np.testing.assert_allclose(mmd(source, target, weights, gamma=0.5), mmd(twice, target, gamma=0.5), rtol=1e-12)
    np.testing.assert_allclose(
        np.mean(twice, axis=0) - np.mean(target, axis=0),
        standardized_mean_difference(source, target, weights)
        * np.sqrt((np.var(source, axis=0, ddof=1) + np.var(target, axis=0, ddof=1)) / 2),
        rtol=1e-12,
    )


def test_mmd_of_a_sample_with_itself_is_zero_and_never_negative():
    source, _, _ = gaussian_shift(0, 40, 1, d=3)
    assert 0.0 <= mmd(source, source[::-1]) < 1e-14
    assert 0.0 <= mmd(np.ones((5, 2)), np.ones((3, 2))) < 1e-14


def test_mmd_does_not_depend_on_the_block_size(monkeypatch):
    source, target, ratio = gaussian_shift(0, 50, 41, d=3)
    whole = mmd(source, target, ratio(source))
    monkeypatch.setattr("densratio._blocks.BLOCK", 100)
    np.testing.assert_allclose(mmd(source, target, ratio(source)), whole, rtol=1e-11)


def test_true_weights_bring_the_samples_together():
    source, target, ratio = gaussian_shift(3, 2000, 2000, delta=1.0)
    assert mmd(source, target, ratio(source), gamma=0.25) < 0.05 * mmd(source, target, gamma=0.25)


def test_mmd_on_a_draw_is_seeded_and_on_all_rows_exact():
    source, target, ratio = gaussian_shift(0, 300, 200)
    weights = ratio(source)
    assert mmd(source, target, weights, max_rows=500) == mmd(source, target, weights)
    drawn = [mmd(source, target, weights, max_rows=100, random_state=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    # A draw of 50 and 50 has its squared MMD within that of its own sampling noise, (1 / 50 + 1 / 50), four times over.
    assert abs(drawn[0] - mmd(source, target, weights)) < 4 * (1 / 50 + 1 / 50)


# ---------------------------------------------------------------- two-sample test


def test_the_statistic_of_the_test_is_the_squared_mmd():
    source, target, _ = gaussian_shift(0, 40, 25)
    found = two_sample_test(source, target, gamma=0.3, n_permutations=19)
    np.testing.assert_allclose(found.statistic, mmd(source, target, gamma=0.3), rtol=1e-10)


def test_the_p_value_is_that_of_all_relabelings():
    rng = np.random.default_rng(4)
    rows = np.concatenate([rng.standard_normal((5, 1)), rng.standard_normal((4, 1)) + 1.0])
    observed = mmd(rows[:5], rows[5:], gamma=0.5)
    splits = [(list(kept), [i for i in range(9) if i not in kept]) for kept in combinations(range(9), 5)]
    exact = np.mean([mmd(rows[kept], rows[left], gamma=0.5) >= observed - 1e-12 for kept, left in splits])
    n_permutations = 4000
    found = two_sample_test(rows[:5], rows[5:], gamma=0.5, n_permutations=n_permutations).p_value
    assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) / n_permutations) + 1 / n_permutations


def test_the_p_value_is_one_plus_b_over_one_plus_permutations():
    source, target, _ = gaussian_shift(0, 60, 60, delta=4.0)
    assert two_sample_test(source, target, n_permutations=99).p_value == 1 / 100
    assert two_sample_test(np.ones((4, 2)), np.ones((6, 2)), n_permutations=99).p_value == 1.0
    assert two_sample_test([[1.0]], [[2.0]], n_permutations=9).p_value == 1.0


@pytest.mark.parametrize("n_source", [12, 300])  # on either side of the draw of rows
def test_equal_samples_are_called_different_no_more_often_than_the_level_says(n_source):
    n_runs, levels = 200, np.array([0.05, 0.2, 0.5])
    p = np.array(
        [
            two_sample_test(
                *gaussian_shift(seed, n_source, 9, delta=0.0)[:2], n_permutations=99, max_rows=40, random_state=seed
            ).p_value
            for seed in range(n_runs)
        ]
    )
    rates = np.mean(p[:, None] <= levels, axis=0)
    assert np.all(np.abs(rates - levels) < 4 * np.sqrt(levels * (1 - levels) / n_runs))


def test_the_test_is_the_same_for_the_same_seed():
    source, target, _ = gaussian_shift(0, 50, 50, delta=0.3)
    runs = [two_sample_test(source, target, n_permutations=199, random_state=seed) for seed in (5, 5, 6)]
    assert runs[0] == runs[1] and runs[0].p_value != runs[2].p_value


def test_the_permuted_statistics_do_not_depend_on_the_block_size(monkeypatch):
    source, target, _ = gaussian_shift(0, 30, 20, delta=0.2)
    whole = two_sample_test(source, target, n_permutations=99)
    monkeypatch.setattr("densratio._blocks.BLOCK", 250)
    assert two_sample_test(source, target, n_permutations=99).p_value == whole.p_value


@pytest.mark.parametrize(
    ("n_source", "n_target", "max_rows", "kept"),
    [(10**9, 10**9, 2000, (1000, 1000)), (10**9, 30, 2000, (1970, 30)), (30, 10**9, 2001, (30, 1971)), (5, 6, 2000, (5, 6))],
)
def test_a_long_table_is_drawn_from_evenly_and_without_replacement(n_source, n_target, max_rows, kept):
    drawn = two_sample_module.draw_rows(n_source, n_target, max_rows, np.random.default_rng(0))
    for rows, n, size in zip(drawn, (n_source, n_target), kept, strict=True):
        assert len(rows) == size and np.all(np.diff(rows) > 0) and rows[0] >= 0 and rows[-1] < n


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_permutations": 0}, "n_permutations must be an int >= 1"),
        ({"n_permutations": 9.5}, "n_permutations must be an int >= 1"),
        ({"gamma": -1.0}, "gamma must be"),
        ({"gamma": "mean"}, "not a known rule"),
        ({"max_rows": 1}, "max_rows must be an int >= 2"),
        ({"max_rows": "a"}, "max_rows must be an int >= 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, words):
    source, target, _ = gaussian_shift(0, 9, 9)
    with pytest.raises(ValueError, match=words):
        two_sample_test(source, target, **changes)
    with pytest.raises(ValueError, match=words):
        diagnose(np.ones(9), *stack_domains(source, target), **changes)
