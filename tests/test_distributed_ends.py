"""What goes wrong on one rank is told on every rank, and ends the run or changes nothing; what is drawn is the same on all."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_loops import N_TRAIN, N_VAL, VAL, Network, Y, assert_same, of, stored
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from densratio.training import L2R, CMWNetSL, DynamicReweighter, MetaGradient, MWNet, RandomWeights, SelfPaced, Uniform

METHODS = {
    "kmm": lambda: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0),
    "layers": lambda: DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_epochs=0, layer="out", val_refresh=6),
    "l2r": lambda: L2R(N_TRAIN),
    "bank": lambda: MWNet(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=6),
    "soft labels": lambda: CMWNetSL(N_TRAIN, Y, gradient=MetaGradient("first_order", every=2), warmup_epochs=0.0),
    "random": lambda: RandomWeights(N_TRAIN),
    "self_paced": lambda: SelfPaced(N_TRAIN),
    "uniform": lambda: Uniform(N_TRAIN),
}
# Training and validation rows of each rank in each of its batches, of different numbers.
ROWS = [torch.arange(5), torch.arange(5, 12)], [torch.arange(7), torch.arange(7, 12)]
ALL = torch.arange(12)


def batches(rank):
    return of(ROWS[0][rank]), tuple(part[ROWS[1][rank]] for part in VAL)


def made(name):
    torch.manual_seed(0)
    return METHODS[name](), Network(0, False).train()


def bad(rank, what, train):
    """The batch of a rank, with something wrong on the second."""
    x, y, index = train
    if rank == 0:
        return train
    return {"a length": (x, y, index[1:]), "floats": (x, y, index.float()), "a range": (x, y, index + N_TRAIN)}[what]


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
        for _ in range(3):
            reweighter.weighted_loss(model, train, val)
        errors = {what: told(reweighter, model, bad(rank, what, train), val) for what in ("a length", "floats", "a range")}
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


def one_rank(rank, folder):
    torch.set_num_threads(1)
    where, patience = f"file://{folder}/store", timedelta(seconds=100)
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=patience)
    drawn_and_told(rank, folder)
    joined(rank, folder)
    alone(rank, folder)
    dist.destroy_process_group()


def second_rank(_, folder):
    one_rank(1, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("ends")
    second = mp.spawn(second_rank, args=(str(where),), nprocs=1, join=False)
    one_rank(0, str(where))  # this process is the first
    while not second.join():
        pass
    return where


@pytest.mark.parametrize("name", METHODS)
def test_every_rank_stores_the_same_whatever_rows_it_has(folder, name):
    one, other = (torch.load(folder / f"{name}.{rank}")[0] for rank in range(2))
    assert_same(one, other)


def test_random_weights_of_two_ranks_are_those_of_one_process(folder):
    reweighter, model = made("random")
    for _ in range(4):
        reweighter.weighted_loss(model, of(ALL), VAL)
    assert_same(torch.load(folder / "random.0")[0], stored(reweighter.state_dict()))


@pytest.mark.parametrize("what", ["a length", "floats", "a range"])
@pytest.mark.parametrize("name", METHODS)
def test_an_index_that_is_wrong_on_one_rank_is_an_error_on_both_and_changes_nothing(folder, name, what):
    for rank in range(2):
        message, before, after = torch.load(folder / f"{name}.{rank}")[1][what]
        words = {"a length": "7 rows and index has 6", "floats": "must be (n,) integers", "a range": "out of range"}[what]
        assert words in message and (rank == 1 or what == "a range" or message.startswith("rank 1: "))
        assert_same(after, before)


@pytest.mark.parametrize("name", ["kmm", "l2r", "uniform"])
def test_ranks_with_other_numbers_of_batches_end_together_with_a_message(folder, name):
    for rank in range(2):
        found = torch.load(folder / f"joined.{rank}")
        done, message = found[name, True]
        assert done == 2 and message.startswith("RuntimeError") and "exhausted" in message
        done, message = found[name, False]
        assert done == 0 and "Join([reweighter, model], throw_on_early_termination=True)" in message


def test_a_rank_whose_neighbor_has_left_is_told_why(folder):
    assert torch.load(folder / "alone.0") == ""
    assert "Another rank took no part in this step: it has fewer batches" in torch.load(folder / "alone.1")
