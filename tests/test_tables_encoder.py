"""What the encoder does to each kind of column and says about it, and what it refuses."""

from __future__ import annotations

import datetime
import decimal
import re
import warnings

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import scipy.sparse
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from densratio import importance_weights
from densratio._scale import Scale
from densratio.tables import StreamMonitor, TableEncoder, differences

DAY = datetime.timedelta(days=1)
START = datetime.datetime(2020, 1, 1)


def column(values):
    return pd.DataFrame({"c": values})


def encoded(source, target=None):
    """The use of the column of two samples, and the numbers of the source."""
    source, target = (column(values) for values in (source, source if target is None else target))
    # One more column, so that the other may be dropped.
    more = [frame.assign(n=np.sqrt(np.arange(len(frame)))) for frame in (source, target)]
    encoder = TableEncoder().fit_samples(*more)
    return encoder.columns_[0], encoder.transform(more[0])[:, :-1]


# ---------------------------------------------------------------- kinds of columns


def test_a_gap_in_numbers_is_the_median_and_is_marked():
    use, numbers = encoded([1.0, np.nan, 5.0], [2.0, 9.0, np.nan])
    assert numbers.tolist() == [[1.0, 0.0], [3.5, 1.0], [5.0, 0.0]]
    assert use.encoded_names == ["c", "c (missing)"] and use.treatment == "numbers, a 0/1 column for gaps"


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=16).filter(lambda v: len(set(v) - {None}) > 1))
def test_each_row_of_a_column_of_few_levels_has_a_one_in_the_column_of_its_level(values):
    values = 3 * values
    use, numbers = encoded(values)
    names = np.array(use.encoded_names)
    assert (numbers.sum(axis=1) == 1.0).all()
    assert [str(names[row == 1.0][0]) for row in numbers] == [f"c={'(missing)' if v is None else v}" for v in values]


@given(st.lists(st.one_of(st.none(), st.integers(-9, 9)), min_size=3, max_size=20).filter(lambda v: len(set(v) - {None}) > 1))
def test_numbers_are_the_same_in_whatever_type_they_come(values):
    floats = pd.Series(values, dtype=float)
    same = [
        floats,
        floats.astype("Int64"),
        pd.Series(values, dtype=object),
        pd.Series([None if v is None else decimal.Decimal(v) for v in values], dtype=object),
        floats.astype(pd.ArrowDtype(pyarrow.float64())),
    ]
    first = encoded(same[0])
    assert [np.array_equal(encoded(other)[1], first[1]) and encoded(other)[0] == first[0] for other in same[1:]] == [True] * 4


def test_booleans_are_two_levels_and_gaps_a_third():
    use, numbers = encoded([True, False, None, True])
    assert use.encoded_names == ["c=False", "c=True", "c=(missing)"]
    assert numbers.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_frequent_levels_get_columns_of_their_own_and_the_others_one_together():
    values = ["often"] * 500 + ["seldom"] * 100 + [f"once {k}" for k in range(400)]
    use, numbers = encoded(values)
    assert (use.levels, use.n_rest) == (("often", "seldom"), 400)
    assert numbers.sum(axis=0).tolist() == [500, 100, 400]
    assert use.treatment == "one-hot: 'often', 'seldom', 400 rarer levels together"


def test_the_most_frequent_levels_of_either_sample_are_kept():
    levels = [f"{k:02d}" for k in range(40)]
    source, target = (np.repeat(levels, counts).tolist() for counts in ([50] + [10] * 39, [10] * 39 + [50]))
    use, _ = encoded(source, target)
    assert len(use.levels) == 30 and {"00", "39"} <= set(use.levels) and use.n_rest == 10


@pytest.mark.parametrize(("n_levels", "n_rows", "kept"), [(60, 50, 60), (60, 20, 60), (60, 19, 30), (130, 25, 100), (31, 10, 31)])
def test_levels_beyond_30_need_20_rows_and_levels_beyond_100_share_a_column(n_levels, n_rows, kept):
    values = [f"{k:03d}x" for k in range(n_levels) for _ in range(n_rows)]
    use, _ = encoded(values)
    assert (len(use.levels), use.n_rest) == (kept, n_levels - kept)
    use = TableEncoder(max_levels=40).fit_samples(*[column(values)] * 2).columns_[0]
    assert len(use.levels) == min(40 if n_levels > 41 else n_levels, n_levels)


@pytest.mark.parametrize(
    ("values", "number", "words"),
    [
        ([START, START + DAY / 2], 18262.5, "days since 1970"),
        ([START.replace(tzinfo=datetime.UTC), START.replace(tzinfo=datetime.UTC) + DAY], 18263.0, "days since 1970"),
        ([DAY, 3 * DAY], 3.0, "days"),
        ([datetime.time(0), datetime.time(18)], 0.75, "share of the day"),
    ],
)
def test_times_are_days(values, number, words):
    for stored in (values, pd.Series(values, dtype=object)):
        use, numbers = encoded(stored)
        assert numbers[1, 0] == number and use.treatment == words


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([5.0, 5.0, 5.0], "the same value in all rows, 5"),
        ([0.3, 0.1 + 0.2, 0.3], "the same value in all rows, 0.3"),
        (["x", "x", "x"], "the same value in all rows, 'x'"),
        ([START] * 3, "the same value in all rows, 2020-01-01"),
        ([None, None, None], "no value in any row"),
        ([np.nan, np.nan, np.nan], "no value in any row"),
        ([pd.NaT, pd.NaT, pd.NaT], "no value in any row"),
        (["a", "b", "c"], "3 different texts, of which none is frequent: they name rows and do not describe them"),
    ],
)
def test_a_column_that_says_nothing_is_dropped_and_the_reason_told(values, reason):
    use, numbers = encoded(values)
    assert (use.kind, use.reason, numbers.shape) == ("dropped", reason, (3, 0))
    assert str(use) == f"c: dropped: {reason}"


def test_of_equal_numbers_with_gaps_the_gaps_are_kept():
    use, numbers = encoded([5.0, np.nan, 5.0])
    assert numbers.tolist() == [[0.0], [1.0], [0.0]] and "missing or not" in use.treatment


def test_two_levels_are_as_far_apart_as_two_rows_of_a_column_of_numbers():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(5.0, 300.0, 4000), "k": rng.choice(list("abc"), 4000, p=[0.7, 0.2, 0.1])})
    encoder = TableEncoder().fit_samples(frame, frame)
    X = encoder.transform(frame)
    scaled, other = Scale.of((X, None))(X), rng.permutation(4000)
    apart = (scaled - scaled[other]) ** 2
    differ = (frame["k"] != frame["k"].to_numpy()[other]).to_numpy()
    assert apart[differ, 1:].sum(axis=1).mean() == pytest.approx(apart[:, 0].mean(), rel=0.2)


# ---------------------------------------------------------------- no overlap


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (["a", "b"] * 10, ["a", "b", "c", "c"] * 5, "50 % of the target rows have a level that no source row has: 'c'"),
        (["a", "b", "d", "a"] * 5, ["a", "b"] * 10, "25 % of the source rows have a level that no target row has: 'd'"),
        ([1.0, 2.0, np.nan, 4.0], [1.0, 2.0, 3.0, 4.0], "25 % of the source rows have no value, and every target row has one"),
        ([np.nan] * 3, [1.0, 2.0, 3.0], "100 % of the source rows have no value"),
        ([1.0, 2.0], [3.0, 4.0], "the source ends at 2 and the target begins at 3"),
        (
            [START, START + DAY],
            [START + 2 * DAY, START + 3 * DAY],
            "the source ends at 2020-01-02 and the target begins at 2020-01-03",
        ),
        ([START + DAY] * 2, [START] * 2, "the target ends at 2020-01-01 and the source begins at 2020-01-02"),
    ],
)
def test_what_one_sample_alone_has_is_kept_and_told(source, target, words):
    use, numbers = encoded(source, target)
    assert any(words in note for note in use.no_overlap) and words in str(use) and numbers.shape[1] > 0


def test_a_date_that_only_moves_is_told_in_the_result_too():
    frames = [column([start + k * DAY for k in range(30)]).assign(x=range(30)) for start in (START, START + 30 * DAY)]
    result = importance_weights(*frames)
    assert "! No overlap: the source ends at 2020-01-30 and the target begins at 2020-01-31" in repr(result)
    assert any("No overlap" in warning and "'c'" in warning for warning in result.diagnosis.warnings)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (np.arange(1000.0), np.arange(300.0) + 0.5, "70.1 % of the source rows are outside the target's range, 0.5 to 299.5"),
        (np.arange(300.0) + 0.5, np.arange(1000.0), "70.1 % of the target rows are outside the source's range, 0.5 to 299.5"),
        ([START + k * DAY for k in range(10)], [START, START + 2 * DAY], "70 % of the source rows are outside the target's range"),
    ],
)
def test_numbers_most_of_which_the_other_sample_does_not_reach_are_told(source, target, words):
    use, _ = encoded(source, target)
    assert len(use.no_overlap) == 1 and use.no_overlap[0].startswith(words)


@given(st.integers(0, 60), st.integers(0, 99))
def test_numbers_outside_are_told_where_they_are_most_and_not_all(n_outside, seed):
    values = np.r_[np.random.default_rng(seed).random(60 - n_outside), np.full(n_outside, 2.0)]
    notes = encoded(values, [0.0, 1.0])[0].no_overlap
    assert len(notes) == (n_outside > 30) and ("begins at" in "".join(notes)) == (n_outside == 60)


# ---------------------------------------------------------------- row numbers


def numbered(values):
    values = np.random.default_rng(0).permutation(np.asarray(values))
    return pd.DataFrame({"id": values, "x": np.random.default_rng(1).normal(size=len(values))})


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (range(1000), range(300)),
        (range(700), range(700, 1000)),
        (np.random.default_rng(0).permutation(1000)[:700], np.random.default_rng(0).permutation(1000)[700:]),
        (np.delete(np.arange(10**9, 10**9 + 1000), range(0, 1000, 30)), range(10**9, 10**9 + 50)),
        (np.arange(60.0), np.arange(60.0)),
        (range(700), range(5000, 5030)),
        (range(0, 3000, 10), range(0, 900, 10)),
        (range(0, 3000, 10), range(3005, 3600, 10)),
    ],
)
def test_whole_numbers_that_count_on_are_row_numbers_and_are_left_out(source, target):
    source, target = numbered(source), numbered(target)
    for pooled in (False, True):
        with pytest.warns(UserWarning, match=r"Column 'id' counts up without repeating, .*TableEncoder\(keep=\['id'\]\)"):
            use = TableEncoder().fit_samples(source, target, pooled=pooled).columns_[0]
        assert str(use) == "id: dropped: whole numbers in equal steps: they name rows and do not describe them"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TableEncoder(keep="id").fit_samples(source, target).columns_[0].kind == "numbers"


@pytest.mark.parametrize(
    "values",
    [
        np.repeat(np.arange(300) * 10, 3),
        np.arange(1000) * 3 + np.arange(1000) % 2,
        np.r_[np.arange(500), 10_000 + 7 * np.arange(500)],
        np.arange(1000) + 0.5,
        np.arange(1000) // 3,
        np.random.default_rng(0).integers(0, 1200, 1000),
        np.random.default_rng(0).integers(17, 90, 1000),
        1_700_000_000 + np.cumsum(np.random.default_rng(0).integers(1, 90, 1000)),
        np.where(np.arange(1000) == 5, np.nan, np.arange(1000)),
        np.arange(1990, 2030),
    ],
)
def test_measures_are_no_row_numbers(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use = TableEncoder().fit_samples(numbered(values), numbered(values[: len(values) // 2])).columns_[0]
    assert use.kind == "numbers"


def test_row_numbers_do_not_decide_the_weights():
    source, target = numbered(range(1000)), numbered(range(300))
    with pytest.warns(UserWarning, match="counts up"):
        weights = importance_weights(source, target, method="gaussian").weights
    assert np.array_equal(weights, importance_weights(source[["x"]], target[["x"]], method="gaussian").weights)


# ---------------------------------------------------------------- bad input


GOOD = pd.DataFrame({"a": [1.0, 2.0, 3.0], "k": ["x", "y", "x"]})
ZONED = pd.date_range("2020", periods=3, tz="UTC")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (GOOD.set_axis(["a", "l"], axis=1), "has ['k'] and only the target has ['l']. Leave these out with drop=['k', 'l']"),
        (GOOD.assign(label=1), "only the target has ['label']. Leave these out with drop=['label']"),
        (GOOD.assign(a=["1", "n/a", "3"]), "'a' holds numbers in the source and text or categories in the target, such as 'n/a'."),
        (GOOD.assign(a=ZONED), "'a' holds numbers in the source and dates with a time zone in the target. Store the same kind"),
        (GOOD.assign(a=[1.0, np.inf, 2.0]), "'a' of the target is infinite in row 1: put a number there"),
        (GOOD.assign(a=[[1], [2], [3]]), "'a' of the target holds values of type list"),
        (GOOD.assign(a=[1j, 2, 3]), "'a' of the target holds complex numbers: turn it into numbers"),
        (GOOD.assign(a=[START, START.replace(tzinfo=datetime.UTC), None]).astype({"a": object}), "with and without a time zone"),
        (GOOD.set_axis(["a", "a"], axis=1), "Several columns are called 'a'"),
        (GOOD.head(0), "target is empty"),
        (GOOD.to_numpy(), "target = pandas.DataFrame(target, columns=source.columns)"),
        (polars.from_pandas(GOOD).lazy(), "X.collect()"),
        (GOOD["a"], "target is a pandas Series, one column: pass a frame of it, with to_frame()"),
        (scipy.sparse.eye_array(3), "target is a sparse matrix: pass target.toarray()"),
        ([1.0, 2.0], "target must be a table of rows and columns (n, d): a pandas or polars frame"),
        ({"a": [1.0]}, "target is a dict: pass a frame of it, with pandas.DataFrame(...)"),
        ([{"a": 1.0}, {"a": 2.0}], "target is a list of dicts: pass a frame of it, with pandas.DataFrame(...)"),
        (GOOD.assign(a=[START, "x", 1.0]), "values of types datetime and float and str"),
    ],
)  # fmt: skip
def test_a_faulty_table_is_refused_with_the_column_and_what_to_type(target, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        importance_weights(GOOD, target)


def test_a_column_that_a_sample_lacks_can_be_left_out():
    result = importance_weights(GOOD.assign(label=[0, 1, 0]), GOOD, drop="label")
    assert str(result.columns[-1]) == "label: dropped: as asked"
    assert np.array_equal(result.ratio.transform(GOOD), result.weights)


def test_samples_in_which_no_column_differs_between_rows_are_refused():
    with pytest.raises(ValueError, match=re.escape("No column is left to tell rows apart by. k: dropped: the same value")):
        importance_weights(GOOD[["k"]].assign(k="x"), GOOD[["k"]].assign(k="x"))
    with pytest.raises(ValueError, match="drop leaves out all of them"):
        importance_weights(GOOD, GOOD, drop=["a", "k"])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (GOOD[["a"]], "X has no column 'k', which the encoder was fitted on"),
        (GOOD.assign(a="text", b=True), "Column 'a' holds text or categories, and the encoder was fitted on numbers"),
        (GOOD.assign(b=2), "Column 'b' holds numbers, and the encoder was fitted on true and false"),
        (np.ones((2, 2)), "The encoder was fitted on a table with column names, and X is an array: pass X as then."),
    ],
)
def test_the_fitted_pipeline_refuses_other_tables(table, words):
    known = GOOD.assign(b=[True, False, True])
    ratio = importance_weights(known, known).ratio
    assert np.array_equal(ratio.transform(GOOD.assign(b=[1, 0, 1])), ratio.transform(known))
    with pytest.raises(ValueError, match=re.escape(words)):
        ratio.transform(table)


def test_arrays_of_another_width_are_refused():
    X = np.arange(6.0).reshape(3, 2)
    with pytest.raises(ValueError, match="X has 3 columns, but TableEncoder is expecting 2"):
        TableEncoder().fit(X).transform(np.ones((2, 3)))
    with pytest.raises(NotFittedError, match="fit_samples"):
        TableEncoder().transform(X)


def test_names_of_columns_may_be_numbers_or_tuples():
    X = np.random.default_rng(0).normal(size=(20, 2))
    for names in ([0, 1], [("a", "b"), ("a", "c")]):
        frame = pd.DataFrame(X, columns=pd.Index(names))
        result = importance_weights(frame, frame, drop=[names[0]])
        assert result.ratio.feature_names_in_.tolist() == [names[1]]
    with pytest.raises(ValueError, match="Did you mean 1"):
        importance_weights(pd.DataFrame(X), pd.DataFrame(X), drop="1")


def test_a_masked_entry_is_a_gap():
    X = np.ma.masked_equal([[1.0, 2.0], [-9.0, 3.0], [4.0, 5.0]], -9.0)
    assert TableEncoder().fit(X).columns_[0].has_gaps


# ---------------------------------------------------------------- set_output


def mixed(n, seed):
    rng = np.random.default_rng(seed)
    gaps = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    return pd.DataFrame({"k": rng.choice(["a", "b"], n), "x": rng.normal(size=n), "g": gaps}, index=7 + 3 * np.arange(n))


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize(
    "made",
    [lambda X: X, polars.from_pandas, lambda X: pyarrow.Table.from_pandas(X, preserve_index=False)],
    ids=["pandas", "polars", "arrow"],
)
def test_numbers_come_in_the_container_that_is_asked_for(container, made):
    source, target = mixed(40, 0), mixed(50, 1)
    plain = TableEncoder().fit_samples(made(source), made(target))
    found = clone(TableEncoder().set_output(transform=container)).fit_samples(made(source), made(target)).transform(made(source))
    assert type(found).__module__.split(".")[0] == container
    assert list(found.columns) == plain.get_feature_names_out().tolist() == ["k=a", "k=b", "x", "g", "g (missing)"]
    np.testing.assert_array_equal(found.to_numpy(), plain.transform(made(source)))
    if container == "pandas" and made(source) is source:
        assert found.index.equals(source.index)
    back = plain.set_output(transform="default").transform(made(source))
    assert isinstance(back, np.ndarray)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_what_encodes_tables_takes_no_harm_from_a_container(container):
    source, target = mixed(60, 0), mixed(60, 1)
    plain = importance_weights(source, target, method="kmm")
    with sklearn.config_context(transform_output=container):
        found = importance_weights(source, target, method="kmm")
        np.testing.assert_allclose(found.weights, plain.weights)
        np.testing.assert_allclose(found.ratio.transform(target), plain.ratio.transform(target))
        assert differences(source, target, n_permutations=19).columns
        assert StreamMonitor(source, level=0.1, n_permutations=19).update(target).p_value > 0.0
    given = importance_weights(source, target, method="kmm", encoder=TableEncoder().set_output(transform=container))
    np.testing.assert_allclose(given.weights, plain.weights)


def test_two_columns_that_would_have_one_name_get_two():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"k": rng.choice(["a", "b"], 30), **dict.fromkeys(("k=a", 1, "1"), 0.0)})
    table[["k=a", 1, "1"]] = rng.normal(size=(30, 3))
    encoder = TableEncoder().set_output(transform="polars").fit_samples(table, table)
    assert encoder.transform(table).columns == ["k=a", "k=b", "k=a_", "1", "1_"]


@pytest.mark.parametrize("y", [["a", "b", "c"] * 10, np.arange(30.0), np.zeros(30), np.eye(30), [None, 1, "a"] * 10])
def test_a_target_that_is_no_domain_leaves_all_rows_in_one_sample(y):
    """A Pipeline hands on the y that it learns to predict; a level in 2 of 30 rows is frequent, and in 1 of 10 it is not."""
    frame = pd.DataFrame({"k": ["p", "q", "r", "r", "s"] * 2 + ["t"] * 20, "x": np.sqrt(np.arange(30))})
    assert TableEncoder().fit(frame, y).columns_ == TableEncoder().fit(frame).columns_
    with pytest.raises(ValueError, match="X has 30 rows, and y has shape "):
        TableEncoder().fit(frame, y[:7])


def test_two_classes_to_predict_are_fitted_without_a_word_on_samples():
    frame = pd.DataFrame({"k": ["p", "q", "q", "r"] * 9, "x": np.sqrt(np.arange(36))})
    y = np.array(["yes", "no", "no"] * 12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = TableEncoder().fit(frame, y)
    swapped = TableEncoder().fit(frame, np.where(y == "yes", "no", "yes"))
    assert np.array_equal(fitted.transform(frame), swapped.transform(frame))


def test_an_encoder_in_a_pipeline_serves_classes_and_numbers():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"k": rng.choice(["a", "b", None], 90), "x": rng.normal(size=90)})
    classes, numbers = frame["k"].fillna("c"), 3.0 * frame["x"] + (frame["k"] == "a")
    assert make_pipeline(TableEncoder(), LogisticRegression()).fit(frame, classes).score(frame, classes) == 1.0
    assert make_pipeline(TableEncoder(), LinearRegression()).fit(frame, numbers).score(frame, numbers) > 0.9999
