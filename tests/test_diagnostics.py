"""Diagnostics: each measure against an oracle, and a report that warns where it should and is silent where it should be."""

from __future__ import annotations

import dataclasses
import json
import math
from html.parser import HTMLParser
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from densratio import KLIEP, KMM, LSIF, stack_domains
from densratio.diagnostics import (
    Report,
    diagnose,
    effective_sample_size,
    mmd,
    pareto_k,
    standardized_mean_difference,
    two_sample_test,
)
from densratio.diagnostics import balance as balance_module
from densratio.diagnostics import columns as columns_module
from densratio.diagnostics import two_sample as two_sample_module
from densratio.diagnostics.columns import numeric_columns
from densratio.diagnostics.overlap import outside_range, outside_share
from densratio.diagnostics.weights import largest_share, rows_in, top_share

WEIGHTS = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(1e-3, 1e3))
TABLES = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 9), st.integers(1, 3)), elements=st.sampled_from([0.0, 1.0, -2.0, 5e7, 1e-9])
)


def gaussian_shift(seed, n=500, m=500, d=2, delta=0.6):
    """Source N(0, I), target N(delta e_1, I), and the exact ratio."""
    rng = np.random.default_rng(seed)
    source, target = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    target[:, 0] += delta
    return source, target, lambda x: np.exp(delta * np.asarray(x)[:, 0] - delta**2 / 2)


def starts(report):
    return [warning.split(":")[0].split("(")[0].strip() for warning in report.warnings]


def warns(report, opening):
    return any(warning.startswith(opening) for warning in report.warnings)


# ---------------------------------------------------------------- weights


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


def generalised_pareto_shape_term_by_term(excess):
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
    expected = (n_tail * generalised_pareto_shape_term_by_term(tail) + 5) / (n_tail + 10)
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
    assert mmd(np.ones((5, 2)), np.ones((3, 2))) == 0.0


def test_mmd_does_not_depend_on_the_block_size(monkeypatch):
    source, target, ratio = gaussian_shift(0, 50, 41, d=3)
    whole = mmd(source, target, ratio(source))
    monkeypatch.setattr(two_sample_module, "_BLOCK", 100)
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


def test_the_p_value_is_that_of_all_relabellings():
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
    monkeypatch.setattr(two_sample_module, "_BLOCK", 250)
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
        ({"max_rows": 1}, "max_rows must be at least 2"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, words):
    source, target, _ = gaussian_shift(0, 9, 9)
    with pytest.raises(ValueError, match=words):
        two_sample_test(source, target, **changes)
    with pytest.raises(ValueError, match=words):
        diagnose(np.ones(9), *stack_domains(source, target), **changes)


# ---------------------------------------------------------------- balance


@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(2, 20), st.floats(1e-150, 1e150), st.floats(-1e3, 1e3))
def test_the_mean_difference_is_in_pooled_standard_deviations_whatever_the_unit(seed, n, m, unit, origin):
    rng = np.random.default_rng(seed)
    source, target, weights = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 0.5, rng.exponential(size=n)
    pooled = np.sqrt((np.var(source, axis=0, ddof=1) + np.var(target, axis=0, ddof=1)) / 2)
    expected = (np.average(source, axis=0, weights=weights) - target.mean(axis=0)) / pooled
    found = standardized_mean_difference(unit * (source + origin), unit * (target + origin), 5.0 * weights)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_constant_columns_are_balanced_where_they_agree_and_infinitely_far_where_not():
    source, target = np.tile([0.1, 1 / 3, 1e300, 2.0], (7, 1)), np.tile([0.1, 0.2, -1e300, 2.0], (3, 1))
    target[0, 3] = 5.0
    weights = np.random.default_rng(0).exponential(size=7)
    for found in (standardized_mean_difference(source, target), standardized_mean_difference(source, target, weights)):
        np.testing.assert_array_equal(found[:3], [0.0, np.inf, np.inf])
        np.testing.assert_allclose(found[3], -1.0 / np.sqrt(3.0 / 2.0), rtol=1e-12)


def test_one_row_in_each_sample_has_a_balance():
    np.testing.assert_array_equal(standardized_mean_difference([[1.0, 2.0]], [[1.0, 1.0]]), [0.0, np.inf])


def test_columns_are_the_same_in_blocks_and_in_sparse_tables(monkeypatch):
    rng = np.random.default_rng(0)
    source, target = rng.poisson(0.5, (40, 7)).astype(float), rng.poisson(0.8, (30, 7)).astype(float)
    weights = rng.exponential(size=40)
    whole = standardized_mean_difference(source, target, weights)
    monkeypatch.setattr(columns_module, "_BLOCK", 100)
    np.testing.assert_allclose(standardized_mean_difference(source, target, weights), whole, rtol=1e-12)
    sparse = scipy.sparse.csr_array(source), scipy.sparse.csr_array(target)
    np.testing.assert_allclose(standardized_mean_difference(*sparse, weights), whole, rtol=1e-12)
    np.testing.assert_allclose(mmd(*sparse, weights, gamma=0.2), mmd(source, target, weights, gamma=0.2), rtol=1e-12)


def test_a_count_of_weights_that_is_not_the_source_rows_is_refused():
    source, target, _ = gaussian_shift(0, 8, 5)
    for call in (mmd, standardized_mean_difference):
        with pytest.raises(ValueError, match="there are 8 source rows and 5 weights"):
            call(source, target, np.ones(5))


def test_centring_is_exact():
    source, target = np.array([[1e16, 3.0]]), np.array([[1e16 + 2.0, 3.0], [1e16, 4.0]])
    centred = balance_module.centred(source, target)
    np.testing.assert_array_equal(np.concatenate(centred)[:, 0] * 2.0**54, [-2.0, 0.0, -2.0])


# ---------------------------------------------------------------- columns of frames


def test_words_are_compared_level_by_level():
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    columns = {"age": [1.5, 2.5, 3.5], "member": [True, False, True], "town": ["B", "A", "B"]}
    for frame in (pandas.DataFrame(columns), polars.DataFrame(columns)):
        found = numeric_columns(frame)
        assert found.names == ("age", "member", "town=A", "town=B")
        np.testing.assert_array_equal(found.values, [[1.5, 1, 0, 1], [2.5, 0, 1, 0], [3.5, 1, 0, 1]])


def test_rare_levels_are_counted_together():
    pandas = pytest.importorskip("pandas")
    found = numeric_columns(pandas.DataFrame({"word": [f"w{k}" for k in range(40) for _ in range(40 - k)]}))
    assert len(found.names) == 31 and found.names[-1] == "word=(other)"
    np.testing.assert_array_equal(found.values.sum(axis=1), 1.0)
    assert found.values[:, -1].sum() == sum(40 - k for k in range(30, 40))


def test_pandas_kinds_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": pandas.array([1, 2], dtype="Int64"), "b": pandas.Categorical(["u", "v"]), "c": [0.5, 1.0]})
    assert numeric_columns(frame).names == ("a", "b=u", "b=v", "c")
    twice = pandas.DataFrame(np.arange(4.0).reshape(2, 2), columns=["same", "same"])
    np.testing.assert_array_equal(numeric_columns(twice).values, [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match="Column 'day' holds dates"):
        numeric_columns(pandas.DataFrame({"day": pandas.to_datetime(["2020-01-01"])}))
    with pytest.raises(ValueError, match="NaN in column 'a'"):
        numeric_columns(pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64")}))


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.array([[1.0, np.nan]]), "NaN in column 'x1'"),
        (scipy.sparse.csr_array([[1.0, 0.0, np.inf]]), "infinity in column 'x2'"),
        (np.array([["a", "b"]]), "holds words"),
        (np.ones(3), "must be 2-D"),
        (np.ones((0, 3)), "at least one row"),
    ],
)
def test_tables_that_hold_no_numbers_are_refused(X, words):
    with pytest.raises(ValueError, match=words):
        numeric_columns(X)


# ---------------------------------------------------------------- overlap


def test_the_share_of_outside_rows_is_that_of_all_pairs():
    source, target, _ = gaussian_shift(0, 50, 40, delta=2.0)
    among = [min(np.linalg.norm(a - b) for j, b in enumerate(source) if j != i) for i, a in enumerate(source)]
    usual = np.quantile(among, 0.99, method="higher")
    expected = np.mean([min(np.linalg.norm(v - a) for a in source) > usual for v in target])
    assert outside_share(source, target) == expected
    assert math.isnan(outside_share(source[:1], target))
    assert outside_share(np.repeat(source, 2, axis=0), source) == 0.0


def test_the_share_outside_the_range_is_counted_column_by_column():
    source, target = np.array([[0.0, 5.0], [1.0, 5.0]]), np.array([[-1.0, 5.0], [0.5, 5.1], [1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_array_equal(outside_range(source, target), [0.5, 0.25])


# ---------------------------------------------------------------- the report's numbers


def test_the_report_holds_what_the_measures_give():
    source, target, ratio = gaussian_shift(1, 120, 90, d=3)
    weights = ratio(source)
    report = diagnose(ratio, *stack_domains(source, target), gamma=0.4, n_permutations=99, random_state=3)
    scaled = two_sample_module.standardized(source, target)
    halves = scaled[:120], scaled[120:]
    assert (report.n_source, report.n_target, report.n_rows_tested, report.n_permutations) == (120, 90, 210, 99)
    assert not report.is_subsample and not report.is_uniform
    expected = {
        "effective_sample_size": effective_sample_size(weights),
        "effective_share": effective_sample_size(weights) / 120,
        "largest_weight": np.max(weights / np.mean(weights)),
        "largest_share": largest_share(weights),
        "top_share": top_share(weights),
        "pareto_k": pareto_k(weights),
        "mmd_before": mmd(*halves, gamma=0.4),
        "mmd_after": mmd(*halves, weights, gamma=0.4),
        "outside_share": outside_share(*halves),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(report, name), value, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal([b.before for b in report.balance], standardized_mean_difference(source, target))
    np.testing.assert_allclose([b.after for b in report.balance], standardized_mean_difference(source, target, weights), rtol=1e-9)
    np.testing.assert_array_equal([b.outside for b in report.balance], outside_range(source, target))
    assert [b.name for b in report.balance] == ["x0", "x1", "x2"]


def test_scaling_is_by_the_pooled_standard_deviation():
    source, target, _ = gaussian_shift(0, 30, 20, d=3)
    unit, origin = np.array([1e200, 1.0, 1e-200]), np.array([0.0, 1e6, 0.0])
    source[:, 1], target[:, 1] = np.round(source[:, 1]), np.round(target[:, 1])
    found = two_sample_module.standardized(unit * source + origin, unit * target + origin)
    expected = np.concatenate([source, target]) / np.std(np.concatenate([source, target]), axis=0)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(two_sample_module.standardized(np.full((3, 1), 0.1), np.full((2, 1), 0.1)), 0.0)


def test_the_chance_level_is_what_equal_samples_stay_below_95_times_of_100():
    n_runs = 100
    below = 0
    for seed in range(n_runs):
        source, target, _ = gaussian_shift(seed, 40, 40, delta=0.0)
        report = diagnose(np.ones(40), *stack_domains(source, target), n_permutations=99, random_state=seed)
        below += report.mmd_before <= report.mmd_chance
    assert abs(below / n_runs - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n_runs)


def test_a_long_table_is_tested_on_a_draw_that_the_report_names():
    source, target, ratio = gaussian_shift(0, 1500, 40_000)
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=49, max_rows=400)
    assert report.n_rows_tested == 400 and report.is_subsample
    assert "a seeded draw of 400 of the 41500 rows" in str(report)
    again = diagnose(ratio, *stack_domains(source, target), n_permutations=49, max_rows=400)
    assert again == report
    assert diagnose(ratio, *stack_domains(source, target), n_permutations=49, max_rows=400, random_state=1) != report


def test_a_ratio_may_be_an_estimator_a_function_or_weights_of_any_scale():
    X, y = stack_domains(*gaussian_shift(0, 80, 60)[:2])
    fitted = LSIF(gamma=0.3).fit(X, y)
    weights = fitted.transform(X[y == 0])
    reports = [diagnose(r, X, y, n_permutations=19) for r in (fitted, fitted.transform, weights, weights.tolist())]
    assert reports[0] == reports[1] == reports[2] == reports[3]
    scaled = diagnose(3.0 * weights, X, y, n_permutations=19)
    np.testing.assert_allclose(scaled.largest_weight, reports[0].largest_weight, rtol=1e-12)


def test_any_two_values_label_the_domains_and_rows_may_stand_in_any_order():
    source, target, ratio = gaussian_shift(0, 70, 50)
    X, y = stack_domains(source, target)
    order = np.random.default_rng(0).permutation(len(y))
    expected = diagnose(ratio, X, y, n_permutations=19)
    found = diagnose(ratio, X[order], np.where(y[order] == 0, 3, 8), n_permutations=19)
    for name in ("effective_sample_size", "mmd_before", "mmd_after", "pareto_k", "outside_share"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0.1 if "mmd" in name else 1e-9)
    np.testing.assert_allclose([b[1:] for b in found.balance], [b[1:] for b in expected.balance], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["pandas", "polars", "torch", "sparse"])
def test_other_tables_give_the_report_of_the_array(kind):
    source, target, _ = gaussian_shift(0, 60, 50, d=3)
    X, y = stack_domains(source, target)
    names = ["age", "income", "height"]
    table, labels = X, y
    if kind == "sparse":
        table = scipy.sparse.csr_array(X)
    else:
        library = pytest.importorskip(kind)
        table = library.asarray(X) if kind == "torch" else library.DataFrame(dict(zip(names, X.T, strict=True)))
        labels = library.asarray(y) if kind == "torch" else y
    fitted = KLIEP(gamma=0.3).fit(X, y)
    expected = diagnose(fitted.transform(source), X, y, n_permutations=19)
    ratio = fitted.transform(source) if kind == "sparse" else KLIEP(gamma=0.3).fit(table, labels)
    found = diagnose(ratio, table, labels, n_permutations=19)
    assert [b.name for b in found.balance] == (names if kind in ("pandas", "polars") else ["x0", "x1", "x2"])
    for name in ("effective_sample_size", "mmd_before", "mmd_after", "p_value", "outside_share"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose([b[1:] for b in found.balance], [b[1:] for b in expected.balance], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_pipeline_over_words_is_diagnosed_on_the_raw_frame(kind):
    library = pytest.importorskip(kind)
    rng = np.random.default_rng(0)
    town = np.concatenate([rng.choice(["A", "B"], 80, p=[0.8, 0.2]), rng.choice(["A", "B"], 80, p=[0.2, 0.8])])
    frame = library.DataFrame({"town": town, "age": rng.standard_normal(160)})
    y = np.repeat([0, 1], 80)
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["town"]), remainder=StandardScaler())
    report = diagnose(make_pipeline(encode, LSIF(gamma=1.0)).fit(frame, y), frame, y, n_permutations=99)
    assert [b.name for b in report.balance] == ["town=A", "town=B", "age"]
    assert report.p_value == 0.01
    assert abs(report.balance[0].after) < 0.25 * abs(report.balance[0].before)


@pytest.mark.parametrize(
    ("ratio", "y", "words"),
    [
        (np.ones(6), np.repeat([0, 1], [4, 2]), r"Weights must be \(4,\)"),
        (np.ones((4, 1)), np.repeat([0, 1], [4, 2]), r"got shape \(4, 1\)"),
        (np.zeros(4), np.repeat([0, 1], [4, 2]), "no overlap"),
        (np.array([1, 1, 1, np.nan]), np.repeat([0, 1], [4, 2]), "NaN or infinite"),
        (np.ones(6), np.zeros(6), "One domain is empty"),
        (np.ones(6), None, "requires y to be passed"),
        (np.ones(6), np.arange(6), "exactly two values"),
        (np.ones(4), np.repeat([0, 1], [4, 3]), "7 labels"),
    ],
)
def test_input_that_has_no_diagnosis_is_refused(ratio, y, words):
    with pytest.raises(ValueError, match=words):
        diagnose(ratio, np.arange(6.0)[:, None], y)


@given(TABLES, st.data())
def test_any_table_has_a_report_that_prints_and_is_valid_json(X, data):
    n_source = data.draw(st.integers(1, len(X) - 1))
    weights = data.draw(hnp.arrays(np.float64, n_source, elements=st.sampled_from([0.0, 1e-300, 1.0, 1e6])).filter(np.any))
    y = np.repeat([0, 1], [n_source, len(X) - n_source])
    report = diagnose(weights, X, y, n_permutations=9)
    assert 1.0 - 1e-9 <= report.effective_sample_size <= n_source * (1 + 1e-9)
    assert report.p_value in {k / 10 for k in range(1, 11)}
    assert report.mmd_before >= 0.0 and report.mmd_after >= 0.0
    assert not any(math.isnan(value) for b in report.balance for value in b[1:])
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["n_source"] == n_source
    assert str(report) and report._repr_html_()


# ---------------------------------------------------------------- the report's warnings


@pytest.mark.parametrize(("n", "m", "d", "delta"), [(500, 500, 1, 0.5), (600, 300, 2, 0.7), (300, 800, 5, 0.6)])
def test_a_healthy_shift_with_true_weights_is_silent(n, m, d, delta):
    noisy = []
    for seed in range(20):
        source, target, ratio = gaussian_shift(seed, n, m, d, delta)
        noisy += [seed] * bool(diagnose(ratio, *stack_domains(source, target), n_permutations=99).warnings)
    # At most one in twenty by design of the levels; four is the 99.9 % quantile of that binomial.
    assert len(noisy) <= 4


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_shift_with_fitted_weights_is_silent(seed):
    source, target, _ = gaussian_shift(seed, 400, 400, d=2, delta=0.5)
    X, y = stack_domains(source, target)
    for ratio in (LSIF(gamma=0.25, regularization=1e-3), KLIEP(gamma=0.2)):
        assert diagnose(ratio.fit(X, y), X, y, n_permutations=99).warnings == ()


def test_samples_that_do_not_differ_need_no_weights():
    told = 0
    for seed in range(40):
        source, target, _ = gaussian_shift(seed, 200, 150, d=3, delta=0.0)
        weights = np.random.default_rng(seed).uniform(0.8, 1.2, 200)
        report = diagnose(weights, *stack_domains(source, target), n_permutations=99)
        told += warns(report, "The samples do not differ measurably (p = ")
    # Either of two tests at 5 % silences it: at least 90 % in the mean, less four standard deviations of 40 runs.
    assert told / 40 > 0.9 - 4 * math.sqrt(0.9 * 0.1 / 40)


def test_a_shift_of_one_column_among_many_is_not_called_none():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((20_000, 60)), rng.standard_normal((20_000, 60))
    target[:, 7] += 0.1
    report = diagnose(np.ones(20_000), *stack_domains(source, target), n_permutations=99, max_rows=300)
    assert report.p_value > 0.05
    assert starts(report) == ["All weights are equal"]


def test_equal_weights_are_called_so_and_blamed_where_the_samples_differ():
    source, target, _ = gaussian_shift(0, delta=1.0)
    X, y = stack_domains(source, target)
    report = diagnose(np.full(500, 0.3), X, y, n_permutations=99)
    assert starts(report) == ["All weights are equal"] and "Yet the samples differ" in report.warnings[0]
    assert report.mmd_after == pytest.approx(report.mmd_before, rel=1e-12) and report.is_uniform
    same = diagnose(np.ones(300), *stack_domains(*gaussian_shift(1, 300, 300, delta=0.0)[:2]), n_permutations=99)
    assert "Yet" not in same.warnings[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("d", "gap"), [(1, 8.0), (2, 5.0), (20, 7.0)])
def test_a_target_away_from_the_source_is_no_overlap(seed, d, gap):
    source, target, _ = gaussian_shift(seed, 300, 300, d, gap)
    X, y = stack_domains(source, target)
    for weights in (KMM().fit(X, y).weights_, LSIF().fit(X, y), np.ones(300)):
        assert warns(diagnose(weights, X, y, n_permutations=19), "No overlap for a part of the target")


def test_no_overlap_names_the_column_and_its_share():
    rng = np.random.default_rng(0)
    source, target = rng.uniform(size=(400, 6)), rng.uniform(size=(400, 6))
    source[:2] = [[0.0], [1.0]]
    target[:100, 4] += 1.0
    report = diagnose(np.ones(400), *stack_domains(source, target), n_permutations=19)
    assert "25 % of the target rows lie outside the source's range of 'x4'" in report.warnings[0]
    assert report.balance[4].outside == 0.25


def test_a_hole_in_the_source_is_no_overlap_though_every_column_is_in_range():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 500)
    ring = 5.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.standard_normal((500, 2))
    report = diagnose(np.ones(500), *stack_domains(ring, 0.5 * rng.standard_normal((500, 2))), n_permutations=19)
    assert np.max([b.outside for b in report.balance]) == 0.0
    assert report.outside_share > 0.99 and "further from every source row" in report.warnings[0]


def test_two_different_constants_are_a_matter_of_overlap_alone():
    source, target, ratio = gaussian_shift(2)
    source, target = np.c_[source, np.zeros(500)], np.c_[target, np.ones(500)]
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert report.balance[2].before == report.balance[2].after == -math.inf
    assert "up to 100 % of the target rows lie outside the source's range of 'x2'" in report.warnings[0]
    assert not warns(report, "A column is still off balance")


@pytest.mark.parametrize("seed", range(5))
def test_a_handful_of_rows_with_the_weight_and_a_heavy_tail_are_named(seed):
    source, target, ratio = gaussian_shift(seed, 1000, 1000, delta=3.0)
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert warns(report, "A handful of rows carry the weight") and warns(report, "The tail of the weights is heavy (Pareto k-hat")
    even = np.where(np.arange(1000) < 10, 40.0, 0.6)
    assert warns(diagnose(even, *stack_domains(source, target), n_permutations=19), "A handful of rows carry the weight")


def test_a_small_table_with_even_weights_is_no_handful():
    source, target, ratio = gaussian_shift(0, 12, 12, delta=0.3)
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert not warns(report, "A handful")


@pytest.mark.parametrize("seed", range(5))
def test_inverted_weights_make_the_balance_worse(seed):
    source, target, ratio = gaussian_shift(seed, delta=0.8)
    report = diagnose(lambda x: 1.0 / ratio(x), *stack_domains(source, target), n_permutations=19)
    worse = [w for w in report.warnings if w.startswith("Weighting made the balance worse")]
    assert len(worse) == 1 and "'x0' came further apart" in worse[0] and "inverted weights" in worse[0]
    assert "squared MMD rose" in worse[0]


def test_a_column_that_the_weights_leave_off_balance_is_named():
    source, target, ratio = gaussian_shift(0, d=3)
    target[:, 2] += 0.5
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert "A column is still off balance after weighting: 'x2'" in "".join(report.warnings)
    assert "'x0'" not in "".join(report.warnings)


def test_weights_that_barely_move_leave_the_shift():
    source, target, ratio = gaussian_shift(0, delta=1.0)
    report = diagnose(ratio(source) ** 0.1, *stack_domains(source, target), n_permutations=99)
    assert warns(report, "Weighting removed little of the shift")


def test_many_columns_off_balance_are_counted_and_three_are_named():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((800, 9)), rng.standard_normal((800, 9)) + 0.5
    report = diagnose(rng.uniform(0.9, 1.1, 800), *stack_domains(source, target), n_permutations=19)
    text = "".join(report.warnings)
    assert "columns are still off balance" in text or "came further apart" in text
    assert text.count("'x") <= 6 and " more" in text


# ---------------------------------------------------------------- how it prints


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((60, 25)), rng.standard_normal((60, 25)) + np.linspace(0, 1, 25)
    return diagnose(rng.exponential(size=60), *stack_domains(source, target), n_permutations=19)


def test_a_wide_table_prints_its_ten_worst_columns_and_counts_the_rest(wide):
    text = str(wide)
    worst = sorted(wide.balance, key=lambda b: max(abs(b.before), abs(b.after)), reverse=True)
    assert [b.name for b in wide.most_off_balance()] == [b.name for b in worst[:10]]
    assert all(f"  {b.name} " in text for b in worst[:10]) and not any(f"  {b.name} " in text for b in worst[10:])
    assert "15 more columns differ by" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_text_is_aligned(wide):
    lines = str(wide).splitlines()
    head = next(line for line in lines if line.strip().startswith("Standardised mean difference"))
    rows = lines[lines.index(head) + 1 : lines.index(head) + 11]
    assert {len(line) for line in rows} == {len(head)}
    assert head.endswith("after") and all(line[head.index("after") + 4].isdigit() for line in rows)


class Tags(HTMLParser):
    """Checks that tags close in order, and gathers text and addresses."""

    void = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_names_are_escaped_in_html_and_kept_on_one_line_in_text():
    pandas = pytest.importorskip("pandas")
    source, target, ratio = gaussian_shift(0, 50, 50)
    names = ["<script>alert('x')</script>", "two\nlines & a very long name that goes on and on and on"]
    frames = (pandas.DataFrame(x, columns=names) for x in (source, target))
    report = diagnose(np.asarray(ratio(source)), *stack_domains(*frames), n_permutations=19)
    for html in (report._repr_html_(), report.to_html(title="<b>")):
        assert "<script>" not in html and "<b>" not in html
        assert names[0] in parsed(html).text
    assert "two lines & a very long name that goes " in str(report)


def test_the_page_stands_alone_with_its_pictures(wide):
    tags = parsed(wide.to_html(title="My report", pictures={"Weights & more": b"\x89PNG"}))
    assert tags.addresses == ["data:image/png;base64,iVBORw=="]
    assert tags.text.count("My report") == 2 and "Weights & more" in tags.text
    assert "color-scheme: light dark" in "".join(tags.text)
    for warning in wide.warnings:
        assert warning in tags.text and warning.split()[0] in str(wide)


def test_no_warnings_are_said_to_be_none():
    report = dataclasses.replace(diagnose(*_small()), warnings=())
    assert str(report).endswith("No warnings.") and "No warnings." in report._repr_html_()


def _small():
    source, target, ratio = gaussian_shift(0, 30, 30)
    return ratio, *stack_domains(source, target)


def test_a_report_is_frozen_and_gives_every_field_to_json(wide):
    with pytest.raises(dataclasses.FrozenInstanceError):
        wide.p_value = 0.0
    fields = wide.to_dict()
    assert set(fields) == {f.name for f in dataclasses.fields(Report)} | {"effective_share", "is_subsample"}
    assert fields["balance"][0] == wide.balance[0]._asdict() and fields["warnings"] == list(wide.warnings)
    unknown = dataclasses.replace(wide, pareto_k=math.nan).to_dict()
    assert unknown["pareto_k"] is None and json.dumps(unknown, allow_nan=False)


@pytest.mark.parametrize("wrong", [KLIEP, "kliep", object()], ids=["class", "name", "object"])
def test_what_is_no_ratio_is_refused_with_what_is_one(wrong):
    X, y = stack_domains(np.arange(10.0)[:, None], np.arange(10.0)[:, None])
    with pytest.raises(ValueError, match=r"ratio must be a fitted density ratio such as KMM\(\)\.fit\(X, y\), a function"):
        diagnose(wrong, X, y)
