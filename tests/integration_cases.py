"""Data, networks and the plain loop against which each framework is held."""

from __future__ import annotations

import gc
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from densratio.datasets import label_noise
from densratio.training import CMWNet, DynamicReweighter, MWNet, Uniform, reweighter

N_TRAIN, N_VAL, N_COLUMNS, N_CLASSES, SIZE = 90, 24, 5, 3, 16  # the last batch of an epoch has 10 rows
PER_EPOCH = 6
LEARNING_RATE = 0.1


def meta_weights(n_train, n_val, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MWNet(n_train, normalize=True, learning_rate=0.05)


def in_turns(n_train, n_val, seed):
    return DynamicReweighter("kliep", n_train, n_val, val_refresh=7, val_every=3)


NAMED = ("val_only", "uniform", "random", "auto", "diw", "kmm", "kliep", "lsif", "wasserstein")
"""Methods that need to know no more than how many rows there are."""


def by_name(name):
    return lambda n_train, n_val, seed: reweighter(name, n_train, n_val, seed=seed)


MAKERS = {**{name: by_name(name) for name in NAMED}, "mw_net": meta_weights, "in_turns": in_turns}
all_methods = pytest.mark.parametrize("method", sorted(MAKERS))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads of tiny networks only wait for each other, most of all beside other test processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def leave_out_of_garbage_collection(framework):
    """What is loaded with a framework is, from here on: it collects after every training."""
    gc.collect()
    gc.freeze()


def rows(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, N_COLUMNS, generator=draw), torch.randint(N_CLASSES, (n,), generator=draw)


def network(seed=0, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(N_COLUMNS, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, N_CLASSES))


TRAIN, VAL = rows(N_TRAIN, 0), rows(N_VAL, 1)
TRAIN_SET, VAL_SET = TensorDataset(*TRAIN), TensorDataset(*VAL)


def dynamic(name="kliep", n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **params)


class Recorded:
    """The batches that a reweighter was given, and its weights after each of them."""

    def __init__(self, reweighter):
        self.reweighter, self.batches, self.weights = reweighter, [], []
        self._loss = reweighter.weighted_loss
        reweighter.weighted_loss = self

    def __call__(self, model, train, val):
        loss = self._loss(model, train, val)
        self.batches.append((train[2].clone(), None if val is None else val[2].clone()))
        self.weights.append(self.reweighter.weights_.clone())
        return loss


def plain_loop(batches, reweighter, model, *, steps=None, clip=None, precision=None, scale=1.0):
    """The weights after each batch. steps: batches of each optimizer step, whose rows count alike; one each by default."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    if isinstance(reweighter, MWNet | CMWNet):
        reweighter.optimizer = optimizer
    weights, queue = [], list(batches)
    for n_batches in steps or [1] * len(queue):
        group, queue = queue[:n_batches], queue[n_batches:]
        n_rows = sum(len(i) for i, _ in group)
        optimizer.zero_grad()
        for i, j in group:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
                val = None if j is None else (scale * VAL[0][j], VAL[1][j], j)
                loss = reweighter.weighted_loss(model, (scale * TRAIN[0][i], TRAIN[1][i], i), val)
            (loss * len(i) / n_rows).backward()
            weights.append(reweighter.weights_.clone())
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return weights


def assert_same_weights(weights, others, exact=True):
    assert len(weights) == len(others) > 0
    for one, other in zip(weights, others, strict=True):
        torch.testing.assert_close(one, other, **({"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}))


def assert_same_parameters(model, other):
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def assert_moved_after_the_warm_up(weights):
    ones = torch.ones(N_TRAIN)
    assert all(torch.equal(w, ones) for w in weights[:PER_EPOCH]) and not torch.equal(weights[-1], ones)


def assert_whole_passes(batches, n, epochs):
    """Every training row once in each epoch."""
    seen = torch.cat([i for i, _ in batches]).reshape(epochs, n)
    assert torch.equal(seen.sort(dim=1).values, torch.arange(n).expand(epochs, n))


def same(one, other):
    """Whether two states are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if not isinstance(one, torch.Tensor):
        return one == other
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


class Digits:
    """Half the labels of the training rows are wrong; those of the validation and test rows are right."""

    n_train, n_val, batch_size, epochs, learning_rate = 512, 100, 64, 25, 1e-2

    def __init__(self):
        x, y = load_digits(return_X_y=True)
        x, order = (x / 16).astype("float32"), np.random.default_rng(0).permutation(len(y))
        val, train, test = np.split(order, [self.n_val, self.n_val + self.n_train])
        noisy = label_noise(y[train], "symmetric", 0.5, n_classes=10, random_state=0).labels
        self.train, self.val, self.test = (x[train], noisy), (x[val], y[val]), (x[test], y[test])

    def sets(self):
        return [TensorDataset(*map(torch.as_tensor, part)) for part in (self.train, self.val)]

    def network(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def reweighter(self, name):
        return Uniform(self.n_train) if name == "uniform" else DynamicReweighter(name, self.n_train, self.n_val)

    @torch.no_grad()
    def accuracy(self, model):
        model.eval()
        x, y = map(torch.as_tensor, self.test)
        return float((model(x).argmax(dim=1) == y).double().mean())


DIGITS = Digits()


class Classifier(nn.Module):
    """Gives logits, and the loss where it is given labels, as the models of the library do."""

    def __init__(self, dropout=0.0, model=None):
        super().__init__()
        self.model = network(dropout=dropout) if model is None else model

    def forward(self, x, labels=None):
        logits = self.model(x)
        return {"logits": logits} if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}


def columns(x, y):
    """Rows as the library has them, with a column that the model does not take."""
    return [{"x": a, "labels": b, "row": -1} for a, b in zip(x, y, strict=True)]
