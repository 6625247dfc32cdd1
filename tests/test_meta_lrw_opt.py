"""Rows that validate, held out by a splitter that learns."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_loops import (
    N_TRAIN,
    C,
    D,
    Network,
    Y,
    assert_same,
    double,
    of,
    optimizer_of,
    plan,
    rows,
    train,
)
from split_cases import by_hand
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from densratio.training import Indexed
from densratio.training.losses import cross_entropy
from densratio.training.meta import LRWHard, LRWOpt, weight_network
from densratio.training.meta.weight_network import FeatureNetwork

drawn = settings(max_examples=10)
few = settings(max_examples=5)


def split_loss(logits, y, losses, is_right, share, is_regular):
    """The documented loss, row by row and class by class."""
    q = [1 / (1 + math.e**-z) for z in logits]
    n = len(q)
    total = sum(-torch.log(1 - q[i]) if is_right[i] else -torch.log(q[i]) for i in range(n)) / n
    total = total - sum(q[i] * losses[i] for i in range(n)) / sum(q)
    if not is_regular:
        return total
    mean = sum(q) / n
    total = total + mean * torch.log(mean / share) + (1 - mean) * torch.log((1 - mean) / (1 - share))
    for mass in (q, [1 - value for value in q]):
        for c in sorted(set(y.tolist())):
            part = sum(mass[i] for i in range(n) if y[i] == c) / sum(mass)
            total = total + part * torch.log(part / (sum(int(label == c) for label in y) / n))
    return total


def mass_loss(predict, x, y, q):
    """0 where nothing is held out."""
    losses = cross_entropy(predict(x), y)
    return (q * losses).sum() / (q.sum() if float(q.sum()) > 0 else 1.0)


def opt(model, optimizer, **params):
    defaults = {"share": 0.3, "every": 1, "splitter_warmup": 0.0, "hidden": 8, "learning_rate": 0.01}
    return LRWOpt(N_TRAIN, 6, C, optimizer=optimizer, **{**defaults, **params})


@pytest.mark.parametrize("lacks_classes", [False, True])
@few
@given(seed=st.integers(0, 1000), regularize_every=st.integers(1, 2), every=st.integers(1, 2))
def test_the_splitter_takes_adams_step_on_its_loss(lacks_classes, seed, regularize_every, every):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = opt(model, optimizer, regularize_every=regularize_every, every=every).double()
    splitter = copy.deepcopy(reweighter.splitter)
    adam = torch.optim.Adam(splitter.parameters(), lr=0.01, weight_decay=1e-4)
    for step, index in enumerate(plan(5, seed=seed)):
        kept = index[Y[index] < 1 + step % 2] if lacks_classes else index
        index = kept if len(kept) else index[:1]  # a batch has a row
        x, y, _ = double(of(index))
        with torch.no_grad():
            features, prediction = model.hidden(x), model(x)
        entry = torch.cat([features, functional.one_hot(y, C).double()], dim=1)
        first, _, second = splitter.layers
        logits = lambda: torch.relu(entry @ first.weight.T + first.bias) @ second.weight[0] + second.bias  # noqa: E731, B023
        if step % every == 0:
            is_right = [int(row.argmax()) == int(label) for row, label in zip(prediction, y, strict=True)]
            is_regular = (step // every) % regularize_every == 0
            loss = split_loss(logits(), y, cross_entropy(prediction, y), is_right, 0.3, is_regular)
            adam.zero_grad()
            loss.backward()
            adam.step()
        before = reweighter.split_.clone()
        weighted = reweighter.weighted_loss(model, (x, y, index), None)
        before[index] = torch.sigmoid(logits()).detach()
        torch.testing.assert_close(reweighter.split_, before, rtol=1e-8, atol=1e-10)
        weights = (1 - before[index]) * by_hand(reweighter.network, features)
        torch.testing.assert_close(reweighter.transform(index), (weights / weights.mean()).detach(), rtol=1e-8, atol=1e-9)
        optimizer.zero_grad()
        weighted.backward()
        optimizer.step()
    assert_close(reweighter.splitter, splitter)


def assert_close(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("at_random", [True, False])
@few
@given(seed=st.integers(0, 1000))
def test_the_weight_network_learns_on_the_mean_loss_of_the_mass_held_out(at_random, seed):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = opt(model, optimizer, splitter_warmup=99.0 if at_random else 0.0, seed=seed).double()
    network = copy.deepcopy(reweighter.network)
    adam = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4)
    for index in plan(4, seed=seed):
        batch, twin = double(of(index)), copy.deepcopy(model)
        its_optimizer = optimizer_of(twin)
        its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        loss = reweighter.weighted_loss(model, batch, None)
        q = reweighter.split_[index]
        features = twin.hidden(batch[0]).detach()

        def weights_of(features=features, q=q):
            weights = (1 - q if float(q.min()) < 1 else 1) * by_hand(network, features)
            return weights / weights.mean()

        meta_step(twin, network, its_optimizer, adam, batch, (batch[0], batch[1], q), weights_of())
        expected = weights_of().detach()
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-7, atol=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_close(reweighter.network, network)


def meta_step(model, network, optimizer, adam, batch, held_out, weights):
    """Through the classifier's step back to the network; the validation loss is that of (x, y, mass held out)."""
    parameters, names = list(model.parameters()), [name for name, _ in model.named_parameters()]
    losses = cross_entropy(model(batch[0]), batch[1])
    gradients = torch.autograd.grad((weights * losses).mean(), parameters, create_graph=True)
    buffers = [optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)) for p in parameters]
    after = {name: p - 0.2 * (0.9 * b + g) for name, p, b, g in zip(names, parameters, buffers, gradients, strict=True)}
    value = mass_loss(lambda x: torch.func.functional_call(model, after, (x,)), *held_out)
    for p, slope in zip(network.parameters(), torch.autograd.grad(value, list(network.parameters())), strict=True):
        p.grad = slope
    adam.step()


def test_the_warm_up_splits_at_random_with_the_share_and_the_splitter_stays():
    reweighter = LRWOpt(20_000, 6, C, share=0.1, seed=3)
    assert set(reweighter.split_.tolist()) == {0.0, 1.0}
    assert abs(float(reweighter.split_.mean()) - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 20_000)
    assert torch.equal(LRWOpt(20_000, 6, C, share=0.1, seed=3).split_, reweighter.split_)
    assert not torch.equal(LRWOpt(20_000, 6, C, share=0.1, seed=4).split_, reweighter.split_)
    model = Network(0)
    optimizer = optimizer_of(model)
    reweighter = opt(model, optimizer, splitter_warmup=2.0)
    before, splitter = reweighter.split_.clone(), copy.deepcopy(reweighter.splitter.state_dict())
    network = copy.deepcopy(reweighter.network.state_dict())
    for _ in range(4):
        assert reweighter.is_split_at_random
        index = torch.arange(20) + 20 * (reweighter.steps_seen % 2)
        train(reweighter, model, optimizer, [index], val=None)
        assert torch.equal(reweighter.transform(index) < 1e-6, before[index] == 1.0)
    assert torch.equal(reweighter.split_, before) and not reweighter.is_split_at_random
    assert_same(reweighter.splitter.state_dict(), splitter)
    assert not torch.equal(reweighter.network.layers[0].weight, network["layers.0.weight"])
    train(reweighter, model, optimizer, [torch.arange(20)], val=None)
    assert not torch.equal(reweighter.split_[:20], before[:20]) and torch.equal(reweighter.split_[20:], before[20:])
    assert not torch.equal(reweighter.splitter.layers[0].weight, splitter["layers.0.weight"])


@few
@given(
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.1, 0.5]),
    gives_val=st.booleans(),
    threshold=st.sampled_from([0.2, 0.5, 0.8]),
)
def test_a_hard_split_holds_whole_rows_out_for_a_pass_and_the_network_learns_on_them(seed, share, gives_val, threshold):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = opt(model, optimizer, share=share, hard_split=True, threshold=threshold, splitter_warmup=1.0, seed=seed)
    reweighter = reweighter.double()
    network, drawn_split = copy.deepcopy(reweighter.network), reweighter.split_.clone()
    assume(bool(drawn_split.any()))
    adam = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4)
    gaps = [0.0]
    for number in range(3):
        held = reweighter.is_held_out.clone()
        before, losses = reweighter.split_.clone(), torch.zeros(N_TRAIN, dtype=torch.float64)
        if number < 2:
            assert torch.equal(held, drawn_split)  # of the warm-up, and of the pass after it
        else:
            assert torch.equal(reweighter.held_out_, held_out_by_hand(before, share, threshold).nonzero()[:, 0])
        for index in torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(seed + number)).split(12):
            batch, twin, q = double(of(index)), copy.deepcopy(model), held[index]
            its_optimizer = optimizer_of(twin)
            its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            losses[index] = cross_entropy(twin(batch[0]), batch[1]).detach()
            val = double(of(reweighter.held_out_[:5])) if gives_val else None
            weighted = reweighter.weighted_loss(model, batch, val)
            features = twin.hidden(batch[0]).detach()

            def weights_of(features=features, q=q, number=number):
                mass = 1 - q if float(q.min()) < 1 else torch.ones_like(q)
                weights = mass * by_hand(network, features) if number else mass
                return weights / weights.mean()

            if number:
                rows_of_val = (
                    (batch[0], batch[1], q) if val is None else (val[0], val[1], torch.ones(len(val[1]), dtype=torch.float64))
                )
                meta_step(twin, network, its_optimizer, adam, batch, rows_of_val, weights_of())
            torch.testing.assert_close(reweighter.transform(index), weights_of().detach(), rtol=1e-7, atol=1e-9)
            optimizer.zero_grad()
            weighted.backward()
            optimizer.step()
        assert torch.equal(reweighter.is_held_out, held) or number  # a pass long
        if number:
            gaps.append(float(losses[held == 1].mean() - losses[held == 0].mean()))
            assert reweighter.gap_ == pytest.approx(gaps[-1], rel=1e-5) and reweighter.should_stop == (gaps[-1] < gaps[-2])
    assert_close(reweighter.network, network)


def held_out_by_hand(q, share, threshold):
    most = int(share * len(q))
    n_held = min(max(int((q >= 1.0 - threshold).sum()), most // 2, 1), max(most, 1))
    held = torch.zeros(len(q))
    held[np.argsort(-q.numpy(), kind="stable")[:n_held]] = 1.0
    return held


@pytest.mark.parametrize("share", [0.1, 0.3])
@few
@given(seed=st.integers(0, 1000), threshold=st.floats(0.05, 0.95))
def test_a_hard_split_holds_out_the_surest_rows_under_the_threshold_and_never_more_than_the_share(share, seed, threshold):
    reweighter = LRWOpt(N_TRAIN, 6, C, share=share, hard_split=True, threshold=threshold, splitter_warmup=0.0)
    reweighter.learns = False
    with torch.no_grad():
        reweighter.splitter.layers[2].weight.mul_(20.0)  # masses from 0 to 1
    reweighter.weighted_loss(Network(seed, has_norm=False), of(torch.arange(N_TRAIN)), None)
    q, held = reweighter.split_, reweighter.is_held_out
    n_sure = int((1.0 - q <= threshold).sum())
    most = int(share * N_TRAIN)
    assert held.sum() == min(max(n_sure, most // 2), most)
    assert q[held == 1].min() >= q[held == 0].max()


def test_a_threshold_is_of_a_hard_split():
    with pytest.raises(ValueError, match=r"threshold=0.2 is of a hard split: give hard_split=True too"):
        LRWOpt(N_TRAIN, 6, C, threshold=0.2)
    with pytest.raises(ValueError, match=r"threshold must be a number in \(0, 1\), the probability of training"):
        LRWOpt(N_TRAIN, 6, C, hard_split=True, threshold=1.0)


def test_without_a_hard_split_no_row_is_held_out():
    with pytest.raises(RuntimeError, match="holds out a mass of every row, split_; with hard_split=True it holds out rows"):
        _ = LRWOpt(N_TRAIN, 6, C).held_out_


@pytest.mark.parametrize("method", [LRWOpt, LRWHard])
def test_a_weight_network_of_the_input_learns_as_a_whole(method):
    model, own = Network(0), nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer, before = optimizer_of(model), copy.deepcopy(own.state_dict())
    sizes = (N_TRAIN, 6, C) if method is LRWOpt else (N_TRAIN, 6)
    reweighter = method(*sizes, network=own, optimizer=optimizer, **({"splitter_warmup": 99.0} if method is LRWOpt else {}))
    batch = of(torch.arange(20))
    val = None if method is LRWOpt else (batch[0][:8], batch[1][:8], torch.arange(8))
    reweighter.weighted_loss(model, batch, val)
    assert all(not torch.equal(value, before[name]) for name, value in own.state_dict().items())
    found, left = torch.sigmoid(own(batch[0])[:, 0]).detach(), torch.arange(20)
    if method is LRWOpt:
        left = (reweighter.split_[:20] == 0).nonzero()[:, 0]
    ratio = reweighter.transform(left) / found[left]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    with pytest.raises(ValueError, match=r"one number for each row, \(n,\) or \(n, 1\); got \(20, 5\)"):
        method(
            *sizes, network=own[0], optimizer=optimizer, **({"splitter_warmup": 99.0} if method is LRWOpt else {})
        ).weighted_loss(model, batch, val)


def test_the_two_networks_learn_in_each_qth_batch():
    model = Network(0)
    optimizer = optimizer_of(model)
    reweighter, moved = opt(model, optimizer, every=3), []
    for index in plan(9):
        before = copy.deepcopy([reweighter.network, reweighter.splitter])
        train(reweighter, model, optimizer, [index], val=None)
        pairs = zip(before, [reweighter.network, reweighter.splitter], strict=True)
        moved.append([not torch.equal(a.layers[0].weight, b.layers[0].weight) for a, b in pairs])
    assert moved == [[step % 3 == 0] * 2 for step in range(9)]


@pytest.mark.parametrize("waits", [True, False])
def test_a_batch_that_is_held_out_as_a_whole_spoils_no_network(waits, monkeypatch):
    """As on a GPU, where the host does not look at the slope, and as on the CPU."""
    monkeypatch.setattr(weight_network, "waits_for", lambda device: waits)
    model = Network(0, has_norm=False)
    optimizer = optimizer_of(model)
    reweighter = opt(model, optimizer, splitter_warmup=99.0)
    held, left = torch.nonzero(reweighter.split_)[:, 0], torch.nonzero(reweighter.split_ == 0)[:, 0]
    losses = train(reweighter, model, optimizer, [held, held[:1], left, left[:1]], val=None)
    assert np.isfinite(losses).all() and bool(torch.isfinite(reweighter.weights_).all()) and reweighter.vanished_ == 0
    assert all(bool(torch.isfinite(p).all()) for p in reweighter.parameters())


def test_the_splitter_has_slopes_where_its_masses_end():
    """Logits so large that one side has no mass: no slope may be infinite."""
    model = Network(0, has_norm=False)
    optimizer = optimizer_of(model)
    for bias in (-200.0, 200.0, -20.0, 20.0):
        reweighter = opt(model, optimizer)
        with torch.no_grad():
            reweighter.splitter.layers[2].bias.fill_(bias)
        for index in (torch.nonzero(Y == 1)[:, 0], torch.arange(12)):
            loss = reweighter.weighted_loss(model, of(index), None)
            assert bool(torch.isfinite(loss.detach()))
        assert all(bool(torch.isfinite(p).all()) for p in reweighter.parameters())
        assert bool(torch.isfinite(reweighter.weights_).all()) and bool(torch.isfinite(reweighter.split_).all())


def test_two_hundred_steps_stay_finite_split_about_the_share_and_lower_the_loss():
    x, y = rows(200, 5)
    model = nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, C))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    reweighter = LRWOpt(200, 16, C, optimizer=optimizer, every=2, splitter_warmup=2.0, learning_rate=0.01)
    generator, losses = torch.Generator().manual_seed(0), []
    batches = DataLoader(Indexed(TensorDataset(x, y)), batch_size=30, shuffle=True, generator=generator)
    while reweighter.steps_seen < 200:
        for batch in batches:
            loss = reweighter.weighted_loss(model, batch, None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.isfinite(losses).all() and np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
    assert 0.0 < float(reweighter.split_.mean()) < 0.5 and float(reweighter.split_.std()) > 0.01
    assert float(reweighter.weights_.min()) >= 0.0 and bool(torch.isfinite(reweighter.weights_).all())
    is_right = model(x).argmax(dim=1) == y
    assert float(reweighter.split_[~is_right].mean()) > float(reweighter.split_[is_right].mean())


@drawn
@given(n=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 1000))
def test_the_feature_network_is_two_layers(n, d, seed):
    torch.default_generator.manual_seed(seed)
    network, features = FeatureNetwork(d, 7).double(), torch.randn(n, d, dtype=torch.float64)
    torch.testing.assert_close(network(features), by_hand(network, features))
    torch.testing.assert_close(torch.sigmoid(network.logits(features)), network(features))
