"""Weights by rules, trainings of two parts, and the memory of a step: against the formulas by hand."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    IRREDUCIBLE,
    N_TRAIN,
    C,
    Network,
    X,
    Y,
    assert_same,
    of,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from densratio.datasets import load_digits
from densratio.demo import experiment
from densratio.demo.experiment import NoiseExperiment, run_method
from densratio.demo.peak_memory import peak_memory
from densratio.training.baselines import Uniform
from densratio.training.loop import Reweighter
from densratio.training.losses import cross_entropy, squared_error
from densratio.training.registry import TRAIN_TWICE
from densratio.training.rules import (
    ClassBalanced,
    Focal,
    JustTrainTwice,
    MarginBased,
    RHOLoss,
    SelfPaced,
    irreducible_losses,
    margins,
)

drawn = settings(max_examples=15)


class Given(nn.Module):
    """A model whose logits are its parameter, row by row: losses and margins can then be set as one likes."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits))

    def forward(self, x):
        return self.logits[: len(x)]


def logits_of(seed, n=12, dtype=torch.float64, scale=3.0):
    return scale * torch.randn(n, C, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def labels_of(seed, n=12):
    return torch.randint(C, (n,), generator=torch.Generator().manual_seed(seed + 1))


def step(reweighter, logits, y, val=None):
    """Loss, gradient in the logits and the weights of one batch of the first rows."""
    model, n = Given(logits).train(), len(logits)
    loss = reweighter.weighted_loss(model, (torch.zeros(n, 1), y, range(n)), val)
    loss.backward()
    return float(loss.detach()), model.logits.grad, reweighter.weights_[:n].clone()


# ---------------------------------------------------------------- focal


@drawn
@given(seed=st.integers(0, 1000), gamma=st.sampled_from([0.0, 0.3, 1.0, 2.0, 5.0]))
def test_focal_is_the_focal_loss_and_its_gradient(seed, gamma):
    y = labels_of(seed)
    logits = logits_of(seed).requires_grad_()
    p = torch.softmax(logits, dim=1)[torch.arange(12), y]
    by_hand = (-((1 - p) ** gamma) * torch.log(p)).mean()
    by_hand.backward()
    loss, gradient, weights = step(Focal(12, gamma=gamma).double(), logits.detach(), y)
    assert loss == pytest.approx(float(by_hand.detach()), rel=1e-10)
    torch.testing.assert_close(gradient, logits.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights, ((1 - p) ** gamma).detach(), rtol=1e-9, atol=1e-12)


def test_focal_of_gamma_0_is_plain_training():
    logits, y = logits_of(0, dtype=torch.float32), labels_of(0)
    plain, focal = step(Uniform(12), logits, y), step(Focal(12, gamma=0.0), logits, y)
    assert plain[0] == focal[0] and torch.equal(plain[1], focal[1]) and torch.equal(focal[2], torch.ones(12))


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9, 1.0, 2.0])
def test_focal_has_a_slope_where_the_label_is_certain(gamma):
    """At p = 1 the derivative of (1 - p)^gamma is infinite for gamma < 1; that of the focal loss is 0."""
    logits = torch.zeros(4, C)
    logits[:2, 0], logits[2, 0] = 200.0, 14.0
    loss, gradient, weights = step(Focal(4, gamma=gamma), logits, torch.zeros(4, dtype=torch.int64))
    assert np.isfinite(loss) and bool(torch.isfinite(gradient).all()) and float(gradient[:2].abs().max()) == 0.0
    assert float(gradient[3].abs().max()) > 0.01
    assert float(weights[0]) < 1e-3 and float(weights[3]) == pytest.approx((2 / 3) ** gamma, rel=1e-5)


# ---------------------------------------------------------------- class-balanced


@drawn
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), beta=st.sampled_from([0.0, 0.5, 0.9, 0.999, 0.9999999, 1.0]))
def test_class_balanced_weighs_by_the_effective_number_of_rows(sizes, beta):
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    effective = [sum(beta**k for k in range(size)) for size in sizes]  # (1 - beta^n) / (1 - beta) without its 0 / 0
    expected = np.array([1 / effective[c] for c in y])
    reweighter = ClassBalanced(len(y), y, beta=beta)
    torch.testing.assert_close(reweighter.row_weights.double(), torch.as_tensor(expected / expected.mean()), rtol=1e-6, atol=0.0)
    assert float(reweighter.row_weights.double().mean()) == pytest.approx(1.0, rel=1e-6)


def test_class_balanced_of_beta_0_is_plain_and_of_beta_1_gives_each_class_the_same_mass():
    assert torch.equal(ClassBalanced(N_TRAIN, Y, beta=0.0).row_weights, torch.ones(N_TRAIN))
    mass = [float(ClassBalanced(N_TRAIN, Y, beta=1.0).row_weights[c == Y].sum()) for c in range(C)]
    assert mass == pytest.approx([N_TRAIN / C] * C, rel=1e-5)


def test_class_balanced_steps_with_the_rows_own_weights():
    model, index = Network(0, has_norm=False), torch.tensor([4, 0, 37, 9])
    reweighter = ClassBalanced(N_TRAIN, Y.tolist(), beta=0.9)
    loss = reweighter.weighted_loss(model, of(index), None)
    each = cross_entropy(model(X[index]), Y[index])
    assert float(loss.detach()) == pytest.approx(float((reweighter.row_weights[index] * each).mean().detach()), rel=1e-6)
    assert torch.equal(reweighter.transform(index), reweighter.row_weights[index])


# ---------------------------------------------------------------- self-paced and rho loss


def check_top(weights, scores, share):
    """Even weights of mean 1 on the best rows, 0 on the others; a brute-force oracle that allows ties."""
    n = len(scores)
    n_kept = max(1, round(share * n))
    kept = weights > 0
    assert int(kept.sum()) == n_kept and float(weights.sum()) == pytest.approx(n, rel=1e-5)
    assert weights[kept].tolist() == pytest.approx([n / n_kept] * n_kept)
    best = sorted(scores.tolist(), reverse=True)[:n_kept]
    assert sorted(scores[kept].tolist(), reverse=True) == pytest.approx(best, abs=1e-6)


@drawn
@given(seed=st.integers(0, 1000), start=st.floats(0.05, 1.0), end=st.floats(0.05, 1.0), n_epochs=st.sampled_from([0.5, 2.0, 7.0]))
def test_self_paced_trains_on_the_least_losses_and_the_share_moves_linearly(seed, start, end, n_epochs):
    reweighter = SelfPaced(12, start=start, end=end, n_epochs=n_epochs)
    for epoch in range(9):
        share = start + (end - start) * min(1.0, epoch / n_epochs)
        assert reweighter.epoch == epoch and reweighter.share == pytest.approx(share)
        logits, y = logits_of(seed + epoch, dtype=torch.float32), labels_of(seed)
        weights = step(reweighter, logits, y)[2]
        check_top(weights, -cross_entropy(logits, y), share)
    assert reweighter.share == pytest.approx(end)


@drawn
@given(seed=st.integers(0, 1000), share=st.floats(0.01, 1.0), n=st.integers(1, 12))
def test_rho_loss_trains_on_the_largest_reducible_losses(seed, share, n):
    irreducible = 3 * torch.rand(20, generator=torch.Generator().manual_seed(seed))
    reweighter = RHOLoss(20, irreducible, share=share)
    logits, y = logits_of(seed, n, torch.float32), labels_of(seed, n)
    index = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[:n]
    model = Given(logits)
    reweighter.weighted_loss(model, (torch.zeros(n, 1), y, index), None).backward()
    weights = reweighter.transform(index)
    check_top(weights, cross_entropy(logits, y) - irreducible[index], share)
    assert torch.equal(model.logits.grad.abs().amax(dim=1) == 0, weights == 0)


def test_rho_loss_keeps_its_own_copy_of_the_losses():
    given_losses = IRREDUCIBLE.clone()
    reweighter = RHOLoss(N_TRAIN, given_losses)
    reweighter.load_state_dict(RHOLoss(N_TRAIN, torch.zeros(N_TRAIN)).state_dict())
    assert torch.equal(given_losses, IRREDUCIBLE) and torch.equal(reweighter.irreducible, torch.zeros(N_TRAIN))


def test_irreducible_losses_are_those_in_eval_mode_and_leave_no_trace():
    model = Network(0).train()
    model.hidden[3].eval()
    model(X)
    before, draws = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    found = irreducible_losses(model, DataLoader(TensorDataset(X, Y, torch.arange(N_TRAIN)), 7, generator=torch.Generator()))
    modes = [layer.training for layer in model.modules()]
    assert modes == [layer is not model.hidden[3] for layer in model.modules()]
    assert_same(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), draws) and all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(found, cross_entropy(model.eval()(X), Y).detach())
    assert found.shape == (N_TRAIN,) and not found.requires_grad
    other = irreducible_losses(model, [(X, nn.functional.one_hot(Y, C).float())], squared_error)
    torch.testing.assert_close(other, ((model(X) - nn.functional.one_hot(Y, C)) ** 2).mean(dim=1).detach())


# ---------------------------------------------------------------- margins


@drawn
@given(
    logits=st.lists(st.lists(st.floats(-200.0, 200.0, width=32), min_size=4, max_size=4), min_size=1, max_size=6),
    seed=st.integers(0, 100),
)
def test_margins_are_the_label_less_the_best_other_class(logits, seed):
    y = np.random.default_rng(seed).integers(4, size=len(logits))
    expected = []
    for row, label in zip(np.array(logits), y, strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        expected.append(p[label] - max(p[j] for j in range(4) if j != label))
    for dtype in (torch.float32, torch.float64):
        found = margins(torch.tensor(logits, dtype=dtype), torch.as_tensor(y))
        assert found.dtype == dtype and found.tolist() == pytest.approx(expected, abs=1e-5)
        assert float(found.min()) >= -1.0 and float(found.max()) <= 1.0


def test_margins_are_detached_and_single_precision_at_least():
    found = margins(torch.randn(3, 2).bfloat16().requires_grad_(), torch.tensor([0, 1, 1]))
    assert found.dtype == torch.float32 and not found.requires_grad


@pytest.mark.parametrize(("favors", "sign"), [("hard", -1), ("easy", 1)])
def test_margin_based_weights_are_linear_in_the_margin_of_mean_one(favors, sign):
    logits, y = logits_of(4), labels_of(4)
    weights = step(MarginBased(12, favors=favors).double(), logits, y)[2]
    expected = 1 + sign * margins(logits, y)
    torch.testing.assert_close(weights, expected / expected.mean())


@pytest.mark.parametrize(("favors", "sign"), [("hard", -1), ("easy", 1)])
def test_margins_of_a_first_training_stay_whatever_the_model_says_now(favors, sign):
    first = torch.linspace(-1.0, 1.0, 20)
    reweighter, index = MarginBased(20, favors=favors, first=first), torch.tensor([3, 19, 0, 8, 8])
    expected = 1 + sign * first[index]
    for seed in range(2):
        x, y = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)), torch.arange(5) % 2
        loss = reweighter.weighted_loss(nn.Identity(), (x, y, index))
        own = (expected / expected.mean() * nn.functional.cross_entropy(x, y, reduction="none")).mean()
        torch.testing.assert_close(loss, own)


@drawn
@given(seed=st.integers(0, 99), upweight=st.sampled_from([0.5, 1.0, 20.0]))
def test_rows_that_a_first_training_got_wrong_count_more_in_every_batch(seed, upweight):
    logits, y, random = logits_of(seed, 20), labels_of(seed, 20), np.random.default_rng(seed)
    is_wrong = logits.argmax(dim=1) != y
    reweighter = JustTrainTwice(20, margins(logits, y), upweight=upweight)
    each = torch.where(is_wrong, upweight, 1.0)
    for _ in range(2):
        index = torch.as_tensor(random.integers(20, size=7))
        now = torch.as_tensor(random.normal(size=(7, C)), dtype=torch.float32)
        expected = (each[index] / each.mean() * nn.functional.cross_entropy(now, y[index], reduction="none")).mean()
        torch.testing.assert_close(reweighter.weighted_loss(nn.Identity(), (now, y[index], index)), expected)
        torch.testing.assert_close(reweighter.transform(index), each[index] / each.mean())


def test_a_batch_of_certain_rows_trains_unweighted_and_is_told(caplog):
    """All margins are 1: no row is hard."""
    logits = torch.zeros(3, C)
    logits[:, 1] = 300.0
    reweighter = MarginBased(3)
    with caplog.at_level(logging.WARNING, logger="densratio"):
        weights = step(reweighter, logits, torch.ones(3, dtype=torch.int64))[2]
    assert torch.equal(weights, torch.ones(3)) and reweighter.vanished_ == 1 and "MarginBased" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Focal(5, gamma=-0.1), r"gamma must be a number in \[0, inf\); got -0.1"),
        (lambda: Focal(5, gamma=float("nan")), r"gamma must be a number in \[0, inf\)"),
        (lambda: Focal(0), "n_train must be an int >= 1"),
        (lambda: Focal(5, warmup_epochs=-1.0), "warmup_epochs must be a number in"),
        (lambda: ClassBalanced(5, [0, 1, 2]), r"y_train must be \(5,\) integers >= 0.*got shape \(3,\)"),
        (lambda: ClassBalanced(2, [0.0, 1.0]), "dtype float64"),
        (lambda: ClassBalanced(2, [0, -1]), "integers >= 0"),
        (lambda: ClassBalanced(2, [0, 1], beta=1.1), r"beta must be a number in \[0, 1\]; got 1.1"),
        (lambda: ClassBalanced(2, [0, 1], beta=float("nan")), r"beta must be a number in"),
        (lambda: SelfPaced(5, start=0.0), r"start must be a number in \(0, 1\]; got 0.0"),
        (lambda: SelfPaced(5, end=1.5), r"end must be a number in \(0, 1\]; got 1.5"),
        (lambda: SelfPaced(5, n_epochs=0), "n_epochs must be a number in"),
        (lambda: MarginBased(5, favors="both"), r"favors must be one of \['easy', 'hard'\]; got 'both'"),
        (lambda: MarginBased(3, first=[0.1, 0.2]), r"first must be \(3,\) margins in \[-1, 1\].*got shape \(2,\)"),
        (lambda: MarginBased(2, first=[0.1, float("nan")]), r"margins in \[-1, 1\]"),
        (lambda: JustTrainTwice(3, [0.1, 0.2]), r"first must be \(3,\) margins in \[-1, 1\].*got shape \(2,\)"),
        (lambda: JustTrainTwice(2, [0.1, 1.2]), r"margins in \[-1, 1\].*got shape \(2,\), from 0.1 to 1.2"),
        (lambda: JustTrainTwice(2, [0.1, 0.2], upweight=0.0), r"upweight must be a number in \(0, inf\); got 0.0"),
        (lambda: RHOLoss(5, [0.1, 0.2]), r"irreducible must be \(5,\) finite losses.*got \(2,\)"),
        (lambda: RHOLoss(2, [0.1, float("nan")]), "finite losses"),
        (lambda: RHOLoss(2, [0.1, 0.2], share=0.0), r"share must be a number in \(0, 1\]; got 0.0"),
        (
            lambda: margins(torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
            r"logits \(n, C\) and class labels .*got \(3,\)",
        ),
        (lambda: margins(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)), r"got \(3, 1\) and \(3,\)"),
        (lambda: margins(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)), r"got \(3, 2\) and \(2,\)"),
        (lambda: margins(torch.zeros(3, 2), torch.zeros(3)), r"A margin needs logits \(n, C\) and class labels \(n,\)"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- methods of two trainings


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.mark.parametrize("name", [*TRAIN_TWICE, "rho_loss", "jtt", "lrw_opt", "focal"])
def test_an_experiment_runs_with_methods_of_two_trainings(name, digits):
    config, told = NoiseExperiment(methods=(name,), epochs=2, seeds=1, n_val=50, n_test=1300), []
    before = torch.get_rng_state()
    run = run_method(name, 0, digits, config, told.append)
    draws = torch.get_rng_state()
    n_train = len(digits.labels) - 1350
    n_left = n_train - round(0.1 * n_train) if name in TRAIN_TWICE else n_train
    assert run.accuracy == told and len(told) == 2 and all(0 <= value <= 1 for value in told)
    assert run.weights.shape == run.is_flipped.shape == (n_left,) and np.isfinite(run.weights).all() and run.weights.min() >= 0
    assert isinstance(run.reweighter, TRAIN_TWICE.get(name, Reweighter)) and run.method == name
    assert run.peak_memory > 0 and torch.equal(draws, before)
    again = run_method(name, 0, digits, config)
    assert again.accuracy == run.accuracy and np.array_equal(again.weights, run.weights)


@pytest.mark.parametrize(("most", "n_threads"), [(64, 1), (63, 2)])
def test_an_experiment_takes_one_thread_for_short_rows_and_leaves_the_number_as_it_was(digits, monkeypatch, most, n_threads):
    monkeypatch.setattr(experiment, "_SHORT", most)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        config = NoiseExperiment(methods=("uniform",), epochs=1, seeds=1, n_val=50, n_test=1300)
        run_method("uniform", 0, digits, config, lambda _: seen.append(torch.get_num_threads()))
        assert seen == [n_threads] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------- the memory of a step

MIB = 2**20


# In a process of its own: what other tests did to torch's profiler, as by compiling, may leave it without events for good.
# It also loses the events of a trace where the system takes the core away while the trace sets its clock.
# The file alone: the room around it loads every method of training.
IN_A_PROCESS = """
import runpy, sys, torch
peak_memory = runpy.run_path(sys.argv[1])["peak_memory"]
MIB = 2**20
held = [torch.ones(4 * MIB)]
def take():
    kept = torch.ones(2 * MIB)  # 8 MiB that stay
    a = torch.ones(4 * MIB)  # 16 MiB
    del a
    b = torch.ones(MIB)  # 4 MiB
    del b
    return kept
def swap():
    held.clear()  # what was given back from before
    held.append(torch.ones(2 * MIB))
for step, most in ((take, 24), (swap, 8)):
    found = next(peak for peak in (peak_memory(step, torch.device("cpu")) for _ in range(50)) if peak)
    assert most * MIB <= found < (most + 0.1) * MIB, (step, found)
assert peak_memory(lambda: None, torch.device("cpu")) == 0
"""


def test_peak_memory_is_what_a_step_takes_at_once():
    command = [sys.executable, "-W", "ignore", "-c", IN_A_PROCESS, inspect.getsourcefile(peak_memory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_step_that_fails_leaves_standard_error_as_it_was(capfd):
    def fail():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        peak_memory(fail, torch.device("cpu"))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_memory_of_a_device_that_does_not_tell_is_none():
    called = []
    assert peak_memory(lambda: called.append(1), torch.device("meta")) is None
