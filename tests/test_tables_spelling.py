"""Texts that spell numbers or dates: what is said of them, and that the advice works in every library as it stands."""

from __future__ import annotations

import datetime
import re
import warnings
from functools import partial

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine

from densratio._columns import is_missing
from densratio.tables import TableEncoder
from densratio.tables.dates import is_date, is_duration
from densratio.tables.spelling import kind_of_texts


@pytest.mark.parametrize(
    "made", [lambda f: f, polars.from_pandas, pyarrow.table, lambda f: f.to_numpy()], ids=["pandas", "polars", "Arrow", "array"]
)
def test_a_column_of_numbers_with_a_stray_text_is_told(made):
    """A file with NA or 45,000 among numbers is read as text; mostly texts may well be codes."""
    numbers, names = [str(number) for number in range(20)], [f"k{number}" for number in range(20)]
    for column, is_told in (
        (numbers, False),
        ([*numbers[:-1], "?"], True),
        ([*numbers[:11], *names[:9]], True),
        ([*numbers[:9], *names[:11]], False),
    ):
        frame = pd.DataFrame({"x": np.arange(20.0), "k": column})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            TableEncoder(max_levels=30).fit_samples(made(frame), made(frame))
        told = [str(warning.message) for warning in caught if "holds mostly numbers" in str(warning.message)]
        assert len(told) == is_told
        if is_told:
            stray = next(text for text in column if not text.isdigit())
            assert f"and {stray!r}: it is taken for categories. For numbers, repair it" in told[0]


def test_declared_categories_may_be_numbers_and_texts():
    frame = pd.DataFrame({"k": pd.Categorical(["1", "2", "3", "4A"] * 5)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TableEncoder().fit_samples(frame, frame).columns_[0].levels == ("1", "2", "3", "4A")


DATES = [f"2024-01-{day:02d}" for day in range(1, 21)]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct"]
HOURS = pd.to_timedelta([0, 1] * 10, unit="h")


def as_texts(frame):
    return frame.astype(object).to_numpy()


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        ([str(number) for number in range(20)], "numbers", np.arange(20)),
        ([f"{number}.5" for number in range(20)], "numbers", np.arange(20) + 0.5),
        ([*map(str, range(18)), " 18", "nan"], "numbers", [*range(19), np.nan]),
        (DATES, "dates", pd.to_datetime(DATES)),
        (
            [" 2024-01-01", *DATES[1:-1], "2024-01-20T01:00"],
            "dates",
            pd.to_datetime([*DATES[:-1], "2024-01-20T01:00"], format="ISO8601"),
        ),
        ([f"{day}T00:00+0{k % 2}:00" for k, day in enumerate(DATES)], "dates", pd.to_datetime(DATES) - HOURS),
        ([f"{day}T08:30:00+02:00" for day in DATES], "dates", pd.to_datetime(DATES) + pd.Timedelta(hours=6.5)),
        (
            [f"2024-W{week:02d}" for week in range(1, 21)],
            "weeks",
            pd.date_range("2024-01-01", periods=20, freq="7D"),
        ),
        ([f"01/{day:02d}/2024" for day in range(1, 21)], "dates in the form %m/%d/%Y", pd.to_datetime(DATES)),
        ([f" {day}.1.2024" for day in range(1, 21)], "dates in the form %d.%m.%Y", pd.to_datetime(DATES)),
        (
            [f"Jan {day}, 2024 01:30" for day in range(1, 21)],
            "dates in the form %b %d, %Y %H:%M",
            pd.to_datetime(DATES) + pd.Timedelta(hours=1.5),
        ),
        ([f"1/{day}/24" for day in range(1, 21)], "dates in the form %m/%d/%y", pd.to_datetime(DATES)),
        (
            [f"{day}.1.2024 1:30 PM" for day in range(1, 21)],
            "dates in the form %d.%m.%Y %I:%M %p",
            pd.to_datetime(DATES) + pd.Timedelta(hours=13.5),
        ),
        (
            [f"{month} {year}" for year in (2023, 2024) for month in MONTHS],
            "dates in the form %b %Y",
            pd.to_datetime([f"{year}-{month + 1:02d}-01" for year in (2023, 2024) for month in range(10)]),
        ),
        ([f"{hour}:05" for hour in range(20)], "times in the form %H:%M", [datetime.time(hour, 5) for hour in range(20)]),
        (
            [f" {k % 12 or 12}:30 {'AP'[k // 12]}M" for k in range(20)],
            "times in the form %I:%M %p",
            [datetime.time(k, 30) for k in range(20)],
        ),
        (
            [f"{days} day{'s' * (days != 1)} 02:03:04" for days in range(20)],
            "durations",
            [datetime.timedelta(days, hours=2, minutes=3, seconds=4) for days in range(20)],
        ),
        ([f"PT{hours}H" for hours in range(20)], "durations", [datetime.timedelta(hours=hours) for hours in range(20)]),
        ([f"{number}.5%" for number in range(20)], "numbers with signs", np.arange(20) + 0.5),
        ([f"{number},000" for number in range(20)], "numbers with signs", 1000.0 * np.arange(20)),
    ],
)
@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize(
    "made", [lambda f: f, polars.from_pandas, pyarrow.table, as_texts], ids=["pandas", "polars", "Arrow", "array"]
)
def test_texts_that_all_read_as_numbers_or_dates_are_told_with_what_makes_them_so(made, texts, kind, values, times):
    X = made(pd.DataFrame({"x": np.sqrt(np.arange(20.0 * times)), "k": texts * times}))
    if made is as_texts and kind == "numbers":
        assert TableEncoder().fit(X).columns_[1].kind == "numbers"
        return
    with pytest.warns(UserWarning, match=f"Column '(k|x1)' holds text, such as .* All of it reads as {kind}: ") as caught:
        use = TableEncoder().fit(X).columns_[1]
    assert (use.kind == "dropped") == (times == 1)
    assert times > 1 or f"20 different texts, of which none is frequent: they read as {kind}" in use.reason
    code, category = re.search(rf"{kind}: (.*); or declare categories, (.*)[.]$", str(caught[0].message)).groups()
    column, level = (eval(each, {"pandas": pd, "polars": polars, "X": X}) for each in (code, category))
    plain = partial(pd.to_datetime, utc=True) if kind.startswith(("dates", "weeks")) else np.asarray
    np.testing.assert_array_equal(plain(column.to_list()), plain(list(values) * times))
    assert "ategorical" in str(type(level.dtype)) and level.to_list() == texts * times


NUMBERED = [20240101 + k for k in range(20)]
AS_NUMBERS = {
    "pandas": pd.Series(NUMBERED),
    "nullable": pd.Series([None, *NUMBERED[1:]], dtype="Int64"),
    "with gaps": pd.Series([np.nan, *NUMBERED[1:]]),
    "objects": pd.Series([None, *NUMBERED[1:]], dtype=object),
    "texts": pd.Series([str(number) for number in NUMBERED]),
    "polars": polars.Series(NUMBERED),
    "polars with gaps": polars.Series([None, *map(float, NUMBERED[1:])]),
    "polars texts": polars.Series([str(number) for number in NUMBERED]),
    "Arrow": pyarrow.array(NUMBERED),
    "array": np.array(NUMBERED),
    "array of texts": np.array([str(number) for number in NUMBERED]),
}


@pytest.mark.parametrize("column", AS_NUMBERS.values(), ids=AS_NUMBERS)
def test_dates_as_whole_numbers_are_told_with_what_makes_them_dates(column):
    if isinstance(column, np.ndarray):
        X = column.reshape(-1, 1)
        values = column.tolist()
    else:
        values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        library = {"pandas": pd.DataFrame, "polars": polars.DataFrame, "pyarrow": pyarrow.table}[
            type(column).__module__.split(".")[0]
        ]
        X = library({"k": column, "x": list(range(20))})
    with pytest.warns(UserWarning, match="reads as dates in the form %Y%m%d: ") as caught:
        TableEncoder(keep="k").fit(X)
    code = re.search(r"%Y%m%d: (.*?)(?:; or declare categories, .*)?[.]$", str(caught[0].message))[1]
    found = pd.Series(eval(code, {"pandas": pd, "polars": polars, "X": X}).to_list())
    known = pd.Series(pd.to_datetime(DATES)).where(pd.Series([not is_missing(value) for value in values]))
    assert found.isna().equals(known.isna()) and (found.dropna() == known.dropna()).all()


@pytest.mark.parametrize(
    "numbers",
    [
        np.arange(20240000, 20240060),  # ids that begin with a year
        np.arange(20240101, 20240160),
        np.repeat([20240101, 20240102, 20240103, 20240104, 20240105], 20),  # few enough to be by chance
        np.random.default_rng(0).integers(19_000_000, 21_000_000, 60),  # prices
        np.random.default_rng(0).integers(10_000, 99_999, 60),  # zip codes
        np.r_[NUMBERED, 20240230],
        np.r_[NUMBERED, 0],
        np.r_[NUMBERED, 20240117.5],
        np.r_[NUMBERED, 30240117],
    ],
)
def test_other_whole_numbers_are_no_dates(numbers):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for column in (numbers, numbers.astype(str)):
            TableEncoder(keep="k").fit(pd.DataFrame({"k": column, "x": np.arange(len(numbers)) % 7}))
    assert not [str(warning.message) for warning in caught if "dates" in str(warning.message)]


@pytest.mark.parametrize("load", [load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine])
def test_columns_of_measurements_bring_no_advice(load):
    frame = load(as_frame=True).frame
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Column .* holds")
        TableEncoder().fit(frame)
        TableEncoder().fit(frame.astype(int))


@pytest.mark.parametrize(
    "texts", [["3:2", "0:0", "4:1"], ["16:9", "4:3"], ["14:65", "14:05"], ["1.2.3", "1.10.0"], ["P1", "P2"], ["5 dogs"]]
)
def test_scores_and_versions_are_no_times(texts):
    assert kind_of_texts(texts) is None


def test_dates_that_fit_two_forms_are_told_with_both():
    frame = pd.DataFrame({"k": ["01/02/2024", "03/04/2024"] * 10, "x": range(20)})
    with pytest.warns(UserWarning, match="as dates in the form %m/%d/%Y, and also in %d/%m/%Y: pandas"):
        TableEncoder(keep="x").fit(frame)


@pytest.mark.parametrize("made", [lambda f: f, polars.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize("levels", [["caf\u00e9", "cafe\u0301"], ["New York", "new  York"]])
def test_levels_that_look_alike_are_told_with_what_makes_them_equal(made, levels):
    X = made(pd.DataFrame({"k": levels * 20}))
    with pytest.warns(UserWarning, match="which differ only in case, spaces or the form of Unicode") as caught:
        TableEncoder().fit(X)
    text = str(caught[0].message)
    assert all(ascii(level) in text for level in levels)
    code = re.search(r"make them equal: (.*)\.$", text)[1]
    assert len(set(eval(code, {"X": X}))) == 1


@pytest.mark.parametrize(
    "texts", [["01234", "00017", "99999"], ["2024-01-05", "spring", "2024-01-07"], ["a", "1", "b"], ["1-2", "3-4", "5-6"]]
)
def test_codes_and_names_are_texts(texts):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TableEncoder().fit_samples(*[pd.DataFrame({"c": texts * 5})] * 2)
        declared = pd.Categorical([str(k) for k in range(20)])
        use = TableEncoder().fit_samples(*(pd.DataFrame({"c": declared, "x": range(20)}) for _ in range(2))).columns_[0]
    assert use.reason.endswith("they name rows and do not describe them")


@given(
    day=st.dates().map(str) | st.sampled_from(["2024-W05", "2024-W05-3", "20240517", "2024-02-30"]),
    time=st.sampled_from(["", "T08", "T0830", " 08:30", "_08:30", "T08:30:15", "T083015", "T08:30:15.5", "T08:30:15,5"]),
    zone=st.sampled_from(["", "Z", "z", "+02:00", "-0030", "+02", "+02:00:30"]),
)
def test_what_counts_as_a_date_pandas_reads_as_that_date(day, time, zone):
    text = day + time + zone
    if is_date(text):
        found = pd.to_datetime(pd.Series([text, text]), format="ISO8601", utc=True)
        known = datetime.datetime.fromisoformat(text)
        known = known if known.tzinfo else known.replace(tzinfo=datetime.UTC)
        assert (found - known == pd.Timedelta(0)).all()


@given(
    text=st.from_regex(r"-?\d{1,3} days?(,? [+-]?\d?\d:[0-5]\d:[0-5]\d(\.\d{1,6})?)?", fullmatch=True)
    | st.from_regex(r"-?P(\d\dD)?(T(\d?\dH)?(\d\dM)?(\d\d(\.\d{1,3})?S)?)?", fullmatch=True)
    | st.from_regex(r"-?\d{1,3}:\d\d:\d\d(\.\d{1,6})?", fullmatch=True)
)
def test_what_counts_as_a_duration_pandas_reads(text):
    if is_duration(text):
        assert not pd.isna(pd.to_timedelta(pd.Series([text]))[0])


# ---------------------------------------------------------------- two tables that hold different things


WHOLE = np.arange(20)
DAYS = pd.date_range("2024-01-01", periods=20)
KINDS = {
    "numbers": WHOLE + 0.5,
    "texts of numbers": ["n/a", *(f" {number}.5" for number in WHOLE[1:])],
    "categories of numbers": pd.Categorical(["n/a", *map(str, WHOLE[1:])]),
    "dates": DAYS,
    "zoned dates": DAYS.tz_localize("Asia/Tokyo"),
    "texts of dates": [str(day) for day in DAYS],
}
# 20 different texts are dropped.
PAIRS = {
    ("numbers", "texts of numbers"): ["numbers", "dropped"],
    ("numbers", "categories of numbers"): ["numbers", "dropped"],
    ("dates", "zoned dates"): ["zoned dates"],
    ("dates", "texts of dates"): ["dates"],
    ("zoned dates", "texts of dates"): ["zoned dates"],
}
LIBRARIES = {"pandas": pd.DataFrame.copy, "polars": polars.from_pandas, "Arrow": pyarrow.Table.from_pandas}
ADVICE = re.compile(r"(?:Make both \w+|Give both a zone), (.*?)(?:, or both text, (.*))?, or leave it out")


@pytest.mark.parametrize("one", LIBRARIES)
@pytest.mark.parametrize("other", LIBRARIES)
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
@pytest.mark.parametrize("names", [("source", "target"), ("target", "source")], ids="".join)
def test_the_advice_on_two_tables_works_as_it_stands(pair, one, other, names):
    def made():
        frames = (pd.DataFrame({"it's": KINDS[kind], "x": WHOLE % 7}) for kind in pair)
        return {name: LIBRARIES[library](frame) for name, library, frame in zip(names, (one, other), frames, strict=True)}

    with pytest.raises(ValueError, match='Column "it\'s" holds') as caught:
        TableEncoder().fit_samples(**made())
    for code, kind in zip(filter(None, ADVICE.search(str(caught.value)).groups()), PAIRS[pair], strict=True):
        exec(code, {"pandas": pd, "polars": polars}, tables := made())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert TableEncoder().fit_samples(**tables).columns_[0].kind == kind


def test_the_advice_on_two_arrays_works_as_it_stands():
    source, target = np.array([[1, "a"], [2, "b"]] * 10, dtype=object), np.array([["1", "a"], ["n/a", "b"]] * 10)
    with pytest.raises(ValueError, match="numbers in the source and text or categories in the target") as caught:
        TableEncoder().fit_samples(source, target)
    exec(re.search("Make both numbers, (.*?), or both text", str(caught.value))[1], {"pandas": pd, "target": target})
    use = TableEncoder().fit_samples(source, target).columns_[0]
    assert use.kind == "numbers" and use.has_gaps
