"""Methods that learn their weights, against steps unrolled by hand."""

from __future__ import annotations

import copy
import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    MOMENTUM,
    N_TRAIN,
    N_VAL,
    RATE,
    VAL,
    X_VAL,
    Y_VAL,
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
from torch.func import functional_call
from torch.nn import functional

from densratio.training.loop.moving_average import MovingAverage
from densratio.training.losses import cross_entropy
from densratio.training.meta import L2R, CMWNet, LiLAW, MWNet, SoftLabels
from densratio.training.meta.lilaw import lilaw_weights
from densratio.training.meta.weight_network import WeightNetwork, groups_of_classes

drawn = settings(max_examples=10)


# ---------------------------------------------------------------- L2R


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
        torch.manual_seed(5)
        train(reweighter, model, optimizer, plan(6))
    assert torch.equal(plain.weights_, grouped.weights_)
    assert_same(plain.network.state_dict(), grouped.network.state_dict())
    assert_same(one.state_dict(), other.state_dict())


@drawn
@given(K=st.integers(1, 5), n=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_network_takes_the_head_of_the_rows_group(K, n, seed):
    torch.manual_seed(seed)
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
    assert sorted(set(groups.tolist())) == list(range(n_groups))
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(groups[order]) >= 0).all(), "larger classes are in later groups"
    assert all(groups[a] == groups[b] for a, b in itertools.combinations(range(len(sizes)), 2) if sizes[a] == sizes[b])
    cuts = itertools.combinations(levels[1:], n_groups - 1)
    best = min(spread(sizes, np.searchsorted(np.array(cut), sizes, side="right")) for cut in cuts)
    assert spread(sizes, groups) <= best + 1e-9


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_labels_come_as_any_kind(kind):
    assert groups_of_classes(kind([0, 1, 1, 1, 2, 2, 2, 2]), 2).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2, 2, 4], r"classes \[1, 3\] have none.*from 0 on"),
        ([0, -1, 1], r"labels >= 0"),
        ([0.0, 1.0], "integer labels"),
        ([[0, 1]], r"shape \(1, 2\)"),
        ([], "integer labels"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        groups_of_classes(labels, 2)


def test_normalised_weights_have_mean_one_in_the_batch():
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
        (lambda: CMWNet(N_TRAIN, Y[:7]), "each of the 40 training rows; got 7 labels"),
        (lambda: CMWNet(N_TRAIN, Y, soft_labels=True, mode="last_layer"), "soft_labels train each row on four losses"),
        (lambda: CMWNet(N_TRAIN, Y, K=0), "K, the number of heads"),
        (lambda: MWNet(N_TRAIN, warmup_epochs=-1), "warmup_epochs must be >= 0"),
        (lambda: MWNet(0), "n_train must be >= 1"),
        (lambda: LiLAW(N_TRAIN, learning_rate=-1.0), "learning_rate and weight_decay must be >= 0"),
        (lambda: SoftLabels(ensemble=1.0), r"ensemble must be in \[0, 1\)"),
        (lambda: SoftLabels(mixup=0.0), "mixup > 0"),
        (lambda: SoftLabels(decay=1.0), r"decay must be in \[0, 1\)"),
        (lambda: MWNet(N_TRAIN).weighted_loss(Network(), of(range(9)), VAL), r'mode="exact" .*give optimizer='),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---------------------------------------------------------------- soft labels


@drawn
@given(decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]), n_steps=st.integers(1, 6))
def test_the_moving_average_starts_as_the_mean_and_then_forgets(decay, n_steps):
    model, average, expected = nn.Linear(2, 1).double(), MovingAverage(decay), None
    for step in range(n_steps):
        with torch.no_grad():
            model.weight.copy_(torch.randn(1, 2, generator=torch.Generator().manual_seed(step)))
        average.follow(model)
        own = min(decay, step / (step + 1))
        expected = model.weight.detach().clone() if expected is None else own * expected + (1 - own) * model.weight.detach()
    torch.testing.assert_close(average.values["weight"], expected)


def test_the_averaged_model_predicts_in_eval_mode_and_leaves_no_trace():
    model, average = Network(0).train(), MovingAverage(0.5)
    train(L2R(N_TRAIN), model, optimizer_of(model), plan(2))
    average.follow(model)
    reference = copy.deepcopy(model).eval()
    before, draws = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert torch.equal(average.predict(model, X), reference(X).detach()) and not average.predict(model, X).requires_grad
    assert_same(model.state_dict(), before)
    assert model.training and model.hidden[1].training and torch.equal(torch.get_rng_state(), draws)


def soft(model, **params):
    """The reweighter, and the mixed batches that it will make."""
    labels = SoftLabels(**params)
    reweighter = CMWNet(N_TRAIN, Y, K=2, soft_labels=labels, optimizer=optimizer_of(model), learning_rate=0.05)
    made, mix = [], labels.mix

    def spied(*args):
        made.append(mix(*args))
        return made[-1]

    labels.mix = spied
    return reweighter, made


def test_where_the_network_trusts_every_label_and_nothing_is_mixed_the_loss_is_cross_entropy():
    model = Network(0, has_norm=False).train()
    reweighter, _ = soft(model, mixup=None)
    reweighter.network_optimizer.param_groups[0].update(lr=0.0)
    nn.init.constant_(reweighter.network.heads.bias, 1e4)
    for index in plan(3):
        loss = reweighter.weighted_loss(model, of(index), VAL)
        assert float(loss.detach()) == pytest.approx(float(functional.cross_entropy(model(X[index]), Y[index]).detach()), rel=1e-6)
        assert reweighter.transform(index).tolist() == [1.0] * len(index)


def test_where_it_trusts_none_the_loss_is_against_the_pseudo_labels():
    model = Network(0, has_norm=False).train()
    reweighter, _ = soft(model, mixup=None, ensemble=None)
    reweighter.network_optimizer.param_groups[0].update(lr=0.0)
    nn.init.constant_(reweighter.network.heads.bias, -1e4)
    loss = reweighter.weighted_loss(model, of(range(12)), VAL)
    # With the first batch the averaged model is the model.
    out = model(X[:12])
    by_hand = -(torch.softmax(out.detach(), 1) * torch.log_softmax(out, 1)).sum(dim=1).mean()
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-6)


@drawn
@given(seed=st.integers(0, 1000), mixup=st.sampled_from([None, 0.3, 1.0]))
def test_the_mixed_loss_is_the_published_one(seed, mixup):
    model = Network(seed, has_norm=False).train()
    reweighter, made = soft(model, mixup=mixup, seed=seed, ensemble=0.7)
    kept = torch.zeros(N_TRAIN, C)
    for index in plan(4, seed=seed):
        average = copy.deepcopy(reweighter.soft_labels.average)
        average.follow(model)
        p = torch.softmax(average.predict(model, X[index]), 1)
        visited = kept[index].sum(dim=1, keepdim=True) > 0
        kept[index] = torch.where(visited, 0.7 * kept[index] + 0.3 * p, p)
        loss = reweighter.weighted_loss(model, of(index), VAL)
        mixed = made[-1]
        share, order, x, y, z = mixed.share, mixed.order, X[index], Y[index], kept[index]
        assert 0.5 <= share <= 1.0 and sorted(order.tolist()) == list(range(len(index))) and (mixup is not None or share == 1.0)
        torch.testing.assert_close(mixed.x, share * x + (1 - share) * x[order])
        torch.testing.assert_close(mixed.z, z)
        out, total = model(share * x + (1 - share) * x[order]), 0.0
        log = torch.log_softmax(out, 1).detach()
        for row in range(len(index)):
            other, parts = order[row], []
            for at in (row, other):
                own = -log[row, y[at]]
                v = reweighter.network(own[None], reweighter.groups_[y[at]][None])[0].detach()
                parts.append(v * own + (1 - v) * -(z[at] * log[row]).sum())
                if at is row:
                    assert float(reweighter.weights_[index[row]]) == pytest.approx(float(v), rel=1e-5)
            total += float(share * parts[0] + (1 - share) * parts[1])
        assert float(loss.detach()) == pytest.approx(total / len(index), rel=1e-5)
        reweighter.optimizer.zero_grad()
        loss.backward()
        reweighter.optimizer.step()


def test_the_network_of_soft_labels_learns_by_the_unrolled_step():
    model = Network(0, has_norm=False).double().train()
    reweighter, made = soft(model, seed=3)
    reweighter.every = 1
    reweighter.double()
    twin, network = copy.deepcopy(model), copy.deepcopy(reweighter.network)
    its_optimizer, adam = optimizer_of(twin), torch.optim.Adam(network.parameters(), lr=0.05, weight_decay=1e-4)
    for index in plan(4):
        batch, val = double(of(index)), double(VAL)
        loss = reweighter.weighted_loss(model, batch, val)
        mixed, n = made[-1], len(index)
        z, groups = mixed.z.double(), reweighter.groups_[Y[index]]

        def four(out, y, mixed=mixed, z=z):
            log = torch.log_softmax(out, 1)
            given = [-log.gather(1, label[:, None])[:, 0] for label in (y, y[mixed.order])]
            pseudo = [-(label * log).sum(dim=1) for label in (z, z[mixed.order])]
            return torch.cat([given[0], pseudo[0], given[1], pseudo[1]])

        def weights_of(losses, mixed=mixed, n=n, groups=groups):
            v = network(losses[:n], groups), network(losses[2 * n : 3 * n], groups[mixed.order])
            shares = mixed.share, 1 - mixed.share
            return 4 * torch.cat([shares[0] * v[0], shares[0] * (1 - v[0]), shares[1] * v[1], shares[1] * (1 - v[1])])

        unrolled(twin, network, its_optimizer, adam, (mixed.x, batch[1]), val, weights_of, four)
        reweighter.optimizer.zero_grad()
        loss.backward()
        reweighter.optimizer.step()
    for one, other in zip(reweighter.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_soft_labels_take_a_meta_gradient_each_tenth_batch():
    model = Network(0, has_norm=False).train()
    reweighter, _ = soft(model)
    moved = []
    for index in plan(12):
        before = reweighter.network.heads.weight.detach().clone()
        reweighter.weighted_loss(model, of(index), VAL)
        moved.append(not torch.equal(before, reweighter.network.heads.weight))
    assert [step for step, has_moved in enumerate(moved) if has_moved] == [0, 10]


def test_soft_labels_refuse_input_that_cannot_be_mixed():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, C))
    reweighter, _ = soft(model)
    with pytest.raises(ValueError, match="one tensor of floats"):
        reweighter.weighted_loss(model, (torch.ones(6, 2, dtype=torch.int64), Y[:6], range(6)), VAL)


def test_soft_labels_know_weights_that_two_layers_share():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))

    model = Tied().train()
    reweighter, _ = soft(model)
    losses = train(reweighter, model, reweighter.optimizer, plan(3))
    assert np.isfinite(losses).all()


# ---------------------------------------------------------------- LiLAW


@pytest.mark.parametrize(
    ("s_y", "s_max", "parts"),
    [
        (0.95, 0.95, (0.9995, 0.1301, 0.0000)),
        (0.60, 0.60, (0.9918, 0.2315, 0.0015)),
        (0.40, 0.60, (0.9526, 0.3543, 0.0889)),
        (0.05, 0.95, (0.3775, 0.6900, 0.8353)),
    ],
)
def test_lilaw_weights_at_four_points(s_y, s_max, parts):
    found = lilaw_weights(torch.tensor([s_y]), torch.tensor([s_max]), 9.0, 3.0, 7.0)
    assert [float(part) for part in (found.easy, found.hard, found.moderate)] == pytest.approx(parts, abs=6e-5)
    assert float(found.weights) == pytest.approx(sum(parts), abs=2e-4)


softmaxes = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)).map(lambda pair: (min(pair), max(pair)))


@settings(max_examples=60)
@given(s=softmaxes, at=st.tuples(*[st.floats(-5.0, 15.0)] * 3))
def test_lilaw_rises_with_alpha_and_falls_with_beta(s, at):
    s_y, s_max = (torch.tensor([value], dtype=torch.float64) for value in s)
    point = torch.tensor(at, dtype=torch.float64)

    def weight(numbers):
        return lilaw_weights(s_y, s_max, *numbers).weights.sum()

    slope = torch.autograd.functional.jacobian(weight, point)
    assert float(slope[0]) >= 0 >= float(slope[1])
    h, unit = 1e-5, torch.eye(3, dtype=torch.float64)
    by_differences = torch.stack([(weight(point + h * e) - weight(point - h * e)) / (2 * h) for e in unit])
    torch.testing.assert_close(slope, by_differences, rtol=1e-5, atol=1e-8)


def test_without_weight_decay_alpha_never_rises_and_beta_never_falls():
    model = Network(0)
    reweighter, optimizer = LiLAW(N_TRAIN, weight_decay=0.0, warmup_epochs=0, learning_rate=0.5), optimizer_of(model)
    course = [(float(reweighter.alpha.detach()), float(reweighter.beta.detach()))]
    for index in plan(15):
        train(reweighter, model, optimizer, [index])
        course.append((float(reweighter.alpha.detach()), float(reweighter.beta.detach())))
    alpha, beta = np.array(course).T
    assert (np.diff(alpha) <= 0).all() and (np.diff(beta) >= 0).all() and alpha[-1] < alpha[0] and beta[-1] > beta[0]


@drawn
@given(seed=st.integers(0, 1000), start=st.tuples(*[st.floats(-2.0, 12.0)] * 3), decay=st.sampled_from([0.0, 0.1]))
def test_a_step_of_the_three_is_the_gradient_of_the_weighted_validation_loss(seed, start, decay):
    model = Network(seed, has_norm=False).train()
    reweighter = LiLAW(
        N_TRAIN, alpha=start[0], beta=start[1], delta=start[2], learning_rate=0.3, weight_decay=decay, warmup_epochs=0
    )
    three = [torch.tensor(value, requires_grad=True) for value in start]
    with torch.no_grad():
        s, each = torch.softmax(model(X_VAL), 1), cross_entropy(model(X_VAL), Y_VAL)
        own = s[torch.arange(N_VAL), Y_VAL]
    out = torch.softmax(model(X[:9]), 1)
    a, b, d = three
    weights = torch.sigmoid(a * own - s.amax(1)) + torch.sigmoid(s.amax(1) - b * own) + torch.exp(-((d * own - s.amax(1)) ** 2) / 2)
    gradients = torch.autograd.grad((weights * each).mean(), three)
    expected = [float((p - 0.3 * (g + decay * p)).detach()) for p, g in zip(three, gradients, strict=True)]
    loss = reweighter.weighted_loss(model, of(range(9)), VAL)
    found = [float(p.detach()) for p in (reweighter.alpha, reweighter.beta, reweighter.delta)]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    own, largest = out[torch.arange(9), Y[:9]], out.amax(1)
    easy, hard = torch.sigmoid(found[0] * own - largest), torch.sigmoid(largest - found[1] * own)
    parts = torch.stack([easy, hard, torch.exp(-((found[2] * own - largest) ** 2) / 2)], dim=1)
    torch.testing.assert_close(reweighter.weights_[:9], parts.detach().sum(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reweighter.difficulty[:9], parts.detach(), rtol=1e-4, atol=1e-5)
    by_hand = (parts.sum(dim=1) * cross_entropy(model(X[:9]), Y[:9])).mean()
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-4)
    # The classifier descends the whole of it, the weights included; the three are left to the validation rows.
    slopes, by_autograd = (torch.autograd.grad(part, list(model.parameters()), retain_graph=True) for part in (loss, by_hand))
    torch.testing.assert_close(slopes, by_autograd, rtol=1e-3, atol=1e-5)
    loss.backward()
    assert reweighter.alpha.grad is reweighter.beta.grad is reweighter.delta.grad is None


def test_in_the_warm_up_the_three_stay_and_the_weights_are_one():
    model = Network(0)
    reweighter = LiLAW(N_TRAIN)
    train(reweighter, model, optimizer_of(model), [torch.arange(20), torch.arange(20, 40)], val=None)
    assert (float(reweighter.alpha.detach()), float(reweighter.beta.detach()), float(reweighter.delta.detach())) == (10.0, 2.0, 6.0)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN)) and not reweighter.is_warming_up
    train(reweighter, model, optimizer_of(model), [torch.arange(20)])
    assert float(reweighter.alpha.detach()) != 10.0 and not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


def test_lilaw_refuses_what_is_no_classification():
    model, reweighter = nn.Linear(D, C), LiLAW(N_TRAIN, warmup_epochs=0, loss=lambda p, y: ((p - y) ** 2).mean(dim=1))
    with pytest.raises(ValueError, match=r"logits \(n, C\) and class labels \(n,\); got \(12, 3\) and \(12, 3\)"):
        reweighter.weighted_loss(model, (X[:5], torch.zeros(5, C), range(5)), (X_VAL, torch.zeros(N_VAL, C), range(N_VAL)))


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
        torch.manual_seed(7)
        own = copy.deepcopy(model)
        train(reweighter, own, optimizer_of(own), plan(3), val=None)
    assert_same(moved.state_dict(), resumed.state_dict())
    assert resumed.is_frozen and not torch.equal(moved.weights_, torch.ones(N_TRAIN))
