"""Tables on disk and calls of `densratio weights`, for the tests of the command line."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from densratio.cli import app


def samples(n_source=60, n_target=40, seed=0):
    """Two frames of columns with different units; the second is shifted."""
    rng = np.random.default_rng(seed)
    frames = []
    for n, shift in ((n_source, 0.0), (n_target, 0.8)):
        a, b = rng.normal(shift, 1.0, n), rng.normal(0.0, 1.0, n)
        frames.append(pd.DataFrame({"age": 40.0 + 10.0 * a, "income": 1e4 * b, "score": rng.normal(size=n)}))
    return frames


def call(*arguments):
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def weights(*arguments, out="weights.csv"):
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    return read_text(out)


def read_text(path):
    """The column of a text file, each number the nearest one: pandas below 3.1 misses some by the last digit."""
    with gzip.open(path, "rt") if str(path).endswith(".gz") else open(path) as file:
        name, *values = file.read().split()
    assert name == "weight"
    return np.array(values, dtype=float)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def error_of(folder, *arguments):
    """The error line of a call, which must be one, and must leave the folder as it was."""
    before = contents(folder)
    result = call(*arguments)
    assert (result.exit_code, result.stdout, contents(folder)) == (2, "", before)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip("\n")
