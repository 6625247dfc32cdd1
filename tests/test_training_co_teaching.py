"""Co-teaching, against the published algorithm with two networks by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, C, Network, X, Y, assert_same, of, optimizer_of, plan
from torch import nn
from torch.nn import functional

from densratio.training import CoTeaching

seeds = st.integers(0, 1000)


def two_networks(seed):
    return [Network(start, has_norm=False).train() for start in (seed, seed + 1)]


def pair(seed, make=optimizer_of, **params):
    """The model with its optimizer, and co-teaching whose peer starts as a given network, of which it is a copy."""
    model, peer = two_networks(seed)
    optimizer = make(model)
    return model, optimizer, CoTeaching(N_TRAIN, model, optimizer, peer=peer, **params), peer


MAKERS = {
    "momentum": optimizer_of,
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=0.1),
    "groups": lambda model: torch.optim.AdamW(
        [{"params": model.hidden.parameters(), "lr": 0.1}, {"params": model.out.parameters()}]
    ),
}


@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("make", MAKERS)
@given(seed=seeds, forget_rate=st.floats(0.0, 0.9), n_epochs=st.sampled_from([0.3, 1.0, 2.0]), exponent=st.sampled_from([0.5, 1.0]))
def test_co_teaching_trains_two_networks_on_each_other_s_easiest_rows(make, seed, forget_rate, n_epochs, exponent):
    """Against the published algorithm by hand, with a schedule that both optimizers follow."""
    model, optimizer, reweighter, _ = pair(seed, MAKERS[make], forget_rate=forget_rate, n_epochs=n_epochs, exponent=exponent)
    twins = two_networks(seed)
    theirs = [MAKERS[make](twin) for twin in twins]
    schedules = [torch.optim.lr_scheduler.ExponentialLR(each, 0.7) for each in (optimizer, *theirs)]
    seen = 0
    for index in plan(5, seed=seed):
        share = 1.0 - forget_rate * min(1.0, (seen / N_TRAIN) ** exponent / n_epochs)
        assert reweighter.share == pytest.approx(share)
        losses = [functional.cross_entropy(twin(X[index]), Y[index], reduction="none") for twin in twins]
        n_kept = max(1, round(share * len(index)))
        easiest = [own.argsort()[:n_kept] for own in losses]
        for own, chosen, its_optimizer in zip(losses, easiest[::-1], theirs, strict=True):
            its_optimizer.zero_grad()
            own[chosen].mean().backward()
            its_optimizer.step()
        loss = reweighter.weighted_loss(model, of(index))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for schedule in schedules:
            schedule.step()
        kept = torch.zeros(len(index)).index_fill(0, easiest[1], len(index) / n_kept)
        torch.testing.assert_close(reweighter.transform(index), kept)
        seen += len(index)
    for network, twin in zip((model, reweighter.peer), twins, strict=True):
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_peer_starts_anew_with_an_optimizer_that_has_seen_nothing_and_the_model_stays_as_it_was():
    model = Network(0).train()
    optimizer = optimizer_of(model)
    model(X).sum().backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    peer = CoTeaching(N_TRAIN, nn.Sequential(model), optimizer).peer[0]
    assert_same((model.state_dict(), optimizer.state_dict()), before)
    assert not torch.equal(peer.out.weight, model.out.weight) and all(p.grad is None for p in peer.parameters())
    norm = peer.hidden[1]
    assert not norm.running_mean.any() and torch.equal(norm.running_var, torch.ones(6)) and int(norm.num_batches_tracked) == 0
    reweighter = CoTeaching(N_TRAIN, model, optimizer)
    assert not reweighter.peer_optimizer.state and len(optimizer.state) == 6


def test_a_peer_that_is_drawn_from_the_seed_of_the_model_starts_elsewhere():
    """As where a loop seeds before it makes the model, and again before it makes the reweighter."""
    torch.default_generator.manual_seed(3)
    model = Network(3).train()
    torch.default_generator.manual_seed(3)
    peer = CoTeaching(N_TRAIN, model, optimizer_of(model)).peer
    assert not torch.equal(peer.out.weight, model.out.weight)
    torch.default_generator.manual_seed(3)
    assert_same(CoTeaching(N_TRAIN, model, optimizer_of(model)).peer.state_dict(), peer.state_dict())


def test_base_weights_count_for_the_peer_too_and_a_row_of_weight_0_teaches_neither():
    model, _, reweighter, peer = pair(0, lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    base = torch.ones(N_TRAIN)
    base[:4] = 0.0
    reweighter.set_base_weights(base)
    own = functional.cross_entropy(peer(X[:9]), Y[:9], reduction="none")[4:].sum() / 9 * N_TRAIN / (N_TRAIN - 4)
    slopes = torch.autograd.grad(own, list(peer.parameters()))
    reweighter.weighted_loss(model, of(range(9)))
    for now, start, slope in zip(reweighter.peer.parameters(), peer.parameters(), slopes, strict=True):
        torch.testing.assert_close(now, start - 0.1 * slope, rtol=1e-5, atol=1e-6)


def test_while_warming_up_the_peer_learns_from_all_rows():
    model, _, reweighter, _ = pair(0, forget_rate=0.9, n_epochs=0.1)
    reweighter.warmup_epochs = 1.0
    start = [p.detach().clone() for p in reweighter.peer.parameters()]
    reweighter.weighted_loss(model, of(range(20)))
    assert reweighter.share == 1.0 and torch.equal(reweighter.weights_, torch.ones(N_TRAIN))
    assert not any(torch.equal(*both) for both in zip(start, reweighter.peer.parameters(), strict=True))
    reweighter.weighted_loss(model, of(range(20, 40)))
    assert reweighter.share == pytest.approx(0.1)


def test_a_peer_whose_gradient_is_no_number_stays_and_its_rows_come_last():
    model, _, reweighter, _ = pair(0, lambda model: torch.optim.SGD(model.parameters(), lr=0.1), forget_rate=0.5, n_epochs=1e-6)
    reweighter.rows_seen = N_TRAIN

    def spoil(module, args, output):
        is_of_peer = torch.equal(module.out.weight, reweighter.peer.out.weight)
        return output * torch.ones(8, 1).index_fill(0, torch.tensor([2, 5]), float("nan")) if is_of_peer else output

    before = copy.deepcopy(reweighter.peer.state_dict())
    with model.register_forward_hook(spoil):
        loss = reweighter.weighted_loss(model, of(range(8)))
    assert_same(reweighter.peer.state_dict(), before)
    assert bool(torch.isfinite(loss)) and reweighter.weights_[[2, 5]].tolist() == [0.0, 0.0]


def test_a_peer_that_fails_leaves_everything_as_it_was():
    model = Network(0).train()
    reweighter = CoTeaching(N_TRAIN, model, optimizer_of(model))
    reweighter.weighted_loss(model, of(range(9)))

    def fail(layer, *args):
        if torch.equal(layer.weight, reweighter.peer.out.weight):
            raise RuntimeError("no room")

    before = copy.deepcopy(reweighter.state_dict())
    with model.out.register_forward_hook(fail), pytest.raises(RuntimeError, match="no room"):
        reweighter.weighted_loss(model, of(range(9)))
    assert_same(reweighter.state_dict(), before)


def test_the_peer_trains_what_the_optimizer_trains():
    model = Network(0, has_norm=False).train()
    reweighter = CoTeaching(N_TRAIN, model, torch.optim.SGD(model.out.parameters(), lr=0.1))
    before = copy.deepcopy(reweighter.peer)
    reweighter.weighted_loss(model, of(range(9)))
    assert_same(reweighter.peer.hidden.state_dict(), before.hidden.state_dict())
    assert not torch.equal(reweighter.peer.out.weight, before.out.weight)
    assert all(p.grad is None for p in reweighter.parameters())


def test_a_group_of_parameters_that_the_peer_lacks_is_told_and_nothing_changes():
    model = Network(0).train()
    optimizer = torch.optim.SGD(model.out.parameters(), lr=0.1)
    reweighter = CoTeaching(N_TRAIN, model, optimizer)
    before = copy.deepcopy(reweighter.state_dict())
    optimizer.add_param_group({"params": model.hidden.parameters()})
    with pytest.raises(ValueError, match="has 2 groups of parameters and had 1 when CoTeaching was made: make it anew"):
        reweighter.weighted_loss(model, of(range(9)))
    assert_same(reweighter.state_dict(), before)


def test_the_peer_follows_the_mode_of_each_layer():
    model = Network(0).train()
    reweighter = CoTeaching(N_TRAIN, model, optimizer_of(model))
    reweighter.weighted_loss(model, of(range(9)))
    model.hidden[1].eval()
    reweighter.weighted_loss(model, of(range(9)))
    assert int(reweighter.peer.hidden[1].num_batches_tracked) == 1 == int(model.hidden[1].num_batches_tracked)


class Around(nn.Module):
    """A network within another module, which is called with more than rows and does more than call it, as adapters do."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, batch):
        return {"logits": self.network(2.0 * batch["x"])}["logits"]


def test_a_network_within_a_module_has_a_peer_in_its_place():
    found = []
    for is_within in (False, True):
        torch.default_generator.manual_seed(0)
        model = Network(0, has_norm=False).train()
        reweighter = CoTeaching(N_TRAIN, model, optimizer_of(model), forget_rate=0.5, n_epochs=1e-6)
        for index in plan(3):
            x, y, i = of(index)
            given = (Around(model), ({"x": x}, y, i)) if is_within else (model, (2.0 * x, y, i))
            reweighter.weighted_loss(*given)
        found.append(reweighter.state_dict())
    assert_same(*found)
    with pytest.raises(ValueError, match="The model isn't the one that CoTeaching was made with"):
        reweighter.weighted_loss(nn.Linear(4, C), of(range(9)))
    assert_same(reweighter.state_dict(), found[1])


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.ones(1)), nn.Linear(4, C)

    def forward(self, x):
        return self.scale * self.out(x)


def test_a_layer_that_cannot_start_anew_asks_for_a_peer():
    model = Scaled()
    with pytest.raises(ValueError, match=r"The layer Scaled has no reset_parameters, .* give peer=, a network of the same form"):
        CoTeaching(N_TRAIN, model, optimizer_of(model))
    other = Scaled()
    assert_same(CoTeaching(N_TRAIN, model, optimizer_of(model), peer=other).peer.state_dict(), other.state_dict())


NET = Network(0)
SGD = optimizer_of(NET)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CoTeaching(5, NET, SGD, forget_rate=1.0), r"forget_rate must be a number in \[0, 1\); got 1.0"),
        (lambda: CoTeaching(5, NET, SGD, n_epochs=0), r"n_epochs must be a number in \(0, inf\); got 0"),
        (lambda: CoTeaching(5, NET, SGD, exponent=-1.0), "exponent must be a number in"),
        (lambda: CoTeaching(5, Network(0), SGD), "it must be one of parameters of the model alone"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
