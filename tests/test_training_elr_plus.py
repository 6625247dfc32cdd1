"""ELR+, against the published algorithm with two networks and their averages by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, C, Network, X, Y, assert_same, of, optimizer_of, plan
from torch import nn
from torch.nn import functional

from densratio.training import ELRPlus
from densratio.training.loop import mixed_labels


def soft(p):
    p = p.clamp(1e-4, 1 - 1e-4)
    return p / p.sum(dim=1, keepdim=True)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000), strength=st.sampled_from([0.0, 3.0]), decay=st.sampled_from([0.0, 0.7]),
    parameter_decay=st.sampled_from([0.0, 0.6, 0.997]), mixup=st.sampled_from([None, 1.0]), warmup=st.sampled_from([0.0, 0.5]),
    has_base=st.booleans(),
)  # fmt: skip
def test_two_networks_follow_each_other_s_average(seed, strength, decay, parameter_decay, mixup, warmup, has_base):
    model, peer, *twins = (Network(start, has_norm=False).train() for start in (seed, seed + 1, seed, seed + 1))
    optimizer, theirs = optimizer_of(model), [optimizer_of(twin) for twin in twins]
    reweighter = ELRPlus(
        N_TRAIN, C, model, optimizer, peer=peer, strength=strength, decay=decay, parameter_decay=parameter_decay, mixup=mixup,
        warmup_epochs=warmup, seed=seed,
    )  # fmt: skip
    base = torch.ones(N_TRAIN)
    if has_base and mixup is None:
        base = torch.rand(N_TRAIN, generator=torch.Generator().manual_seed(seed))
        base = base / base.mean()
        reweighter.set_base_weights(base)
    mixes, averages, targets = [], [copy.deepcopy(twin) for twin in twins], [torch.zeros(N_TRAIN, C) for _ in twins]

    def spied(*args, draw=mixed_labels._drawn):
        mixes.append(draw(*args))
        return mixes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_labels, "_drawn", spied)
        for step, index in enumerate(plan(7, seed=seed)):
            x, y, is_warm = X[index], Y[index], reweighter.is_warming_up
            kept = min(parameter_decay, step / (step + 1))
            with torch.no_grad():
                for average, twin in zip(averages, twins, strict=True):
                    for mean, parameter in zip(average.parameters(), twin.parameters(), strict=True):
                        mean.copy_(kept * mean + (1 - kept) * parameter)
            loss = reweighter.weighted_loss(model, of(index))
            losses = []
            for k, twin in enumerate(twins):
                if is_warm:
                    losses.append((base[index] * functional.cross_entropy(twin(x), y, reduction="none")).mean())
                    continue
                seen = soft(torch.softmax(averages[1 - k](x), dim=1)).detach()
                targets[k][index] = decay * targets[k][index] + (1 - decay) * seen
                share, order = mixes[k - 2] if mixup else (1.0, torch.arange(len(index)))
                z = functional.one_hot(y, C).float()
                mixed, z, t = (share * part + (1 - share) * part[order] for part in (x, z, targets[k][index]))
                p = torch.softmax(twin(mixed), dim=1)
                own = -(z * p.log()).sum(dim=1) + strength * torch.log(1 - (p * t).sum(dim=1))
                losses.append((base[index] * own).mean())
            torch.testing.assert_close(loss, losses[0], rtol=1e-4, atol=1e-5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for own_loss, its_optimizer in zip(losses, theirs, strict=True):
                its_optimizer.zero_grad()
                own_loss.backward()
                its_optimizer.step()
    for found, expected in zip((reweighter.targets, reweighter.peer_targets), targets, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    for network, twin in zip((model, reweighter.peer), twins, strict=True):
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_batch_that_fails_leaves_the_averages_and_draws_as_they_were():
    model = Network(0, has_norm=False).train()
    reweighter = ELRPlus(N_TRAIN, C, model, optimizer_of(model))
    reweighter.weighted_loss(model, of(range(9)))
    before = copy.deepcopy(reweighter.state_dict())
    x, y, index = of(range(9, 18))
    x[3] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        reweighter.weighted_loss(model, (x, y, index))
    assert_same(reweighter.state_dict(), before)


def test_the_averages_follow_networks_into_another_precision():
    model = Network(0, has_norm=False).train()
    reweighter = ELRPlus(N_TRAIN, C, model, optimizer_of(model))
    reweighter.weighted_loss(model, of(range(9)))
    model.double()
    x, y, index = of(range(9, 18))
    assert reweighter.double().weighted_loss(model, (x.double(), y, index)).dtype == torch.float64
    assert all(v.dtype == torch.float64 for v in (*reweighter.average.values.values(), *reweighter.peer_average.values.values()))


def test_rows_that_cannot_be_mixed_are_named_with_the_first_batch():
    reweighter = ELRPlus(N_TRAIN, C, NET, SGD, mixup=1.0, warmup_epochs=5)
    with pytest.raises(ValueError, match=r"got a tensor of torch\.int64: give mixup=None"):
        reweighter.weighted_loss(NET, (torch.ones(8, 4, dtype=torch.int64), Y[:8], torch.arange(8)))
    assert reweighter.average.n_steps == 0


NET = nn.Linear(4, C)
SGD = torch.optim.SGD(NET.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ELRPlus(5, C, NET, SGD, decay=1.0), r"decay must be a number in \[0, 1\)"),
        (lambda: ELRPlus(5, C, NET, SGD, parameter_decay=1.0), r"decay must be a number in \[0, 1\)"),
        (lambda: ELRPlus(5, C, NET, SGD, mixup=0), r"mixup must be a number in \(0, inf\), .auto. or None"),
        (lambda: ELRPlus(5, C, Network(0), SGD), "ELRPlus gives the peer a copy of the optimizer"),
        (lambda: ELRPlus(5, C, NET, SGD, mixup=1.0).set_base_weights([1] * 5), "ELRPlus mixes these rows.*type mixup=None"),
    ],
)
def test_unsuitable_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
