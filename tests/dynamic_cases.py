"""Reweighters and rows for the tests of DynamicReweighter."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from densratio.estimators import IN_LOOPS
from densratio.training import DynamicReweighter

NAMES = sorted(IN_LOOPS)
N_TRAIN, N_VAL = 40, 12
by_name = pytest.mark.parametrize("name", NAMES)


def new(name, n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **{"warmup_epochs": 0, **params})


def uniform(n, seed, d=None, scale=1.0):
    shape = (n,) if d is None else (n, d)
    return scale * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def copied(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def classes(n, seed, k=3):
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


class Network(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(seed)
            self.hidden = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
            self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.hidden(x))


def rows(n, seed):
    return uniform(n, seed, d=2), classes(n, seed)
