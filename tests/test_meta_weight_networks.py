"""MWNet and CMWNet, against steps unrolled by hand."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    N_TRAIN,
    N_VAL,
    VAL,
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
    stored,
    train,
    unrolled,
)
from torch import nn

from densratio.training.losses import cross_entropy
from densratio.training.meta import L2R, CMWNet, CMWNetSL, LiLAW, MWNet, SoftLabels
from densratio.training.meta.weight_network import WeightNetwork, groups_of_classes

drawn = settings(max_examples=10)

# ---------------------------------------------------------------- networks of weights


@pytest.mark.parametrize("product", ["forward", "double_backward"])
@pytest.mark.parametrize("normalize", [False, True])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_mw_net_is_the_unrolled_step(normalize, product, seed):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = MWNet(N_TRAIN, optimizer=optimizer, normalize=normalize, hidden=8, learning_rate=0.01, product=product).double()
    twin, network = copy.deepcopy(model), copy.deepcopy(reweighter.network)
    its_optimizer, adam = optimizer_of(twin), torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4)

    def weights_of(losses):
        weights = torch.sigmoid(network.heads(torch.relu(network.linear(losses[:, None])))[:, 0])
        return weights / weights.mean() if normalize else weights

    start = [p.detach().clone() for p in network.parameters()]
    for index in plan(5, seed=seed):
        batch, val = double(of(index)), double(VAL)
        expected = unrolled(twin, network, its_optimizer, adam, batch, val, weights_of)
        loss = reweighter.weighted_loss(model, batch, val)
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-7, atol=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, other, first in zip(reweighter.network.parameters(), network.parameters(), start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
        assert not torch.equal(one, first)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_cmw_net_is_the_unrolled_step_with_a_head_a_group(normalize, seed):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = CMWNet(N_TRAIN, Y, K=3, optimizer=optimizer, normalize=normalize, hidden=8, learning_rate=0.01).double()
    twin, network = copy.deepcopy(model), copy.deepcopy(reweighter.network)
    its_optimizer, adam = optimizer_of(twin), torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4)
    group = groups_of_classes(Y, 3)
    for index in plan(5, seed=seed):
        batch, val = double(of(index)), double(VAL)

        def weights_of(losses, labels=batch[1]):
            scores = network.heads(torch.relu(network.linear(losses[:, None])))
            weights = torch.sigmoid(torch.stack([row[group[label]] for row, label in zip(scores, labels, strict=True)]))
            return weights / weights.mean() if normalize else weights

        expected = unrolled(twin, network, its_optimizer, adam, batch, val, weights_of)
        loss = reweighter.weighted_loss(model, batch, val)
        torch.testing.assert_close(reweighter.transform(index), expected, rtol=1e-7, atol=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, other in zip(reweighter.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_cmw_net_of_one_group_is_mw_net_to_the_bit():
    one, other = Network(0), Network(0)
    optimizers = optimizer_of(one), optimizer_of(other)
    plain, grouped = MWNet(N_TRAIN, optimizer=optimizers[0]), CMWNet(N_TRAIN, Y, K=1, optimizer=optimizers[1])
    grouped.network.load_state_dict(plain.network.state_dict())
    for reweighter, model, optimizer in zip((plain, grouped), (one, other), optimizers, strict=True):
        torch.default_generator.manual_seed(5)
        train(reweighter, model, optimizer, plan(6))
    assert torch.equal(plain.weights_, grouped.weights_)
    assert_same(plain.network.state_dict(), grouped.network.state_dict())
    assert_same(one.state_dict(), other.state_dict())


@drawn
@given(K=st.integers(1, 5), n=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_network_takes_the_head_of_the_rows_group(K, n, seed):
    torch.default_generator.manual_seed(seed)
    network, losses, groups = WeightNetwork(K, 7).double(), 3 * torch.rand(n, dtype=torch.float64), torch.randint(K, (n,))
    expected = []
    for loss, group in zip(losses, groups, strict=True):
        hidden = (network.linear.weight[:, 0] * loss + network.linear.bias).clamp(min=0)
        expected.append(1 / (1 + torch.exp(-(network.heads.weight[group] @ hidden + network.heads.bias[group]))))
    torch.testing.assert_close(network(losses, groups), torch.stack(expected))
    torch.testing.assert_close(network(losses), network(losses, torch.zeros_like(groups)))


def spread(sizes, groups):
    """Sum of squared distances of the sizes from the mean of their group."""
    return sum(float(np.sum((part - part.mean()) ** 2)) for g in np.unique(groups) for part in [sizes[groups == g].astype(float)])


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 15), min_size=1, max_size=6), K=st.integers(1, 4), seed=st.integers(0, 100))
def test_classes_are_grouped_by_size_with_the_least_spread(sizes, K, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    groups, sizes = groups_of_classes(labels, K).numpy(), np.array(sizes)
    levels = np.unique(sizes)
    n_groups = min(K, len(levels))
    used = sorted(set(groups.tolist()))
    assert len(used) == n_groups and used[0] == 0 and used[-1] == (K - 1 if n_groups > 1 else 0)
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(groups[order]) >= 0).all(), "larger classes are in later groups"
    assert all(groups[a] == groups[b] for a, b in itertools.combinations(range(len(sizes)), 2) if sizes[a] == sizes[b])
    cuts = itertools.combinations(levels[1:], n_groups - 1)
    best = min(spread(sizes, np.searchsorted(np.array(cut), sizes, side="right")) for cut in cuts)
    assert spread(sizes, groups) <= best + 1e-9


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_come_as_any_kind(kind):
    assert CMWNet(8, kind([0, 1, 1, 1, 2, 2, 2, 2]), K=2).groups_.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2, 2, 4], r"classes \[1, 3\] have none.*from 0 on"),
        ([0, -1, 1], r"\(3,\) integers >= 0.*from -1 on"),
        ([0.0, 1.0], r"\(2,\) integers >= 0.*float64"),
        ([[0, 1]], r"shape \(1, 2\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        CMWNet(len(labels), labels, K=2)


def test_normalized_weights_have_mean_one_in_the_batch():
    model = Network(0)
    optimizer = optimizer_of(model)
    for reweighter in (CMWNet(N_TRAIN, Y, optimizer=optimizer), MWNet(N_TRAIN, optimizer=optimizer, normalize=True)):
        for index in plan(4):
            reweighter.weighted_loss(model, of(index), VAL)
            assert float(reweighter.transform(index).mean()) == pytest.approx(1.0, rel=1e-6)


def test_a_transferred_network_is_the_same_function_of_the_loss_in_each_group_and_learns_no_more():
    model = Network(0, has_norm=False)
    optimizer = optimizer_of(model)
    learned = CMWNet(N_TRAIN, Y, K=2, optimizer=optimizer, learning_rate=0.05)
    train(learned, model, optimizer, plan(6))
    y = torch.tensor([0] * 3 + [1] * 20 + [2] * 19 + [3] * 2)
    moved = learned.transfer(len(y), y, warmup_epochs=0.0)
    assert moved.is_frozen and not learned.is_frozen and moved.groups_.tolist() == [0, 1, 1, 0]
    losses = torch.linspace(0.0, 4.0, 9)
    for group in range(2):
        at = torch.full((9,), group)
        assert torch.equal(moved.network(losses, at), learned.network(losses, at))
    before, x, index = copy.deepcopy(moved.network.state_dict()), rows(len(y), 7)[0], torch.tensor([0, 5, 9, 30, 42, 43])
    other = nn.Linear(D, 4).train()
    loss = moved.weighted_loss(other, (x[index], y[index], index))
    each = cross_entropy(other(x[index]), y[index])
    heads = torch.tensor([0, 1, 1, 1, 0, 0])
    expected = learned.network(each.detach(), heads).detach()
    expected = expected / expected.mean()
    torch.testing.assert_close(moved.transform(index), expected)
    assert float(loss.detach()) == pytest.approx(float((expected * each).mean().detach()), rel=1e-6)
    loss.backward()
    for _ in range(3):
        moved.weighted_loss(other, (x[index], y[index], index))
    assert_same(moved.network.state_dict(), before)
    # What was left behind goes on learning, and does not move the other.
    train(learned, model, optimizer, plan(2))
    assert_same(moved.network.state_dict(), before)
    assert not torch.equal(learned.network.heads.weight, moved.network.heads.weight)


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
@pytest.mark.parametrize("make", [L2R, MWNet], ids=["l2r", "mw_net"])
def test_a_number_of_batches_that_is_none_is_refused(make, every):
    with pytest.raises(ValueError, match="every must be an int >= 1"):
        make(N_TRAIN, every=every)


@pytest.mark.parametrize("every", [0, -1, True, 1.5])
def test_cmw_net_refuses_it_too(every):
    with pytest.raises(ValueError, match="every must be an int >= 1"):
        CMWNet(N_TRAIN, Y, every=every)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CMWNet(N_TRAIN, Y[:7]),
            r"y_train must be \(40,\) integers >= 0.*got shape \(7,\)",
        ),
        (lambda: CMWNetSL(N_TRAIN, Y, mode="last_layer"), "Soft labels train each row on four losses"),
        (lambda: CMWNet(N_TRAIN, Y, soft_labels=True), r"class of their own: CMWNetSL\(n_train, y_train\)"),
        (lambda: CMWNet(N_TRAIN, Y, K=0), "K must be an int >= 1, the number of heads"),
        (lambda: MWNet(N_TRAIN, warmup_epochs=-1), "warmup_epochs must be a number in"),
        (lambda: MWNet(0), "n_train must be an int >= 1"),
        (lambda: LiLAW(N_TRAIN, learning_rate=-1.0), "learning_rate must be a number in"),
        (lambda: SoftLabels(ensemble=1.0), r"ensemble must be a number in \[0, 1\)"),
        (lambda: SoftLabels(mixup=0.0), "mixup must be a number in"),
        (lambda: SoftLabels(decay=1.0), r"decay must be a number in \[0, 1\)"),
        (lambda: MWNet(N_TRAIN).weighted_loss(Network(), of(range(9)), VAL), r'mode="exact" .*give optimizer='),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_of_three_heads_two_sizes_get_those_of_the_smallest_and_of_the_largest_classes():
    learned = CMWNet(11, torch.tensor([0] * 2 + [1] * 4 + [2] * 5), K=3)
    assert learned.groups_.tolist() == [0, 1, 2]
    moved = learned.transfer(13, torch.tensor([0] * 5 + [1] * 3 + [2] * 5), warmup_epochs=0.0)
    assert moved.groups_.tolist() == [2, 0, 2]
    assert learned.transfer(4, torch.tensor([0, 0, 1, 1])).groups_.tolist() == [0, 0]


def test_a_transferred_network_waits_for_an_epoch():
    model = Network(0)
    optimizer = optimizer_of(model)
    learned = CMWNet(N_TRAIN, Y, K=2, optimizer=optimizer, warmup_epochs=0.5)
    train(learned, model, optimizer, plan(5))
    moved = learned.transfer(N_TRAIN, Y)
    train(moved, model, optimizer, torch.arange(N_TRAIN).split(10), val=None)
    assert torch.equal(moved.weights_, torch.ones(N_TRAIN)) and not moved.is_warming_up
    train(moved, model, optimizer, [torch.arange(10)], val=None)
    assert not torch.equal(moved.weights_[:10], torch.ones(10))


def test_a_transferred_network_resumes_as_one():
    model = Network(0)
    optimizer = optimizer_of(model)
    learned = CMWNet(N_TRAIN, Y, K=2, optimizer=optimizer, warmup_epochs=0.5)
    train(learned, model, optimizer, plan(5))
    moved, resumed = learned.transfer(N_TRAIN, Y, warmup_epochs=0.0), CMWNet(N_TRAIN, Y, K=2)
    resumed.load_state_dict(stored(moved.state_dict()))
    for reweighter in (moved, resumed):
        torch.default_generator.manual_seed(7)
        own = copy.deepcopy(model)
        train(reweighter, own, optimizer_of(own), plan(3), val=None)
    assert_same(moved.state_dict(), resumed.state_dict())
    assert resumed.is_frozen and not torch.equal(moved.weights_, torch.ones(N_TRAIN))


class Bags(nn.Module):
    """Words, of which a batch has few, in an embedding whose gradient is sparse or dense."""

    def __init__(self, sparse):
        super().__init__()
        torch.default_generator.manual_seed(0)
        self.words, self.out = nn.EmbeddingBag(50, 6, mode="mean", sparse=sparse), nn.Linear(6, C)

    def forward(self, x):
        return self.out(self.words(x))


@pytest.mark.parametrize("mode", ["exact", "first_order", "last_layer"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_embedding_with_sparse_gradients_has_the_weights_of_the_dense_one(mode, momentum):
    words = torch.randint(50, (N_TRAIN, 4), generator=torch.Generator().manual_seed(0))
    weights = []
    for sparse in (False, True):
        model = Bags(sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        torch.default_generator.manual_seed(1)
        reweighter = MWNet(N_TRAIN, optimizer=optimizer, mode=mode, learning_rate=0.1)
        for index in plan(4):
            loss = reweighter.weighted_loss(model, (words[index], Y[index], index), (words[:N_VAL], Y[:N_VAL], torch.arange(N_VAL)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        weights.append(reweighter.weights_)
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
