"""Soft labels: the moving average, the mixed loss, and the step of the network unrolled by hand."""

from __future__ import annotations

import copy

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
    train,
    unrolled,
)
from torch import nn
from torch.nn import functional

from densratio.training.loop.moving_average import MovingAverage
from densratio.training.meta import L2R, CMWNetSL, SoftLabels

drawn = settings(max_examples=10)


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
    reweighter = CMWNetSL(N_TRAIN, Y, K=2, soft_labels=labels, optimizer=optimizer_of(model), learning_rate=0.05, warmup_epochs=0.0)
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


def test_a_transfer_keeps_the_soft_labels_their_parameters_and_the_network_and_learns_no_more():
    model = Network(0, has_norm=False)
    optimizer = optimizer_of(model)
    soft_labels = SoftLabels(0.5, None, 2.0, seed=3)
    learned = CMWNetSL(N_TRAIN, Y, K=2, soft_labels=soft_labels, optimizer=optimizer, learning_rate=0.05, warmup_epochs=0.0)
    train(learned, model, optimizer, plan(4))
    moved = learned.transfer(N_TRAIN, Y, warmup_epochs=0.0)
    labels = moved.soft_labels
    assert isinstance(moved, CMWNetSL) and (labels.average.decay, labels.ensemble, labels.mixup, labels.seed) == (0.5, None, 2.0, 3)
    assert moved.is_frozen and not moved.needs_validation and labels.average.n_steps == 0
    before = copy.deepcopy(moved.network.state_dict())
    moved.weighted_loss(Network(1, has_norm=False).train(), of(range(9)), None).backward()
    assert_same(moved.network.state_dict(), before)
    assert_same(moved.network.state_dict(), learned.network.state_dict())
