"""Reweighters with given weights and losses, for the tests of the monitor and the ranking."""

from __future__ import annotations

import torch

from densratio.training import DynamicReweighter, Uniform

N_TRAIN, N_VAL = 12, 6


class Log(list):
    """Remembers (name, value, step) of every call."""

    def __call__(self, name, value, step):
        assert type(name) is str and type(value) is float and type(step) is int
        self.append((name, value, step))

    @property
    def last(self):
        """Values by name of the last logged step."""
        return {name: value for name, value, step in self if step == self[-1][2]}


class Held(Uniform):
    """Leaves its weights as they are."""

    def batch_weights(self, batch, rows, val):
        return self.weights_[rows.positions]


def uniform(weights):
    """A reweighter that holds these weights."""
    reweighter = Held(len(weights))
    reweighter.weights_.copy_(torch.tensor(weights))
    return reweighter


def new(name="kmm", n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **{"warmup_epochs": 0, **params})


def losses(n, seed):
    return 2.0 * torch.rand(n, generator=torch.Generator().manual_seed(seed))


def step(reweighter, seed=0, index=None):
    index = torch.arange(N_TRAIN) if index is None else torch.as_tensor(index)
    return reweighter.partial_fit(losses(len(index), seed), losses(N_VAL, 100 + seed), index)
