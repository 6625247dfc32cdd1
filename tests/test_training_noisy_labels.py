"""Methods for wrong labels, against their published steps written out row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, C, Network, X, Y, of, optimizer_of, plan
from torch import nn
from torch.nn import functional

from densratio.training import ELR, Uniform
from densratio.training.losses import squared_error

drawn = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 1000)


# ---------------------------------------------------------------- early-learning regularization


@drawn
@given(seed=seeds, strength=st.floats(0.0, 7.0), decay=st.floats(0.0, 0.95))
def test_elr_is_its_formula_with_targets_kept_for_each_row(seed, strength, decay):
    model = Network(seed, has_norm=False).train()
    optimizer = optimizer_of(model)
    reweighter, targets = ELR(N_TRAIN, C, strength=strength, decay=decay), np.zeros((N_TRAIN, C))
    base = np.random.default_rng(seed).exponential(size=N_TRAIN)
    reweighter.set_base_weights(base)
    for index in plan(4, seed=seed):
        logits = model(X[index])
        terms = []
        for row, number in zip(logits, index.tolist(), strict=True):
            p = torch.softmax(row, 0)
            targets[number] = decay * targets[number] + (1 - decay) * p.detach().numpy()
            term = -p[Y[number]].log() + strength * torch.log(1 - (p * torch.as_tensor(targets[number])).sum())
            terms.append(float(base[number] / base.mean()) * term)
        by_hand = torch.stack(terms).mean()
        expected = torch.autograd.grad(by_hand, list(model.parameters()))
        loss = reweighter.weighted_loss(model, of(index))
        optimizer.zero_grad()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-3, abs=1e-4)
        for p, slope in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, slope.to(p.dtype), rtol=2e-3, atol=2e-4)
        optimizer.step()
    torch.testing.assert_close(reweighter.targets, torch.as_tensor(targets).float(), rtol=1e-3, atol=2e-4)


def test_elr_of_no_strength_is_plain_training_and_of_a_certain_row_finite():
    model = nn.Linear(1, C, bias=False)
    nn.init.constant_(model.weight, 0.0)
    with torch.no_grad():
        model.weight[1] = 200.0
    batch = torch.ones(3, 1), torch.tensor([1, 1, 0]), torch.arange(3)
    plain = Uniform(3).weighted_loss(model, batch)
    assert torch.equal(ELR(3, C, strength=0.0).weighted_loss(model, batch), plain)
    reweighter = ELR(3, C)
    for _ in range(50):
        loss = reweighter.weighted_loss(model, batch)
    loss.backward()
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(model.weight.grad).all())


def test_elr_turns_the_slope_of_a_wrong_label_that_the_row_s_past_contradicts():
    """Where targets are sure of another class than the label, a strong term outweighs the cross entropy, as published."""
    slopes = {}
    for strength in (0.0, 10.0):
        logits = torch.tensor([[0.0, 3.0, 0.0]])
        reweighter, layer = ELR(1, 3, strength=strength), nn.Linear(1, 3, bias=False)
        with torch.no_grad():
            layer.weight.copy_(logits.T)
        for _ in range(20):
            layer.zero_grad()
            reweighter.weighted_loss(layer, (torch.ones(1, 1), torch.tensor([0]), [0])).backward()
        slopes[strength] = layer.weight.grad[:, 0]
    # Descent moves against the slope: with plain training away from class 1, with the term towards it.
    assert float(slopes[0.0][1]) > 0.5 and float(slopes[10.0][1]) < 0.0


# ---------------------------------------------------------------- what they refuse


@pytest.mark.parametrize("make", [lambda: ELR(N_TRAIN, C + 1)])
def test_another_number_of_classes_or_targets_that_are_no_labels_are_refused(make):
    model = Network(0, has_norm=False).train()
    with pytest.raises(ValueError, match=rf"of {C + 1} classes needs logits \(n, {C + 1}\).*got \(9, {C}\)"):
        make().weighted_loss(model, of(range(9)))


def test_numbers_are_no_class_labels():
    reweighter = ELR(N_TRAIN, C, loss=squared_error)
    one_hot = functional.one_hot(Y[:9], C).float()
    with pytest.raises(ValueError, match=r"class labels \(n,\), integers; got \(9, 3\) and \(9, 3\) of torch.float32"):
        reweighter.weighted_loss(Network(0, has_norm=False), (X[:9], one_hot, range(9)))
    assert not reweighter.targets.any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ELR(5, 0), "n_classes must be an int >= 1; got 0"),
        (lambda: ELR(5, 2, strength=-1.0), r"strength must be a number in \[0, inf\); got -1.0"),
        (lambda: ELR(5, 2, decay=1.0), r"decay must be a number in \[0, 1\); got 1.0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
