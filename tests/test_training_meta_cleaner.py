"""MetaCleaner against groups, shares and sums of features written out one by one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, C, Network, Y, assert_same, double, of, optimizer_of, plan
from torch import nn
from torch.nn.functional import cross_entropy

from densratio.training import MetaCleaner, Uniform
from densratio.training.losses import squared_error

FEATURES = 6
drawn = settings(max_examples=12, deadline=None)


def groups_of(labels, k):
    """Places in the batch of the rows of each group."""
    for c in sorted(set(labels)):
        rows = [i for i, label in enumerate(labels) if label == c]
        yield from (rows[at : at + k] for at in range(0, len(rows), k))


def cleaned(features, out, network, y, k):
    """The loss of a batch, each group counted by its rows, and a_i times the rows of the group."""
    total, weights = 0.0, torch.zeros(len(y), dtype=features.dtype)
    for group in groups_of(y.tolist(), k):
        scores = []
        for i in group:
            mates = [j for j in group if j != i] or [i]
            scores.append(network(torch.cat([features[i], features[mates].mean(dim=0)]).detach())[0])
        shares = torch.softmax(torch.stack(scores), dim=0)
        representation = sum(share * features[i] for share, i in zip(shares, group, strict=True))
        total = total + len(group) * cross_entropy(out(representation)[None], y[group[:1]])
        for share, i in zip(shares, group, strict=True):
            weights[i] = len(group) * share.detach()
    return total / len(y), weights


@drawn
@given(seed=st.integers(0, 999), k=st.integers(1, 6))
def test_each_group_trains_as_one_sum_of_features_in_which_the_network_learns_the_shares(seed, k):
    model = Network(seed, has_norm=False).double().train()
    optimizer = optimizer_of(model)
    reweighter = MetaCleaner(N_TRAIN, FEATURES, k=k, hidden=7, learning_rate=0.05, warmup_epochs=0.0).double()
    network = copy.deepcopy(reweighter.network)
    its_optimizer = torch.optim.Adam(network.parameters(), 0.05, weight_decay=1e-4)
    for index in plan(5, seed=seed):
        x, y, i = double(of(index))
        its_optimizer.zero_grad()
        cleaned(model.hidden(x).detach(), copy.deepcopy(model.out), network, y, k)[0].backward()
        its_optimizer.step()
        expected, weights = cleaned(model.hidden(x), model.out, network, y, k)
        slopes = torch.autograd.grad(expected, list(model.parameters()))
        loss = reweighter.weighted_loss(model, (x, y, i))
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(reweighter.transform(index), weights, rtol=1e-5, atol=1e-7)
        optimizer.zero_grad()
        loss.backward()
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            torch.testing.assert_close(parameter.grad, slope, rtol=1e-5, atol=1e-7)
        optimizer.step()
    for own, other in zip(reweighter.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


def test_groups_of_one_row_train_plainly_with_weights_of_one():
    model = Network(0, has_norm=False).train()
    reweighter = MetaCleaner(N_TRAIN, FEATURES, k=1, warmup_epochs=0.0)
    torch.testing.assert_close(reweighter.weighted_loss(model, of(range(14))), Uniform(N_TRAIN).weighted_loss(model, of(range(14))))
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


@drawn
@given(seed=st.integers(0, 999))
def test_rows_of_other_labels_and_the_order_in_a_group_do_not_count(seed):
    model, network = Network(seed, has_norm=False).train(), MetaCleaner(N_TRAIN, FEATURES, k=N_TRAIN).network.state_dict()

    def weights(index):
        reweighter = MetaCleaner(N_TRAIN, FEATURES, k=N_TRAIN, learning_rate=0.0, warmup_epochs=0.0)
        reweighter.network.load_state_dict(network)
        reweighter.weighted_loss(model, of(index))
        return reweighter.weights_

    index = torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(seed))
    whole = weights(torch.arange(N_TRAIN))
    torch.testing.assert_close(weights(index), whole)
    alone = Y == 1
    torch.testing.assert_close(weights(torch.arange(N_TRAIN)[alone])[alone], whole[alone])


class Features(nn.Module):
    """A last layer alone: its input are the features."""

    def __init__(self, n_features=2):
        super().__init__()
        self.out = nn.Linear(n_features, 2)

    def forward(self, x):
        return self.out(x)


@pytest.mark.parametrize("seed", range(3))
def test_rows_unlike_the_others_of_their_label_lose_their_share(seed):
    """Two clusters, and a quarter of the labels wrong."""
    random = np.random.default_rng(seed)
    right = random.integers(2, size=400)
    is_wrong = random.random(400) < 0.25
    x = torch.as_tensor(random.normal(size=(400, 2)) * 0.3 + np.where(right == 1, 1.0, -1.0)[:, None], dtype=torch.float32)
    y = torch.as_tensor(np.where(is_wrong, 1 - right, right))
    torch.default_generator.manual_seed(seed)
    model, reweighter = Features(), MetaCleaner(400, 2, learning_rate=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(30):
        for index in torch.as_tensor(random.permutation(400)).split(50):
            loss = reweighter.weighted_loss(model, (x[index], y[index], index))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    weights = reweighter.weights_.numpy()
    assert weights[is_wrong].mean() < 0.9 and weights[~is_wrong].mean() > 1.03


def test_features_too_large_for_the_network_train_on_even_shares(caplog):
    model, x, y = Features(), torch.tensor([[3e38, 0.5], [3e38, -1.0], [3e38, 2.0]]), torch.tensor([0, 0, 1])
    with torch.no_grad():
        model.out.weight[:, 0] = 0.0
    reweighter = MetaCleaner(3, 2, warmup_epochs=0.0)
    loss = reweighter.weighted_loss(model, (x, y, range(3)))
    logits = model(x)
    mixed = torch.stack([logits[:2].mean(dim=0), logits[:2].mean(dim=0), logits[2]])
    torch.testing.assert_close(loss, cross_entropy(mixed, y))
    assert reweighter.vanished_ == 1 and torch.equal(reweighter.weights_, torch.ones(3)) and "trains unweighted" in caplog.text


class Ending(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = Network(0, has_norm=False)

    def forward(self, x):
        return self.network(x).softmax(dim=1)


def test_another_model_is_refused_and_base_weights_are_too():
    for model, n_features, words in (
        (Ending(), FEATURES, "sums of features, which needs a model whose predictions"),
        (Network(0, has_norm=False), 5, r"MetaCleaner weighs rows by the input \(n, 5\) .* an input of shape \(9, 6\)"),
    ):
        reweighter = MetaCleaner(N_TRAIN, n_features, warmup_epochs=0.0)
        before = copy.deepcopy(reweighter.state_dict())
        with pytest.raises(ValueError, match=words):
            reweighter.weighted_loss(model.train(), of(range(9)))
        assert_same(reweighter.state_dict(), before)
    with pytest.raises(ValueError, match=r"sums of rows, in which rows have learned shares"):
        reweighter.set_base_weights(np.ones(N_TRAIN))
    for params, words in (
        ({"k": 0}, "k must be an int >= 1, the rows of a group"),
        ({"n_features": 0}, "n_features must be an int"),
    ):
        with pytest.raises(ValueError, match=words):
            MetaCleaner(**{"n_train": 5, "n_features": 2, **params})


def test_numbers_are_no_class_labels_and_a_model_that_does_not_fit_is_told_in_a_warm_up_already():
    reweighter, (x, y, index) = MetaCleaner(N_TRAIN, FEATURES, loss=squared_error), of(range(9))
    with pytest.raises(ValueError, match=r"MetaCleaner needs logits .* class labels \(n,\), integers; got \(9, 3\) and \(9, 3\)"):
        reweighter.weighted_loss(Network(0, False).train(), (x, nn.functional.one_hot(y, C).float(), index))
    with pytest.raises(ValueError, match="sums of features, which needs a model whose predictions"):
        MetaCleaner(N_TRAIN, FEATURES).weighted_loss(Ending().train(), (x, y, index))
