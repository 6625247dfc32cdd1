"""Layers of all sorts are differentiated, and one that lacks a way is named."""

from __future__ import annotations

import pytest
import torch
from meta_cases import (
    N_VAL,
    NO_FORWARD,
    PRECISION,
    C,
    D,
    NoForward,
    Through,
    assert_close,
    batch,
    by_a_loop,
    by_differences,
    by_double_backward,
    network,
    optimizer_of,
    prepared,
    row_weights,
    scores,
)
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from densratio.training.losses import cross_entropy
from densratio.training.meta.gradient import MetaGradient


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.out = kind(2, 4, batch_first=True), nn.Linear(4, C)

    def forward(self, x):
        return self.out(self.recurrent(x.view(len(x), -1, 2))[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Sequential(nn.Linear(D, 5), nn.Dropout(0.3), nn.Tanh()), nn.Linear(5, C)

    def forward(self, x):
        return self.out(checkpoint(self.first, x, use_reentrant=False))


def of_tokens():
    layers = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(3 * D, C))
    layers.register_forward_pre_hook(lambda module, args: (args[0].mul(2).round().clamp(-3, 2).long() + 3,))
    return layers


IMAGE = nn.Unflatten(1, (1, 2, D // 2))
LAYERS = {
    "convolution": lambda: nn.Sequential(
        IMAGE, nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, C)
    ),
    "group norm": lambda: nn.Sequential(
        IMAGE, nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, C)
    ),
    "instance norm": lambda: nn.Sequential(
        IMAGE, nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.Softplus(),
        nn.Flatten(), nn.Linear(32, C),
    ),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "tokens": of_tokens,
    "checkpointing": Checkpointed,
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(D, 5)), nn.Tanh(), nn.Linear(5, C)),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "first_order"])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_all_sorts_are_differentiated(kind, mode):
    how = torch.optim.SGD, {"lr": 0.2, "momentum": 0.9, "nesterov": True}
    model, optimizer, train, val, weights = prepared(LAYERS[kind], how, "groups", 2, 6, 0)
    if mode == "exact":
        expected = by_double_backward(model, train, val, weights, optimizer)
    else:
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        expected = by_a_loop(model, train, val, lambda p: rates[id(p)])
    assert_close(scores(model, train, val, weights, optimizer, mode=mode), expected, 1e-9)


def test_an_encoder_in_eval_mode_whose_fused_kernel_has_no_derivative():
    model, optimizer, train, val, weights = prepared("encoder", (torch.optim.SGD, {"lr": 0.1}), "all", 2, 6, 0)
    model.eval()
    assert_close(scores(model, train, val, weights, optimizer), by_double_backward(model, train, val, weights, optimizer))


def test_parameters_that_the_training_batch_does_not_use_stay_as_torch_leaves_them():
    """torch steps over a parameter without a gradient, weight decay and momentum too."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.out, self.other = nn.Linear(D, 4), nn.Linear(4, C), nn.Linear(4, C)

        def forward(self, x):
            hidden = torch.tanh(self.shared(x))
            # Rows of the validation batch go through both heads.
            return self.out(hidden) + self.other(hidden) if len(x) == N_VAL else self.out(hidden)

    model = network(Branches)
    optimizer = optimizer_of(model, (torch.optim.SGD, {"lr": 0.3, "weight_decay": 0.5}))
    train, val, weights = batch(5, 1), batch(N_VAL, 2), row_weights(5, 3)
    assert_close(scores(model, train, val, weights, optimizer), by_differences(model, train, val, weights, optimizer), 2e-6)


# ---------------------------------------------------------------- layers that lack a way of differentiation


class Neither(NoForward):
    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return slope * (1.0 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Opaque(NoForward):
    """A kernel of one's own, whose backward autograd does not see."""

    @staticmethod
    def backward(ctx, slope):
        return slope.detach() * (1.0 - torch.tanh(ctx.saved_tensors[0].detach()) ** 2)


class Torch:
    apply = staticmethod(torch.tanh)


@pytest.mark.parametrize(
    ("function", "product"),
    [
        pytest.param(Torch, "forward", id="torch's own"),
        pytest.param(NoForward, "double_backward", id="no forward mode"),
        pytest.param(Neither, "finite_differences", id="once differentiable"),
        pytest.param(Opaque, "finite_differences", id="a kernel of one's own"),
    ],
)
def test_the_first_product_that_the_layers_can_do_is_taken_and_kept(function, product):
    model, plain = network(lambda: Through(function)), network(lambda: Through(Torch))
    plain.load_state_dict(model.state_dict())
    train, val = batch(6, 1), batch(N_VAL, 2)
    hows = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, plain)]
    meta = MetaGradient("exact", hows[0])
    assert meta.product_ is None
    for _ in range(2):
        found = meta.of(meta.rows(model, *train[:2], cross_entropy), torch.ones(6, dtype=torch.float64), val)
        assert_close(found, scores(plain, train, val, optimizer=hows[1], product="forward"), PRECISION[product])
        assert meta.product_ == product


@pytest.mark.parametrize("function", [Torch, NoForward, Neither, Opaque])
def test_where_layers_hold_all_parameters_their_products_are_taken_whatever_lies_between(function):
    model, plain = network(lambda: Through(function, has_scale=False)), network(lambda: Through(Torch, has_scale=False))
    plain.load_state_dict(model.state_dict())
    train, val = batch(6, 1), batch(N_VAL, 2)
    hows = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, plain)]
    meta = MetaGradient("exact", hows[0])
    for _ in range(2):
        found = meta.of(meta.rows(model, *train[:2], cross_entropy), torch.ones(6, dtype=torch.float64), val)
        assert meta.product_ == "layers"
        assert_close(found, scores(plain, train, val, optimizer=hows[1], product="forward"), 1e-10)


class Mixing(nn.Module):
    """Rows meet where no layer shows it."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(D, 5), nn.Linear(5, C)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.out(hidden - hidden.mean(dim=0))


class InPlace(Mixing):
    def forward(self, x):
        return self.out(self.first(x).tanh_())


@pytest.mark.parametrize("make", [Mixing, InPlace])
@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_layers_are_not_taken_where_their_products_are_others(make, mode):
    model, train, val = network(make), batch(6, 1), batch(N_VAL, 2)
    meta = MetaGradient(mode, torch.optim.SGD(model.parameters(), lr=0.1))
    ones = torch.ones(6, dtype=torch.float64)
    for _ in range(2):
        found = meta.of(meta.rows(model, *train[:2], cross_entropy), ones, val)
        assert meta.product_ == "forward"
        assert_close(found, scores(model, train, val, optimizer=meta.optimizer, mode=mode, product="double_backward"), 1e-10)


def test_a_product_that_is_asked_for_is_not_replaced():
    model = network(lambda: Through(NoForward))
    with pytest.raises(RuntimeError, match=NO_FORWARD):
        scores(model, batch(6, 1), batch(N_VAL, 2), mode="first_order", product="forward")
