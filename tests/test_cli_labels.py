"""The commands `labels` and `train`: a table with wrong labels in, a list of them out."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import densratio.labels
from densratio.cli import app
from densratio.cli.label_page import page
from densratio.cli.labeled import Labeled, labeled
from densratio.cli.tables import Reading, open_table
from densratio.cli.tables.text import TextTable


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table of which the first 10 labels are wrong, and one of right ones."""
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    y = np.arange(120) % 2
    X = 8.0 * y[:, None] + rng.normal(size=(120, 2))
    names = np.array(["cat", "<dog>"])
    right = pd.DataFrame(X, columns=["a", "b"]).assign(kind=names[y])
    wrong = right.assign(kind=np.where(np.arange(120) < 10, names[1 - y], names[y]))
    right.to_csv(folder / "right.csv", index=False)
    right.rename(columns={"b": "c"}).to_csv(folder / "other.csv", index=False)
    right.assign(kind=y).to_csv(folder / "numbers.csv", index=False)
    texts = {
        "stray.csv": "a,kind\n1.5,cat\n2.5,dog\nx,cat\n3.5,dog\n", "gap.csv": "a,kind\n1,cat\n2,\n3,dog\n", "head.csv": "a,kind\n",
        "one.csv": "kind\ncat\ndog\n", "table.txt": "a,kind\n",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_text("a,kind\n1,é\n2,b\n", encoding="latin-1")
    wrong.to_csv(folder / "wrong.csv", index=False)
    return folder


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_wrong_labels_of_a_table_are_listed_first_with_a_page(files, few_steps):
    out, page = files / "issues.csv", files / "page.html"
    result = call("labels", files / "wrong.csv", "--label", "kind", "--out", out, "--report", page)
    assert result.exit_code == 0, result.output
    issues = pd.read_csv(out)
    assert list(issues.columns) == ["row", "given_label", "suggested_label", "score", "is_issue"]
    assert len(set(issues["row"][:10]) & set(range(10))) >= 9 and len(issues) == 120 and issues["score"].is_monotonic_decreasing
    assert (issues["suggested_label"] != issues["given_label"])[:9].all() and 7 <= issues["is_issue"].sum() <= 15
    assert "median of &lt;dog&gt;" in page.read_text() and "<dog>" not in page.read_text()


def test_the_page_names_levels_and_dates_that_speak_against_a_label(tmp_path, few_steps):
    """Row 0 is a cat by each column; texts that say nothing are not shown."""
    is_cat = np.arange(60) % 2 == 0
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.where(is_cat, 0, 100) + np.arange(60) % 3, unit="D")
    frame = pd.DataFrame({"sound": np.where(is_cat, "meow", "woof"), "born": day, "is_tame": is_cat, "place": "here"})
    frame["sound"] = frame["sound"].where(np.arange(60) < 57)
    kind = np.where(is_cat, "cat", "dog")
    kind[0] = "dog"
    frame.assign(kind=kind).to_csv(tmp_path / "x.csv", index=False)
    page = tmp_path / "page.html"
    result = call("labels", tmp_path / "x.csv", "--label", "kind", "--out", tmp_path / "i.csv", "--report", page)
    assert result.exit_code == 0, result.output
    (shown,) = re.findall(r"<td>0</td><td>dog</td><td>cat</td><td>[0-9.]+ %</td><td>(.*?)</td>", page.read_text())
    assert sorted(shown.split("; ")) == [
        "born = 2024-01-01, median of dog 2024-04-11, of cat 2024-01-02",
        "is_tame = True, as 3 % of dog and 100 % of cat",
        "sound = meow, as 3 % of dog and 97 % of cat",
    ]


def test_the_page_looks_at_a_column_once_for_each_label(monkeypatch):
    """Whatever the number of rows shown; the medians are those of the rows of a label, and a value that no row of it has is 0 %."""
    asked = []
    counts, median = pd.Series.value_counts, pd.Series.median
    monkeypatch.setattr(pd.Series, "value_counts", lambda column: asked.append((column.name, len(column))) or counts(column))
    monkeypatch.setattr(pd.Series, "median", lambda column: asked.append((column.name, len(column))) or median(column))
    y = np.repeat(["cat", "dog"], [20, 10])
    rows = pd.DataFrame({"x": np.r_[np.zeros(20), np.arange(10.0)], "sound": np.where(y == "cat", "meow", "woof")})
    listed = {"row": range(30), "given_label": np.where(y == "cat", "dog", "cat"), "suggested_label": y, "score": 0.5}
    issues = pd.DataFrame(listed).assign(is_issue=True)
    issues.attrs["transition"] = None
    text = page(issues, Labeled(rows, y), "Labels")
    assert sorted(asked) == [("sound", 10), ("sound", 20), ("sound", 30), ("x", 10), ("x", 20)]
    assert "<td>sound = meow, as 0 % of dog and 100 % of cat; x = 0, median of dog 4.5, of cat 0</td>" in text
    assert "<td>sound = woof, as 0 % of cat and 100 % of dog; x = 4, median of cat 0, of dog 4.5</td>" in text


def test_row_numbers_do_not_speak_against_a_label():
    y = np.repeat(["cat", "dog"], 30)
    listed = {"row": [0], "given_label": ["dog"], "suggested_label": ["cat"], "score": [0.5], "is_issue": [True]}
    issues = pd.DataFrame(listed)
    issues.attrs["transition"] = None
    rows = pd.DataFrame({"number": np.arange(60.0), "x": np.r_[0.0, np.ones(59)] - (y == "cat")})
    text = page(issues, Labeled(rows, y), "Labels")
    assert "<th>row, from 0</th>" in text and "<th>columns that speak against the given label</th>" in text
    assert "<td>50.0 %</td>" in text
    assert "<td>x = -1, median of dog 1, of cat 0</td>" in text


def test_notes_on_columns_have_no_code(tmp_path, few_steps):
    """Durations of three words are no sentences."""
    frame = pd.DataFrame(
        {"number": range(60), "stay": [f"{k} days 02:03:04" for k in range(60)], "day": 20240101 + np.arange(60) % 9}
    )
    frame.assign(x=np.arange(60) % 2 * 5.0, kind=np.where(np.arange(60) % 2, "a", "b")).to_csv(tmp_path / "x.csv", index=False)
    said = call("labels", tmp_path / "x.csv", "--label", "kind", "--out", tmp_path / "i.csv").stdout
    assert "All of it reads as durations. If they are durations, write them as numbers of hours in the file, or" in said
    assert "All of it reads as dates in the form %Y%m%d. If they are dates, write them as 2024-05-17 in the file, or" in said
    assert "'number' counts up without repeating, as row numbers do: it is left out.\n" in said
    assert "pandas" not in said and "TableEncoder" not in said


def test_the_page_of_numbers_shows_the_columns_beside_the_predicted_number(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    pd.DataFrame({"a": x[:, 0], "<b>": x[:, 1], "y": np.r_[1_250_000.0, 3 * x[1:, 0] + 0.1 * x[1:, 1]]}).to_csv(tmp_path / "x.csv")
    result = call("labels", tmp_path / "x.csv", "--label", "y", "--columns", "a,<b>", "--repeats", 1,
                  "--out", tmp_path / "issues.csv", "--report", tmp_path / "page.html")  # fmt: skip
    assert result.exit_code == 0, result.output
    page, row = (tmp_path / "page.html").read_text(), pd.read_csv(tmp_path / "issues.csv").iloc[0]
    assert (
        row["row"] == 0 and "<th>predicted</th>" in page and f"<td>0</td><td>1250000</td><td>{row.suggested_label:g}</td>" in page
    )
    assert f"a = {x[0, 0]:g}; &lt;b&gt; = {x[0, 1]:g}" in page


@pytest.mark.parametrize("column", ["kind", "code"])
def test_rows_that_were_looked_at_are_listed_as_they_are(files, few_steps, column):
    """Labels of text, and of whole numbers that are written with decimals."""
    table = pd.read_csv(files / "wrong.csv")
    table["code"] = (table.kind == "cat") * 1.0
    right = pd.read_csv(files / "right.csv").assign(code=lambda frame: (frame.kind == "cat") * 1.0)
    rows = np.random.default_rng(0).permutation(120)[:40]
    table[["a", "b", column]].to_csv(files / "given.csv", index=False)
    pd.DataFrame({"row": rows, column: right[column][rows]}).to_csv(files / "checked.csv", index=False)
    out = files / "issues.csv"
    result = call("labels", files / "given.csv", "--label", column, "--checked", files / "checked.csv", "--out", out)
    assert result.exit_code == 0, result.output
    seen = pd.read_csv(out).set_index("row").loc[rows]
    assert (seen.suggested_label == right[column][rows]).all() and (seen.score == (rows < 10)).all()


def test_unexpected_labels_are_told_where_they_are_far_more_than_the_listed_ones(tmp_path):
    """Classes that overlap everywhere, so that no label is listed."""
    rng = np.random.default_rng(0)
    pd.DataFrame({"a": rng.normal(size=150), "y": rng.choice(["cat", "dog"], 150)}).to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / "issues.csv"
    result = call("labels", tmp_path / "x.csv", "--label", "y", "--repeats", 1, "--folds", 2, "--out", out)
    assert result.exit_code == 0, result.output
    told = re.search(r"or up to +(\d+) if hard rows are mislabeled", result.stdout)
    assert told and int(told[1]) > 1.5 * pd.read_csv(out).is_issue.sum()


def test_classes_that_differ_in_case_and_days_without_a_time_are_told_without_code(tmp_path, few_steps):
    days = np.datetime64("2024-05-01") + np.arange(60) % 30
    target = np.where(np.arange(60) == 7, 40.0, np.arange(60) % 30 + 0.5)
    pd.DataFrame({"x": np.arange(60) % 7, "day": days.astype(str), "y": ["Yes", "yes", "no"] * 20}).to_csv(
        tmp_path / "a.csv", index=False
    )
    pd.DataFrame({"x": np.arange(60) % 30 / 7, "day": days.astype(str), "y": target}).to_csv(tmp_path / "b.csv", index=False)
    said = call("labels", tmp_path / "a.csv", "--label", "y", "--out", tmp_path / "a.out.csv").output
    assert "If they are one class, make them equal in the file." in " ".join(said.split())
    page = tmp_path / "b.html"
    call("labels", tmp_path / "b.csv", "--label", "y", "--out", tmp_path / "b.out.csv", "--report", page)
    assert "day: 2024-05-" in page.read_text() and "00:00:00" not in page.read_text()


def test_a_classifier_is_trained_and_measured(files):
    result = call("train", files / "wrong.csv", "--label", "kind", "--test", files / "right.csv", "--epochs", "20")
    assert result.exit_code == 0, result.output
    assert "of 120 test rows" in result.stdout and float(result.stdout.split("accuracy")[1].split("%")[0]) > 95


@given(data=st.data(), typed=st.booleans())
def test_codes_stay_as_they_are_written_in_every_file(tmp_path_factory, data, typed):
    """A zero before a number in one file makes a column text in all; the oracle is what was written, but for a file without zeros
    beside codes of two digits. Other numbers stay numbers."""
    folder = tmp_path_factory.mktemp("codes")
    digits = st.lists(st.sampled_from(["1", "2", "10"]), min_size=4, max_size=4)
    frames = [
        pd.DataFrame({"a": data.draw(digits), "zip": data.draw(digits), "hour": ["0", "1.5", "02", "3"], "y": data.draw(digits)})
        for _ in range(2)
    ]
    padded = data.draw(st.sets(st.sampled_from(["zip", "y"]), min_size=1))
    for name in padded:
        frames[data.draw(st.sampled_from([0, 1]))].loc[data.draw(st.integers(0, 3)), name] = "01"
    paths = [folder / "main.csv", folder / "clean.csv"]
    for frame, path in zip(frames, paths, strict=True):
        frame.to_csv(path, index=False)
    is_first_typed = typed and any(code == "01" for code in frames[0]["zip"])
    if is_first_typed:
        paths[0] = folder / "main.parquet"
        frames[0].astype({"a": int, "hour": float}).to_parquet(paths[0])
    assume("y" in padded or not is_first_typed)
    found, notes = labeled(paths, "y", None, None, Reading())
    for frame, other, read in zip(frames, frames[::-1], found, strict=True):
        assert read.rows["a"].tolist() == [float(text) for text in frame["a"]]
        assert read.rows["hour"].tolist() == [0.0, 1.5, 2.0, 3.0]
        has_lost = {name: "01" not in set(frame[name]) and set(other[name]) <= {"01", "10"} for name in padded}
        codes = {name: [code.zfill(1 + has_lost[name]) for code in frame[name]] for name in padded}
        written = {name: codes[name] if name in padded else frame[name].astype(int).tolist() for name in ("zip", "y")}
        assert {"zip": read.rows["zip"].tolist(), "y": read.labels.tolist()} == written
    assert all(any(f"column '{name}' holds codes, such as '01'" in note for note in notes) for name in padded)


def test_only_columns_with_a_zero_before_a_digit_are_read_anew(tmp_path, monkeypatch):
    path, read = tmp_path / "data.csv", []
    inner = TextTable._frame
    monkeypatch.setattr(TextTable, "_frame", lambda self, names: read.extend(names) or inner(self, names))
    lines = ["n,half,code,quoted,none,date,long", '10,0.5,007,"a,01",0,01/02/2003,x', '200,1.5, 8 ," 02",10,-05,"y\n01"']
    path.write_text("\n".join(lines))
    found = open_table(path).texts(["date", "n", "half", "code", "quoted", "none", "long"])
    assert found == {"date": ["-05", "01/02/2003"], "code": ["007", "8"], "quoted": ["02", "a,01"]}
    assert read == list(found)
    path.write_text("\n".join([*lines, f"1,2,03,4,5,6,{'z' * 200_000}"]))
    assert open_table(path).texts(["n", "code"]) == {"code": ["007", "03", "8"]}


@pytest.mark.parametrize("names", [("01", "1"), ("x1", "1"), ("10", "01")])
def test_codes_are_classes_of_their_own_and_files_of_right_labels_are_read_alike(tmp_path, few_steps, names):
    rng, y, names = np.random.default_rng(0), np.arange(120) % 2, np.array(names)
    rows = pd.DataFrame(8.0 * y[:, None] + rng.normal(size=(120, 2)), columns=["a", "b"])
    given = names[np.where(np.arange(120) < 6, 1 - y, y)]
    rows.assign(y=given).to_csv(tmp_path / "given.csv", index=False)
    # These hold numbers alone, without the zero that a program may have dropped.
    right = rows.assign(row=range(120), y=int(names[1]))[y == 1]
    right[["row", "y"]][:20].to_csv(tmp_path / "checked.csv", index=False)
    right[["a", "b", "y"]][20:].to_csv(tmp_path / "clean.csv", index=False)
    out, more = tmp_path / "issues.csv", ("--clean", tmp_path / "clean.csv", "--checked", tmp_path / "checked.csv")
    result = call("labels", tmp_path / "given.csv", "--label", "y", *more, "--out", out)
    assert result.exit_code == 0, result.output
    issues = pd.read_csv(out, dtype=str)
    assert set(issues["row"][:6]) == set("012345") and set(issues["given_label"]) == set(names)
    assert ("checked.csv: column 'y' has no zeros before its codes" in "".join(result.output.split("\n"))) == (names[1] == "01")


def test_the_options_of_labels_are_those_of_the_call(tmp_path, few_steps, monkeypatch):
    """What reaches `find_label_issues`; groups are those of the named column, which is nothing to learn from."""
    rng, y, seen = np.random.default_rng(0), np.arange(40) % 2, {}
    table = pd.DataFrame({"a": y + rng.normal(size=40), "who": np.arange(40) // 4, "y": y})
    table.to_csv(tmp_path / "table.csv", index=False)
    find = densratio.labels.find_label_issues

    def spy(rows, labels, **settings):
        seen.update(settings, columns=list(rows))
        return find(rows, labels, **settings)

    monkeypatch.setattr("densratio.labels.find_label_issues", spy)
    options = (
        "--kind",
        "classes",
        "--groups",
        "who",
        "--folds",
        "3",
        "--repeats",
        "1",
        "--jobs",
        "1",
        "--seed",
        "7",
        "--device",
        "cpu:0",
    )
    result = call("labels", tmp_path / "table.csv", "--label", "y", *options, "--out", tmp_path / "issues.csv")
    assert result.exit_code == 0, result.output
    assert seen["columns"] == ["a"] and list(seen["groups"]) == [str(who) for who in table["who"]]
    names = "kind", "cv", "n_repeats", "n_jobs", "random_state", "device"
    assert [seen[name] for name in names] == ["classes", 3, 1, 1, 7, "cpu:0"]
    page = tmp_path / "page.html"
    result = call("labels", tmp_path / "table.csv", "--label", "a", "--repeats", "1", "--out", tmp_path / "i.csv", "--report", page)
    assert result.exit_code == 0 and "By classes" not in page.read_text() and len(pd.read_csv(tmp_path / "i.csv")) == 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Digits 0 and 1 as pictures in folders by class, right/ and wrong/; of the latter the first five of each in the other's."""
    root, digits = tmp_path_factory.mktemp("digits"), load_digits()
    for name in ("0", "1"):
        rows = np.flatnonzero(digits.target == int(name))[:60]
        for number, row in enumerate(rows):
            picture = Image.fromarray((15 * digits.images[row]).astype("uint8"))
            for kind, folder in (("right", name), ("wrong", name if number >= 5 else str(1 - int(name)))):
                (root / kind / folder).mkdir(parents=True, exist_ok=True)
                picture.save(root / kind / folder / f"{name}-{number}.png")
    return root


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr("densratio.labels.mean_network._STEPS", 40)
    monkeypatch.setattr("densratio.labels.held_out._MOST_DEALS", 1)


def test_the_wrong_images_of_a_folder_are_listed_first_and_shown(folders, few_steps, monkeypatch):
    monkeypatch.setattr("densratio.labels.mean_network._STEPS", 60)
    out, page = folders / "issues.csv", folders / "page.html"
    result = call("labels", folders / "wrong", "--folds", 2, "--out", out, "--report", page)
    assert result.exit_code == 0, result.output
    issues = pd.read_csv(out)
    first = [Path(file) for file in issues.file[:10]]
    assert sum(file.parent.name != file.name[0] for file in first) >= 8 and len(issues) == 120
    shown = [b64decode(part.split("'")[0]) for part in page.read_text().split("base64,")[1:]]
    assert len(shown) == issues.is_issue.sum() > 0
    np.testing.assert_array_equal(Image.open(BytesIO(shown[0])), Image.open(first[0]))


def test_a_classifier_learns_from_folders_and_names_the_stage(folders, caplog):
    result = call("train", folders / "wrong", "--test", folders / "right", "--epochs", "8", "--size", "8")
    assert result.exit_code == 0, result.output
    assert "of 120 test rows" in result.stdout and float(result.stdout.split("accuracy")[1].split("%")[0]) > 90
    stages = (
        "Trial of images",
        "First round, network 2 of 3, epochs: ",
        "Second round, network 3 of 3",
        "Final training, epochs: 8 of 8",
    )
    assert all(stage in caplog.text for stage in stages)


def test_sentences_are_learned_from_and_shown(tmp_path, few_steps):
    rng, words = np.random.default_rng(0), [["wave", "salt", "fish", "tide", "reef"], ["tree", "leaf", "moss", "root", "fern"]]
    y = np.arange(120) % 2
    texts = [" ".join([*rng.permutation(words[k])[:4], f"no{row} & more"]) for row, k in enumerate(y)]
    labels = np.array(["sea", "wood"])[np.where(np.arange(120) < 8, 1 - y, y)]
    pd.DataFrame({"text": texts, "kind": labels}).to_csv(tmp_path / "texts.csv", index=False)
    pd.DataFrame({"text": texts, "kind": np.array(["sea", "wood"])[y]}).to_csv(tmp_path / "right.csv", index=False)
    out, page = tmp_path / "issues.csv", tmp_path / "page.html"
    result = call("labels", tmp_path / "texts.csv", "--label", "kind", "--out", out, "--report", page)
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv(out)["row"][:8]) == set(range(8)) and "no0 &amp; more" in page.read_text()
    result = call("train", tmp_path / "texts.csv", "--label", "kind", "--test", tmp_path / "right.csv", "--epochs", "10")
    assert result.exit_code == 0 and float(result.stdout.split("accuracy")[1].split("%")[0]) > 90


@given(
    separator=st.sampled_from([",", ";", "\t"]),
    decimal=st.sampled_from([".", ","]),
    thousands=st.sampled_from([None, "'", " "]),
    encoding=st.sampled_from([None, "cp1252", "utf-16"]),
    above=st.sampled_from(["", "sep={}\n", "# remarks\n"]),
    seed=st.integers(0, 99),
)
def test_a_table_is_read_alike_however_it_is_written(tmp_path_factory, separator, decimal, thousands, encoding, above, seed):
    """The oracle is the table that was written: numbers, codes with a zero before them, texts, gaps, and labels."""
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("written") / "table.csv"
    numbers, labels = np.round(rng.normal(0.0, 5e3, 8), 2), rng.choice(["é", "b c", "NA"], 8)
    numbers[seed % 8] = np.nan
    codes = [f"{code:05d}" for code in rng.integers(0, 99_999, 8)]
    spelled = ["NA" if np.isnan(number) else f"{number:,.2f}".replace(",", "_").replace(".", decimal) for number in numbers]
    spelled = [text.replace("_", thousands or "") for text in spelled]
    lines = [["amount", "code", "word", "label"], *zip(spelled, codes, rng.choice(["x ", "x", "y"], 8), labels, strict=True)]
    text = above.format(separator) + "".join(separator.join(f'"{value}"' for value in line) + "\n" for line in lines)
    path.write_bytes(text.encode(encoding or "utf-8"))
    (found,), notes = labeled([path], "label", None, None, Reading(decimal, thousands, encoding, ("code",)))
    np.testing.assert_array_equal(found.rows["amount"], numbers)
    assert list(found.rows["code"]) == codes and list(found.labels) == list(labels)
    assert set(found.rows["word"]) <= {"x", "y"} and any("remarks" in note for note in notes) == (above == "# remarks\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("labels", "wrong.csv", "--label", "kinds"), "has no column 'kinds', the label. Did you mean 'kind'?"),
        (("labels", "wrong.csv", "--label", "sort"), "has no column 'sort', the label. The columns are 'a', 'b' and 'kind'."),
        (("labels", "none.csv", "--label", "kind"), "none.csv does not exist"),
        (("labels", "table.txt", "--label", "kind"), "table.txt has none of the suffixes by which a table is read: .csv"),
        (("labels", "stray.csv", "--label", "kind"), "column 'a' has 'x' on line 4 where a number belongs. Repair these values or"),
        (
            ("labels", "stray.csv", "--label", "a"),
            "column 'a' has 'x' on line 4 where a number belongs. Repair the label, or declare",
        ),
        (("labels", "gap.csv", "--label", "kind"), "column 'kind' has no label on line 3: give one"),
        (("labels", "wrong.csv", "--label", "kind", "--clean", "other.csv"), "only wrong.csv has 'b'; only other.csv has 'c'"),
        (("labels", "wrong.csv", "--label", "kind", "--columns", "a,kind"), "'kind' is what is learned: leave it out"),
        (("labels", "wrong.csv", "--label", "kind", "--text", "zip"), "--text: no file has a column 'zip'"),
        (("labels", "head.csv", "--label", "kind"), "head.csv has column names but no rows"),
        (("labels", "one.csv", "--label", "kind"), "There is no column besides 'kind'"),
        (("labels", "latin.csv", "--label", "kind"), "latin.csv is not UTF-8 text: name its encoding, such as --encoding cp1252"),
        (("train", "wrong.csv", "--label", "kind", "--test", "other.csv"), "only wrong.csv has 'b'; only other.csv has 'c'"),
        (("train", "wrong.csv", "--label", "kind", "--test", "numbers.csv"), "in numbers.csv the column holds numbers"),
        (("train", "wrong.csv", "--label", "kind", "--test", "right.csv", "--device", "gpu"), "--device gpu is not usable here"),
        (("labels", "wrong.csv", "--label", "kind", "--device", "gpu"), "try --device cpu"),
        (("labels", "wrong.csv"), "--label must name the column of the label in wrong.csv"),
        (("labels", "."), "has no images in folders by class, such as"),
        (("labels", ".", "--label", "kind"), "the names of the folders are the labels: leave --label out"),
        (
            ("train", ".", "--test", "right.csv"),
            ". is a folder of images and right.csv is none: give folders alone, or tables alone",
        ),
        (("labels", ".", "--drop", "a"), "--columns, --drop and --groups are for tables, and . is a folder"),
        (("labels", "wrong.csv", "--label", "kind", "--checked", "right.csv"), "right.csv has no column 'row'"),
        (("labels", "wrong.csv", "--label", "kind", "--checked", "none.csv"), "none.csv does not exist"),
        (("labels", "wrong.csv", "--label", "kind", "--kind", "sorts"), '--kind must be "auto", "classes" or "numbers"'),
        (("labels", "wrong.csv", "--label", "kind", "--folds", "1"), "--folds must be a whole number >= 2; got 1"),
        (("labels", "wrong.csv", "--label", "kind", "--repeats", "0"), "--repeats must be a whole number >= 1; got 0"),
        (("labels", "wrong.csv", "--label", "kind", "--groups", "who"), "--groups: wrong.csv has no column 'who'"),
        (("labels", "wrong.csv", "--label", "a", "--clean", "right.csv"), "--clean is for classes, and these labels are numbers"),
        (("labels", "wrong.csv", "--label", "kind", "--size", "8"), "--size is for images, and wrong.csv is a table"),
        (("labels", "wrong.csv", "--label", "kind", "--out", "x.txt"), "must end in .csv"),
        (("train", "wrong.csv", "--label", "kind", "--test", "right.csv", "--method", "mw_nett"), "Did you mean 'mw_net'"),
    ],
)
def test_mistakes_end_in_one_line(files, arguments, words, monkeypatch):
    monkeypatch.chdir(files)
    result = call(*arguments)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())


def test_doubts_about_the_number_are_notes_in_the_words_of_the_command(tmp_path, few_steps):
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"a": draw.normal(size=120), "y": draw.integers(0, 2, 120)})
    table.to_csv(tmp_path / "noise.csv", index=False)
    done = call("labels", tmp_path / "noise.csv", "--label", "y", "--repeats", 1, "--out", tmp_path / "issues.csv")
    assert "--checked right.csv" in done.output and "UserWarning" not in done.output and "checked=(" not in done.output
