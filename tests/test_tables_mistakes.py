"""What is said where a result, a dict, a column or a spelling stands in the place of something else."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.pipeline
from cli_cases import call, samples
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from densratio import (
    KMM,
    ImportanceWeighted,
    diagnose,
    differences,
    divergence,
    find_label_issues,
    importance_weights,
    stack_domains,
    tame_weights,
    target_performance,
)
from densratio.cli import app
from densratio.tables import TableEncoder

SOURCE, TARGET = samples()
LABELS = (SOURCE["age"] > 40.0).astype(int)
MANY = np.arange(500)


@pytest.fixture(scope="module")
def result():
    return importance_weights(SOURCE, TARGET, method="gaussian")


def test_a_result_of_importance_weights_is_no_ratio_and_its_ratio_is_named(result):
    model = LogisticRegression().fit(SOURCE, LABELS)
    calls = [
        lambda ratio: ImportanceWeighted(model, ratio).fit(SOURCE, LABELS),
        lambda ratio: target_performance(model, ratio, SOURCE, LABELS, TARGET, metric="accuracy", n_bootstrap=0),
        lambda ratio: diagnose(ratio, *stack_domains(SOURCE, TARGET), n_permutations=9),
    ]
    for one in calls:
        with pytest.raises(ValueError, match=r"ratio is what importance_weights returned.*result\.ratio\.$"):
            one(result)
        one(result.ratio)


WITH_JOB = SOURCE.assign(job=np.where(SOURCE["income"] > 0.0, "clerk", "guard"), is_new=SOURCE["age"] > 50.0)
DATED = WITH_JOB.assign(day=pd.date_range("2024-01-01", periods=len(SOURCE)))


@pytest.mark.parametrize(
    ("call", "columns"),
    [
        (
            lambda encoder: importance_weights(WITH_JOB, WITH_JOB[::2], encoder=encoder, method="kmm"),
            "'job' text or categories",
        ),
        (lambda encoder: find_label_issues(WITH_JOB, LABELS, encoder=encoder, n_repeats=1), "'job' text or categories"),
        (
            lambda encoder: importance_weights(DATED, DATED[::2], encoder=encoder, method="kmm"),
            "'job' text or categories, 'day' dates without a time zone",
        ),
    ],
)
def test_an_encoder_of_numbers_is_told_the_columns_that_are_none_and_what_to_type(call, columns):
    with pytest.raises(ValueError, match=rf"hold something else: {columns}\. Put a TableEncoder") as raised:
        call(StandardScaler())
    advice = re.search(r"encoder=(sklearn.*\)), or leave", str(raised.value))[1]
    call(eval(advice, {"sklearn": sklearn, "TableEncoder": TableEncoder, "StandardScaler": StandardScaler}))


@pytest.mark.parametrize("table", [SOURCE[[]], SOURCE.to_numpy()[:, :0]])
@pytest.mark.parametrize("compare", [importance_weights, differences])
def test_a_table_without_columns_is_told(table, compare):
    with pytest.raises(ValueError, match=r"^source has no columns: it needs at least one that tells rows apart\.$"):
        compare(table, TARGET)


def test_warnings_of_columns_name_the_line_of_the_caller():
    numbered = SOURCE.assign(row=np.arange(60), age=SOURCE["age"].round().astype(int).astype(str))
    fit = [
        lambda: importance_weights(numbered, numbered, method="kmm"),
        lambda: differences(numbered, numbered[:50], n_permutations=9),
        lambda: TableEncoder().fit_samples(numbered, numbered),
        lambda: sklearn.pipeline.make_pipeline(TableEncoder()).fit(numbered),
    ]
    for one in fit:
        with pytest.warns(UserWarning, match="counts up|All of it reads as numbers") as told:
            one()
        assert [warning.filename for warning in told] == [__file__] * 2


def test_another_error_of_a_given_encoder_is_its_own():
    with pytest.raises(ValueError, match=r"^n_components=9 must be between"):
        importance_weights(SOURCE, TARGET, encoder=PCA(9))


@pytest.mark.parametrize(
    "call",
    [
        lambda: importance_weights(SOURCE, TARGET, method=MANY),
        lambda: importance_weights(SOURCE, TARGET, encoder=MANY),
        lambda: importance_weights(SOURCE, TARGET, flatten=MANY),
        lambda: importance_weights(SOURCE, TARGET, random_state=MANY),
        lambda: divergence(SOURCE, TARGET, ratio=MANY),
        lambda: tame_weights(np.ones(9), amount=MANY, method="flatten"),
        lambda: differences(SOURCE, TARGET, n_permutations=MANY),
    ],
)
def test_a_long_value_is_named_by_its_type_and_shape(call):
    with pytest.raises(ValueError, match=r"got ndarray of shape \(500,\)\.$"):
        call()


@pytest.mark.parametrize(
    "fit", [lambda X: importance_weights(X, TARGET), lambda X: divergence(X, TARGET), lambda X: KMM().fit(X, [0, 1])]
)
@pytest.mark.parametrize(
    ("X", "words"),
    [
        ({"age": [1.0, 2.0]}, "is a dict: pass a frame of it, with pandas.DataFrame(...)."),
        ([{"age": 1.0}, {"age": 2.0}], "is a list of dicts: pass a frame of it, with pandas.DataFrame(...)."),
        (pd.Series([1.0, 2.0]), "is a pandas Series, one column: pass a frame of it, with to_frame()."),
    ],
)
def test_what_becomes_a_frame_is_told_how(fit, X, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        fit(X)


@pytest.mark.parametrize("seed", [-1, "a", 1.5])
def test_a_seed_that_is_none_is_refused_in_plain_words(seed):
    for compare in (importance_weights, divergence, differences):
        with pytest.raises(ValueError, match=f"random_state must be an int >= 0, a RandomState, a Generator or None; got {seed!r}"):
            compare(SOURCE, TARGET, random_state=seed)


def test_to_drop_none_is_to_drop_nothing():
    assert TableEncoder(drop=None, keep=None).fit(SOURCE).columns_ == TableEncoder().fit(SOURCE).columns_


@pytest.mark.parametrize("table", ["rows.csv", None, 3.0])
def test_what_is_no_table_is_named(table):
    for compare in (importance_weights, divergence, stack_domains):
        with pytest.raises(ValueError, match=f"must be a table of rows and columns.*[gG]ot {table!r}"):
            compare(SOURCE, table)


def test_large_whole_numbers_are_not_called_equal():
    frames = [frame.assign(n=np.arange(len(frame)) + 2**62) for frame in (SOURCE, TARGET)]
    use = TableEncoder().fit_samples(*frames).columns_[-1]
    assert use.reason == "one number in floating point, 4.61169e+18: subtract the smallest value"


def test_warnings_of_two_tables_speak_of_tables():
    rng = np.random.default_rng(0)
    source, target = (pd.DataFrame({"x": rng.normal(shift, 1.0, 300)}) for shift in (0.0, 1.0))
    inverted = importance_weights(source, target, method=Inverted())
    assert any("Check that the first table is the source, the second the target" in text for text in inverted.diagnosis.warnings)
    assert "of y" not in " ".join(inverted.diagnosis.warnings)


class Inverted(KMM):
    """Weights of the wrong direction."""

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, 1 - np.asarray(y))
        rows = np.asarray(X)[np.asarray(y) == 0]
        self.weights_ = np.exp(-rows[:, 0]) / np.mean(np.exp(-rows[:, 0]))
        return self


@pytest.mark.parametrize(
    ("levels", "is_told"), [(["Yes", "yes", "no"], True), (["yes", "yes ", "no"], True), (["yes", "no", "n"], False)]
)
def test_levels_that_differ_in_case_or_spaces_alone_are_told(levels, is_told):
    frame = pd.DataFrame({"k": levels * 20})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TableEncoder().fit_samples(frame, frame)
    said = [str(warning.message) for warning in caught]
    assert len(said) == is_told and all("differ only in case or spaces" in text for text in said)


def test_tamed_weights_keep_the_index_of_a_series(result):
    given = result.weights.set_axis(np.arange(100, 160))
    tamed = tame_weights(given, "truncate", amount=1.5).weights
    assert tamed.index.equals(given.index) and tamed.name == "weight"
    assert np.array_equal(tamed, tame_weights(given.to_numpy(), "truncate", amount=1.5).weights)


def test_tables_that_do_not_differ_have_no_negative_differences():
    found = differences(SOURCE, SOURCE, n_permutations=9)
    assert found.auc == 0.5 and [column.lost for column in found.columns] == [0.0] * 3 and "in 50 % of the pairs" in repr(found)


def test_a_column_without_a_value_is_left_out_where_gaps_are_marked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, frame in (("source", SOURCE), ("target", TARGET)):
        frame.assign(none=np.nan).to_csv(f"{name}.csv", index=False)
    done = call("source.csv", "target.csv", "--missing", "indicate", "--method", "gaussian")
    assert done.exit_code == 0 and "column 'none'          dropped: no value in any row\n" in done.stdout
    plain = importance_weights(SOURCE, TARGET, method="gaussian").weights
    np.testing.assert_allclose(np.loadtxt("weights.csv", skiprows=1), plain, rtol=1e-6)


def test_an_unknown_method_of_training_is_said_before_a_file_is_read():
    done = CliRunner().invoke(app, ["train", "none.csv", "--test", "none.csv", "--label", "y", "--method", "foo"])
    assert done.exit_code == 2 and "There is no method 'foo'" in done.stderr and "Training" not in done.stderr
    assert not Path("none.csv").exists()
