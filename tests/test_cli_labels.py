"""The commands `labels` and `train`: a table with wrong labels in, a list of them out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
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


def test_the_wrong_labels_of_a_table_are_listed_first_with_a_page(files):
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("labels", "wrong.csv", "--label", "sort"), "has no column 'sort', the label; its columns are a, b, kind"),
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
