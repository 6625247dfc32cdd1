"""densratio weights: files as programs write them, pipes, long fields, odd names; and advice that can be followed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_cases import call, contents, error_of, samples, weights

from densratio.cli.console import printable
from densratio.cli.tables import open_table

ROOT = Path(__file__).parents[1]


# ---------------------------------------------------------------- lines above the header


ABOVE = {
    "Excel's separator": ("sep=;\n", ";", False),
    "Excel's separator with a carriage return": ("sep=,\r\n", ",", False),
    "a title": ("Sales of the north\n", ",", True),
    "a title with a comma": ("Sales, 2024\n", ";", True),
    "a title in a wide table": ("Sales,,\n\n", ",", True),
    "remarks": ("# made by hand\n# on a day, in May\n", ",", True),
}


@pytest.mark.parametrize("above, separator, is_said", ABOVE.values(), ids=ABOVE)
def test_lines_above_the_header_are_passed_over_and_said(folder, above, separator, is_said):
    straight = weights("source.csv", "target.csv")
    Path("titled.csv").write_text(above + Path("source.csv").read_text().replace(",", separator))
    result = call("titled.csv", "target.csv")
    assert result.exit_code == 0, result.stderr
    first = repr(above.splitlines()[0])
    assert (f"passed over {first} above them" in result.stdout) == is_said
    np.testing.assert_array_equal(weights("titled.csv", "target.csv"), straight)
    lines = Path("titled.csv").read_text().splitlines()
    line = lines[-3].split(separator)
    lines[-3] = separator.join([line[0], "n/a", line[2]])
    Path("titled.csv").write_text("\n".join(lines))
    assert f"column 'income' has 'n/a' on line {len(lines) - 2} " in error_of(folder, "titled.csv", "target.csv")


@pytest.mark.parametrize("text", ["#id,x\n1,2\n3,4\n", "id,\n1,\n3,\n", ",x\n0,2\n1,4\n", "x\n1\n2\n"])
def test_a_header_is_no_title(folder, text):
    Path("odd.csv").write_text(text)
    table = open_table(Path("odd.csv"))
    assert (table.notes, table.names[0]) == ((), text.split("\n")[0].split(",")[0] or "Unnamed: 0")


# ---------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("full name\nJohn Smith\nAnn Lee\n", False),
        ("address of customer\n12 Main Street\n140 Oak Avenue\n", True),
        ("person age\nJohn 3\nMary 5\n", True),
        ('person age\n"John 3"\n"Mary 5"\n', False),
        ("a remark\nold and 2 cracks\nnew\n", False),
        ("date of birth\n17 May 2024\n1 June 2024\n", False),
        ("price eur\n1 250\n12 000\n", False),
    ],
)
def test_texts_of_several_words_are_one_column(tmp_path, text, is_told):
    (tmp_path / "one.csv").write_text(text)
    table = open_table(tmp_path / "one.csv")
    header, *lines = text.splitlines()
    assert table.read([header])[header].tolist() == [line.strip('"') for line in lines]
    assert ["each line is read as one text; if spaces" in note for note in table.notes] == [True] * is_told


@pytest.mark.parametrize(
    "text",
    [
        "age income\n1 2\n10 20\n",
        "city  lat  lon\nOslo 59.9 10.7\nRome 41.9 12.5\n",
        "city   age\nOslo   2\nBergen 20\nRome   9\n",
        '"city" "age"\n"New York" 2\n"Rome" 20\n',
        "a b\n1 nan\n2 2\n3 2\n",
    ],
)
def test_a_table_with_spaces_between_its_columns_is_told(tmp_path, text):
    (tmp_path / "spaced.csv").write_text(text)
    with pytest.raises(ValueError, match=r"spaced\.csv has columns that are set apart by spaces alone: write it with commas"):
        open_table(tmp_path / "spaced.csv")


# ---------------------------------------------------------------- encodings, pipes and long fields


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-8"])
def test_an_encoding_is_named(folder, encoding):
    for name in ("source", "target"):
        frame = pd.read_csv(f"{name}.csv").rename(columns={"age": "âge"})
        frame.to_csv(f"{name}.csv", index=False, encoding=encoding)
    found = weights("source.csv", "target.csv", "--encoding", encoding)
    assert "âge" in call("source.csv", "target.csv", "--encoding", encoding).stdout and len(found) == 60
    if encoding == "cp1252":
        assert "source.csv is not UTF-8 text: name its encoding, such as --encoding cp1252" in error_of(
            folder, "source.csv", "target.csv"
        )
    assert "--encoding klingon is not known" in error_of(folder, "source.csv", "target.csv", "--encoding", "klingon")


@pytest.mark.parametrize("name", ["pipe", "pipe.csv", "pipe.parquet"])
def test_a_pipe_is_read_once(folder, name):
    straight = weights("source.csv", "target.csv")
    if name.endswith(".parquet"):
        pd.read_csv("source.csv").to_parquet("source.parquet")
    content = Path("source.parquet" if name.endswith(".parquet") else "source.csv").read_bytes()
    os.mkfifo(name)
    writer = threading.Thread(target=lambda: Path(name).write_bytes(content))
    writer.start()
    np.testing.assert_array_equal(weights(name, "target.csv"), straight)
    writer.join(10)
    assert not writer.is_alive()


def test_a_fault_in_a_pipe_has_its_line(folder):
    os.mkfifo("pipe")
    text = Path("source.csv").read_text().replace("\n", ",\n", 1).replace("age,income,score,", "age,income,score")
    lines = text.splitlines()
    lines[6] = "n/a," + lines[6].split(",", 1)[1]
    threading.Thread(target=lambda: Path("pipe").write_text("\n".join(lines)), daemon=True).start()
    result = call("pipe", "target.csv")
    assert "pipe: column 'age' has 'n/a' on line 7 where a number belongs" in result.stderr


def test_a_field_may_be_as_long_as_a_document(folder):
    frame = samples()[0].assign(note="short").astype({"score": object})
    frame.loc[2, "note"], frame.loc[9, "score"] = "x" * 140_000, "q"
    frame.to_csv("source.csv", index=False)
    assert "column 'score' has 'q' on line 11 where" in error_of(folder, "source.csv", "target.csv", "--drop", "note")


def test_a_link_that_leads_back_to_itself_is_named(folder):
    Path("loop.csv").symlink_to("loop.csv")
    assert "--out loop.csv is a link that leads back to itself" in error_of_link("source.csv", "target.csv", "--out", "loop.csv")
    assert "loop.csv does not exist" in error_of_link("loop.csv", "target.csv")


def error_of_link(*arguments):
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "") and Path("loop.csv").is_symlink() and not Path("weights.csv").exists()
    return result.stderr


# ---------------------------------------------------------------- names that a terminal would obey


def test_names_with_commands_for_a_terminal_are_shown_and_not_obeyed(folder):
    name = "age\x1b]0;owned\x07"
    for path in ("source.csv", "target.csv"):
        pd.read_csv(path).rename(columns={"age": name}).to_csv(path, index=False)
    result = call("source.csv", "target.csv", "--report", "r.html", "--plot", "w.svg")
    assert result.exit_code == 0, result.stderr
    said = result.stdout + call("source.csv", "target.csv", "--drop", "nothing").stderr + Path("r.html").read_text()
    assert "\x1b" not in said and "\x07" not in said and said.count(r"age\x1b]0;owned\x07") >= 3
    assert printable("naïve 数\u202e\n") == "naïve 数\\u202e\\n"


def test_names_with_dollars_are_no_formulas(folder):
    for path in ("source.csv", "target.csv"):
        pd.read_csv(path).rename(columns={"age": "cost $ of $"}).to_csv(path, index=False)
    assert call("source.csv", "target.csv", "--plot", "w.png").exit_code == 0


# ---------------------------------------------------------------- options of the ratio, and advice


def test_flatten_is_a_power_of_the_weights(folder):
    plain = weights("source.csv", "target.csv")
    flat = weights("source.csv", "target.csv", "--flatten", "0.5")
    np.testing.assert_allclose(flat, np.sqrt(plain) / np.sqrt(plain).mean(), rtol=1e-12)
    assert "--flatten must be between 0" in error_of_here(folder, "--flatten", "2")


def error_of_here(folder, *arguments):
    Path("weights.csv").unlink(missing_ok=True)
    return error_of(folder, "source.csv", "target.csv", *arguments)


def test_alpha_and_max_weight_reach_the_methods_that_have_them(folder):
    from densratio import KMM, LSIF, stack_domains

    X, y = stack_domains(*samples())
    relative = LSIF(alpha=0.5, random_state=0).fit(X, y).weights_
    found = weights("source.csv", "target.csv", "--method", "lsif", "--alpha", "0.5")
    np.testing.assert_allclose(found, relative, rtol=1e-9)
    capped = KMM(max_weight=1.5, random_state=0).fit(X, y).weights_
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--max-weight", "1.5"), capped, rtol=1e-9)
    assert "--method auto has no --alpha; these have: lsif." in error_of_here(folder, "--alpha", "0.5")
    said = error_of_here(folder, "--method", "lsif", "--max-weight", "2")
    assert "--method lsif has no --max-weight; these have: kmm" in said
    assert "--method gaussian has no --no-scale" in error_of_here(folder, "--method", "gaussian", "--no-scale")


def test_columns_of_a_large_offset_are_columns_like_any_other(folder):
    def write(offset):
        rng = np.random.default_rng(0)
        for name, mean in (("a", 0.0), ("b", 0.7)):
            rows = [f"{offset + 3 * i},{z:.3f}\n" for i, z in enumerate(rng.normal(mean, 1, 300))]
            Path(f"{name}.csv").write_text("t,g\n" + "".join(rows))
        return weights("a.csv", "b.csv")

    near, far = write(0), write(10**15)
    np.testing.assert_allclose(far, near, rtol=1e-9)
    true = np.exp(0.7 * np.random.default_rng(0).normal(0.0, 1.0, 300))
    np.testing.assert_allclose(near, true / true.mean(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    "method, options",
    [(method, options) for method in ("kmm", "lsif", "kliep") for options in ([], ["--gamma", "cv"])]
    + [(method, []) for method in ("discriminator", "nearest_neighbors", "gaussian")],
)
def test_advice_names_options_of_the_command_line_and_nothing_that_was_done(folder, method, options):
    rng = np.random.default_rng(0)
    for name, shift in (("source", 0.0), ("target", 2.0)):
        pd.DataFrame(rng.normal(shift, 1.0, (120, 6)), columns=list("abcdef")).to_csv(f"{name}.csv", index=False)
    result = call("source.csv", "target.csv", "--method", method, *options)
    said = " ".join(line for line in result.stdout.splitlines() if line.startswith("warning: "))
    assert "columns are still off balance" in said or "A handful of rows" in said
    for python in ("gamma='cv'", "alpha=0.5", "max_weight", "w ** 0.5", "classifier", "n_neighbors", "units", "scale"):
        assert python not in said
    is_open = method in ("kmm", "lsif", "kliep") and not options
    assert ("--gamma cv" in said) == (is_open and "still off balance" in said)
    assert ("--alpha" in said) == (method == "lsif" and "latten the weights" in said)
    assert ("--max-weight" in said) == (method == "kmm" and "latten the weights" in said)


def test_advice_on_texts_has_no_code_for_tables_that_a_command_does_not_have(folder):
    for name in ("source", "target"):
        frame = pd.read_csv(f"{name}.csv")
        levels = {"week": "2024-W0" + (frame.index % 9 + 1).astype(str), "size": np.array(["S", "s", "L"])[frame.index % 3]}
        frame.assign(**levels).to_csv(f"{name}.csv", index=False)
    said = call("source.csv", "target.csv", "--encode", "--method", "gaussian").stdout
    weeks = "All of it reads as weeks. If they are weeks, write the days on which they begin, as 2024-05-13, in both files"
    assert f"{weeks}, or leave it out.\n" in said
    assert "differ only in case or spaces. If that is wrong, change the column in both files, or leave it out.\n" in said
    assert "pandas" not in said


def test_parameters_are_short_and_true(folder):
    line = call("source.csv", "target.csv", "--method", "discriminator").stdout.splitlines()[0]
    assert line.startswith("method                 Discriminator(classifier=") and len(line) < 110 and "(steps" not in line
    line = call("source.csv", "target.csv", "--method", "wasserstein", "--columns", "age").stdout.splitlines()[0]
    assert line == "method                 Wasserstein()"


def test_a_new_process_reads_the_findings_input_and_leaves_only_its_output(tmp_path, monkeypatch):
    """F2 word for word."""
    rng = np.random.default_rng(0)
    for name, m in (("a", 40), ("b", 48)):
        rows = [
            f"{'NA' if i == 9 else int(np.clip(m + 12 * z, 18, 90))},{'cab'[i % 3]}" for i, z in enumerate(rng.normal(size=400))
        ]
        (tmp_path / f"{name}.csv").write_text("age,job\n" + "\n".join(rows) + "\n")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    refused = error_of(tmp_path, "a.csv", "b.csv", "--encode")
    assert refused.startswith("a.csv: column 'age' has 'NA' on line 11 where a number belongs.")
    command = [sys.executable, "-m", "densratio", "weights", "a.csv", "b.csv", "--encode", "--missing", "impute"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0 and "column 'job'           one-hot: 'a', 'b', 'c'\n" in done.stdout
    assert set(contents(tmp_path)) - set(before) == {"weights.csv"}
