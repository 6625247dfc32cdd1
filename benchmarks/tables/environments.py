"""The interpreters that the libraries run in, and how they are made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["FOLDER", "ROOT", "create", "interpreters"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".benchdata"
"""Where the environments are made unless told; git ignores it."""
NAMES = ["others", "hoxo"]
"""requirements-NAME.txt is what is installed in FOLDER/venv-NAME."""


def create(folder: Path) -> None:
    """Make each environment under `folder` with this interpreter's version of Python and the pinned packages."""
    for name in NAMES:
        home = folder / f"venv-{name}"
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        requirements = HERE / f"requirements-{name}.txt"
        subprocess.run([str(_python(home)), "-m", "pip", "install", "--requirement", str(requirements)], check=True)


def interpreters(others: Path | None, hoxo: Path | None) -> dict[str, Path | None]:
    """The interpreter of each environment by name, "own" being this one; None where there is no environment.

    others, hoxo: the environments' folders; None: where `create` makes them.
    """
    found: dict[str, Path | None] = {"own": Path(sys.executable)}
    for name, given in zip(NAMES, [others, hoxo], strict=True):
        python = _python(given or FOLDER / f"venv-{name}")
        if given is not None and not python.exists():
            raise ValueError(f"--{name} must be the folder of a virtual environment; there is no {python}.")
        found[name] = python if python.exists() else None
    return found


def _python(home: Path) -> Path:
    # Not resolved: it is by the link's own place that the interpreter knows its environment.
    return home.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
