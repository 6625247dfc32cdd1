"""Tables of every kind that the command line reads: the same rows give the same columns, and damaged files are named."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import json
import lzma
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
from cli_cases import call, error_of, samples, weights

from densratio.cli.column import column_of
from densratio.cli.tables import open_table


def zipped(path, content, *more):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("table.csv", *more):
            archive.writestr(name, content)


def streamed(frame, path):
    table = pyarrow.Table.from_pandas(frame)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def as_csv(frame):
    return frame.to_csv(index=False).encode()


WRITERS = {
    "t.csv.gz": lambda frame, path: path.write_bytes(gzip.compress(as_csv(frame))),
    "t.csv.bz2": lambda frame, path: path.write_bytes(bz2.compress(as_csv(frame))),
    "t.CSV.xz": lambda frame, path: path.write_bytes(lzma.compress(as_csv(frame))),
    "t.tsv.xz": lambda frame, path: path.write_bytes(lzma.compress(frame.to_csv(index=False, sep="\t").encode())),
    "t.csv.zip": lambda frame, path: zipped(path, as_csv(frame)),
    "t.zip": lambda frame, path: zipped(path, as_csv(frame), "__MACOSX/._table.csv"),
    "t.feather": lambda frame, path: frame.to_feather(path),
    "t.arrow": streamed,
    "t.json": lambda frame, path: frame.to_json(path, orient="records", double_precision=15),
    "columns.json": lambda frame, path: frame.to_json(path, double_precision=15),
    "split.json": lambda frame, path: frame.to_json(path, orient="split", double_precision=15),
    "t.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, double_precision=15),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_weights(folder, name):
    straight, source = weights("source.csv", "target.csv"), samples()[0]
    WRITERS[name](source, Path(name))
    np.testing.assert_allclose(weights(name, "target.csv"), straight, rtol=1e-6)


@pytest.mark.parametrize("name", ["t.feather", "t.json", "t.jsonl"])
def test_files_with_types_keep_texts_and_gaps(tmp_path, name):
    """A text of digits is a text, and a date of JSON, which has none, is a date."""
    frame = pd.DataFrame({"code": ["7", "01", None], "size": [1.5, None, 2.0], "day": ["2024-05-17", "2024-05-18", None]})
    WRITERS[name](frame, tmp_path / name)
    table = open_table(tmp_path / name)
    read = table.read(["day", "code", "size"])
    kinds = [column_of(table, read[of], is_code=False, fills_gaps=True).kind for of in read]
    assert kinds == ["categories" if name == "t.feather" else "dates", "categories", "numbers"]
    assert table.texts(table.names)["code"] == ["01", "7"] and read["size"].isna().tolist() == [False, True, False]
    assert column_of(table, read["day"], is_code=False, fills_gaps=True, is_label=True).kind == "categories"


def test_an_index_that_pandas_stored_is_no_column(tmp_path):
    streamed(pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="key")), tmp_path / "t.arrow")
    assert open_table(tmp_path / "t.arrow").names == ("a",)


def test_a_fault_has_the_row_or_the_line(folder):
    rows = [{"age": 1.0, "income": 2.0, "score": k} for k in range(4)]
    rows[2]["score"] = None
    Path("t.json").write_text(json.dumps(rows))
    Path("t.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    assert "t.json: column 'score' has no value on row 3" in error_of(folder, "t.json", "target.csv")
    assert "t.jsonl: column 'score' has no value on line 5" in error_of(folder, "t.jsonl", "target.csv")


@pytest.mark.parametrize("as_json", [dict, lambda columns: pd.DataFrame(columns).to_json()], ids=["lists", "objects"])
def test_columns_of_json_may_be_called_columns_and_data(tmp_path, as_json):
    columns = {"columns": ["ab", "cd"], "data": ["xy", "zw"]}
    content = as_json(columns)
    (tmp_path / "t.json").write_text(content if isinstance(content, str) else json.dumps(content))
    assert open_table(tmp_path / "t.json").read(["columns", "data"]).to_dict("list") == columns


DAMAGED = {
    "t.csv.bz2": (b"age,income\n1,2\n", "t.csv.bz2 is not a bzip2 file, or it is damaged"),
    "t.csv.xz": (b"age,income\n1,2\n", "is not an xz file, or it is damaged"),
    "cut.csv.xz": (lzma.compress(b"age,income\n1,2\n")[:-20], "is not an xz file, or it is damaged"),
    "t.zip": (b"age,income\n1,2\n", "is not a zip file, or it is damaged"),
    "t.csv": (bz2.compress(b"a,b\n", 1), "is not a CSV file: it is compressed with bzip2: name it .csv.bz2"),
    "x.csv": (lzma.compress(b"a,b\n"), "is not a CSV file: it is compressed with xz: name it .csv.xz"),
    "t.feather": (b"age,income\n1,2\n", "is not a Feather or Arrow file"),
    "t.json": (b'{"age": 1}', "is not a JSON table: it needs a list of objects"),
    "x.json": (b"[1, 2]", "is not a JSON table: it needs a list of objects"),
    "y.json": (b"age,income", "is not a JSON table: it needs a list of objects"),
    "within.json": (b'{"n": 1, "rows": [{"age": 1}]}', "has its rows within 'rows': save that list of objects alone"),
    "short.json": (b'{"columns": ["a", "b"], "data": [[1]]}', "is not a JSON table: it needs a list of objects"),
    "twice.json": (b'{"columns": ["a", "a"], "data": [[1, 2], [3, 4]]}', "more than one column is named 'a'"),
    "deep.json": (b"[" * 100_000, "is not a JSON table: it needs a list of objects"),
    "deep.jsonl": (b"[" * 100_000, "line 1 is no object"),
    "z.json": (b"[]", "is empty: a table needs columns"),
    "w.json": (b'[{"\xff": 1}]', "is not UTF-8 text"),
    "t.jsonl": (b'{"age": 1}\n[2]\n', "line 2 is no object"),
    "t.xlsx": (b"age,income\n1,2\n", "is not an Excel workbook"),
}


@pytest.mark.parametrize(("name", "content", "words"), [(name, *case) for name, case in DAMAGED.items()], ids=DAMAGED)
def test_a_damaged_file_is_named(folder, name, content, words):
    Path(name).write_bytes(content)
    assert words in error_of(folder, name, "target.csv")


@pytest.mark.parametrize("module", ["bz2", "lzma"])
def test_a_python_without_a_compression_reads_the_other_files(folder, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    name = {"bz2": "t.csv.bz2", "lzma": "t.csv.xz"}[module]
    Path(name).write_bytes(b"")
    assert f"{name}: this Python was built without {module}: unpack the file." in error_of(folder, name, "target.csv")
    assert weights("source.csv", "target.csv").size


def test_an_archive_of_several_tables_is_refused(folder):
    zipped("t.zip", b"a\n1\n", "b.csv")
    assert "t.zip holds 2 files: give an archive of one table alone." in error_of(folder, "t.zip", "target.csv")


@pytest.mark.parametrize("name", ["rows.json", "table.parquet", "table.csv.gz"])
def test_an_archive_of_another_kind_of_table_is_not_read_as_text(folder, name):
    with zipfile.ZipFile("t.zip", "w") as archive:
        archive.writestr(name, b'[{"age": 1}]')
    assert f"t.zip holds '{name}', which is not named .csv or .tsv: unpack it." in error_of(folder, "t.zip", "target.csv")


def test_an_excel_workbook_is_read_or_the_missing_package_named(folder):
    if importlib.util.find_spec("openpyxl") is None:
        zipped("t.xlsx", b"", "xl/workbook.xml")
        assert error_of(folder, "t.xlsx", "target.csv").startswith("Excel workbooks need openpyxl: pip install openpyxl;")
        return
    with pd.ExcelWriter("t.xlsx") as writer:
        samples()[0].to_excel(writer, sheet_name="first", index=False)
        pd.DataFrame({"other": [1]}).to_excel(writer, sheet_name="second", index=False)
    np.testing.assert_allclose(weights("t.xlsx", "target.csv"), weights("source.csv", "target.csv"), rtol=1e-6)
    assert "of its 2 sheets the first is read, 'first'" in call("t.xlsx", "target.csv").stdout
    pd.DataFrame({"age": [1.0, 2.0, None], "income": 1.0, "score": 2.0}).to_excel("gap.xlsx", index=False)
    assert "column 'age' has no value on row 4" in error_of(folder, "gap.xlsx", "target.csv")
