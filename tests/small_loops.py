"""A small network, small data and a plain training loop, for the tests of methods that run in one."""

from __future__ import annotations

import contextlib
import importlib
import io

import pytest
import torch
from torch import nn
from torch.func import functional_call

from densratio.objectives.row_weights import WeightSet
from densratio.training.losses import cross_entropy
from densratio.training.ratio import potential, stored_step

N_TRAIN, N_VAL, D, C = 40, 12, 4, 3
RATE, MOMENTUM = 0.2, 0.9


class Network(nn.Module):
    def __init__(self, seed=0, has_norm=True):
        super().__init__()
        torch.default_generator.manual_seed(seed)
        norm = nn.BatchNorm1d(6) if has_norm else nn.Identity()
        self.hidden, self.out = nn.Sequential(nn.Linear(D, 6), norm, nn.Tanh(), nn.Dropout(0.2 * has_norm)), nn.Linear(6, C)

    def forward(self, x):
        return self.out(self.hidden(x))


def rows(n, seed, dtype=torch.float32):
    """Rows, and labels of which some are wrong and the classes not of one size."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=torch.float64)
    y = torch.where(x[:, 0] > 0.8, 2, (x[:, 1] > 0).long())
    y[::5] = torch.randint(C, (len(y[::5]),), generator=generator)
    y[:C] = torch.arange(C)
    return x.to(dtype), y


X, Y = rows(N_TRAIN, 1)
X_VAL, Y_VAL = rows(N_VAL, 2)
VAL = X_VAL, Y_VAL, torch.arange(N_VAL)
IRREDUCIBLE = torch.rand(N_TRAIN, generator=torch.Generator().manual_seed(3))


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)


def of(index):
    index = torch.as_tensor(index)
    return X[index], Y[index], index


def double(batch):
    return [part.double() if part.is_floating_point() else part for part in batch]


def plan(n_steps, n=14, seed=0):
    """Rows of each batch: the last of an epoch is smaller."""
    orders = [torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(seed + step)) for step in range(n_steps)]
    return [order[: n if step % 3 < 2 else n // 3] for step, order in enumerate(orders)]


def stored(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(one, other):
    """Equal to the bit, through lists, tuples and dicts."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0, equal_nan=True)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def train(reweighter, model, optimizer, batches, val=VAL):
    losses = []
    for index in batches:
        loss = reweighter.weighted_loss(model, of(index), val)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def unrolled(model, network, optimizer, its_optimizer, batch, val, weights_of, losses_of=cross_entropy):
    """One published step by hand: through the classifier's step back to the network, its Adam step, the weights then.

    Momentum is written out, so that the whole has one graph.
    """
    parameters, names = list(model.parameters()), [name for name, _ in model.named_parameters()]
    losses = losses_of(model(batch[0]), batch[1])
    gradients = torch.autograd.grad((weights_of(losses.detach()) * losses).mean(), parameters, create_graph=True)
    buffers = [optimizer.state[p]["momentum_buffer"] if optimizer.state else torch.zeros_like(p) for p in parameters]
    after = {name: p - RATE * (MOMENTUM * b + g) for name, p, b, g in zip(names, parameters, buffers, gradients, strict=True)}
    its_optimizer.zero_grad()
    slopes = torch.autograd.grad(cross_entropy(functional_call(model, after, (val[0],)), val[1]).mean(), list(network.parameters()))
    for p, slope in zip(network.parameters(), slopes, strict=True):
        p.grad = slope
    its_optimizer.step()
    weights = weights_of(losses.detach()).detach()
    optimizer.zero_grad()
    (weights * losses).mean().backward()
    optimizer.step()
    return weights


@contextlib.contextmanager
def as_on_a_device():
    """No array of numpy, and no look at a value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_step, "cheapest", lambda *tensors: tensors)
        patch.setattr(potential, "_projected", lambda bound, weights: WeightSet(len(weights), bound).project(weights))
        for module in ("row_batch", "batch_reweighter", "reweighter", "validation_bank"):
            patch.setattr(importlib.import_module(f"densratio.training.loop.{module}"), "waits_for", lambda device: True)
        for module in (
            "baselines",
            "losses",
            "rules",
            "loop.labels",
            "meta.fsr",
            "meta.lilaw",
            "meta.virtual_step",
            "meta.weight_network",
        ):
            patch.setattr(importlib.import_module(f"densratio.training.{module}"), "waits_for", lambda device: True)
        yield
