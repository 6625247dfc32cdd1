"""Each example runs on a small setting, and shows what its text says."""

from __future__ import annotations

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from densratio.testing.laws import hold

FOLDER = Path(__file__).parent.parent / "examples"
SMALL: dict[str, tuple] = {
    "contrastive_warm_start": (["--seeds", "1", "--pretraining", "1", "--epochs", "2"],),
    "covariate_shift": (["--seeds", "1"],),
    "long_tailed_memory": (["--seeds", "1", "--epochs", "2"],),
    "million_rows": (["--rows", "5000"],),
    "model_selection": (["--seeds", "1"],),
    "own_divergence": (),
    "partial_label": (["--seeds", "1", "--epochs", "1"],),
    "pipeline": (["--seeds", "1"],),
    "reading_diagnostics": ([],),
    "selective_classification": (["--seeds", "1", "--epochs", "1"],),
    "semi_supervised": (["--seeds", "1", "--epochs", "6"],),
    "training_loop": (1,),
}
FEWER_ROWS = {"semi_supervised": 900}  # of which 400 are the test's
PICTURES = {"covariate_shift": 4, "model_selection": 1, "reading_diagnostics": 5}


@pytest.fixture(scope="module")
def example():
    """Loads an example as a module, by its name."""
    names = []

    def load(name):
        names.append(name)
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        # A dataclass looks its module up by name.
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in names:
        sys.modules.pop(name, None)


def test_every_example_has_a_small_setting():
    with_a_model = {"sentences", "sentence_selection", "token_labels"}  # in tests/test_examples_sentences.py
    assert {path.stem for path in FOLDER.glob("*.py")} == SMALL.keys() | with_a_model


def test_the_laws_catch_a_wrong_gradient_in_the_example_of_ones_own_divergence(capsys, monkeypatch):
    # On 5 problems in place of 20: what is wrong is caught on the first few, and what is right is right by its formula.
    for room in ("objectives", "solvers"):
        monkeypatch.setattr(f"densratio.testing.{room}.hold", lambda law, cases, max_examples: hold(law, cases, 5))
    runpy.run_path(str(FOLDER / "own_divergence.py"), run_name="__main__")
    assert "law: the gradient is the slope of the value" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(SMALL.keys() - PICTURES.keys() - {"own_divergence"}))
def test_it_runs_and_says_something(name, example, capsys):
    module = example(name)
    if name in FEWER_ROWS:
        module.N_ROWS = FEWER_ROWS[name]
    module.main(*SMALL[name])
    assert len(capsys.readouterr().out.splitlines()) >= 3


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_it_runs_and_writes_its_pictures(name, example, capsys, tmp_path):
    (arguments,) = SMALL[name]
    example(name).main([*arguments, "--out", str(tmp_path / "new")])
    said = capsys.readouterr().out
    assert len(said.splitlines()) >= 3
    pages = list((tmp_path / "new").iterdir())
    assert len(pages) == PICTURES[name]
    assert {page.suffix for page in pages} <= {".png", ".html"} and min(page.stat().st_size for page in pages) > 10_000
    if name == "reading_diagnostics":
        check_each_situation_says_what_it_is(said)


def check_each_situation_says_what_it_is(said):
    reports = dict(re.findall(r"=== (.*?) ===\n(.*?)(?=\n===|\Z)", said, flags=re.DOTALL))
    first = {name: re.search(r"^(?:! )?((?:No warnings|The samples|No overlap|A handful|Weighting made).*)$", text, re.MULTILINE)[1]
             for name, text in reports.items()}  # fmt: skip
    assert {name: words.split()[0:2] for name, words in first.items()} == {
        "a healthy shift": ["No", "warnings."],
        "no shift": ["The", "samples"],
        "no overlap": ["No", "overlap"],
        "too narrow a kernel": ["A", "handful"],
        "inverted weights": ["Weighting", "made"],
    }


def test_it_reads_the_layout_of_the_two_files(example, capsys, tmp_path):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(300.0, 80.0, 200), rng.integers(1, 100, 200)])
    lines = [f"{cement:.1f},{age:.0f},{np.log(age) * cement / 30.0:.2f}" for cement, age in rows]
    (tmp_path / "concrete.csv").write_text("\n".join(["cement,age,strength", *lines]))
    example("covariate_shift").main(["--data", str(tmp_path / "concrete.csv"), "--seeds", "1"])
    assert capsys.readouterr().out.startswith("200 rows, 2 columns, selected by 'age'.")


def test_a_table_that_is_not_known_is_an_error_that_names_the_two(example, tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(SystemExit, match=r"concrete\.csv nor winequality-white\.csv.*'b'"):
        example("covariate_shift").main(["--data", str(table)])


def test_weights_help_a_model_that_is_too_simple_and_only_that(example):
    module = example("covariate_shift")
    study = module.load(None)
    runs = [module.errors(module.selected(study, seed), module.LinearRegression(), study.few) for seed in range(5)]
    assert all(run["KLIEP"] < run["no weights"] for run in runs)
    enough = [module.errors(module.selected(study, seed), study.enough, study.columns) for seed in range(5)]
    without, weighted = (np.mean([run[key] for run in enough]) for key in ("no weights", "true ratio"))
    assert without < weighted


def test_the_report_warns_where_no_weights_can_help(example):
    module = example("covariate_shift")
    study = module.load(None)
    samples = {draw: draw(study, 0) for draw in (module.cut, module.not_selected)}
    stacked = {draw: module.stack_domains(found.source, found.target) for draw, found in samples.items()}
    said = {draw: module.diagnose(module.fit_ratio(samples[draw]), *stacked[draw]).warnings for draw in samples}
    assert said[module.cut][0].startswith("No overlap")
    assert [warning.split(" (")[0] for warning in said[module.not_selected]] == ["The samples do not differ measurably"]


def test_the_contrastive_loss_is_its_formula_row_by_row(example):
    z = np.random.default_rng(0).normal(size=(8, 3))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(8):
        others = [k for k in range(8) if k != i]
        exps = {k: np.exp(unit[i] @ unit[k] / 0.3) for k in others}
        losses.append(-np.log(exps[(i + 4) % 8] / sum(exps.values())))
    found = example("contrastive_warm_start").nt_xent(torch.as_tensor(z), 0.3)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-12)


def test_the_embedding_with_a_memory_is_its_formula_row_by_row(example):
    module = example("long_tailed_memory")
    torch.manual_seed(0)
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    plain = module.Network((1, 8, 8), 3)
    model = module.with_memory(plain, x, y)
    v = plain.features(x)  # attention begins as the identity
    torch.testing.assert_close(model.features(x), v)
    centroids = torch.stack([v[y == c].mean(dim=0) for c in range(3)])
    torch.testing.assert_close(model.centroids, centroids)
    for row, logits in zip(v, model(x), strict=True):
        memory = sum(share * c for share, c in zip(plain.linear(row).softmax(dim=0), centroids, strict=True))
        e = (row + torch.tanh(model.selector(row)) * memory) * 10.0 / min((row - c).norm() for c in centroids)
        cosines = torch.stack([e @ w / e.norm() / w.norm() for w in model.cosine.weight])
        torch.testing.assert_close(logits, 16.0 * e.norm() / (1.0 + e.norm()) * cosines)
    own = sum(((row - centroids[label]) ** 2).sum() for row, label in zip(v, y, strict=True)) / 6
    others = sum(((row - centroids[c]) ** 2).sum() for row, label in zip(v, y, strict=True) for c in range(3) if c != label) / 18
    torch.testing.assert_close(model.centroid_loss(x, y), own / 2 + 0.01 * max(10.0 - others, torch.zeros(())))
