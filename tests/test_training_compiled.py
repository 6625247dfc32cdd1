"""A step that is compiled as a whole, and models that were compiled before they are listened to."""

from __future__ import annotations

import pytest
import torch
from small_loops import N_TRAIN, N_VAL, VAL, Network, assert_same, of, optimizer_of, plan, stored
from test_training_every_device import METHODS
from torch import nn

from densratio.training import DynamicReweighter

# Most of the time goes into tracing the optimizer, which is one for all methods: of those that read its state one has it within.
WHOLE = ["kmm, losses", "uniform", "mw_net"]


def stepped(name, is_compiled):
    torch.compiler.reset()
    model = Network(0, False).train()
    optimizer = optimizer_of(model)
    torch.default_generator.manual_seed(5)
    reweighter = METHODS[name](optimizer)

    def backward(x, y, index):
        loss = reweighter.weighted_loss(model, (x, y, index), VAL)
        optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def step(*batch):
        loss = backward(*batch)
        optimizer.step()
        return loss

    if is_compiled and name in WHOLE:
        step = torch.compile(step, backend="eager")
    elif is_compiled:
        backward = torch.compile(backward, backend="eager")
    torch.default_generator.manual_seed(6)
    losses = torch.stack([step(*of(index)) for index in plan(4)])
    return losses, stored(reweighter.state_dict()), stored(model.state_dict())


def is_twin(name):
    """What a reweighter does with its rows is not compiled: one divergence in every way, and the others in one."""
    divergence, _, way = name.partition(", ")
    return way not in ("", "losses") and divergence not in ("kmm", "sliced")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * is_twin(name)) for name in METHODS])
def test_a_step_that_is_compiled_as_a_whole_is_the_step(name):
    assert_same(stepped(name, True), stepped(name, False))


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif", "wasserstein"])
def test_partial_fit_within_compiled_code_is_partial_fit(name):
    torch.compiler.reset()
    one, other = (DynamicReweighter(name, N_TRAIN, N_VAL, warmup_epochs=0) for _ in range(2))

    def fit(train, val, index):
        one.partial_fit(train * 1.0, val, index, torch.arange(N_VAL))
        return one.transform(index).sum()

    compiled = torch.compile(fit, backend="eager")
    for index in plan(3):
        train, val = torch.rand(len(index)), torch.rand(N_VAL)
        total = compiled(train, val, index)
        other.partial_fit(train, val, index, torch.arange(N_VAL))
        assert_same(stored(one.state_dict()), stored(other.state_dict()))
        torch.testing.assert_close(total, other.weights_[index].sum())


@pytest.mark.parametrize("ratio", ["kmm", "auto"])
@pytest.mark.parametrize("how", ["torch.compile", "model.compile"])
def test_a_layer_is_heard_in_a_model_that_ran_compiled_before(ratio, how):
    torch.compiler.reset()
    weights = []
    for is_compiled in (False, True):
        model = Network(0, False).train()
        optimizer = optimizer_of(model)
        called: nn.Module = model
        if is_compiled and how == "torch.compile":
            called = torch.compile(model, backend="aot_eager")
        elif is_compiled:
            model.compile(backend="aot_eager")
        called(of(range(14))[0])  # before anything listens
        reweighter = DynamicReweighter(ratio, N_TRAIN, N_VAL, warmup_epochs=0, layer="hidden")
        for index in plan(4):
            loss = reweighter.weighted_loss(called, of(index), VAL)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        weights.append(reweighter.weights_)
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    assert not torch.equal(weights[0], torch.ones(N_TRAIN))
