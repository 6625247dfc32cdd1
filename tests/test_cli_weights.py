"""densratio weights: the weights are the library's, and a mistake ends in one plain line with nothing written."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from densratio import stack_domains
from densratio.cli import app
from densratio.cli.files import write_all
from densratio.cli.tables import open_table
from densratio.estimators import ESTIMATORS

ROOT = Path(__file__).parents[1]
TAKES_GAMMA = sorted(name for name, kind in ESTIMATORS.items() if "gamma" in kind().get_params())


def samples(n_source=60, n_target=40, seed=0):
    """Two frames of columns with different units; the second is shifted."""
    rng = np.random.default_rng(seed)
    frames = []
    for n, shift in ((n_source, 0.0), (n_target, 0.8)):
        a, b = rng.normal(shift, 1.0, n), rng.normal(0.0, 1.0, n)
        frames.append(pd.DataFrame({"age": 40.0 + 10.0 * a, "income": 1e4 * b, "score": rng.normal(size=n)}))
    return frames


def expected(source, target, method="kmm", *, scales=True, **parameters):
    X, y = stack_domains(source.to_numpy(dtype=float), target.to_numpy(dtype=float))
    ratio = ESTIMATORS[method]().set_params(**parameters)
    return ratio.fit(StandardScaler().fit_transform(X) if scales else X, y).weights_


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with source.csv and target.csv of `samples`."""
    monkeypatch.chdir(tmp_path)
    for frame, name in zip(samples(), ("source", "target"), strict=True):
        frame.to_csv(f"{name}.csv", index=False)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def weights(*arguments, out="weights.csv"):
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    return pd.read_csv(out)["weight"].to_numpy()


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def error_of(folder, *arguments):
    """The error line of a call, which must be one, and must leave the folder as it was."""
    before = contents(folder)
    result = call(*arguments)
    assert (result.exit_code, result.stdout, contents(folder)) == (2, "", before)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")


# ---------------------------------------------------------------- the weights


@pytest.mark.parametrize("method", sorted(ESTIMATORS))
def test_the_weights_are_the_librarys_on_scaled_columns(folder, method):
    columns = ["age"] if method == "wasserstein" else ["age", "income", "score"]
    found = weights("source.csv", "target.csv", "--method", method, "--seed", 3, "--columns", ",".join(columns))
    seeded = {"random_state": 3} if "random_state" in ESTIMATORS[method]().get_params() else {}
    plain = expected(*(frame[columns] for frame in samples()), method, **seeded)
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)
    assert abs(found.mean() - 1.0) < 1e-9


def test_no_scale_takes_the_numbers_as_they_are(folder):
    found = weights("source.csv", "target.csv", "--no-scale", "--seed", 3)
    np.testing.assert_allclose(found, expected(*samples(), scales=False, random_state=3), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.25, "median", "cv"])
def test_a_bandwidth_reaches_the_estimator(folder, gamma):
    found = weights("source.csv", "target.csv", "--gamma", gamma)
    np.testing.assert_allclose(found, expected(*samples(), gamma=gamma, random_state=0), rtol=1e-9, atol=1e-12)


def test_permuted_rows_of_the_source_have_permuted_weights(folder):
    order = np.random.default_rng(5).permutation(60)
    straight = weights("source.csv", "target.csv")
    pd.read_csv("source.csv").iloc[order].to_csv("permuted.csv", index=False)
    np.testing.assert_allclose(weights("permuted.csv", "target.csv"), straight[order], rtol=1e-4, atol=1e-5)


def test_the_order_of_the_targets_columns_does_not_matter(folder):
    straight = weights("source.csv", "target.csv")
    pd.read_csv("target.csv")[["score", "age", "income"]].to_csv("turned.csv", index=False)
    np.testing.assert_array_equal(weights("source.csv", "turned.csv"), straight)


def test_every_kind_of_file_gives_the_same_weights(folder):
    straight = weights("source.csv", "target.csv")
    source, target = pd.read_csv("source.csv"), pd.read_csv("target.csv")
    source.to_parquet("source.parquet")
    target.to_parquet("target.PARQUET")
    source.to_csv("source.csv.gz", index=False)
    target.to_csv("target.tsv", sep="\t", index=False)
    target.to_csv("target.tsv.gz", sep="\t", index=False)
    for pair in (("source.parquet", "target.PARQUET"), ("source.csv.gz", "target.tsv"), ("source.parquet", "target.tsv.gz")):
        np.testing.assert_array_equal(weights(*pair), straight)


def test_every_kind_of_output_holds_the_same_weights(folder):
    straight = weights("source.csv", "target.csv")
    readers = {"w.csv.gz": pd.read_csv, "w.tsv": lambda path: pd.read_csv(path, sep="\t"), "w.parquet": pd.read_parquet}
    for name, read in readers.items():
        assert call("source.csv", "target.csv", "--out", name).exit_code == 0
        frame = read(name)
        assert list(frame.columns) == ["weight"]
        np.testing.assert_array_equal(frame["weight"], straight)
    assert gzip.decompress(Path("w.csv.gz").read_bytes()) == Path("weights.csv").read_bytes()


def test_the_row_index_that_pandas_stores_in_parquet_is_no_column(folder):
    straight = weights("source.csv", "target.csv")
    source = pd.read_csv("source.csv")
    source.set_index(pd.Index(np.arange(60)[::-1], name="id")).to_parquet("source.parquet")
    np.testing.assert_array_equal(weights("source.parquet", "target.csv"), straight)


def test_drop_and_columns_choose_the_same_columns(folder):
    source, target = samples()
    source.assign(y=1.0, id="a").to_csv("source.csv", index=False)
    target.assign(id="b").to_csv("target.csv", index=False)
    dropped = weights("source.csv", "target.csv", "--drop", "y,id,score")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--columns", "age, income"), dropped)
    chosen = expected(source[["age", "income"]], target[["age", "income"]], random_state=0)
    np.testing.assert_allclose(dropped, chosen, rtol=1e-9, atol=1e-12)


def test_a_column_name_with_a_comma_is_given_in_quotes(folder):
    straight = weights("source.csv", "target.csv", "--columns", "age,score")
    for name in ("source.csv", "target.csv"):
        pd.read_csv(name).rename(columns={"age": "age, years"}).to_csv(name, index=False)
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--columns", '"age, years",score'), straight)


def test_true_and_false_are_one_and_zero(folder):
    source, target = samples()
    is_old = [frame["age"] > 40.0 for frame in (source, target)]
    source.assign(old=is_old[0]).to_csv("source.csv", index=False)
    target.assign(old=is_old[1]).to_parquet("target.parquet")
    numbers = source.assign(old=is_old[0].astype(float)), target.assign(old=is_old[1].astype(float))
    np.testing.assert_allclose(weights("source.csv", "target.parquet"), expected(*numbers, random_state=0), rtol=1e-9, atol=1e-12)


def test_decimals_nullable_integers_and_float32_of_parquet_are_numbers(folder):
    from decimal import Decimal

    source, target = samples()
    halves = np.arange(60) / 2.0
    source = pd.DataFrame({"a": source["age"].astype("float32"), "b": [Decimal(str(v)) for v in halves], "c": range(60)})
    target = pd.DataFrame({"a": target["age"].astype("float32"), "b": np.arange(40.0), "c": range(40)})
    source.astype({"c": "Int64"}).to_parquet("source.parquet")
    target.to_parquet("target.parquet")
    np.testing.assert_allclose(
        weights("source.parquet", "target.parquet"), expected(source, target, random_state=0), rtol=1e-9, atol=1e-12
    )


def test_encoded_texts_become_columns_of_zero_and_one_that_are_not_scaled(folder):
    source, target = samples()
    source["colour"] = ["red", "green", "NA"] * 20
    target["colour"] = ["red", "blue"] * 20
    source.to_csv("source.csv", index=False)
    target.to_csv("target.csv", index=False)
    X, y = stack_domains(source, target)
    indicators = [(X["colour"] == value).to_numpy(dtype=float) for value in ("NA", "blue", "green", "red")]
    scaled = StandardScaler().fit_transform(X[["age", "income", "score"]].to_numpy())
    ratio = ESTIMATORS["kmm"](random_state=0).fit(np.column_stack([scaled, *indicators]), y)
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--encode"), ratio.weights_, rtol=1e-9, atol=1e-12)


def test_no_two_kinds_of_columns_are_needed(folder):
    for name, n in (("source", 12), ("target", 9)):
        pd.DataFrame({"colour": (["red", "green", "blue"] * 4)[:n]}).to_csv(f"{name}.csv", index=False)
    assert len(weights("source.csv", "target.csv", "--encode")) == 12


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(folder, separator):
    frame = samples()[0]
    frame.columns = ["age, years", "income; net", "score|z"]
    frame.to_csv("odd.csv", sep=separator, index=False)
    table = open_table(Path("odd.csv"))
    assert table.names == tuple(frame.columns)
    pd.testing.assert_frame_equal(table.read(table.names), frame)


def test_real_data_are_read_with_commas_and_with_semicolons(folder):
    wine = ROOT.parent / "shared" / "data" / "winequality-white.csv"
    if not wine.exists():
        pytest.skip("the wine data are not on this machine")
    header, *lines = [line.replace(";", ",") for line in wine.read_text().splitlines() if line]
    Path("source.csv").write_text("\n".join([header, *lines[:150]]).replace(",", ";"))
    Path("target.csv").write_text("\n".join([header, *lines[150:250]]))
    source, target = pd.read_csv("source.csv", sep=";"), pd.read_csv("target.csv")
    found = weights("source.csv", "target.csv", "--drop", "quality")
    plain = expected(source.drop(columns="quality"), target.drop(columns="quality"), random_state=0)
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)


def test_decimal_commas_are_read_where_they_are_announced(folder):
    straight = weights("source.csv", "target.csv")
    for name in ("source.csv", "target.csv"):
        pd.read_csv(name).to_csv(name, sep=";", decimal=",", index=False)
    assert "--decimal ," in error_of(folder, "source.csv", "target.csv")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--decimal", ","), straight)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa,b\n1,2\n3,4\n",  # the mark that Excel puts first
        "a,b\r\n1,2\r\n3,4\r\n",
        "a,b\r1,2\r3,4\r",
        "\n\na,b\n1,2\n\n3,4\n\n",
        "a, b\n 1, 2\n3 ,4",
        'a,"b"\n"1","2"\n"3",4\n',
        "a,b\n1,2,\n3,4,\n",
    ],
    ids=["mark", "carriage returns and line feeds", "carriage returns", "empty lines", "spaces", "quotes", "trailing separator"],
)
def test_csv_as_programs_write_it_is_read(folder, text):
    Path("odd.csv").write_bytes(text.encode())
    table = open_table(Path("odd.csv"))
    assert table.names == ("a", "b")
    assert table.read(["b", "a"]).to_numpy(dtype=float).tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_columns_that_are_numbered_have_names(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame.set_axis(range(3), axis=1).to_csv(f"{name}.csv", index=False)
    straight = weights("source.csv", "target.csv")
    for name in ("source", "target"):
        pd.read_csv(f"{name}.csv").to_csv(f"{name}.csv")
    assert "--drop 'Unnamed: 0'" in error_of(folder, "source.csv", "target.csv")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--drop", "Unnamed: 0"), straight)


FIELDS = st.text(st.sampled_from('ab \n",;é'), max_size=4)


@given(rows=st.lists(st.tuples(FIELDS, st.integers(-9, 9)), min_size=1, max_size=12), separator=st.sampled_from(",;\t"))
def test_the_named_line_is_where_the_row_begins(rows, separator, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "t.csv"
    frame = pd.DataFrame([("x" + text, number) for text, number in rows], columns=["text", "number"])
    frame.to_csv(path, sep=separator, index=False)
    table = open_table(path)
    pd.testing.assert_frame_equal(table.read(["number"]), frame[["number"]])
    starts = np.cumsum([2, *(1 + text.count("\n") for text, _ in rows)])
    assert table.places(range(len(rows))) == starts[:-1].tolist()


# ---------------------------------------------------------------- faults of the tables

BAD = {
    "an empty file": ("", ["source.csv is empty"]),
    "white space": (" \n\n ", ["source.csv is empty"]),
    "names without rows": ("age,income,score\n", ["source.csv has column names but no rows"]),
    "one row": ("age,income,score\n1,2,3\n", ["source.csv has only one row"]),
    "no header": ("1.5,2,3\n1,2,3\n4,5,6\n", ["source.csv has no header", "1.5, 2, 3"]),
    "a header in part of numbers": ("1.5,2,x\n1,2,3\n4,5,6\n", ["share no column", "begin with a line of column names"]),
    "repeated names": ("age,income,age\n1,2,3\n4,5,6\n", ["more than one column is named 'age'"]),
    "a row too long": ("age,income,score\n1,2,3\n4,5,6,7\n", ["line 3 has 4 values and the header has 3"]),
    "rows too long": ("age,income,score\n1,2,3,4\n4,5,6,7\n", ["line 2 has 4 values and the header has 3"]),
    "a row too short": ("age,income,score\n1,2,3\n4,5\n", ["column 'score' has no value on line 3"]),
    "an open quote": ('age,income,score\n1,2,3\n4,5,"6\n', ["a quotation mark is opened and never closed"]),
    "quotes alone": ('""\n', ["source.csv is empty"]),
    "binary data": (b"\x00\x01\x02\x03", ["source.csv is no CSV file"]),
    "another encoding": ("age,income,prénom\n1,2,3\n".encode("latin-1"), ["source.csv is not UTF-8"]),
    "UTF-16": ("age,income,score\n1,2,3\n".encode("utf-16"), ["UTF-16"]),
    "a Parquet file": (b"PAR1\x00\x00", ["it is a Parquet file: name it .parquet"]),
    "a workbook": (b"PK\x03\x04\x00\x00", ["Excel"]),
    "a gzip file": (gzip.compress(b"age,income,score\n1,2,3\n"), ["name it .csv.gz"]),
    "a missing value": (
        "age,income,score\n1,2,3\n4,,6\n7,8,9\n1,,3\n",
        ["source.csv: column 'income' has no value on lines 3 and 5", "--drop income"],
    ),
    "many missing values": (
        "age,income,score\n" + "1,2,3\n" + "4,5,\n" * 9,
        ["column 'score' has no value on lines 3, 4, 5, 6, 7 and 4 more"],
    ),
    "a stray text": (
        "age,income,score\n1,2,3\n4,n/a,6\n7,8,9\n",
        ["source.csv: column 'income' has 'n/a' on line 3", "target.csv"],
    ),
    "NaN in words": ("age,income,score\n1,2,3\n4,5,nan\n7,8,9\n", ["column 'score' has 'nan' on line 3"]),
    "infinity": ("age,income,score\n1,2,3\n4,5,inf\n", ["column 'score' is infinite on line 3"]),
    "a date": ("age,income,score\n1,2,2024-01-01\n4,5,2024-01-02\n", ["column 'score' has '2024-01-01' on lines 2 and 3"]),
    "huge values": ("age,income,score\n1,2,1e200\n4,5,-1e300\n", ["Column 'score'", "too large"]),
    "a column more": ("age,income,score,y\n1,2,3,0\n4,5,6,1\n", ["only source.csv has 'y'", "--drop y", "--columns"]),
    "a column less": ("age,income\n1,2\n4,5\n", ["only target.csv has 'score'", "--drop score"]),
    "another spelling": ("Age,income,score\n1,2,3\n4,5,6\n", ["'Age' and 'age' look like one column"]),
    "a name missing": ("age,income,score,\n1,2,3,4\n4,5,6,7\n", ["only source.csv has 'Unnamed: 3'", "without a name"]),
}


@pytest.mark.parametrize("text, phrases", BAD.values(), ids=BAD)
def test_a_fault_of_a_table_is_said_in_one_line_and_nothing_is_written(folder, text, phrases):
    Path("source.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    said = error_of(folder, "source.csv", "target.csv")
    assert [phrase for phrase in phrases if phrase not in said] == []


def test_a_fault_of_the_target_names_the_target(folder):
    Path("target.csv").write_text("age,income,score\n1,2,3\n4,?,6\n7,8,9\n")
    said = error_of(folder, "source.csv", "target.csv")
    assert "target.csv: column 'income' has '?' on line 3 where a number belongs; in source.csv the column holds numbers" in said


def test_all_faults_are_named_at_once_with_what_was_dropped_before(folder):
    Path("source.csv").write_text("age,income,score,y\n1,2,,a\n4,x,6,b\n7,8,9,c\n")
    said = error_of(folder, "source.csv", "target.csv", "--drop", "y")
    assert "'income' has 'x' on line 3" in said and "'score' has no value on line 2" in said
    assert said.endswith("leave the columns out with --drop y,income,score.")


def test_text_and_dates_in_both_files_are_named_with_the_ways_out(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        dates = pd.date_range("2024-01-01", periods=len(frame))
        frame.assign(colour="red", day=dates).to_parquet(f"{name}.parquet")
    said = error_of(folder, "source.parquet", "target.parquet")
    assert "'colour' (text such as 'red') and 'day' (dates)" in said and "--drop colour,day" in said and "--encode" in said
    said = error_of(folder, "source.parquet", "target.parquet", "--encode")
    assert "'day' (dates)" in said and "--encode" not in said and "colour" not in said


def test_parquet_names_the_row_and_the_types_that_differ(folder):
    source, _ = samples()
    source.loc[[1, 4], "score"] = np.nan
    source.to_parquet("source.parquet")
    assert "column 'score' has no value on rows 2 and 5" in error_of(folder, "source.parquet", "target.csv")
    samples()[0].assign(score="7").to_parquet("source.parquet")
    assert "target.csv: column 'score' holds numbers, and in source.parquet the column holds text" in error_of(
        folder, "source.parquet", "target.csv"
    )


def test_a_damaged_file_is_said_to_be_one(folder):
    Path("source.parquet").write_text("age,income,score\n1,2,3\n")
    assert "source.parquet is no Parquet file" in error_of(folder, "source.parquet", "target.csv")
    samples()[0].to_parquet("source.parquet")
    Path("source.parquet").write_bytes(Path("source.parquet").read_bytes()[:-20])
    assert "source.parquet is no Parquet file" in error_of(folder, "source.parquet", "target.csv")
    Path("source.csv.gz").write_bytes(gzip.compress(Path("source.csv").read_bytes())[:-30])
    assert "source.csv.gz is no gzip file, or it is damaged" in error_of(folder, "source.csv.gz", "target.csv")
    Path("source.csv.gz").write_text("age,income,score\n1,2,3\n")
    assert "source.csv.gz is no gzip file" in error_of(folder, "source.csv.gz", "target.csv")


def test_a_column_of_names_is_not_encoded(folder):
    for name, frame in zip(("source", "target"), samples(200, 40), strict=True):
        frame.assign(id=[f"{name}{i}" for i in range(len(frame))]).to_csv(f"{name}.csv", index=False)
    said = error_of(folder, "source.csv", "target.csv", "--encode")
    assert "'id' has 240 different texts" in said and "--drop id" in said


def test_a_missing_text_is_named(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame.assign(colour=["red", None] + ["blue"] * (len(frame) - 2)).to_csv(f"{name}.csv", index=False)
    assert "source.csv: column 'colour' has no value on line 3." in error_of(folder, "source.csv", "target.csv", "--encode")


# ---------------------------------------------------------------- faults of the call

CALLS = {
    "no such file": (["nowhere.csv", "target.csv"], ["nowhere.csv does not exist"]),
    "a folder": (["sub", "target.csv"], ["sub is a folder"]),
    "another suffix": (["source.csv", "table.xlsx"], ["table.xlsx has none of the suffixes .csv"]),
    "unknown method": (["--method", "kmmm"], [*sorted(ESTIMATORS)]),
    "gamma 0": (["--gamma", "0"], ["--gamma must be a number > 0"]),
    "gamma nan": (["--gamma", "nan"], ["--gamma must be a number > 0"]),
    "gamma in words": (["--gamma", "wide"], ["--gamma must be a number > 0, ", "wide", "median", "target_spread", "or cv"]),
    "decimal": (["--decimal", ";"], ["--decimal is . or ,"]),
    "no such column": (["--columns", "agee,score"], ["neither file has a column 'agee'", "Did you mean 'age'"]),
    "nothing like that column": (["--drop", "zzz"], ["neither file has a column 'zzz'", "'age', 'income' and 'score'"]),
    "no column": (["--columns", " , "], ["--columns names no column"]),
    "all dropped": (["--drop", "age,income,score"], ["No column is left"]),
    "both": (["--drop", "age", "--columns", "score"], ["give one of them"]),
    "out is the source": (["--out", "./source.csv"], ["never overwritten"]),
    "out is the target by a link": (["--out", "link.csv"], ["never overwritten"]),
    "report and plot in one": (["--report", "a.html", "--plot", "a.html"], ["--plot a.html must end in .png"]),
    "out twice": (["--out", "sub/../a.csv", "--report", "a.csv"], ["--report a.csv must end in .html"]),
    "out of a kind unknown": (["--out", "weights.txt"], ["--out weights.txt must end in .csv"]),
    "out without a folder": (["--out", "nowhere/w.csv"], ["the folder nowhere does not exist"]),
    "report without a folder": (["--report", "nowhere/r.html"], ["the folder nowhere does not exist"]),
    "out is a folder": (["--out", "sub.csv"], ["sub.csv is a folder"]),
}


@pytest.mark.parametrize("arguments, phrases", CALLS.values(), ids=CALLS)
def test_a_fault_of_the_call_is_said_in_one_line_and_nothing_is_written(folder, arguments, phrases):
    Path("sub").mkdir()
    Path("sub.csv").mkdir()
    Path("table.xlsx").write_text("")
    Path("link.csv").symlink_to("target.csv")
    files = [] if not arguments[0].startswith("--") else ["source.csv", "target.csv"]
    said = error_of(folder, *files, *arguments)
    assert [phrase for phrase in phrases if phrase not in said] == []


def test_columns_that_one_file_lacks_are_named_with_the_file(folder):
    samples()[0].assign(y=1.0).to_csv("source.csv", index=False)
    assert "target.csv has no column 'y', which --columns names" in error_of(
        folder, "source.csv", "target.csv", "--columns", "age,y"
    )


def test_a_method_without_a_bandwidth_takes_no_gamma(folder, monkeypatch):
    class Plain(ESTIMATORS["kliep"]):
        def __init__(self):
            super().__init__()

    monkeypatch.setitem(ESTIMATORS, "plain", Plain)
    assert f"these have: {', '.join(TAKES_GAMMA)}" in error_of(
        folder, "source.csv", "target.csv", "--method", "plain", "--gamma", "1"
    )
    assert len(weights("source.csv", "target.csv", "--method", "plain")) == 60


@pytest.mark.parametrize(
    "module, arguments",
    [("pandas", []), ("pyarrow", ["--out", "w.parquet"]), ("matplotlib", ["--plot", "w.png"])],
)
def test_what_is_not_installed_is_said_with_the_way_to_install_it(folder, monkeypatch, module, arguments):
    monkeypatch.setattr("densratio.cli.weights.find_spec", lambda name: None if name == module else True)
    said = error_of(folder, "source.csv", "target.csv", *arguments)
    assert f"needs {module}: pip install" in said and "densratio-toolkit[" in said


def test_too_little_memory_names_a_method_that_needs_less(folder, monkeypatch):
    def fit(*_):
        raise MemoryError

    monkeypatch.setattr(ESTIMATORS["kmm"], "fit", fit)
    assert "--method lsif" in error_of(folder, "source.csv", "target.csv", "--method", "kmm")


# ---------------------------------------------------------------- what is written


def test_a_failure_while_writing_leaves_every_file_as_it_was(folder, monkeypatch):
    Path("r.html").write_text("old")
    replace = os.replace

    def fail_at_the_page(source, target):
        if Path(target).name == "r.html":
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr("densratio.cli.files.os.replace", fail_at_the_page)
    said = error_of(folder, "source.csv", "target.csv", "--report", "r.html")
    assert "r.html: Permission denied" in said
    Path("weights.csv").write_text("old weights")
    error_of(folder, "source.csv", "target.csv", "--report", "r.html")


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(folder, monkeypatch):
    monkeypatch.setattr("densratio.cli.files.os.access", lambda *_: False)
    monkeypatch.setattr(ESTIMATORS["kmm"], "fit", lambda *_: pytest.fail("fitted before the check"))
    assert "no permission" in error_of(folder, "source.csv", "target.csv")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_an_interrupted_writer_leaves_nothing(tmp_path, failure):
    (tmp_path / "b.csv").write_text("old")

    def fail(path):
        path.write_text("half")
        raise failure

    with pytest.raises(failure):
        write_all({tmp_path / "a.csv": lambda path: path.write_text("new"), tmp_path / "b.csv": fail})
    assert contents(tmp_path) == {"b.csv": b"old"}


def test_a_file_that_is_there_is_replaced_with_its_permissions_and_its_link(folder):
    Path("store").mkdir()
    Path("store/w.csv").write_text("old")
    Path("store/w.csv").chmod(0o640)
    Path("w.csv").symlink_to("store/w.csv")
    result = call("source.csv", "target.csv", "--out", "w.csv")
    assert "Wrote w.csv (replaced)." in result.stdout
    assert Path("w.csv").is_symlink() and Path("store/w.csv").stat().st_mode & 0o777 == 0o640
    assert len(pd.read_csv("store/w.csv")) == 60


def test_a_new_file_has_the_permissions_of_any_other(folder):
    Path("other").write_text("")
    weights("source.csv", "target.csv")
    assert Path("weights.csv").stat().st_mode == Path("other").stat().st_mode


@pytest.mark.filterwarnings("error:constrained_layout")
def test_the_page_holds_the_report_and_the_picture(folder):
    assert call("source.csv", "target.csv", "--report", "plain.html").exit_code == 0
    result = call("source.csv", "target.csv", "--report", "r.html", "--plot", "w.png", "--out", "w.csv")
    assert result.exit_code == 0, result.stderr
    assert Path("w.png").read_bytes().startswith(b"\x89PNG")
    plain, page = Path("plain.html").read_text(), Path("r.html").read_text()
    for text in (plain, page):
        assert "Weights of source.csv for target.csv" in text and "Effective sample size" in text and "income" in text
    assert "data:image/png;base64" in page and "data:image/png;base64" not in plain
    assert result.stdout.endswith("Wrote w.csv, w.png and r.html.\n")


def test_the_summary_says_what_was_done_and_warns_in_the_reports_words(folder):
    samples()[0].add(1e6).to_csv("target.csv", index=False)
    result = call("source.csv", "target.csv", "--drop", "score")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0].startswith("method kmm gamma=")
    assert lines[1:4] == [
        "source source.csv, 60 rows",
        "target target.csv, 60 rows",
        "columns 2: 'age' and 'income'".replace("'", ""),
    ]
    assert lines[4].startswith("effective sample size ") and lines[5].startswith("largest weight ")
    assert any(line.startswith("warning: No overlap") for line in lines)
    assert lines[-1] == "Wrote weights.csv."


def test_long_paths_are_not_wrapped_and_brackets_are_no_markup(folder):
    long = Path("[bold]" + "x" * 150)
    long.mkdir()
    result = call("source.csv", "target.csv", "--out", long / "w.csv")
    assert result.stdout.endswith(f"Wrote {long}/w.csv.\n")
    assert str(long) in error_of(folder, long / "nowhere.csv", "target.csv")


def test_a_new_process_writes_the_weights_without_torch_and_says_errors_on_standard_error(folder):
    code = (
        "import sys; from densratio.__main__ import main\n"
        "try: main()\nfinally: print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(*arguments):
        command = [sys.executable, "-c", code, "weights", "source.csv", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    done = run("target.csv", "--out", "w.csv")
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "False False")
    np.testing.assert_array_equal(pd.read_csv("w.csv")["weight"], weights("source.csv", "target.csv"))
    done = run("nowhere.csv")
    assert (done.returncode, done.stderr) == (2, "error: nowhere.csv does not exist.\n")


def test_the_help_names_both_commands_and_loads_no_library_of_tables_or_pictures():
    code = (
        "import sys, sklearn.utils.validation; already = set(sys.modules)\n"
        "from typer.testing import CliRunner; from densratio.cli import app\n"
        "print(CliRunner().invoke(app, ['--help']).stdout)\n"
        "print([name for name in ('torch', 'pandas', 'pyarrow', 'matplotlib') if name in sys.modules.keys() - already])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "weights" in done.stdout and "demo" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
