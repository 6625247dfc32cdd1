"""What the columns of a frame become for diagnoses and tests: gaps of any kind are one, times are numbers, samples are alike."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densratio import diagnose, divergence, stack_domains
from densratio.diagnostics import two_sample_test
from densratio.diagnostics.columns import numeric_columns

GAPS = [None, np.nan, pd.NA, pd.NaT]


@given(values=st.lists(st.sampled_from(["a", "b", None]), max_size=12).map(lambda values: ["a", *values]), data=st.data())
def test_a_gap_in_a_column_of_texts_is_one_level_whatever_stands_for_it(values, data):
    gaps = [data.draw(st.sampled_from(GAPS)) if value is None else value for value in values]
    levels = sorted({value or "(missing)" for value in values})
    for column in (values, pd.Series(gaps, dtype=object), pd.array(values, dtype="string"), pd.Categorical(values)):
        found = numeric_columns(pd.DataFrame({"k": column}))
        assert found.names == tuple(f"k={level}" for level in levels)
        assert found.values.tolist() == [[(value or "(missing)") == level for level in levels] for value in values]


def test_none_in_one_sample_and_nan_in_the_other_is_no_difference():
    values = np.array(["a", "b", None] * 30, dtype=object)
    frames = [pd.DataFrame({"k": np.where(values == None, gap, values)}, dtype=object) for gap in (None, np.nan)]  # noqa: E711
    assert two_sample_test(*frames, n_permutations=49).p_value == 1.0


TIMES = {
    "dates": lambda days: [datetime.date(2024, 1, 1) + datetime.timedelta(days=day) for day in days],
    "datetimes": lambda days: pd.Series(pd.to_datetime(TIMES["dates"](days)), dtype="datetime64[ns]"),
    "periods": lambda days: pd.PeriodIndex(TIMES["dates"](days), freq="D"),
    "zoned": lambda days: pd.to_datetime(TIMES["dates"](days)).tz_localize("UTC").tz_convert("Asia/Tokyo"),
    "Arrow dates": lambda days: pd.Series(TIMES["dates"](days)).astype(pd.ArrowDtype(pyarrow.date32())),
}


@settings(max_examples=5)
@given(days=st.lists(st.integers(-40_000, 40_000), min_size=1, max_size=5))
@pytest.mark.parametrize("stored", TIMES)
def test_dates_are_days_in_whatever_way_they_are_stored(stored, days):
    since = (datetime.date(2024, 1, 1) - datetime.date(1970, 1, 1)).days
    found = numeric_columns(pd.DataFrame({"d": TIMES[stored](days)}))
    assert found.names == ("d",) and found.values[:, 0].tolist() == [since + day for day in days]


@settings(max_examples=5)
@given(seconds=st.lists(st.integers(0, 86_399), min_size=1, max_size=5), made=st.sampled_from([pd.DataFrame, polars.DataFrame]))
def test_times_of_the_day_and_durations_are_numbers(seconds, made):
    times = [(datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=s)).time() for s in seconds]
    durations = [datetime.timedelta(seconds=10 * s) for s in seconds]
    found = numeric_columns(made({"t": times, "d": durations}))
    np.testing.assert_allclose(found.values, np.column_stack([seconds, np.multiply(10, seconds)]) / 86_400, rtol=1e-12)
    stored = numeric_columns(pd.DataFrame({"t": pd.Series(times, dtype=object), "d": pd.Series(durations, dtype=object)}))
    np.testing.assert_allclose(stored.values, found.values, rtol=1e-12)


def test_declared_categories_are_levels_though_they_are_numbers():
    found = numeric_columns(pd.DataFrame({"zip": pd.Categorical([10, 20, None, 20])}))
    assert found.names == ("zip=(missing)", "zip=10", "zip=20")
    assert found.values.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]


def test_dates_among_other_values_are_refused():
    with pytest.raises(ValueError, match="Column 'k' holds values of types date and int: make all of them"):
        numeric_columns(pd.DataFrame({"k": pd.Series([datetime.date(2024, 1, 1), 3], dtype=object)}))


COLUMNS = {
    "numbers": [1.5, 2.0, None],
    "text or categories": ["a", "b", None],
    "dates or times": [datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 2), None],
}


@pytest.mark.parametrize("call", [stack_domains, divergence, two_sample_test])
@pytest.mark.parametrize("made", [pd.DataFrame, polars.DataFrame])
@pytest.mark.parametrize(("one", "other"), [(one, other) for one in COLUMNS for other in COLUMNS if one != other])
def test_samples_that_hold_different_things_in_a_column_are_refused(call, made, one, other):
    with pytest.raises(ValueError, match=f"Column 'k' holds {one} in the source and {other} in the target: convert one"):
        call(made({"k": COLUMNS[one]}), made({"k": COLUMNS[other]}))


@pytest.mark.parametrize("content", COLUMNS)
def test_a_sample_without_a_value_goes_with_any_content(content):
    for frames in ((COLUMNS[content], [None] * 3), (COLUMNS[content], [np.nan] * 3)):
        X, y = stack_domains(*(pd.DataFrame({"k": column}) for column in frames))
        assert len(X) == 6 and y.tolist() == [0, 1] * 3


def test_huge_whole_numbers_are_named_as_infinite():
    frame = pd.DataFrame({"k": pd.Series([10**400, 1], dtype=object)})
    with pytest.raises(ValueError, match="infinity in column 'k'"):
        numeric_columns(frame)


def test_two_samples_in_place_of_rows_and_domains_are_answered_with_what_to_stack():
    rows = np.arange(12.0).reshape(6, 2)
    for target in (rows, rows[:, :1]):
        with pytest.raises(ValueError, match=r"stack them: X, y = stack_domains\(X_source, X_target\)\."):
            diagnose(np.ones(6), rows, target)
