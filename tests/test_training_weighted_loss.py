"""The one line of a training loop, and what it is compared with."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from training_cases import N_TRAIN, N_VAL, TRAIN, VAL, _copy, by_name, network, new, plan, same_bits, tensors

from densratio.training import L2R, MetaGradient, MWNet, RandomWeights, Uniform, ValidationOnly

# ---------------------------------------------------------------- the one line


def gradients(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@by_name
def test_weighted_loss_is_the_loop_of_the_design_by_hand(name):
    model, twin = network(), network()
    reweighter, by_hand = new(name), new(name)
    for i, j in plan(4, 5):
        x, y, x_val, y_val = TRAIN[0][i], TRAIN[1][i], VAL[0][j], VAL[1][j]
        model.zero_grad()
        loss = reweighter.weighted_loss(model, (x, y, i), (x_val, y_val, j))
        loss.backward()

        twin.zero_grad()
        rows = cross_entropy(twin(x), y, reduction="none")
        with torch.no_grad():
            val_rows = cross_entropy(twin(x_val), y_val, reduction="none")
        w = by_hand.partial_fit(rows, val_rows, index=i, val_index=j).transform(i)
        expected = (w * rows).mean()
        expected.backward()

        assert loss.shape == () and torch.equal(loss, expected)
        assert torch.equal(gradients(model), gradients(twin))
        assert same_bits(tensors(reweighter), tensors(by_hand))


@by_name
def test_a_loss_of_ones_own_takes_the_place_of_cross_entropy(name):
    def squared(prediction, label):
        return (prediction[:, 0] - label) ** 2

    model, index, val_index = network(), torch.arange(N_TRAIN), torch.arange(N_VAL)
    reweighter, by_hand = new(name, loss=squared), new(name)
    loss = reweighter.weighted_loss(model, (*TRAIN, index), (*VAL, val_index))
    rows, val_rows = (squared(model(x), y).detach() for x, y in (TRAIN, VAL))
    w = by_hand.partial_fit(rows, val_rows, index).transform(index)
    assert loss.item() == pytest.approx((w * rows).mean().item(), rel=1e-6)
    assert not torch.equal(w, torch.ones(N_TRAIN))


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(8), nn.BatchNorm1d(8, momentum=None), nn.InstanceNorm1d(8, track_running_stats=True)],
    ids=["batch", "batch, cumulative", "instance"],
)
def test_the_validation_pass_leaves_running_statistics_and_the_mode_of_the_model_alone(norm):
    if isinstance(norm, nn.InstanceNorm1d):
        norm = nn.Sequential(nn.Unflatten(1, (8, 1)), _Tiled(), norm, nn.Flatten(), nn.Linear(16, 8))
    model, twin = _copy(network(norm=norm)).train(), _copy(network(norm=norm)).train()
    new("kmm").weighted_loss(model, (*TRAIN, torch.arange(N_TRAIN)), (VAL[0] + 100.0, VAL[1], torch.arange(N_VAL)))
    twin(TRAIN[0])
    buffers = dict(model.named_buffers())
    assert len(buffers) == 3 and same_bits(buffers, dict(twin.named_buffers()))
    assert all(module.training and getattr(module, "track_running_stats", True) for module in model.modules())


class _Tiled(nn.Module):
    def forward(self, x):
        return torch.cat([x, 2 * x + 1], dim=2)


def test_running_statistics_are_recorded_again_after_a_validation_pass_that_raised():
    model = network(norm=nn.BatchNorm1d(8)).train()
    with pytest.raises(ValueError, match="3 classes and the labels go from 7 to 9"):
        new("kmm").weighted_loss(model, (*TRAIN, torch.arange(N_TRAIN)), (VAL[0], VAL[1] + 7, torch.arange(N_VAL)))
    before = model[1].running_mean.clone()
    model(TRAIN[0] + 5.0)
    assert not torch.equal(model[1].running_mean, before)


# ---------------------------------------------------------------- what it is compared with


WHOLE = (*TRAIN, torch.arange(N_TRAIN)), (*VAL, torch.arange(N_VAL))


def test_uniform_is_plain_training():
    model, reweighter = network(), Uniform(N_TRAIN)
    assert torch.allclose(reweighter.weighted_loss(model, *WHOLE), cross_entropy(model(TRAIN[0]), TRAIN[1]), rtol=1e-6)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


def test_validation_only_learns_the_validation_batch_and_nothing_else():
    model, reweighter = network(), ValidationOnly(N_TRAIN)
    loss = reweighter.weighted_loss(model, *WHOLE)
    assert torch.allclose(loss, cross_entropy(model(VAL[0]), VAL[1]), rtol=1e-6)
    assert torch.equal(reweighter.transform(torch.arange(N_TRAIN)), torch.zeros(N_TRAIN))


def test_random_weights_are_rectified_normals_of_mean_one_drawn_anew():
    model, reweighter = network(), RandomWeights(N_TRAIN, seed=4)
    rows = cross_entropy(model(TRAIN[0]), TRAIN[1], reduction="none")
    drawn_weights = []
    for _ in range(2):
        loss = reweighter.weighted_loss(model, *WHOLE)
        w = reweighter.transform(torch.arange(N_TRAIN))
        assert float(w.min()) == 0.0 and float(w.mean()) == pytest.approx(1.0, abs=1e-6)
        assert loss.item() == pytest.approx((w * rows).mean().item(), rel=1e-6)
        drawn_weights.append(w)
    assert not torch.equal(*drawn_weights)


def test_random_weights_follow_their_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (RandomWeights(N_TRAIN, seed=seed) for seed in (1, 1, 2))
    for reweighter in (one, same, other):
        reweighter.weighted_loss(network(), *WHOLE)
    assert torch.equal(one.weights_, same.weights_) and not torch.equal(one.weights_, other.weights_)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_without_a_positive_draw_trains_with_even_weights():
    model, index = network(), torch.tensor([0])
    seen = set()
    reweighter = RandomWeights(N_TRAIN)
    for _ in range(20):
        reweighter.weighted_loss(model, (TRAIN[0][:1], TRAIN[1][:1], index), WHOLE[1])
        seen.add(float(reweighter.weights_[0]))
    assert seen == {1.0}


# ---------------------------------------------------------------- what to type instead


LEARNED = {"kmm": lambda: new("kmm"), "l2r": lambda: L2R(N_TRAIN), "uniform": lambda: Uniform(N_TRAIN)}


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda y: y.float(), r"y\.long\(\); for numbers use loss=.*squared_error"), (lambda y: y[:, None], r"y\[:, 0\]")],
)
def test_labels_in_another_form_are_told_what_to_type(name, change, words):
    (x, y, i), (x_val, y_val, j) = WHOLE
    with pytest.raises(ValueError, match=words):
        LEARNED[name]().weighted_loss(network(), (x, change(y), i), (x_val, change(y_val), j))


@pytest.mark.parametrize("name", LEARNED)
def test_a_class_in_place_of_the_model_is_told(name):
    with pytest.raises(ValueError, match=r"takes the model, not its class: give the Linear\(\.\.\.\) that you train"):
        LEARNED[name]().weighted_loss(nn.Linear, *WHOLE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: new("kmm", val_refresh=N_VAL + 1),
        lambda: MetaGradient("last_layer", n_val=N_VAL, val_refresh=N_VAL + 1),
        lambda: MWNet(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=N_VAL + 1),
    ],
)
def test_more_validation_rows_than_there_are_cannot_be_renewed(make):
    with pytest.raises(ValueError, match=f"val_refresh={N_VAL + 1} is more than the n_val={N_VAL} validation rows"):
        make()
