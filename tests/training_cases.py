"""Reweighters, losses and states for the tests of one batch and of a whole run."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from densratio.estimators import IN_LOOPS
from densratio.training import DynamicReweighter

NAMES = sorted(IN_LOOPS)
N_TRAIN, N_VAL = 20, 10
by_name = pytest.mark.parametrize("name", NAMES)


def new(name, n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **{"warmup_epochs": 0, **params})


def losses(n, seed, scale=1.0):
    return scale * torch.rand(n, generator=torch.Generator().manual_seed(seed))


def warm(name, steps=3, **params):
    """A reweighter that has seen some whole batches."""
    reweighter = new(name, **params)
    for seed in range(steps):
        reweighter.partial_fit(losses(N_TRAIN, seed, 2.0), losses(N_VAL, 100 + seed), torch.arange(N_TRAIN))
    return reweighter


def tensors(reweighter):
    return {key: value.clone() for key, value in reweighter.state_dict().items() if isinstance(value, torch.Tensor)}


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def network(seed=0, norm=None):
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), *([norm] if norm else []), nn.ReLU(), nn.Linear(8, 3))


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator), torch.randint(3, (n,), generator=generator)


TRAIN, VAL = data(N_TRAIN, 0), data(N_VAL, 1)


def plan(n_batches, seed):
    """The (index, val_index) of each batch of a run, drawn ahead so that a resumed run continues it."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(N_TRAIN, (7,), generator=generator), torch.randperm(N_VAL, generator=generator)[:6])
        for _ in range(n_batches)
    ]


def _copy(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)
