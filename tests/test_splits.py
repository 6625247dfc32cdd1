"""Rows that validate, held out of the training rows: by a split, by a splitter that learns, by the least loss of each class."""

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
    Y,
    assert_same,
    double,
    of,
    optimizer_of,
    plan,
    rows,
    stored,
    train,
    unrolled,
)
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from densratio.training import DynamicReweighter, Indexed
from densratio.training.loop.moving_average import MovingAverage
from densratio.training.losses import cross_entropy
from densratio.training.meta import ChosenRows, LiLAW, LRWEasy, LRWHard, LRWOpt, LRWRandom, MWNet, base
from densratio.training.meta.lrw import FeatureNetwork

SPLITS = [LRWHard, LRWRandom, LRWEasy]
drawn = settings(max_examples=10)
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
        ([0.1, 0.2], 0.0, r"share must be in \(0, 1\); got 0.0"),
        ([0.1, 0.2], 1.0, r"share must be in \(0, 1\); got 1.0"),
        ([0.1, 0.2], float("nan"), "share must be in"),
    ],
)
@pytest.mark.parametrize("method", SPLITS)
def test_splits_that_cannot_be_are_refused(method, margins, share, message):
    with pytest.raises(ValueError, match=message):
        method.split(margins, share)


# ---------------------------------------------------------------- weights by features


def by_hand(network, features):
    """sigmoid(linear(relu(linear))) of each row."""
    first, _, second = network.layers
    return torch.sigmoid(torch.relu(features @ first.weight.T + first.bias) @ second.weight[0] + second.bias)


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
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Unflatten(1, (5, 1)))


def both(model, backbone, n_features):
    optimizer = optimizer_of(model)
    yield LRWHard(N_TRAIN, n_features, optimizer=optimizer, backbone=backbone)
    yield LRWOpt(N_TRAIN, n_features, C, optimizer=optimizer, backbone=backbone, warmup_epochs=0.0, every=1)


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
        (lambda: LRWHard(5, 0), "n_features and hidden must be >= 1; got 0 and 100"),
        (lambda: LRWHard(5, 3, hidden=0), "got 3 and 0"),
        (lambda: LRWHard(5, 3, every=0), "every must be an int >= 1"),
        (lambda: LRWOpt(5, 3, 2, share=0.0), r"share must be in \(0, 1\) and regularize_every >= 1; got 0.0 and 1"),
        (lambda: LRWOpt(5, 3, 2, regularize_every=0), "got 0.1 and 0"),
        (lambda: LRWOpt(5, 3, 2, mode="last_layer"), 'use mode="exact" or mode="first_order"'),
        (lambda: LRWOpt(5, 3, 2, mode="second"), "mode must be one of"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- a splitter that learns


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
    defaults = {"share": 0.3, "every": 1, "warmup_epochs": 0.0, "hidden": 8, "learning_rate": 0.01}
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
        index = index[Y[index] < 1 + step % 2] if lacks_classes else index
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
    reweighter = opt(model, optimizer, warmup_epochs=99.0 if at_random else 0.0, seed=seed).double()
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

        meta_step(twin, network, its_optimizer, adam, batch, q, weights_of())
        expected = weights_of().detach()
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-7, atol=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_close(reweighter.network, network)


def meta_step(model, network, optimizer, adam, batch, q, weights):
    """Through the classifier's step back to the network; the validation loss is that of the mass held out."""
    parameters, names = list(model.parameters()), [name for name, _ in model.named_parameters()]
    losses = cross_entropy(model(batch[0]), batch[1])
    gradients = torch.autograd.grad((weights * losses).mean(), parameters, create_graph=True)
    buffers = [optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)) for p in parameters]
    after = {name: p - 0.2 * (0.9 * b + g) for name, p, b, g in zip(names, parameters, buffers, gradients, strict=True)}
    value = mass_loss(lambda x: torch.func.functional_call(model, after, (x,)), batch[0], batch[1], q)
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
    reweighter = opt(model, optimizer, warmup_epochs=2.0)
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
    monkeypatch.setattr(base, "waits_for", lambda device: waits)
    model = Network(0, has_norm=False)
    optimizer = optimizer_of(model)
    reweighter = opt(model, optimizer, warmup_epochs=99.0)
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
    reweighter = LRWOpt(200, 16, C, optimizer=optimizer, every=2, warmup_epochs=2.0, learning_rate=0.01)
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
    torch.manual_seed(seed)
    network, features = FeatureNetwork(d, 7).double(), torch.randn(n, d, dtype=torch.float64)
    torch.testing.assert_close(network(features), by_hand(network, features))
    torch.testing.assert_close(torch.sigmoid(network.logits(features)), network(features))


# ---------------------------------------------------------------- rows chosen by their loss

DATA = TensorDataset(X, Y)


def chosen_by_hand(model, average, k, loss=cross_entropy):
    """For each class its k rows of the least loss under the averaged model in eval mode, one model made for it."""
    averaged = copy.deepcopy(model).eval()
    state = averaged.state_dict()
    averaged.load_state_dict({name: average.get(name, value) for name, value in state.items()})
    with torch.no_grad():
        losses = [(float(loss(averaged(X[i : i + 1]), Y[i : i + 1])[0]), i) for i in range(N_TRAIN)]
    return [sorted(i for _, i in sorted(pair for pair in losses if Y[pair[1]] == c)[:k]) for c in range(C)]


@drawn
@given(seed=st.integers(0, 1000), k=st.integers(1, 4), has_norm=st.booleans(), decay=st.sampled_from([0.0, 0.5, 0.99]))
def test_the_chosen_rows_are_those_of_the_least_loss_of_each_class(seed, k, has_norm, decay):
    model = Network(seed, has_norm).train()
    optimizer, chosen, own = optimizer_of(model), ChosenRows(DATA, Y, k=k, decay=decay, mixup=None), MovingAverage(decay)
    for index in plan(4, seed=seed):
        own.follow(model)
        chosen.batch(model)
        optimizer.zero_grad()
        cross_entropy(model(X[index]), Y[index]).mean().backward()
        optimizer.step()
    chosen.choose(model)
    found = chosen.rows_.reshape(C, k)
    assert [sorted(part) for part in found.tolist()] == chosen_by_hand(model, own.values, k)
    assert chosen.n_val == k * C


def test_before_any_average_the_model_as_it_is_chooses():
    model, chosen = Network(0).train(), ChosenRows(DATA, Y, k=2)
    chosen.choose(model)
    assert [sorted(part) for part in chosen.rows_.reshape(C, 2).tolist()] == chosen_by_hand(model, {}, 2)


def test_a_class_of_fewer_rows_than_k_gives_all_of_them_again():
    sizes = [int((c == Y).sum()) for c in range(C)]
    k = max(sizes) + 3
    chosen = ChosenRows(DATA, Y.numpy(), k=k)
    chosen.choose(Network(0))
    for c, part in enumerate(chosen.rows_.reshape(C, k)):
        times = torch.bincount(part, minlength=N_TRAIN)
        assert torch.equal(times > 0, c == Y) and int(times[c == Y].max()) - int(times[c == Y].min()) <= 1


def test_batches_go_through_all_chosen_rows_before_one_comes_again():
    model = Network(0, has_norm=False)
    chosen = ChosenRows(DATA, Y, k=4, batch_size=6, mixup=None)
    for _ in range(3):
        parts = [chosen.batch(model) for _ in range(2)]
        index = torch.cat([part[2] for part in parts])
        assert sorted(index.tolist()) == list(range(12))
        for x, y, at in parts:
            assert torch.equal(x, X[chosen.rows_[at]]) and torch.equal(y, Y[chosen.rows_[at]]) and len(at) == 6
    assert len(ChosenRows(DATA, Y, k=2, batch_size=100, mixup=None).batch(model)[1]) == 6


@drawn
@given(seed=st.integers(0, 1000), mixup=st.sampled_from([0.2, 1.0, 8.0]))
def test_mixed_rows_and_labels_are_mixed_by_one_share(seed, mixup):
    model = Network(0, has_norm=False).double()
    data = TensorDataset(X.double(), Y)
    chosen = ChosenRows(data, Y, k=3, batch_size=9, mixup=mixup, seed=seed)
    x, y, index = chosen.batch(model)
    assert y.shape == (9, C) and y.dtype == x.dtype == torch.float64
    torch.testing.assert_close(y.sum(dim=1), torch.ones(9, dtype=torch.float64))
    assert float(y.min()) >= 0.0
    own, one_hot = X.double()[chosen.rows_[index]], functional.one_hot(Y[chosen.rows_[index]], C).double()
    for i in range(9):
        # x_i = s own_i + (1 - s) own_j for one row j, with the s that mixes the labels too.
        found = False
        for j in range(9):
            along = own[i] - own[j]
            s = 1.0 if i == j else float((x[i] - own[j]) @ along / (along @ along))
            is_x = torch.allclose(x[i], s * own[i] + (1 - s) * own[j], atol=1e-9) and -1e-9 <= s <= 1 + 1e-9
            found = found or (is_x and torch.allclose(y[i], s * one_hot[i] + (1 - s) * one_hot[j], atol=1e-9))
        assert found


@pytest.mark.parametrize("mixup", [None, 1.0])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_chosen_rows_resume_to_the_bit(stop, mixup):
    def made():
        return ChosenRows(DATA, Y, k=3, batch_size=4, mixup=mixup, decay=0.9)

    def run(chosen, model, steps):
        batches = []
        for step in steps:
            if step % 3 == 2:
                chosen.choose(model)
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.9)
            batches.append(chosen.batch(model))
        return batches

    model, chosen = Network(0, has_norm=False), made()
    whole = run(chosen, model, range(9))
    model, first, resumed = Network(0, has_norm=False), made(), made()
    run(first, model, range(stop))
    resumed.load_state_dict(stored(first.state_dict()))
    assert_same(run(resumed, model, range(stop, 9)), whole[stop:])
    assert_same(resumed.state_dict(), chosen.state_dict())


def test_choosing_leaves_no_trace_in_the_model():
    model = Network(0).train()
    model.hidden[3].eval()
    cross_entropy(model(X), Y).mean().backward()
    before, gradients = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    modes, draws = [layer.training for layer in model.modules()], torch.get_rng_state()
    chosen = ChosenRows(Indexed(DATA), Y, k=2, mixup=1.0)
    batch = chosen.batch(model)
    chosen.choose(model)
    assert_same(model.state_dict(), before)
    assert_same([p.grad for p in model.parameters()], gradients)
    assert [layer.training for layer in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), draws)
    assert not any(part.requires_grad for part in [*batch, *chosen.average.values.values()])


METHODS = {
    "kmm": lambda optimizer, n_val: DynamicReweighter("kmm", N_TRAIN, n_val, warmup_epochs=0.5),
    "kliep": lambda optimizer, n_val: DynamicReweighter("kliep", N_TRAIN, n_val, warmup_epochs=0.5),
    "mw_net": lambda optimizer, n_val: MWNet(N_TRAIN, optimizer=optimizer, learning_rate=0.05),
    "lilaw": lambda optimizer, n_val: LiLAW(N_TRAIN, warmup_epochs=0.5),
    "lrw_hard": lambda optimizer, n_val: LRWHard(N_TRAIN, 6, optimizer=optimizer),
}


# LiLAW takes class labels alone.
@pytest.mark.parametrize(("name", "mixup"), [(n, None) for n in METHODS] + [(n, 1.0) for n in METHODS if n != "lilaw"])
def test_chosen_rows_validate_in_a_loop(name, mixup):
    model = Network(0).train()
    optimizer = optimizer_of(model)
    chosen = ChosenRows(DATA, Y, k=3, batch_size=5, mixup=mixup)
    reweighter = METHODS[name](optimizer, chosen.n_val)
    for step, index in enumerate(plan(8)):
        if step % 3 == 0:
            chosen.choose(model)
        loss = reweighter.weighted_loss(model, of(index), chosen.batch(model))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert math.isfinite(float(loss.detach()))
    assert bool(torch.isfinite(reweighter.weights_).all()) and not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


class Whole(torch.utils.data.Dataset):
    """Rows of integers, which cannot be mixed."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.tensor([i, 1]), i % 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChosenRows(DATA, Y[:7]), r"labels must be \(40,\) integers >= 0.*got shape \(7,\)"),
        (lambda: ChosenRows(DATA, Y.double()), "dtype float64"),
        (lambda: ChosenRows(DATA, Y - 1), "integers >= 0"),
        (lambda: ChosenRows(DATA, torch.where(Y == 1, 3, Y)), r"the classes \[1\] have none. Number the classes from 0 on"),
        (lambda: ChosenRows(DATA, Y, k=0), "k and batch_size must be >= 1 and mixup > 0 or None; got 0, 128 and 1.0"),
        (lambda: ChosenRows(DATA, Y, batch_size=0), "got 10, 0"),
        (lambda: ChosenRows(DATA, Y, mixup=0.0), "mixup > 0"),
        (lambda: ChosenRows(DATA, Y, mixup=float("nan")), "mixup > 0"),
        (lambda: ChosenRows(DATA, Y, decay=1.0), r"decay must be in \[0, 1\)"),
        (lambda: ChosenRows(Whole(), [0, 1, 0, 1]).batch(nn.Sequential(nn.Embedding(4, 2), nn.Flatten())), "give mixup=None"),
    ],
)
def test_chosen_rows_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
