"""Balance and overlap of columns, of arrays and frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from diagnostics_cases import gaussian_shift
from hypothesis import given
from hypothesis import strategies as st

from densratio.diagnostics import balance as balance_module
from densratio.diagnostics import (
    mmd,
    standardized_mean_difference,
)
from densratio.diagnostics.balance import outside_range, outside_share
from densratio.diagnostics.columns import numeric_columns

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
    monkeypatch.setattr("densratio._blocks.BLOCK", 100)
    np.testing.assert_allclose(standardized_mean_difference(source, target, weights), whole, rtol=1e-12)
    sparse = scipy.sparse.csr_array(source), scipy.sparse.csr_array(target)
    np.testing.assert_allclose(standardized_mean_difference(*sparse, weights), whole, rtol=1e-12)
    np.testing.assert_allclose(mmd(*sparse, weights, gamma=0.2), mmd(source, target, weights, gamma=0.2), rtol=1e-12)


def test_a_count_of_weights_that_is_not_the_source_rows_is_refused():
    source, target, _ = gaussian_shift(0, 8, 5)
    for call in (mmd, standardized_mean_difference):
        with pytest.raises(ValueError, match="got 5 weights for 8 source rows"):
            call(source, target, np.ones(5))


def test_centering_is_exact():
    source, target = np.array([[1e16, 3.0]]), np.array([[1e16 + 2.0, 3.0], [1e16, 4.0]])
    centerd = balance_module.centered(source, target)
    np.testing.assert_array_equal(np.concatenate(centerd)[:, 0] * 2.0**54, [-2.0, 0.0, -2.0])


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
    days = pandas.DataFrame({"day": pandas.to_datetime(["1970-01-02 12:00"]), "took": pandas.to_timedelta(["36h"])})
    np.testing.assert_array_equal(numeric_columns(days).values, [[1.5, 1.5]])
    with pytest.raises(ValueError, match="NaN in column 'a'"):
        numeric_columns(pandas.DataFrame({"a": pandas.array([1, None], dtype="Int64")}))


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.array([[1.0, np.nan]]), "NaN in column 'x1'"),
        (scipy.sparse.csr_array([[1.0, 0.0, np.inf]]), "infinity in column 'x2'"),
        (np.array([["a", "b"]]), "array holds text"),
        (np.ones(3), "must be 2-D"),
        (np.ones((0, 3)), "at least one row"),
    ],
)
def test_tables_that_hold_no_numbers_are_refused(X, words):
    with pytest.raises(ValueError, match=words):
        numeric_columns(X)


@pytest.mark.parametrize("value", [[1, 2], (1, 2), {1}, {"a": 1}, np.zeros(2), 1j])
def test_columns_of_other_values_are_refused_by_name(value):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": pandas.Series([None, value], dtype=object)})
    with pytest.raises(ValueError, match=f"Column 'b' holds values of type {type(value).__name__}"):
        numeric_columns(frame)


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
