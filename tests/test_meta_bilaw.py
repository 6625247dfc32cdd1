"""BiLAW against its step taken by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, VAL, C, Network, double, of, optimizer_of, plan, train, unrolled
from torch.nn import functional

from densratio.training import BiLAW


def by_hand(network, logits, y):
    """The network written out, of the label's probability less that of each class."""
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    entry = torch.stack([p[i, y[i]] - p[i] for i in range(len(y))])
    first, _, last = network.layers
    return torch.sigmoid((entry @ first.weight.T + first.bias).clamp(min=0) @ last.weight[0] + last.bias)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), normalize=st.booleans())
def test_a_step_of_the_weight_network_is_the_unrolled_one(seed, normalize):
    model = Network(seed, False).double()
    optimizer = optimizer_of(model)
    bilaw = BiLAW(N_TRAIN, C, optimizer=optimizer, hidden=8, learning_rate=0.01, normalize=normalize).double()
    twin, network = copy.deepcopy(model), copy.deepcopy(bilaw.network)
    its_optimizer, adam = optimizer_of(twin), torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=1e-4)
    for index in plan(4, seed=seed):
        batch, val = double(of(index)), double(VAL)
        logits = twin(batch[0]).detach()

        def weights_of(losses, logits=logits, y=batch[1]):
            weights = by_hand(network, logits, y)
            return weights / weights.mean() if normalize else weights

        expected = unrolled(twin, network, its_optimizer, adam, batch, val, weights_of)
        loss = bilaw.weighted_loss(model, batch, val)
        torch.testing.assert_close(bilaw.transform(index), expected, rtol=1e-7, atol=1e-9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, hand in zip(bilaw.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(one, hand, rtol=1e-6, atol=1e-8)


def test_rows_of_one_loss_differ_by_the_class_that_they_are_near_to():
    model = Network(0, False)
    bilaw = BiLAW(N_TRAIN, C, optimizer=optimizer_of(model))
    near = torch.tensor([[2.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    model.forward = lambda x: near[x[:, 0].long()] + 0 * model.out(torch.zeros(2, 6))
    bilaw.learns = False
    bilaw.weighted_loss(model, (torch.tensor([[0.0], [1.0]]), torch.zeros(2, dtype=torch.int64), [0, 1]))
    assert abs(float(bilaw.weights_[0] - bilaw.weights_[1])) > 1e-3


def test_what_does_not_fit_is_refused():
    model = Network(0)
    x, y, index = of(range(9))
    with pytest.raises(ValueError, match="n_classes must be an int >= 2, the columns of the logits; got 1"):
        BiLAW(N_TRAIN, 1, optimizer=optimizer_of(model))
    with pytest.raises(ValueError, match=r"BiLAW needs logits \(n, 4\) and class labels"):
        train(BiLAW(N_TRAIN, C + 1, optimizer=optimizer_of(model)), model, optimizer_of(model), plan(1))
    with pytest.raises(ValueError, match=r"BiLAW needs logits \(n, 3\) and class labels \(n,\)"):
        BiLAW(N_TRAIN, C, optimizer=optimizer_of(model)).weighted_loss(model, (x, functional.one_hot(y, C).float(), index), VAL)
