"""Rows that validate, held out of the training rows by a split, and weights by features."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    N_TRAIN,
    VAL,
    C,
    D,
    Network,
    X,
    assert_same,
    double,
    of,
    optimizer_of,
    plan,
    train,
    unrolled,
)
from split_cases import by_hand
from torch import nn

from densratio.training.meta import LRWEasy, LRWHard, LRWOpt, LRWRandom

SPLITS = [LRWHard, LRWRandom, LRWEasy]
few = settings(max_examples=5)

# ---------------------------------------------------------------- which rows are held out


@pytest.mark.parametrize("method", SPLITS)
@settings(max_examples=30)
@given(values=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.2, 0.9]), min_size=2, max_size=25), share=st.floats(0.001, 0.999))
def test_a_split_holds_out_its_share_of_the_rows_in_order(method, values, share):
    train_rows, val = method.split(values, share)
    assert sorted([*train_rows, *val]) == list(range(len(values)))
    assert (np.diff(train_rows) > 0).all() and (np.diff(val) > 0).all()
    exact = Fraction(share) * len(values)
    assert 1 <= len(val) <= len(values) - 1
    assert abs(len(val) - exact) <= Fraction(1, 2) or len(val) in (1, len(values) - 1)
    held, left = np.array(values)[val], np.array(values)[train_rows]
    if method is LRWHard:
        assert held.max() <= left.min()
    if method is LRWEasy:
        assert held.min() >= left.max()


def test_a_random_split_is_that_of_its_seed_and_looks_at_no_margin():
    values = np.linspace(-1, 1, 60)
    one, other = LRWRandom.split(values, 0.3, seed=4), LRWRandom.split(-values, 0.3, seed=4)
    assert np.array_equal(one.val, other.val) and not np.array_equal(one.val, LRWRandom.split(values, 0.3, seed=5).val)
    times = np.zeros(60)
    for seed in range(400):
        times[LRWRandom.split(values, 0.3, seed=seed).val] += 1
    # 400 draws of probability 0.3: five standard deviations.
    assert np.abs(times / 400 - 0.3).max() < 5 * math.sqrt(0.3 * 0.7 / 400)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda v: torch.tensor(v, requires_grad=True)])
def test_margins_come_as_any_kind(kind):
    assert LRWHard.split(kind([0.5, -0.5, 0.1]), 0.34).val.tolist() == [1]


@pytest.mark.parametrize(
    ("margins", "share", "message"),
    [
        ([0.1], 0.5, r"margins must be \(n,\) finite numbers, n >= 2; got shape \(1,\)"),
        ([[0.1, 0.2]], 0.5, r"got shape \(1, 2\)"),
        ([0.1, float("nan")], 0.5, "finite numbers"),
        ([0.1, 0.2], 0.0, r"share must be a number in \(0, 1\); got 0.0"),
        ([0.1, 0.2], 1.0, r"share must be a number in \(0, 1\); got 1.0"),
        ([0.1, 0.2], float("nan"), "share must be a number in"),
    ],
)
@pytest.mark.parametrize("method", SPLITS)
def test_splits_that_cannot_be_are_refused(method, margins, share, message):
    with pytest.raises(ValueError, match=message):
        method.split(margins, share)


# ---------------------------------------------------------------- weights by features


@pytest.mark.parametrize("method", SPLITS)
@few
@given(seed=st.integers(0, 1000), has_backbone=st.booleans())
def test_a_step_of_the_weight_network_is_the_unrolled_one(method, seed, has_backbone):
    model = Network(seed, has_norm=False).double().train()
    backbone = nn.Sequential(nn.Linear(D, 5), nn.Tanh()).double() if has_backbone else None
    optimizer = optimizer_of(model)
    params = {"optimizer": optimizer, "hidden": 8, "learning_rate": 0.01, "backbone": backbone}
    reweighter = method(N_TRAIN, 5 if has_backbone else 6, **params).double()
    twin, network = copy.deepcopy(model), copy.deepcopy(reweighter.network)
    its_optimizer, adam = optimizer_of(twin), torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4)
    start = copy.deepcopy(network.state_dict())
    for index in plan(4, seed=seed):
        batch, val = double(of(index)), double(VAL)
        with torch.no_grad():
            features = backbone(batch[0]) if has_backbone else twin.hidden(batch[0])

        def weights_of(losses, features=features):
            weights = by_hand(network, features)
            return weights / weights.mean()

        expected = unrolled(twin, network, its_optimizer, adam, batch, val, weights_of)
        loss = reweighter.weighted_loss(model, batch, val)
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-7, atol=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in reweighter.network.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-6, atol=1e-8)
        assert not torch.equal(value, start[name])


def frozen():
    torch.default_generator.manual_seed(3)
    return nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Unflatten(1, (5, 1)))


def both(model, backbone, n_features):
    optimizer = optimizer_of(model)
    yield LRWHard(N_TRAIN, n_features, optimizer=optimizer, backbone=backbone)
    yield LRWOpt(N_TRAIN, n_features, C, optimizer=optimizer, backbone=backbone, splitter_warmup=0.0, every=1)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("is_training", [True, False])
def test_a_backbone_is_frozen_runs_in_eval_mode_and_keeps_its_mode(which, is_training):
    model, backbone = Network(0), frozen()
    backbone(X)
    backbone.train(is_training)
    backbone[1].eval()
    modes, seen = [layer.training for layer in backbone.modules()], []
    backbone[1].register_forward_hook(lambda *args: seen.append([layer.training for layer in backbone.modules()]))
    reweighter = list(both(model, backbone, 5))[which]
    before = copy.deepcopy(backbone.state_dict())
    train(reweighter, model, optimizer_of(model), plan(4))
    assert_same(backbone.state_dict(), before)
    assert [layer.training for layer in backbone.modules()] == modes and all(p.grad is None for p in backbone.parameters())
    assert len(seen) == 4 and not any(any(one) for one in seen)  # once in each batch
    features = backbone.eval()(X[:9]).flatten(1)
    reweighter.train()
    reweighter.weighted_loss(model, of(range(9)), VAL)
    expected = by_hand(reweighter.network, features)
    expected = expected * (1 - reweighter.split_[:9]) if which else expected
    torch.testing.assert_close(reweighter.weights_[:9], (expected / expected.mean()).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 5.0])
@pytest.mark.parametrize("backbone", [None, nn.Linear(D, 6)])
def test_a_wrong_number_of_features_is_told_and_nothing_stored_changes(backbone, warmup):
    model = Network(0, has_norm=False)
    for reweighter in both(model, backbone, 7):
        if isinstance(reweighter, LRWOpt):
            reweighter.splitter_warmup = warmup
        before = copy.deepcopy(reweighter.state_dict())
        with pytest.raises(ValueError, match="n_features=7 were declared and the features have 6 columns"):
            reweighter.weighted_loss(model, of(range(9)), VAL)
        assert_same(reweighter.state_dict(), before)


class NoLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, D))

    def forward(self, x):
        return x @ self.weight.T


def test_a_classifier_without_features_is_told_to_have_a_backbone():
    model = NoLinear()
    for reweighter in both(model, None, D):
        with pytest.raises(ValueError, match=r"no final nn.Linear.*give backbone="):
            reweighter.weighted_loss(model, of(range(9)), VAL)
    for reweighter in both(model, nn.Identity(), D):
        reweighter.weighted_loss(model, of(range(9)), VAL).backward()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LRWHard(5, 0), "n_features must be an int >= 1; got 0"),
        (lambda: LRWHard(5, 3, hidden=0), "hidden must be an int >= 1; got 0"),
        (lambda: LRWHard(5, 3, every=0), "every must be an int >= 1"),
        (lambda: LRWOpt(5, 3, 2, share=0.0), r"share must be a number in \(0, 1\); got 0.0"),
        (lambda: LRWOpt(5, 3, 2, regularize_every=0), "regularize_every must be an int >= 1; got 0"),
        (lambda: LRWOpt(5, 3, 2, mode="last_layer"), 'use mode="exact" or mode="first_order"'),
        (lambda: LRWOpt(5, 3, 2, mode="second"), "mode must be one of"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
