"""Numbers that stand for missing values, such as -999: what is one, and who tells it; find_label_issues in test_labels_rows.py."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from densratio import KMM, diagnose, differences, divergence, importance_weights, stack_domains, target_performance
from densratio._sentinels import sentinels_in, warn_of_sentinels
from densratio.cli import app
from densratio.diagnostics import ratio_test, two_sample_test
from densratio.tables.stream import StreamMonitor


def frames(sentinel=-999.0):
    """Two tables whose column b holds the sentinel in five and in four rows."""
    rng = np.random.default_rng(0)
    source, target = (pd.DataFrame(rng.normal(size=(n, 3)), columns=list("abc")) for n in (60, 50))
    source.loc[:4, "b"], target.loc[:3, "b"] = sentinel, sentinel
    return source, target


def told(call, *given, **settings):
    """The warnings of sentinels, and the files that they name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*given, **settings)
    return [(str(one.message), one.filename) for one in caught if "share the number" in str(one.message)]


def performance(X, X_target):
    y = np.arange(len(X)) % 2
    ratio = KMM().fit(*stack_domains(X, X_target))
    target_performance(LogisticRegression().fit(X, y), ratio, X, y, X_target, metric="accuracy", n_bootstrap=0)


def report(X):
    X_source, X_target = X
    diagnose(np.ones(len(X_source)), *stack_domains(X_source, X_target), n_permutations=9)


CALLS = {
    "source and target": [
        lambda *two: importance_weights(*two, method="kmm"),
        lambda *two: differences(*two, n_permutations=9),
        divergence,
    ],
    "X_source and X_target": [ratio_test, two_sample_test],
    "X and X_target": [performance],
    "X": [lambda *two: report(two)],
    "reference and chunk": [lambda reference, chunk: StreamMonitor(reference, n_permutations=99).update(chunk)],
}


@pytest.mark.parametrize(("names", "call"), [(names, call) for names, calls in CALLS.items() for call in calls])
def test_every_call_with_two_samples_tells_it_once_in_its_own_words_where_it_was_called(names, call):
    ((message, file),) = told(call, *frames())
    cure = " and ".join(f"{name}.replace(-999, numpy.nan)" for name in names.split(" and "))
    assert message == (
        f"Rows of {names} share the number -999, far beyond all others, in column 'b'. If it stands for a missing value, make it "
        f"one: {cure}."
    )
    assert file == __file__
    assert told(call, *(frame.drop(columns="b") for frame in frames())) == []


@pytest.mark.parametrize("of", [pd.DataFrame, pl.from_pandas, pa.Table.from_pandas, pd.DataFrame.to_numpy])
def test_the_advice_can_be_typed_and_mends_it(of):
    tables = dict(zip(("source", "target"), map(of, frames()), strict=True))
    ((message, _),) = told(warn_of_sentinels, tables, 1)
    for advice, name in zip(message.split("make it one: ")[1][:-1].split(" and "), tables, strict=True):
        tables[name] = eval(advice, tables | {"numpy": np, "polars": pl})
        assert np.isnan(np.asarray(tables[name], dtype=float)).sum() == (5 if name == "source" else 4)
    assert told(warn_of_sentinels, tables, 1) == []


@pytest.mark.parametrize("kind", ["Int64", "Float32", "int64[pyarrow]"])
def test_integers_that_may_be_missing_are_looked_at(kind):
    values = pd.array([*range(20), pd.NA, 9999, 9999, 9999], dtype=kind)
    assert "number 9999," in told(warn_of_sentinels, {"X": pd.DataFrame({"a": values})}, 1)[0][0]


def test_a_column_that_is_left_out_and_one_whose_name_occurs_twice_are_not_looked_at():
    source, target = frames()
    assert told(importance_weights, source, target, method="kmm", drop="b") == []
    assert told(importance_weights, source.to_numpy(), target.to_numpy(), method="kmm", drop="x1") == []
    assert told(warn_of_sentinels, {"X": pd.concat([source, source], axis=1)}, 1) == []


def test_what_most_rows_of_a_sample_share_is_a_shift_and_no_sentinel():
    source, target = frames(0.0)
    target["b"] = 50.0
    assert told(warn_of_sentinels, {"source": source, "target": target}, 1) == []
    X, y = stack_domains(source, target)
    assert told(warn_of_sentinels, {"X": X}, 1, is_source=y == 0) == []
    assert len(told(warn_of_sentinels, {"X": X}, 1)) == 1


def test_the_command_line_says_it_without_code(tmp_path):
    files = [tmp_path / name for name in ("source.csv", "target.csv")]
    for frame, file in zip(frames(), files, strict=True):
        frame.to_csv(file, index=False)
    done = CliRunner().invoke(app, ["weights", *map(str, files), "--method", "kmm", "--out", str(tmp_path / "weights.csv")])
    said = " ".join((done.stdout + done.stderr).split())
    assert done.exit_code == 0 and "If it stands for a missing value, leave these cells empty." in said and "numpy" not in said


# ---------------------------------------------------------------- what is one


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.integers(-50, 50), min_size=6, max_size=30, unique=True),
    n=st.integers(1, 5), far=st.integers(1, 2000), is_low=st.booleans(),
)  # fmt: skip
def test_sentinels_are_shared_by_several_rows_and_far_from_all_others(values, n, far, is_low):
    least, most = min(values), max(values)
    sentinel = least - far if is_low else most + far
    expected = [sentinel] if n >= 3 and far > 5 * (most - least) else []
    assert list(sentinels_in(np.array([*values, *[sentinel] * n], dtype=float))) == expected


def test_indicators_constants_and_gaps_hold_no_sentinel():
    for values in ([0.0] * 5 + [1.0] * 40, [7.0] * 9, [], [0.0] * 30 + [100.0, 101.0]):
        assert list(sentinels_in(np.array(values))) == []
    doses, ports = np.arange(90) % 3, np.array([80, 443, 8080])
    for values in (10.0**doses, 32 * 8**doses, ports[doses]):
        assert list(sentinels_in(values)) == []
    assert list(sentinels_in(np.where(doses == 2, -999, doses))) == [-999.0]


@pytest.mark.parametrize("load", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_measured_tables_hold_no_sentinel(load):
    X = getattr(sklearn.datasets, f"load_{load}")().data
    assert [list(sentinels_in(column)) for column in X.T] == [[]] * X.shape[1]
    # Nor do two samples, whatever column divides them.
    for above in (np.median(X, axis=0) < X).T:
        assert [list(sentinels_in(column[above], column[~above])) for column in X.T] == [[]] * X.shape[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_the_smallest_integer_of_a_kind_is_found_without_an_overflow(kind):
    least = np.iinfo(kind).min
    values = np.concatenate([np.arange(20, dtype=kind), np.full(4, least, dtype=kind)])
    assert list(sentinels_in(values)) == [float(least)]
