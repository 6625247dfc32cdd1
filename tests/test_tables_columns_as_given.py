"""What people pass by mistake or out of habit: weights as a Series, the labels among the columns, one column for a table."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression

from densratio import (
    KMM,
    LSIF,
    ImportanceWeighted,
    LabelShiftRatio,
    NearestNeighborsRatio,
    NoisyLabelClassifier,
    StreamMonitor,
    WeightedConformal,
    diagnose,
    find_label_issues,
    importance_weighted_score,
    importance_weights,
    make_iw_scorer,
    stack_domains,
    tame_weights,
    target_performance,
)
from densratio.labels.given import warn_of_labels
from densratio.plotting import BalanceDisplay, PerformanceDisplay, WeightsDisplay
from densratio.tables import TableEncoder
from densratio.tables.spelling import numbers_spelled, spells_number

RNG = np.random.default_rng(0)
SOURCE = pd.DataFrame({"a": RNG.normal(size=60), "b": np.where(RNG.random(60) < 0.2, np.nan, RNG.normal(size=60))})
TARGET = pd.DataFrame({"a": RNG.normal(0.7, 1.0, 50), "b": np.where(RNG.random(50) < 0.4, np.nan, RNG.normal(size=50))})
RESULT = importance_weights(SOURCE, TARGET)
X, DOMAIN = stack_domains(SOURCE, TARGET)
Y = SOURCE["a"].to_numpy()
DUMMY = partial(find_label_issues, model=DummyClassifier(), n_repeats=1)


# ---------------------------------------------------------------- weights as a Series


@pytest.mark.parametrize("library", [pd.Series, pl.Series, np.asarray, list])
def test_weights_of_any_library_are_diagnosed(library):
    weights = library(RESULT.weights.tolist())
    assert diagnose(weights, X, DOMAIN).effective_sample_size == pytest.approx(RESULT.diagnosis.effective_sample_size)
    shown = WeightsDisplay.from_predictions(weights, ax=Figure().subplots())
    np.testing.assert_allclose(np.asarray(shown.weights) / np.mean(shown.weights), RESULT.weights)


@pytest.mark.parametrize(
    "use",
    [
        lambda ratio: target_performance(MODEL, ratio, SOURCE[["a"]], Y, TARGET[["a"]], metric="mean_squared_error"),
        lambda ratio: WeightedConformal(LinearRegression(), ratio).fit(SOURCE[["a"]], Y),
        lambda ratio: ImportanceWeighted(LinearRegression(), ratio).fit(SOURCE[["a"]], Y),
        lambda ratio: importance_weighted_score(MODEL, SOURCE[["a"]], Y, ratio, "neg_mean_squared_error"),
        lambda ratio: make_iw_scorer(ratio, "neg_mean_squared_error")(MODEL, SOURCE[["a"]], Y),
    ],
)
@pytest.mark.parametrize("library", [pd.Series, pl.Series])
def test_weights_in_place_of_a_ratio_are_refused(use, library):
    with pytest.raises(ValueError, match=r"ratio must be a fitted density ratio.*got Series"):
        use(library(RESULT.weights.tolist()))


MODEL = LinearRegression().fit(SOURCE[["a"]], Y)


def test_the_love_plot_has_the_columns_of_the_report_where_there_are_gaps():
    shown = BalanceDisplay.from_estimator(RESULT.ratio, X, DOMAIN, ax=Figure().subplots())
    report = diagnose(RESULT.ratio, X, DOMAIN)
    assert list(shown.names) == [column.name for column in report.balance] and "b (missing)" in shown.names
    np.testing.assert_allclose(shown.after, [column.after for column in report.balance])


# ---------------------------------------------------------------- the labels among the columns


@settings(max_examples=40)
@given(
    labels=st.lists(st.sampled_from("uvw"), min_size=2, max_size=30).filter(lambda labels: len(set(labels)) > 1),
    names=st.permutations(["u", 1, 2.5]),
    broken=st.integers(-30, 29),
    frame=st.sampled_from([pd.DataFrame, pl.DataFrame]),
)
def test_a_column_that_tells_every_label_is_told_of(labels, names, broken, frame):
    column = [str(dict(zip("uvw", names, strict=True))[label]) for label in labels]
    is_told = not 0 <= broken < len(labels)
    if not is_told:
        column[broken] = None
    table = frame({"x": list(range(len(labels))), "y": column})
    # So many classes are told apart by a count of rows, too.
    expected = ["y"] * (is_told and 2 * len(set(labels)) <= len(labels))
    assert told_of(table, np.array(labels)) == expected


def told_of(table, labels):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warn_of_labels(table, labels, 1)
    return [str(w.message).split("'")[1] for w in seen]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99), n=st.integers(3, 40), unit=st.sampled_from([-1e6, 0.01, 1.0]), zero=st.sampled_from([0.0, 50.0]),
    dtype=st.sampled_from([np.float32, np.float64]), frame=st.sampled_from([pd.DataFrame, pl.DataFrame, pa.table]),
    slip=st.sampled_from([0.0, 0.01, 1.0]),
)  # fmt: skip
def test_a_column_that_measures_something_else_than_the_numbers_is_not_told_of(seed, n, unit, zero, dtype, frame, slip):
    rng = np.random.default_rng(seed)
    y, texts = rng.normal(size=n), [f"name {i}" for i in range(n)]
    other = y.copy()
    other[1] += slip
    columns = {"count": np.arange(n), "near": (unit * (other + zero)).astype(dtype), "far": rng.normal(size=n), "text": texts}
    assert told_of(frame(columns), y) == ["near"] * (slip == 0.0)


def test_both_ways_to_find_wrong_labels_warn_of_the_labels_among_the_columns():
    labels = np.where(Y > 0.0, "high", "low")
    table = SOURCE.assign(label=(labels == "low").astype(int))
    with pytest.warns(UserWarning, match="tells every label") as seen:
        DUMMY(table, labels)
        NoisyLabelClassifier(max_iter=1, random_state=0).fit(table, labels)
        find_label_issues(SOURCE, SOURCE["a"], model=LinearRegression(), n_repeats=1)
    told = [w for w in seen if "tells every" in str(w.message)]
    columns = ["'label' of X tells every label, so none can be found wrong", "'label' of X tells every", "'a' of X tells every"]
    assert all(words in str(w.message) and w.filename == __file__ for words, w in zip(columns, told, strict=True))


def test_who_looked_at_rows_is_not_told_to_but_to_look_at_more():
    labels, checked = np.where(RNG.random(60) < 0.5, "high", "low"), (np.arange(10), ["low"] * 10)
    with pytest.warns(UserWarning, match="or look at more rows than the 10 looked at") as seen:
        DUMMY(SOURCE, labels, checked=checked)
    assert not any("tells every label" in str(w.message) for w in seen)


# ---------------------------------------------------------------- one column, no rows, names


@pytest.mark.parametrize("find", [DUMMY, lambda X, y: NoisyLabelClassifier(max_iter=1).fit(X, y)])
@pytest.mark.parametrize(
    ("table", "words"),
    [
        (SOURCE["a"], r"X is a pandas Series, one column: pass a frame of it, with to_frame\(\)"),
        ({"a": [1.0] * 60}, "X is a dict: pass a frame of it"),
        (SOURCE.assign(a=np.inf), "Column 'a' of the table X is infinite in row 0: put a number there.*leave the column out[.]$"),
        (SOURCE.assign(a=[[1]] * 60), "Column 'a' of the table X holds values of type list: .*, or leave it out[.]$"),
    ],
)
def test_tables_that_cannot_be_read_are_named_as_they_were_passed(find, table, words):
    with pytest.raises(ValueError, match=words):
        find(table, ["u", "v"] * 30)


def test_a_reference_that_cannot_be_read_is_refused_when_the_monitor_is_made():
    with pytest.raises(ValueError, match=r"Column 'a' of the reference is infinite in row 0: .*drop=\['a'\]"):
        StreamMonitor(SOURCE.assign(a=np.inf))
    StreamMonitor(SOURCE.assign(a=np.inf), drop="a").update(TARGET.assign(a=np.inf))


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_are_no_classes_unless_they_repeat(zone):
    days = pd.Series(pd.date_range("2026-01-01", periods=60, tz=zone))
    with pytest.raises(ValueError, match=r"labels are dates, most of which differ\. Pass them as numbers of days"):
        DUMMY(SOURCE, days)
    assert len(DUMMY(SOURCE, days.dt.floor("D").where(days.index % 2 > 0, days[0]).where(days.index % 2 < 1, days[1]))) == 60


def test_a_table_or_labels_without_rows_are_called_empty():
    with pytest.raises(ValueError, match="X is empty"):
        TableEncoder().fit(SOURCE[:0])
    with pytest.raises(ValueError, match="labels are empty"):
        DUMMY(SOURCE[:0], [])
    with pytest.raises(ValueError, match=r"labels is the text 'a': pass the labels \(n,\) themselves, X\['a'\]"):
        DUMMY(SOURCE, "a")


@pytest.mark.parametrize(
    ("weight", "odd"), [("a", "'a'"), ([1.0, *["x"] * 59], "'x'"), ([1.0, "y"] * 30, "'y'"), ({"a": 1.0}, "dict|{'a'")]
)
def test_weights_that_are_no_numbers_are_refused_in_plain_words(weight, odd):
    for fit in (
        lambda: importance_weights(SOURCE, TARGET, sample_weight=weight),
        lambda: KMM().fit(SOURCE[["a"]].to_numpy(), np.arange(60) % 2, sample_weight=weight),
    ):
        with pytest.raises(ValueError, match=r"sample_weight must be \(60,\), one number >= 0 for each row.*got " + odd):
            fit()


# ---------------------------------------------------------------- chunks, classes, tamed weights


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        (
            np.where(np.arange(50) < 30, "May", None),
            "chunks must hold a label for each target row; 20 have none, the first is target row 30",
        ),
        (np.array(["May", 6] * 25, dtype=object), "chunks mix texts and numbers"),
    ],
)
def test_chunks_without_a_name_or_of_two_kinds_are_refused(chunks, words):
    columns = SOURCE[["a"]], TARGET[["a"]]
    ratio = LSIF(random_state=0).fit(*stack_domains(*columns))
    with pytest.raises(ValueError, match=words):
        target_performance(MODEL, ratio, columns[0], Y, columns[1], metric="mean_squared_error", chunks=chunks)


def test_the_target_of_a_regression_is_no_label_shift():
    with pytest.raises(ValueError, match="labels hold fractions, and classes are needed"):
        LabelShiftRatio().fit(*stack_domains(SOURCE[["a"]], TARGET[["a"]]), labels=Y)


@given(weights=st.lists(st.floats(0.01, 100.0), min_size=2, max_size=8))
def test_weights_that_are_left_as_they_are_have_moved_nothing(weights):
    tamed = tame_weights(weights)
    assert tamed.moved == 0.0 and "n/a -> n/a Pareto k-hat\n  0 % of the weight" in repr(tamed)


@pytest.mark.parametrize("metric", ["mean_squared_error", "mean_absolute_error"])
def test_a_chunk_that_no_source_row_is_like_says_so_and_the_others_are_told(metric):
    columns = SOURCE[["a"]], pd.concat([TARGET[["a"]], TARGET[["a"]] + 1e6])
    ratio = NearestNeighborsRatio().fit(*stack_domains(SOURCE[["a"]], TARGET[["a"]]))
    months = np.repeat(["May", "June"], 50)
    june, may = target_performance(MODEL, ratio, columns[0], Y, columns[1], metric=metric, chunks=months, n_bootstrap=2)
    assert np.isfinite(may.estimate) and (june.chunk, may.chunk) == ("June", "May")
    assert np.isnan(june.estimate) and june.interval == (0.0, np.inf) and june.warning.startswith("Can't say: the ratio is 0")
    assert june.effective_rows == 0.0 and "nan" in str(june)
    PerformanceDisplay.from_estimates([june, may], ax=Figure().subplots())


SPELLINGS = st.sampled_from(
    ["1", "-2.5", " 3 ", "1e5", "1_000", "nan", "NaN", "-nan", "inf", "1e400", "", "1,5", "0x1", "cat", "５", "01", "-007"]
)


@given(texts=st.lists(SPELLINGS, max_size=6), as_type=st.sampled_from([str, object]))
def test_texts_are_read_at_once_as_one_by_one(texts, as_type):
    numbers = numbers_spelled(np.array(texts, dtype=as_type))
    # 01 is a code: as a number it would be 1. 1_000 is one too, though Python reads it as 1000.
    assert not spells_number("1_000")
    assert (numbers is not None) == all(spells_number(text) and text not in ("01", "-007") for text in texts)
    if numbers is not None:
        np.testing.assert_array_equal(numbers, [float(text) for text in texts])
