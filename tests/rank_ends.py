"""What two ranks do that draw, err, run out of batches, or leave: for tests/test_distributed.py."""

from __future__ import annotations

from pathlib import Path

import torch
from small_loops import N_TRAIN, N_VAL, VAL, Network, Y, of, stored
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from densratio.training import L2R, CMWNetSL, DynamicReweighter, MetaGradient, MWNet, RandomWeights, SelfPaced, Uniform

METHODS = {
    "exchanges buffers": lambda: DynamicReweighter("lsif", N_TRAIN, N_VAL, warmup_epochs=0),
    "kmm": lambda: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0),
    "layers": lambda: DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_epochs=0, layer="out", val_refresh=6),
    "l2r": lambda: L2R(N_TRAIN),
    "bank": lambda: MWNet(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=6),
    "soft labels": lambda: CMWNetSL(N_TRAIN, Y, gradient=MetaGradient("first_order", every=2), warmup_epochs=0.0),
    "random": lambda: RandomWeights(N_TRAIN),
    "self_paced": lambda: SelfPaced(N_TRAIN),
    "uniform": lambda: Uniform(N_TRAIN),
}
WRONG = "a length", "floats", "a range", "a label", "a validation label"
# Training and validation rows of each rank in each of its batches, of different numbers.
ROWS = [torch.arange(5), torch.arange(5, 12)], [torch.arange(7), torch.arange(7, 12)]
ALL = torch.arange(12)


def batches(rank):
    return of(ROWS[0][rank]), tuple(part[ROWS[1][rank]] for part in VAL)


def made(name):
    torch.manual_seed(0)
    model = Network(0, name == "exchanges buffers").train()
    return METHODS[name](), DistributedDataParallel(model) if name == "exchanges buffers" else model


def bad(rank, what, train, val):
    """The batches of a rank, with something wrong on the second."""
    (x, y, index), (x_val, y_val, val_index) = train, val
    if rank == 0:
        return train, val
    if what == "a validation label":
        return train, (x_val, y_val.index_fill(0, torch.tensor([0]), 99), val_index)
    wrong = {
        "a length": (x, y, index[1:]),
        "floats": (x, y, index.float()),
        "a range": (x, y, index + N_TRAIN),
        "a label": (x, y.index_fill(0, torch.tensor([2]), 99), index),
    }
    return wrong[what], val


def told(reweighter, model, train, val):
    before = stored(reweighter.state_dict())
    try:
        reweighter.weighted_loss(model, train, val)
    except ValueError as error:
        return str(error), before, stored(reweighter.state_dict())
    return "", before, stored(reweighter.state_dict())


def drawn_and_told(rank, folder):
    for name in METHODS:
        reweighter, model = made(name)
        train, val = batches(rank)
        for _ in range(4):
            reweighter.weighted_loss(model, train, val)
        errors = {what: told(reweighter, model, *bad(rank, what, train, val)) for what in WRONG}
        reweighter.weighted_loss(model, train, val)
        torch.save((reweighter.state_dict(), errors), Path(folder) / f"{name}.{rank}")


def joined(rank, folder):
    """Two batches on one rank and four on the other, under torch's Join."""
    found = {}
    for name in ("kmm", "l2r", "uniform"):
        for throws in (True, False):
            reweighter, model = made(name)
            trained, done = DistributedDataParallel(model), 0
            try:
                with Join([reweighter, trained], throw_on_early_termination=throws):
                    for _ in range(2 + 2 * rank):
                        reweighter.weighted_loss(trained, *batches(rank)).backward()
                        done += 1
            except (RuntimeError, ValueError) as error:
                found[name, throws] = done, f"{type(error).__name__}: {error}"
    torch.save(found, Path(folder) / f"joined.{rank}")


def alone(rank, folder):
    """One batch on one rank, which then leaves, and two on the other."""
    reweighter, model = made("kmm")
    message = ""
    try:
        for _ in range(1 + rank):
            reweighter.weighted_loss(model, *batches(rank))
    except RuntimeError as error:
        message = str(error)
    torch.save(message, Path(folder) / f"alone.{rank}")
