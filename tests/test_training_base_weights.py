"""Weights of one's own, which multiply those of the method."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from integration_cases import MAKERS as BY_NAME
from integration_cases import N_TRAIN, N_VAL, NAMED, TRAIN, VAL, network, one_thread  # noqa: F401
from torch.nn.functional import cross_entropy

from densratio.training import L2R, CMWNetSL, Focal, LiLAW, MWNet, SelfPaced, Uniform

BATCH = torch.arange(5, 45)
VALIDATION = (*VAL, torch.arange(N_VAL))
BASE = np.random.default_rng(0).exponential(size=N_TRAIN)
MAKERS = {
    **{name: (lambda name=name: BY_NAME[name](N_TRAIN, N_VAL, 0)) for name in NAMED if name != "val_only"},
    "focal": lambda: Focal(N_TRAIN),
    "self_paced": lambda: SelfPaced(N_TRAIN, n_epochs=2),
    "l2r": lambda: L2R(N_TRAIN),
    "lilaw": lambda: LiLAW(N_TRAIN),
}


def step(reweighter, model=None):
    model = network() if model is None else model
    loss = reweighter.weighted_loss(model, (TRAIN[0][BATCH], TRAIN[1][BATCH], BATCH), VALIDATION)
    return loss, cross_entropy(model(TRAIN[0][BATCH]), TRAIN[1][BATCH], reduction="none")


@pytest.mark.parametrize("name", MAKERS)
def test_the_loss_is_the_mean_of_base_weight_times_weight_times_loss(name):
    plain, based = MAKERS[name](), MAKERS[name]()
    based.set_base_weights(BASE)
    (one, _), (loss, losses) = step(plain), step(based)
    own = torch.as_tensor(BASE / BASE.mean(), dtype=torch.float32)[BATCH]
    assert torch.equal(plain.weights_, based.weights_)
    torch.testing.assert_close(loss, (own * based.transform(BATCH) * losses).mean(), rtol=1e-5, atol=1e-6)
    assert not torch.isclose(loss, one, rtol=1e-3)


@pytest.mark.parametrize("name", MAKERS)
def test_equal_base_weights_and_none_give_the_loss_without_them(name):
    plain = step(MAKERS[name]())[0]
    for weights in (np.full(N_TRAIN, 1e300), None):
        based = MAKERS[name]()
        based.set_base_weights(BASE)
        based.set_base_weights(weights)
        torch.testing.assert_close(step(based)[0], plain, rtol=1e-6, atol=0)


def test_the_unit_of_base_weights_does_not_count_and_a_copy_keeps_them():
    losses = []
    for unit in (1.0, 1e-200, 1e200):
        reweighter = Uniform(N_TRAIN)
        reweighter.set_base_weights(unit * BASE)
        losses += [step(reweighter)[0].item(), step(pickle.loads(pickle.dumps(reweighter)))[0].item()]
    assert losses == pytest.approx([losses[0]] * 6, rel=1e-6)
    assert "base_weights" not in reweighter.state_dict()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (BASE[:-1], r"must be \(90,\).*got shape \(89,\)"),
        (-BASE, "finite numbers >= 0; row 0"),
        (np.where(np.arange(N_TRAIN) == 3, np.nan, BASE), "row 3.* has nan"),
        (0.0 * BASE, "0 for all rows"),
    ],
)
def test_weights_that_are_none_are_refused_and_the_ones_of_before_stay(weights, words):
    reweighter = Uniform(N_TRAIN)
    reweighter.set_base_weights(BASE)
    before = reweighter.base_weights.clone()
    with pytest.raises(ValueError, match=words):
        reweighter.set_base_weights(weights)
    assert torch.equal(reweighter.base_weights, before)


def test_a_method_that_mixes_rows_says_so():
    model = network()
    reweighter = CMWNetSL(N_TRAIN, TRAIN[1], optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="CMWNetSL mixes rows"):
        reweighter.set_base_weights(BASE)
    reweighter.set_base_weights(None)
    step(reweighter, model)


def test_learned_weights_go_on_while_the_loss_counts_the_base_weights():
    model = network()
    reweighter = MWNet(N_TRAIN, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    reweighter.set_base_weights(BASE)
    loss, losses = step(reweighter, model)
    own = reweighter.base_weights[BATCH]
    torch.testing.assert_close(loss, (own * reweighter.transform(BATCH) * losses).mean(), rtol=1e-5, atol=1e-6)
