"""Potentials, rows and reweighters for the tests of Wasserstein reweighting in several columns."""

from __future__ import annotations

import pytest
import torch

from densratio.training import Critic, DynamicReweighter, Sliced

BOUNDS = 1000.0  # largest weight
POTENTIALS = {"sliced": lambda **kw: Sliced(20, **kw), "critic": lambda **kw: Critic(widths=(8,), n_pretraining=2, **kw)}
by_potential = pytest.mark.parametrize("name", sorted(POTENTIALS))


def normal(n, d, seed, shift=0.0):
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed)) + torch.as_tensor(shift)


def even(n, dtype=torch.float32):
    return torch.ones(n, dtype=dtype)


def new(potential, n_train=40, n_val=30, **params):
    return DynamicReweighter("wasserstein", n_train, n_val, potential=potential, **{"warmup_epochs": 0, **params})


def of(reweighter):
    return reweighter.steps[0].potential


def tensors(module):
    return {key: value.clone() for key, value in module.state_dict().items() if isinstance(value, torch.Tensor)}
