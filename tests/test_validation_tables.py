"""Tables and labels as people have them: containers, columns without numbers, words for labels, weights of any scale."""

from __future__ import annotations

import datetime
import warnings
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_cases import quick

from densratio import KMM, LSIF, Discriminator, GaussianRatio, stack_domains
from densratio.estimators import ESTIMATORS

RNG = np.random.default_rng(0)
ROWS, Y = RNG.normal(size=(40, 2)), np.repeat([0, 1], 20)


def fit(X, y=Y):
    return GaussianRatio().fit(X, y)


# ---------------------------------------------------------------- containers


@pytest.mark.parametrize("use", [lambda M: stack_domains(M, M), lambda M: stack_domains(ROWS, M), fit, fit(ROWS, Y).transform])
def test_a_masked_value_is_a_missing_value_of_its_column(use):
    masked = np.ma.masked_equal(np.where(np.arange(80).reshape(40, 2) == 7, -999.0, ROWS), -999.0)
    with pytest.raises(ValueError, match=r"contains missing \(masked\) values in column 1\."):
        use(masked)


def test_a_masked_array_that_masks_nothing_is_its_values():
    assert np.array_equal(fit(np.ma.asarray(ROWS)).weights_, fit(ROWS).weights_)
    X, _ = stack_domains(np.ma.asarray(ROWS), ROWS)
    assert type(X) is np.ndarray


def test_masked_labels_and_weights_are_missing_values_of_their_row():
    hidden = np.arange(40) == 3
    with pytest.raises(ValueError, match=r"Input y contains missing \(masked\) values in row 3\."):
        fit(ROWS, np.ma.array(Y, mask=hidden))
    with pytest.raises(ValueError, match=r"Input sample_weight contains missing \(masked\) values in row 3\."):
        GaussianRatio().fit(ROWS, Y, np.ma.array(np.ones(40), mask=hidden))


COMPLEX = {
    "numpy": ROWS * 1j,
    "torch": torch.tensor(ROWS * 1j),
    "csr": scipy.sparse.csr_array(ROWS * 1j),
    "real parts alone": ROWS + 0j,
}


@pytest.mark.parametrize("kind", COMPLEX)
def test_complex_numbers_are_refused(kind):
    for use in (fit, fit(ROWS).transform, lambda X: stack_domains(X, X)):
        with pytest.raises(ValueError, match=r"Complex data not supported: .*holds complex numbers") as caught:
            use(COMPLEX[kind])
        assert "[" not in str(caught.value)


def test_a_matrix_is_its_values_and_a_structured_array_is_told_what_to_become():
    matrix = np.asmatrix(ROWS)
    assert np.array_equal(fit(matrix).weights_, fit(ROWS).weights_)
    records = np.zeros(40, dtype=[("age", float), ("dose", float)])
    for use in (fit, lambda X: stack_domains(X, X)):
        with pytest.raises(ValueError, match=r"structured array with the fields \['age', 'dose'\]: pass it as pandas"):
            use(records)


def test_tables_that_are_not_rows_in_memory_are_told_how_to_become_so():
    frame = pl.DataFrame(ROWS, schema=["a", "b"])
    for use in (fit, lambda X: stack_domains(frame, X)):
        with pytest.raises(ValueError, match=r"is a LazyFrame, .*X\.collect\(\)"):
            use(frame.lazy())
        with pytest.raises(ValueError, match=r"is a pyarrow Table: pass it as a frame, X\.to_pandas\(\)"):
            use(pyarrow.table({"a": [1.0], "b": [2.0]}))


def test_a_dask_collection_is_not_loaded_but_sent_to_the_room_for_it():
    da = pytest.importorskip("dask.array")

    def fail(block):
        raise AssertionError("a block was loaded")

    lazy = da.from_array(ROWS, chunks=(10, 2)).map_blocks(fail, meta=np.empty((0, 2)))
    fitted = LSIF().fit(ROWS, Y)
    for use in (lambda X: LSIF().fit(X, Y), lambda X: stack_domains(X, X), lambda X: stack_domains(ROWS, X), fitted.transform):
        with pytest.raises(
            ValueError, match=r"(?s)Dask collection.*from densratio\.dask import DaskRatio.*X\.compute\(\)"
        ) as caught:
            use(lazy)
        assert compile("\n".join(line[4:] for line in str(caught.value).splitlines() if line.startswith("    ")), "snippet", "exec")


@pytest.mark.parametrize("rows", [ROWS[:, 0], ROWS[:, 0] > 0, list(ROWS[:, 0])], ids=["float", "bool", "list"])
def test_one_dimension_is_told_by_its_shape_and_not_by_its_values(rows):
    with pytest.raises(ValueError, match=r"Expected 2D array, got 1D array instead: X has shape \(40,\)") as caught:
        fit(rows)
    assert len(str(caught.value)) < 250


def test_text_in_an_array_is_shown_with_its_column():
    for rows in (np.array([["1", "2"], ["3", "a"]]), np.array([[1.0, 2.0], [3.0, "a"]], dtype=object)):
        with pytest.raises(ValueError, match="X holds text, 'a' in column 1, and a density ratio needs numbers"):
            fit(rows, [0, 1])


# ---------------------------------------------------------------- two frames


def test_frames_of_two_libraries_are_refused_with_the_way_to_one():
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    with pytest.raises(ValueError, match=r"source is a polars frame and the target a pandas frame.*to_pandas\(\)"):
        stack_domains(pl.from_pandas(frame), frame)


def test_names_that_one_sample_lacks_are_dropped_with_a_warning():
    frame = pd.DataFrame(ROWS, columns=["a", "b"])
    with pytest.warns(UserWarning, match="columns are matched by position, and the names are dropped"):
        X, _ = stack_domains(frame, ROWS)
    np.testing.assert_array_equal(X, stack_domains(ROWS, ROWS)[0])


def test_two_columns_of_one_name_are_named():
    with pytest.raises(ValueError, match="several columns called 'a'"):
        fit(pd.DataFrame(ROWS, columns=["a", "a"]))


# ---------------------------------------------------------------- columns

DAYS = pd.date_range("2020-01-01", periods=40)
DATES = [day.date() for day in DAYS]
DATED = {
    "days": pd.DataFrame({"k": DAYS}),
    "zones": pd.DataFrame({"k": DAYS.tz_localize("UTC")}),
    "dates": pd.DataFrame({"k": DATES}),
    "periods": pd.DataFrame({"k": DAYS.to_period("D")}),
    "durations": pd.DataFrame({"k": DAYS - DAYS[0]}),
    "polars days": pl.DataFrame({"k": list(DAYS.to_pydatetime())}),
    "polars zones": pl.DataFrame({"k": list(DAYS.tz_localize("UTC").to_pydatetime())}),
    "polars dates": pl.DataFrame({"k": DATES}),
    "polars durations": pl.DataFrame({"k": list((DAYS - DAYS[0]).to_pytimedelta())}),
    "polars times": pl.DataFrame({"k": [datetime.time(hour % 24) for hour in range(40)]}),
}


def snippet(message):
    return "\n".join(line[4:] for line in str(message).splitlines() if line.startswith("    "))


@pytest.mark.parametrize("kind", DATED)
def test_dates_are_named_and_the_code_that_is_shown_turns_them_into_numbers(kind):
    X = DATED[kind]
    with pytest.raises(ValueError, match=r"^Column 'k' holds dates or times, and a density ratio needs numbers") as caught:
        fit(X)
    names = {"X": X}
    exec(snippet(caught.value), names)
    found = np.asarray(names["X"]["k"], dtype=float)
    expected = np.arange(40) % 24 if kind == "polars times" else np.arange(40)
    np.testing.assert_allclose((found - found[0]) / (found[1] - found[0]), expected)
    fit(names["X"])


OTHERS = {
    "intervals": (pd.DataFrame({"k": pd.interval_range(0, 40)}), "values of type Interval"),
    "lists": (pd.DataFrame({"k": [[1, 2]] * 40}), "values of type list"),
    "polars lists": (pl.DataFrame({"k": [[1, 2]] * 40}), "values of type ndarray"),
    "dicts": (pd.DataFrame({"k": [{"a": 1}] * 40}), "values of type dict"),
    "complex": (pd.DataFrame({"k": np.arange(40) * 1j}), "complex numbers"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_columns_of_other_things_are_named_with_what_they_hold(kind):
    X, what = OTHERS[kind]
    with pytest.raises(ValueError, match=f"^Column 'k' holds {what}, and a density ratio needs numbers. ") as caught:
        fit(X)
    assert len(str(caught.value)) < 200


NUMBERS = {
    "nullable integers": pd.array(range(40), dtype="Int64"),
    "booleans": pd.array([i % 2 == 0 for i in range(40)], dtype="boolean"),
    "objects": pd.array([*range(39), 39.0], dtype=object),
    "numbers as categories": pd.Categorical(range(40)),
    "arrow": pd.array(range(40), dtype="int64[pyarrow]"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_any_type_are_numbers(kind):
    column = NUMBERS[kind]
    expected = fit(np.column_stack([np.array(list(column), dtype=float), ROWS]))
    found = fit(pd.DataFrame({"k": column, "a": ROWS[:, 0], "b": ROWS[:, 1]}))
    np.testing.assert_allclose(found.weights_, expected.weights_)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_missing_value_of_a_nullable_column_is_nan_in_that_column(frame):
    with pytest.raises(ValueError, match="Input X contains NaN in column 'k'"):
        fit(frame({"k": [None, *range(39)], "a": ROWS[:, 0]}))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_the_code_that_is_shown_for_text_columns_can_be_pasted_and_meets_new_values(frame):
    columns = {"job": [*("abc" * 13), "a"], "town": ["x", "y"] * 20, "age": ROWS[:, 0]}
    X = frame(columns)
    with pytest.raises(ValueError, match=r"^Columns 'job', 'town' hold text or categories") as caught:
        KMM().fit(X, Y)
    names = {"X": X, "y": Y}
    code = snippet(caught.value)
    exec(code[: code.rindex("make_pipeline(")] + "fitted = " + code[code.rindex("make_pipeline(") :], names)
    new = frame({**columns, "job": ["new"] * 40})
    assert np.all(np.isfinite(names["fitted"].transform(new)))


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("source", "target"), [("train", "test"), ("source", "target"), ("Training", "Testing"), ("train", "target")]
)
@pytest.mark.parametrize("as_objects", [False, True])
def test_words_that_name_the_samples_are_taken_at_their_word(source, target, as_objects):
    y = np.array([source, target], dtype=object if as_objects else None)[Y]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(ROWS, y)
    assert np.array_equal(found.weights_, fit(ROWS).weights_)


def test_other_words_are_a_warning_that_names_the_source():
    with pytest.warns(UserWarning, match="y holds text, which is sorted: 'new' is taken as the source .* 'old' as the target"):
        fit(ROWS, np.array(["new", "old"])[Y])


@pytest.mark.parametrize("labels", [(-1, 1), (1, 2), (-2.0, 1.0)])
def test_numbers_other_than_zero_and_one_are_a_warning_that_names_the_source(labels):
    with pytest.warns(
        UserWarning, match=f"labels other than 0 and 1: {labels[0]} is taken as the source .* {labels[1]} as the target"
    ):
        found = fit(ROWS, np.array(labels)[Y])
    assert np.array_equal(found.weights_, fit(ROWS).weights_)


@pytest.mark.parametrize(
    "y", [Y.astype(object), Y.astype(float), Y.astype(bool), pd.Series(Y, dtype="Int64"), pl.Series(Y), list(Y), torch.tensor(Y)]
)
def test_zero_and_one_of_any_type_need_no_word(y):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(fit(ROWS, y).weights_, fit(ROWS).weights_)


def test_missing_and_mixed_labels_are_named():
    for missing in (None, np.nan, pd.NA):
        with pytest.raises(ValueError, match="Input y contains NaN or infinity: row 5 has no label"):
            fit(ROWS, [missing if row == 5 else label for row, label in enumerate(Y)])
    with pytest.raises(ValueError, match="y mixes text with other values"):
        fit(ROWS, np.array([0, "a"], dtype=object)[Y])


# ---------------------------------------------------------------- weights of any scale

BASE = RNG.uniform(0.5, 1.0, size=40)


def weights_with(name, sample_weight):
    columns = ROWS[:, :1] if name == "wasserstein" else ROWS
    return ESTIMATORS[name](**quick(name)).fit(columns, Y, sample_weight=sample_weight).weights_


@cache
def weights_with_base(name):
    return weights_with(name, BASE)


@cache
def weights_with_none(name):
    return weights_with(name, None)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@settings(max_examples=8)
@given(exponent=st.integers(-1000, 1000))
def test_weights_times_any_power_of_two_give_the_same_ratio(name, exponent):
    assert np.array_equal(weights_with(name, np.ldexp(BASE, exponent)), weights_with_base(name))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("large", [1e16, 1e30, 1e300, 1e308])
def test_a_weight_that_dwarfs_the_others_leaves_weights_of_mean_one(name, large):
    sample_weight = np.where(np.arange(40) == 3, large, 1.0)
    found = weights_with(name, sample_weight)
    assert np.all(np.isfinite(found)) and found.min() >= 0.0
    assert np.average(found, weights=sample_weight[:20] / large) == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e300, 1.7e308])
def test_equal_weights_of_any_size_are_no_weights(name, size):
    # Sizes that are no counts are scaled to the effective number of rows, which is that of the rows here.
    np.testing.assert_allclose(weights_with(name, np.full(40, size)), weights_with_none(name), rtol=1e-6, atol=1e-9)


def test_whole_numbers_are_still_copies():
    counts = RNG.integers(1, 4, 40)
    found = Discriminator().fit(ROWS, Y, sample_weight=counts).weights_
    rows = np.repeat(np.arange(40), counts)
    expected = Discriminator().fit(ROWS[rows], Y[rows]).weights_
    np.testing.assert_allclose(np.repeat(found, counts[:20]), expected, rtol=1e-6)
