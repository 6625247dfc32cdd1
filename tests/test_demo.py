"""The demo tells what it does, and writes its results whole or not at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from densratio.cli import app
from densratio.datasets import load_labelled
from densratio.demo import NoiseExperiment, experiment, summarize

pytest.importorskip("matplotlib")


def call(out, *arguments):
    return CliRunner().invoke(app, ["demo", "--epochs", "1", "--seeds", "1", "--out", str(out), *arguments])


@pytest.fixture
def untrained(monkeypatch):
    """No training begins."""
    monkeypatch.setattr(experiment, "run_method", lambda *_: pytest.fail("the demo trains"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else None


def test_each_run_is_one_line_on_standard_error_and_the_results_are_written(tmp_path):
    result = call(tmp_path / "new" / "folder", "--methods", "Uniform,MW-Net", "--seeds", "2")
    assert result.exit_code == 0, result.stderr
    lines = [f"{i} of 4: {name}, seed {seed}" for i, (name, seed) in enumerate(
        [("Uniform", 0), ("MW-Net", 0), ("Uniform", 1), ("MW-Net", 1)], start=1)]  # fmt: skip
    assert [re.sub(r", accuracy \d+\.\d %, \d+ s$", "", line) for line in result.stderr.splitlines()] == lines
    folder = tmp_path / "new" / "folder"
    assert set(contents(folder)) == {"results.json", "weights.png", "weighting.png"}
    written = json.loads((folder / "results.json").read_text())
    assert list(written["methods"]) == ["uniform", "mw_net"] and written["config"]["seeds"] == 2
    assert re.search(r"Uniform +\d+\.\d ± \d+\.\d ", result.stdout) and "deviation" in result.stdout


def test_one_seed_has_no_deviation(tmp_path):
    result = call(tmp_path, "--methods", "uniform")
    assert re.search(r"Uniform +\d+\.\d +1\.00 +1\.00", result.stdout) and "±" not in result.stdout
    assert json.loads((tmp_path / "results.json").read_text())["methods"]["uniform"]["accuracy_std"] is None


def test_the_deviation_is_that_of_the_seeds_and_weights_of_no_rows_have_no_mean():
    def run(seed, accuracy, flipped):
        weights, is_flipped = experiment.np.array([1.0, 3.0]), experiment.np.array(flipped)
        return experiment.Run("uniform", seed, [0.0] * 5 + [accuracy] * 10, weights, is_flipped, 0.1, None, None, None)

    both = summarize([run(0, 0.5, [False, True]), run(1, 0.7, [False, True])])
    assert (both["accuracy_mean"], both["accuracy_std"]) == pytest.approx((0.6, 0.2 / 2**0.5))
    assert (both["weight_clean"], both["weight_flipped"], both["auroc"]) == (1.0, 3.0, 0.0)
    clean = summarize([run(0, 0.5, [False, False])])
    assert (clean["weight_clean"], clean["weight_flipped"], clean["auroc"]) == (2.0, None, None)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder.write_text(""), "is a file: give a folder"),
        (lambda folder: (folder / "results.json").mkdir(parents=True), "is a folder or a device"),
        (lambda folder: (folder / "weights.png").mkdir(parents=True), "is a folder or a device"),
    ],
)
def test_a_folder_that_cannot_take_the_results_is_told_before_the_training(make, words, tmp_path):
    make(tmp_path / "out")
    result = call(tmp_path / "out")
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.usefixtures("untrained")
def test_a_folder_without_permission_is_told_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path or not mode & os.W_OK)
    result = call(tmp_path)
    assert result.exit_code == 2 and "no permission to write" in result.stderr and contents(tmp_path) == {}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--noise", "symetric:0.5"], "'symetric' is not known; use one of ['symmetric', "),
        (["--noise", "symmetric:1.5"], "rate must be a number in [0, 1]"),
        (["--methods", "kmm,kleip"], "There is no method 'kleip'. Did you mean 'kliep'"),
        (["--data", "digit"], "'digit' is not known; use digits, letters:FILE"),
        (["--epochs", "0"], "epochs must be an int >= 1"),
    ],
)
def test_a_slip_of_the_pen_lists_the_names_and_leaves_no_folder(arguments, words, tmp_path):
    result = call(tmp_path / "out", *arguments)
    assert result.exit_code == 2 and words in result.stderr and not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_results_of_before(tmp_path, monkeypatch):
    assert call(tmp_path, "--methods", "uniform").exit_code == 0
    before = contents(tmp_path)

    write = Path.write_bytes

    def full(path, content):
        write(path, content[:99])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    result = call(tmp_path, "--methods", "random")
    assert result.exit_code == 2 and "No space left" in result.stderr and contents(tmp_path) == before


def test_the_noise_of_an_experiment_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match=r"'pear' is not known; use one of \['symmetric', 'symmetric_inclusive', 'pair', 'asym"):
        NoiseExperiment(noise="pear:0.3")
    with pytest.raises(ValueError, match=r"such as symmetric:0\.5; got 'symmetric'"):
        NoiseExperiment(noise="symmetric")
    with pytest.raises(ValueError, match="none is left to train on"):
        experiment.split_rows(load_labelled("digits"), NoiseExperiment(n_val=2000), seed=0)
