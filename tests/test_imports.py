"""What an import costs: one new interpreter imports room after room, and says after each what was loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import densratio

ROOT = Path(densratio.__file__).parents[1]
# scikit-learn itself loads pandas and rich where they are installed.
ALREADY = "import json, sys, sklearn.model_selection, sklearn.preprocessing; already = set(sys.modules)"
HEAVY = ["torch", "torch._dynamo", "cvxpy", "dask", "pyarrow", "matplotlib", "pandas", "polars", "typer", "rich", "PIL", "pytest"]
FRAMEWORKS = ["lightning", "transformers", "skorch"]
# Room after room, in an order in which none may load more than those before it and itself.
STAGES = {
    "the front door": "import densratio",
    "datasets": "import densratio.datasets",
    "a fit on numpy": "import numpy as np; from densratio import *; X = np.arange(12.0)[:, None]\n"
    "for kind in (KMM, KLIEP, LSIF, Wasserstein): kind().fit(*stack_domains(X[:6], X[3:])).transform(X)",
    "pictures": "import densratio.plotting",
    # Extras that are not there; afterwards they are again.
    "what is lacking": """
class NoTorch:
    def find_spec(name, path, target=None):
        if name == "torch": raise ModuleNotFoundError("No torch here.", name=name)
lacking = ["dask", "hypothesis", "matplotlib", "matplotlib.figure", "matplotlib.pyplot"]
sys.modules.update(dict.fromkeys(lacking))
sys.meta_path.insert(0, NoTorch)
p = densratio.plotting
def dask(): import densratio.dask
def laws(): import densratio.testing
def bars(): p.WeightsDisplay(weights=[1.0]).plot()
def counts(): p.weight_histograms({"a": [1.0]}, {"a": [False]})
def critic(): Wasserstein(potential="critic").fit(*stack_domains(np.zeros((5, 2)), np.ones((5, 2))))
said = []
for use in (dask, laws, bars, counts, critic):
    try: use()
    except ImportError as error: said.append(str(error))
for name in lacking: del sys.modules[name]
sys.meta_path.remove(NoTorch)""",
    "the laws": "import densratio.testing",
    "training": "import densratio.training",
    "frameworks": "import densratio.training.integrations",
}
OF_A_TABLE = ["the front door", "datasets", "a fit on numpy"]


def fresh(code):
    """The output of a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def loaded():
    """name of a stage: what was loaded by it and those before it. "said": what is said of extras that are lacking."""
    say = f"print(json.dumps([name for name in {HEAVY + FRAMEWORKS} if name in sys.modules.keys() - already]))"
    lines = fresh("\n".join([ALREADY, *(f"{code}\n{say}" for code in STAGES.values()), "print(json.dumps(said))"])).splitlines()
    return dict(zip([*STAGES, "said"], map(json.loads, lines), strict=True))


@pytest.mark.parametrize("stage", OF_A_TABLE)
def test_a_person_with_a_table_pays_for_numpy_scipy_and_scikit_learn_alone(loaded, stage):
    assert loaded[stage] == []


def test_the_laws_need_neither_pytest_nor_torch_at_import(loaded):
    assert loaded["the laws"] == []


def test_importing_the_pictures_loads_no_matplotlib(loaded):
    assert loaded["pictures"] == []


def test_the_training_room_is_the_one_that_loads_torch_without_its_compiler(loaded):
    assert "torch" in loaded["training"] and not {"cvxpy", "torch._dynamo"} & set(loaded["training"])


def test_the_folder_of_the_frameworks_imports_none(loaded):
    assert not set(FRAMEWORKS) & set(loaded["frameworks"])


def test_help_and_the_front_door_need_no_numbers_and_rooms_open_when_they_are_named():
    pytest.importorskip("typer")
    numerical = ["numpy", "scipy", "sklearn", *set(HEAVY) - {"typer", "rich"}]
    calls = [["--help"], ["--version"], ["weights", "--help"], ["demo", "--help"]]
    rooms = ["diagnostics", "estimators", "features", "model_selection", "objectives", "solvers", "two_step"]
    lines = fresh(
        "import sys\n"
        "from densratio.__main__ import main\n"
        f"for arguments in {calls}:\n"
        "    sys.argv = ['densratio', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "import densratio\n"
        f"print([name for name in {numerical} if name in sys.modules])\n"
        f"print([name for name in {rooms} if getattr(densratio, name).__name__ != 'densratio.' + name])"
    ).splitlines()
    assert lines[-2:] == ["[]", "[]"]


def test_the_lack_of_an_extra_is_told_with_the_command_that_installs_it(loaded):
    dask, *others = loaded["said"]
    assert 'pip install "densratio-toolkit[dask]"' in dask
    assert others == [
        'densratio.testing needs hypothesis: pip install "densratio-toolkit[testing]"',
        *['Plots need matplotlib: pip install "densratio-toolkit[plot]"'] * 2,
        'potential="critic" needs torch: pip install "densratio-toolkit[torch]"',
    ]


@pytest.mark.parametrize(
    ("name", "parameters"), [("uLSIF", {"nonnegative": False}), ("RuLSIF", {"nonnegative": False, "alpha": 0.5})]
)
def test_names_from_other_libraries_are_short_for_lsif(name, parameters):
    short = getattr(densratio, name)
    assert short().get_params() == densratio.LSIF(**parameters).get_params()
    assert short(gamma=2.0, alpha=0.3).get_params() == densratio.LSIF(**parameters | {"gamma": 2.0, "alpha": 0.3}).get_params()
    assert name in dir(densratio)


def test_asking_for_a_name_that_is_not_here_raises_what_hasattr_catches():
    assert not hasattr(densratio, "DynamicReweighter") and not hasattr(densratio, "KLM")
    with pytest.raises(AttributeError, match=r"from densratio\.training import DynamicReweighter"):
        densratio.DynamicReweighter  # noqa: B018
