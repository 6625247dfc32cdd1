"""L2R: the agreeing part of products of gradients."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    MOMENTUM,
    N_TRAIN,
    RATE,
    VAL,
    D,
    Network,
    X,
    Y,
    double,
    of,
    optimizer_of,
    plan,
)
from torch import nn
from torch.func import functional_call

from densratio.training.losses import cross_entropy
from densratio.training.meta import L2R

drawn = settings(max_examples=10)


def agreement(model, batch, val, loss=cross_entropy):
    """<g_val, g_i> (n,), a backward pass a row."""
    parameters = list(model.parameters())
    target = torch.autograd.grad(loss(model(val[0]), val[1]).mean(), parameters)
    each = [torch.autograd.grad(value, parameters, retain_graph=True) for value in loss(model(batch[0]), batch[1])]
    return torch.stack([sum((a * b).sum() for a, b in zip(own, target, strict=True)) for own in each])


@pytest.mark.parametrize("has_optimizer", [True, False])
@drawn
@given(seed=st.integers(0, 1000))
def test_l2r_weights_are_the_agreeing_part_of_the_products_of_gradients(has_optimizer, seed):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter, n_vanished = L2R(N_TRAIN, optimizer=optimizer if has_optimizer else None).double(), 0
    for index in plan(3, seed=seed):
        batch, val = double(of(index)), double(VAL)
        expected = agreement(model, batch, val).clamp(min=0)
        if float(expected.sum()) == 0.0:
            expected, n_vanished = torch.ones_like(expected), n_vanished + 1
        expected = expected / expected.mean()
        loss = reweighter.weighted_loss(model, batch, val)
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-9, atol=1e-12)
        by_hand = (expected * cross_entropy(model(batch[0]), batch[1])).mean()
        assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert reweighter.vanished_ == n_vanished


def test_l2r_exact_follows_a_step_of_gradient_zero():
    """With momentum alone the parameters move, and the products are with the validation gradient where they get."""
    model = Network(0, has_norm=False).double().train()
    optimizer, batch, val = optimizer_of(model), double(of(range(10))), double(VAL)
    cross_entropy(model(batch[0]), batch[1]).mean().backward()
    optimizer.step()
    reweighter = L2R(N_TRAIN, optimizer=optimizer, mode="exact").double()
    moved = {name: p - RATE * MOMENTUM * optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}
    after = {name: p.detach().requires_grad_() for name, p in moved.items()}
    target = torch.autograd.grad(cross_entropy(functional_call(model, after, (val[0],)), val[1]).mean(), list(after.values()))
    each = [torch.autograd.grad(v, list(model.parameters()), retain_graph=True) for v in cross_entropy(model(batch[0]), batch[1])]
    expected = torch.stack([sum((a * b).sum() for a, b in zip(own, target, strict=True)) for own in each]).clamp(min=0)
    reweighter.weighted_loss(model, batch, val)
    torch.testing.assert_close(reweighter.weights_[:10], expected / expected.mean(), rtol=1e-9, atol=1e-12)


def test_a_batch_of_which_no_row_agrees_trains_unweighted_is_counted_and_told(caplog):
    model = nn.Linear(D, 2).train()
    reweighter = L2R(N_TRAIN)
    # The same rows under the other label: every gradient opposes the validation gradient.
    batch, val = (X[:1], torch.tensor([0]), torch.tensor([3])), (X[:1], torch.tensor([1]), torch.tensor([0]))
    with caplog.at_level(logging.WARNING, logger="densratio"):
        for count in (1, 2):
            loss = reweighter.weighted_loss(model, batch, val)
            assert float(loss.detach()) == pytest.approx(float(cross_entropy(model(batch[0]), batch[1]).mean().detach()))
            assert reweighter.vanished_ == count and float(reweighter.weights_[3]) == 1.0
    assert [record.name for record in caplog.records] == ["densratio"] * 2
    assert "L2R" in caplog.text and "trains unweighted (2 so far)" in caplog.text


def test_between_two_meta_gradients_rows_keep_their_last_weight_at_mean_one():
    model = Network(0, has_norm=False).train()
    reweighter = L2R(N_TRAIN, every=3)
    reweighter.weighted_loss(model, of(range(20)), VAL)
    kept = reweighter.weights_.clone()
    assert len(kept[:20].unique()) > 2
    for part in (torch.arange(10, 30), torch.arange(0, 20, 2)):
        last = reweighter.weights_[part].clone()
        loss = reweighter.weighted_loss(model, of(part), None)
        torch.testing.assert_close(reweighter.weights_[part], last / last.mean())
        by_hand = (last / last.mean() * cross_entropy(model(X[part]), Y[part])).mean()
        assert float(loss.detach()) == pytest.approx(float(by_hand.detach()))
    before = reweighter.weights_[:20].clone()
    reweighter.weighted_loss(model, of(range(20)), VAL)
    assert not torch.equal(reweighter.weights_[:20], before)
