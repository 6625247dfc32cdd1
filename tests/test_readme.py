"""The first lines of the README, word for word, on columns of different units."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("unit", [1.0, 1e6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_snippet_balances_income_and_age(unit, seed, capsys):
    rng = np.random.default_rng(seed)

    def people(age, deviation, n_rows):
        return np.column_stack([unit * rng.normal(50_000.0, 15_000.0, n_rows), rng.normal(age, deviation, n_rows)])

    X_train, X_target = people(40.0, 10.0, 1000), people(50.0, 8.0, 1000)
    names = {"X_train": X_train, "X_target": X_target, "X_new": X_target[:5], "labels": X_train[:, 1] + rng.normal(size=1000)}
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "KMM()" in block)
    exec(snippet, names)
    age = np.average(X_train[:, 1], weights=names["ratio"].weights_)
    assert age == pytest.approx(X_target[:, 1].mean(), rel=0.02)
    assert "Effective sample size" in capsys.readouterr().out
