"""The first lines of the README, word for word."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

README = (Path(__file__).parents[1] / "README.md").read_text()


def snippet_with(text):
    return next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if text in block)


@pytest.mark.parametrize("unit", [1.0, 1e6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_first_snippet_balances_income_and_age(unit, seed, capsys):
    rng = np.random.default_rng(seed)

    def people(age, deviation, n_rows):
        return np.column_stack([unit * rng.normal(50_000.0, 15_000.0, n_rows), rng.normal(age, deviation, n_rows)])

    X_train, X_target = people(40.0, 10.0, 1000), people(50.0, 8.0, 1000)
    names = {"X_train": X_train, "X_target": X_target, "X_new": X_target[:5], "labels": X_train[:, 1] + rng.normal(size=1000)}
    exec(snippet_with("KMM()"), names)
    age = np.average(X_train[:, 1], weights=names["ratio"].weights_)
    assert age == pytest.approx(X_target[:, 1].mean(), rel=0.02)
    assert "Effective sample size" in capsys.readouterr().out


def test_the_first_screen_weighs_a_table_finds_wrong_labels_and_trains_a_loop():
    rng, torch = np.random.default_rng(0), pytest.importorskip("torch")
    train = pd.DataFrame(rng.normal(size=(80, 2)), columns=["a", "b"]).assign(label=rng.integers(2, size=80))
    names = {"train": train, "target": train[["a", "b"]] + 0.5, "model": LogisticRegression(), "features": train[["a", "b"]]}
    exec(snippet_with("importance_weights("), names)
    assert names["result"].weights.mean() == pytest.approx(1.0)

    y, is_wrong = np.arange(60) % 2, np.arange(60) < 6
    X = 4.0 * y[:, None] + rng.normal(size=(60, 2))
    names = {"X_train": X, "y_train": np.where(is_wrong, 1 - y, y), "X_new": [[4.0, 4.0]]}
    exec(snippet_with("NoisyLabelClassifier()"), names)
    assert set(names["classifier"].label_issues_.row[:6]) == {0, 1, 2, 3, 4, 5}

    sets = [torch.utils.data.TensorDataset(torch.randn(n, 2), torch.randint(2, (n,))) for n in (300, 60)]
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    names = {"train_set": sets[0], "val_set": sets[1], "model": model, "optimizer": optimizer, "device": "cpu"}
    exec(snippet_with('DynamicReweighter("kmm"'), names)
    assert names["reweighter"].steps_seen == 3
