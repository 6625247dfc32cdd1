"""densratio weights: a mistake ends in one plain line with nothing written."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_cases import call, error_of, read_text, samples, weights

from densratio.estimators import ESTIMATORS

TAKES_GAMMA = sorted(name for name, kind in ESTIMATORS.items() if "gamma" in kind().get_params())

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
    "binary data": (b"\x00\x01\x02\x03", ["source.csv is not a CSV file"]),
    "another encoding": ("age,income,prénom\n1,2,3\n".encode("latin-1"), ["source.csv is not UTF-8", "--encoding cp1252"]),
    "UTF-16": ("age,income,score\n1,2,3\n".encode("utf-16"), ["UTF-16", "--encoding utf-16"]),
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
    "a date": (
        "age,income,score\n1,2,2024-01-01\n4,5,2024-01-02\n",
        ["column 'score' holds dates", "in target.csv the column holds numbers"],
    ),
    "a column more": ("age,income,score,y\n1,2,3,0\n4,5,6,1\n", ["only source.csv has 'y'", "--drop y", "--columns"]),
    "a column less": ("age,income\n1,2\n4,5\n", ["only target.csv has 'score'", "--drop score"]),
    "another spelling": ("Age,income,score\n1,2,3\n4,5,6\n", ["'Age' and 'age' look like one column"]),
    "spaces between columns": ("age income\n 1  2\n10 20\n", ["source.csv has columns that are set apart by spaces alone"]),
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


def test_text_in_both_files_is_named_with_the_ways_out(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        dates = pd.date_range("2024-01-01", periods=len(frame))
        frame.assign(color="red", day=dates).to_parquet(f"{name}.parquet")
    said = error_of(folder, "source.parquet", "target.parquet")
    assert "'color' (text such as 'red'). Leave out with --drop color, or turn text" in said and "--encode" in said


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
    assert "source.parquet is not a Parquet file" in error_of(folder, "source.parquet", "target.csv")
    samples()[0].to_parquet("source.parquet")
    Path("source.parquet").write_bytes(Path("source.parquet").read_bytes()[:-20])
    assert "source.parquet is not a Parquet file" in error_of(folder, "source.parquet", "target.csv")
    Path("source.csv.gz").write_bytes(gzip.compress(Path("source.csv").read_bytes())[:-30])
    assert "source.csv.gz is not a gzip file, or it is damaged" in error_of(folder, "source.csv.gz", "target.csv")
    Path("source.csv.gz").write_text("age,income,score\n1,2,3\n")
    assert "source.csv.gz is not a gzip file" in error_of(folder, "source.csv.gz", "target.csv")


def test_a_column_of_names_is_left_out_and_that_is_said(folder):
    for name, frame in zip(("source", "target"), samples(200, 40), strict=True):
        frame.assign(id=[f"{name}{i}" for i in range(len(frame))]).to_csv(f"{name}.csv", index=False)
    said = " ".join(call("source.csv", "target.csv", "--encode").stdout.split())
    assert "column 'id' dropped: 240 different texts, of which none is frequent" in said
    np.testing.assert_array_equal(read_text("weights.csv"), weights("source.csv", "target.csv", "--drop", "id"))


def test_a_repeated_option_adds_columns(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame.assign(y=np.arange(len(frame)) % 2, job="a").to_csv(f"{name}.csv", index=False)
    once = weights("source.csv", "target.csv", "--drop", "y,job")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--drop", "y", "--drop", "job"), once)
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--columns", "age", "--columns", "income,score"), once)
    said = call("source.csv", "target.csv", "--encode", "--text", "y", "--text", "job").stdout
    assert "column 'y'" in said and "column 'job'" in said


def test_a_missing_text_is_named(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame.assign(color=["red", None] + ["blue"] * (len(frame) - 2)).to_csv(f"{name}.csv", index=False)
    assert "source.csv: column 'color' has no value on line 3." in error_of(folder, "source.csv", "target.csv", "--encode")


# ---------------------------------------------------------------- faults of the call


CALLS = {
    "no such file": (["nowhere.csv", "target.csv"], ["nowhere.csv does not exist"]),
    "a folder": (["sub", "target.csv"], ["sub is a folder"]),
    "another suffix": (["source.csv", "table.dta"], ["table.dta has none of the suffixes by which a table is read: .csv"]),
    "unknown method": (["--method", "kmmm"], [*sorted(ESTIMATORS)]),
    "gamma 0": (["--gamma", "0"], ["--gamma must be a number > 0"]),
    "regularization": (["--regularization", "-1"], ["--regularization must be a number >= 0, or cv; got -1"]),
    "neighbors": (
        ["--method", "nearest_neighbors", "--neighbors", "0"],
        ["--neighbors must be a whole number > 0, auto, many, or cv; got 0"],
    ),
    "neighbors of kmm": (["--neighbors", "5"], ["--method auto has no --neighbors; these have: nearest_neighbors."]),
    "classifier": (["--method", "discriminator", "--classifier", "tree"], ["one of cv, logistic, forest, boosting; got 'tree'"]),
    "no such id": (["--id", "customer"], ["--id: source.csv has no column 'customer'", "'age', 'income' and 'score'"]),
    "an id that is used": (["--id", "age", "--columns", "age,score"], ["leave it out of --columns"]),
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
    Path("table.dta").write_text("")
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
    monkeypatch.setattr("densratio.cli.console.find_spec", lambda name: None if name == module else True)
    said = error_of(folder, "source.csv", "target.csv", *arguments)
    assert f"needs {module}: pip install" in said and "densratio-toolkit[" in said


def test_too_little_memory_names_a_method_that_needs_less(folder, monkeypatch):
    def fit(*_):
        raise MemoryError

    monkeypatch.setattr(ESTIMATORS["kmm"], "fit", fit)
    assert "--method lsif" in error_of(folder, "source.csv", "target.csv", "--method", "kmm")
