"""The commands `labels` and `train`: a table with wrong labels in, a list of them out."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from densratio.cli import app


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


def test_a_classifier_is_trained_and_measured(files):
    result = call("train", files / "wrong.csv", "--label", "kind", "--test", files / "right.csv", "--epochs", "20")
    assert result.exit_code == 0, result.output
    assert "of 120 test rows" in result.stdout and float(result.stdout.split("accuracy")[1].split("%")[0]) > 95


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


def test_the_wrong_images_of_a_folder_are_listed_first_and_shown(folders, few_steps):
    out, page = folders / "issues.csv", folders / "page.html"
    result = call("labels", folders / "wrong", "--out", out, "--report", page)
    assert result.exit_code == 0, result.output
    issues = pd.read_csv(out)
    first = [Path(file) for file in issues.file[:10]]
    assert sum(file.parent.name != file.name[0] for file in first) >= 9 and len(issues) == 120
    shown = [b64decode(part.split("'")[0]) for part in page.read_text().split("base64,")[1:]]
    assert len(shown) == issues.is_issue.sum() > 0
    np.testing.assert_array_equal(Image.open(BytesIO(shown[0])), Image.open(first[0]))


def test_a_classifier_learns_from_folders(folders):
    result = call("train", folders / "wrong", "--test", folders / "right", "--epochs", "8", "--size", "8")
    assert result.exit_code == 0, result.output
    assert "of 120 test rows" in result.stdout and float(result.stdout.split("accuracy")[1].split("%")[0]) > 90


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("labels", "wrong.csv", "--label", "sort"), "has no column 'sort', the label; its columns are a, b, kind"),
        (("labels", "wrong.csv"), "--label must name the column of the label in wrong.csv; its columns are a, b, kind"),
        (("labels", "."), "has no images in folders by class, such as"),
        (("labels", ".", "--label", "kind"), "the names of the folders are the labels: leave --label out"),
        (("labels", "none.csv", "--label", "kind"), "There is no file none.csv; the current folder is"),
        (("labels", "wrong.txt", "--label", "kind"), "wrong.txt must end in .csv"),
        (("labels", "wrong.csv", "--label", "kind", "--out", "x.txt"), "must end in .csv"),
        (("train", "wrong.csv", "--label", "kind", "--test", "right.csv", "--method", "mw_nett"), "Did you mean 'mw_net'"),
    ],
)
def test_mistakes_end_in_one_line(files, arguments, words, monkeypatch):
    monkeypatch.chdir(files)
    result = call(*arguments)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())
