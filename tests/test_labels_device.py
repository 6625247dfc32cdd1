"""Where networks of labels are trained: an absent device is told first, and what runs there waits for nothing within an epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from torch import nn

from densratio import NoisyLabelClassifier, find_label_issues
from densratio.labels import mean_network
from densratio.labels.default_model import default_model
from densratio.labels.image_network import image_network
from densratio.labels.mean_network import MeanNetwork

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
ROWS = 3.0 * np.eye(3)[LABELS] + RNG.normal(size=(90, 3))
IMAGES = RNG.normal(size=(90, 1, 6, 6)) + LABELS[:, None, None, None]
CALLS = {
    "table": lambda device: find_label_issues(ROWS, LABELS, device=device),
    "images": lambda device: find_label_issues(IMAGES, LABELS, device=device),
    "numbers": lambda device: find_label_issues(ROWS, RNG.normal(size=90), device=device),
    "scikit-learn": lambda device: find_label_issues(ROWS, LABELS, model=GaussianNB(), device=device),
    "function": lambda device: find_label_issues(ROWS, LABELS, model=nn.Linear, device=device),
    "columns": lambda device: find_label_issues(ROWS, np.stack([LABELS == 1, LABELS == 2], axis=1), device=device),
    "network": lambda device: MeanNetwork(nn.Linear, device=device).fit(ROWS, LABELS),
    "classifier": lambda device: NoisyLabelClassifier(device=device).fit(ROWS, LABELS),
}


@pytest.mark.parametrize("device", ["gpu", torch.device("cuda", 99)], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_or_absent_device_is_told_before_anything_is_learned(call, device, monkeypatch):
    for name in (
        "training.one_epoch",
        "mean_network.one_epoch",
        "find.default_model",
        "find.out_of_fold",
        "find.out_of_fold_numbers",
    ):
        monkeypatch.setattr(f"densratio.labels.{name}", lambda *given: pytest.fail("learned"))
    with pytest.raises(ValueError, match=rf'device="{device}" is not usable here .*; try device="cpu"'):
        CALLS[call](device)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(mean_network, "_STEPS", 4)


@pytest.mark.filterwarnings("ignore:.*labels can be wrong")
@pytest.mark.parametrize("model", [None, nn.Linear], ids=["default", "function"])
def test_a_device_named_with_its_number_gives_what_the_cpu_gives(model, few_steps):
    how = {"model": model, "cv": 2, "n_repeats": 1}
    one, other = (find_label_issues(ROWS, LABELS, device=device, **how) for device in ("cpu", torch.device("cpu", 0)))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.filterwarnings("ignore:.*labels can be wrong")
@pytest.mark.parametrize("rows", [ROWS, IMAGES], ids=["table", "images"])
def test_every_network_of_a_call_has_its_device(rows, few_steps, monkeypatch):
    """Those of the trial, the one chosen, and its copies for the folds."""
    used, fit = [], MeanNetwork.fit

    def recorded(self, X, y):
        used.append(self.device)
        return fit(self.set_params(epochs=1), X, y)

    monkeypatch.setattr(MeanNetwork, "fit", recorded)
    assert default_model(rows, LABELS, 0, device="cpu:0") is not None
    n_trial = len(used)
    find_label_issues(rows, LABELS, model=nn.Linear if rows is ROWS else image_network, cv=2, n_repeats=1, device="cpu:0")
    assert n_trial >= 2 and len(used) == n_trial + 2 and set(used) == {"cpu:0"}


@pytest.mark.parametrize("moves", ["no", "shifts", "flips"])
def test_an_epoch_waits_for_no_device(moves, few_steps, monkeypatch):
    """On "meta" a value that the host reads raises."""
    made = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda parameters, lr, fused: made(parameters, lr))  # the fused one lacks "meta"
    x, y = torch.empty(40, 3, 24, 24, device="meta"), torch.zeros(40, dtype=torch.int64, device="meta")
    network = MeanNetwork(image_network, moves=moves, batch_size=16, epochs=2, share=0.0)  # a share of epochs is copied to the host
    network.classes_ = np.arange(3)
    network._train(x, y)
    assert network.states_ == [] and next(network.model_.parameters()).device.type == "meta"


def test_the_states_of_the_epochs_are_copies_on_the_host(few_steps):
    network = MeanNetwork(nn.Linear, epochs=3, share=1.0).fit(ROWS, LABELS)
    weights = [state["weight"] for state in network.states_]
    assert len(weights) >= 3 and all(weight.device.type == "cpu" for weight in weights)
    assert len({weight.data_ptr() for weight in weights}) == len(weights) and not torch.equal(weights[0], weights[-1])


@pytest.mark.filterwarnings("ignore:.*labels can be wrong")
@pytest.mark.parametrize(
    ("model", "device", "words"),
    [
        (nn.Linear, "cpu", r'minutes of one core. Pass device="cuda" if you have a GPU, n_jobs=2 or a quicker'),
        (nn.Linear, "cpu:0", r"minutes on cpu:0. Pass n_jobs=2 or"),
        (GaussianNB(), "cpu:0", r"minutes of one core. Pass n_jobs=2 or"),
        (
            make_pipeline(make_column_transformer(("passthrough", ["a", "b"])), GaussianNB()),
            "cpu",
            r"minutes of one core. Pass n_jobs=2",
        ),
    ],
)
def test_the_time_of_many_rows_is_told_with_what_shortens_it(model, device, words, few_steps, monkeypatch):
    monkeypatch.setattr("densratio.labels.find._MANY", 90)
    with pytest.warns(UserWarning, match=f"90 rows take about 1 {words}"):
        X = pd.DataFrame(ROWS, columns=list("abc")) if hasattr(model, "steps") else ROWS
        find_label_issues(X, LABELS, model=model, cv=2, n_repeats=1, device=device)
