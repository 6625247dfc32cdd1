"""The pages: their code runs as it stands there, and what they name is there."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import densratio
from densratio.diagnostics import advice
from densratio.estimators import ESTIMATORS
from densratio.testing import objectives, solvers
from densratio.testing.laws import hold

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))

LOOP = """
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.Adam(model.parameters())
train_set, val_set = (TensorDataset(torch.randn(n, 3), torch.randint(2, (n,))) for n in (300, 60))
train_labels, val_labels = train_set.tensors[1], val_set.tensors[1]
epochs, device = 2, "cpu"
"""
BATCH = "\n(x, y, i), (x_val, y_val, j) = next(iter(train_loader)), next(val_batches)\n"
LOGITS = "\ntrain_logits = model(train_set.tensors[0]).detach()\n"
PRELUDES = {"training.md": {0: LOOP, 1: BATCH}, "learned.md": {0: LOOP, 2: LOGITS}}
"""What stands before a code block of a page, by the block's number: what the reader of that page has already."""


def fenced(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def cells(page, below):
    """Rows of the table below a line, as lists of cells."""
    table = (DOCS / page).read_text().split(below, 1)[1].split("\n\n")[0]
    rows = [row.strip("|").split("|") for row in table.strip().splitlines() if row.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set(row[0].strip()) <= {"-", ":"}]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "python")])
def test_the_code_of_a_page_runs_from_its_first_block_to_its_last(page, folder, monkeypatch):
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    # The thirtieth refit of a stack runs as the third, and the fourth deal of the rows into folds as the first.
    monkeypatch.setitem(densratio.target_performance.__kwdefaults__, "n_bootstrap", 3)
    monkeypatch.setitem(densratio.find_label_issues.__kwdefaults__, "n_repeats", 1)
    # Laws hold on the third problem as on the tenth.
    for room in (objectives, solvers):
        monkeypatch.setattr(room, "hold", lambda law, cases, max_examples: hold(law, cases, 3))
    names = vars(module)
    for number, block in enumerate(fenced(page, "python")):
        code, failure = PRELUDES.get(page, {}).get(number, "") + block, None
        try:
            exec(compile(code, f"{page}, block {number}", "exec"), names)
        except Exception as error:
            failure = error
        assert failure is None, f"{page}, block {number}: {type(failure).__name__}: {failure}\n{block}"


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_fits_into_its_width(page):
    lines = [line for language in ("python", "bash") for block in fenced(page, language) for line in block.splitlines()]
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    "command", [line for block in fenced("command_line.md", "bash") for line in block.replace("\\\n", " ").splitlines()]
)
def test_a_command_of_the_command_line_page_runs(command, folder):
    testing = pytest.importorskip("typer.testing")
    from densratio.cli import app

    rng = np.random.default_rng(0)
    for name, middle in (("train", 0.0), ("target", 1.0)):
        rows = rng.normal(middle, 1.0, (40, 3))
        np.savetxt(folder / f"{name}.csv", rows, delimiter=",", header="area,rooms,price", comments="")
    program, *arguments = shlex.split(command)
    assert program == "densratio"
    done = testing.CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = [arguments[i + 1] for i, name in enumerate(arguments) if name in ("--out", "--report", "--plot")]
    assert [name for name in written if not (folder / name).stat().st_size] == []


def test_the_options_of_the_command_line_page_are_those_of_the_command():
    pytest.importorskip("typer")
    from typer.main import get_command

    from densratio.cli import app

    described = re.findall(r"--[a-z-]+", "\n".join(row[0] for row in cells("command_line.md", "| option | |\n")))
    parameters = get_command(app).commands["weights"].params
    given = [name for p in parameters if p.param_type_name == "option" for name in (*p.opts, *p.secondary_opts)]
    assert sorted(described) == sorted(given)


def test_every_method_has_a_page_and_every_page_a_method():
    assert {Path(page).stem for page in PAGES if page.startswith("methods/")} == set(ESTIMATORS)


@pytest.mark.parametrize("method", sorted(ESTIMATORS))
def test_the_parameters_of_a_method_s_page_are_those_of_its_class(method):
    text = (DOCS / "methods" / f"{method}.md").read_text().split("## Parameters that matter")[1].split("\n## ")[0]
    starts = re.findall(r"^- (`.*?)[:.]\s", text, flags=re.MULTILINE)
    named = {name.split("=")[0] for start in starts for name in re.findall(r"`([^`]+)`", start)}
    assert named and named <= set(ESTIMATORS[method]().get_params())


def test_the_table_of_what_cross_validation_chooses_has_every_method_and_parameter():
    described = {}
    for methods, parameters, *_ in cells("model_selection.md", '| method | takes `"cv"` and sequences |\n'):
        for method in re.findall(r"`(\w+)`", methods):
            described[method] = re.findall(r"`(\w+)`", parameters)
    choosable = {kind.__name__: kind._search.grids for kind in ESTIMATORS.values() if kind._search.grids}
    assert described.keys() == choosable.keys()
    assert all(set(described[name]) >= set(parameters) for name, parameters in choosable.items())


def test_every_warning_of_the_diagnostics_page_is_one_that_the_report_gives():
    said = inspect.getsource(advice)
    rows = cells("diagnostics.md", "| it begins | it means | do |\n")
    checks = len(re.findall(r"^def _\w+\(report: Report, \w+: Remedies\) -> Iterator", said, flags=re.MULTILINE))
    assert len(rows) == checks
    assert [row[0] for row in rows if " ".join(row[0].split()[-3:]) not in said] == []
