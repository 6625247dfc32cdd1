"""MCW: class-balanced weights and one step of each row's own, through the optimizer's step by double backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import MOMENTUM, N_TRAIN, RATE, VAL, Network, Y, double, of, optimizer_of, plan
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from densratio.training import MCW, ClassBalanced

drawn = settings(max_examples=12, deadline=None)
SIZES = np.bincount(Y.numpy())


def class_weights(beta):
    """Of the rows, of mean 1: by the effective numbers 1 + beta + ... + beta^(n - 1) of the classes."""
    each = np.array([1.0 / sum(beta**power for power in range(size)) for size in SIZES])[Y.numpy()]
    return torch.as_tensor(each / each.mean())


def slopes(model, optimizer, batch, by_class):
    """d validation loss / d weight (n,) after one step with momentum from the weights by_class (n,)."""
    parameters, names = list(model.parameters()), [name for name, _ in model.named_parameters()]
    own = torch.zeros(len(by_class), dtype=torch.float64, requires_grad=True)
    losses = cross_entropy(model(batch[0]), batch[1], reduction="none")
    gradients = torch.autograd.grad(((by_class + own) * losses).mean(), parameters, create_graph=True)
    buffers = [optimizer.state[p]["momentum_buffer"] if optimizer.state else torch.zeros_like(p) for p in parameters]
    after = {name: p - RATE * (MOMENTUM * b + g) for name, p, b, g in zip(names, parameters, buffers, gradients, strict=True)}
    x_val, y_val, _ = double(VAL)
    return torch.autograd.grad(cross_entropy(functional_call(model, after, (x_val,)), y_val), own)[0]


@drawn
@given(
    seed=st.integers(0, 99),
    beta=st.sampled_from([0.5, 0.9, 0.9999]),
    step=st.sampled_from([0.0, 0.3, 3.0]),
    every=st.integers(1, 2),
)
def test_weights_are_those_of_the_class_and_a_step_down_the_slope_of_the_next_validation_loss(seed, beta, step, every):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = MCW(N_TRAIN, Y, beta=beta, step=step, every=every, optimizer=optimizer, warmup_epochs=0.0).double()
    of_classes, own = class_weights(beta), torch.zeros(N_TRAIN, dtype=torch.float64)
    for number, index in enumerate(plan(5, seed=seed)):
        batch = double(of(index))
        if number % every == 0:
            slope = slopes(model, optimizer, batch, of_classes[index])
            own[index] = -step * slope / slope.abs().mean()
        expected = (of_classes[index] + own[index]).clamp(min=0.0)
        expected = expected / expected.mean()
        loss = reweighter.weighted_loss(model, batch, double(VAL) if number % every == 0 else None)
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            loss, (expected * cross_entropy(model(batch[0]), batch[1], reduction="none")).mean(), rtol=1e-4, atol=1e-6
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(reweighter.conditional, own, rtol=1e-3, atol=1e-5)


def test_without_a_step_weights_are_class_balanced_of_mean_one_in_the_batch():
    model = Network(0, has_norm=False).train()
    given_ = [kind.weighted_loss(model, of(range(20)), VAL) and kind.transform(range(20)) for kind in (
        MCW(N_TRAIN, Y, step=0.0, optimizer=optimizer_of(model), warmup_epochs=0.0), ClassBalanced(N_TRAIN, Y))]  # fmt: skip
    torch.testing.assert_close(given_[0], given_[1] / given_[1].mean())


def test_a_slope_of_zero_or_nan_moves_no_weight():
    model = Network(0, has_norm=False).train()
    x_val, y_val, j = VAL
    for rate, x in ((0.0, x_val), (RATE, torch.full_like(x_val, float("nan")))):
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        reweighter = MCW(N_TRAIN, Y, optimizer=optimizer, warmup_epochs=0.0)
        reweighter.weighted_loss(model, of(range(20)), (x, y_val, j))
        expected = reweighter.row_weights[:20]
        torch.testing.assert_close(reweighter.weights_[:20], expected / expected.mean())
        assert reweighter.vanished_ == 0


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"step": -0.1}, r"step must be a number in \[0, inf\); got -0.1"),
        ({"beta": 2.0}, r"beta must be a number in \[0, 1\]; got 2.0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        MCW(N_TRAIN, Y, warmup_epochs=0.0, **params)
    with pytest.raises(ValueError, match=r"y_train must be \(40,\) integers >= 0"):
        MCW(N_TRAIN, Y[:-1], warmup_epochs=0.0)
