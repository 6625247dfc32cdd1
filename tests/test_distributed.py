"""Two processes on a CPU give the weights and the model of one process that sees the batches of both, and end together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import rank_ends
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small_loops import VAL, assert_same, of, stored
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from densratio.training import DynamicReweighter, Indexed, StableNet, Uniform, endless
from densratio.training.loop.row_batch import RowBatch
from densratio.training.meta import (
    FSR,
    GDW,
    L2R,
    MCW,
    BiLAW,
    CMWNet,
    CMWNetSL,
    LiLAW,
    LRWHard,
    LRWOpt,
    MetaGradient,
    MWNet,
    SoftLabels,
)
from densratio.training.noisy_labels import (
    ELR,
    CoTeaching,
    DivideMix,
    ELRPlus,
    JointOptimization,
    LabelCorrection,
    MCorrection,
    MetaCleaner,
)
from densratio.training.rules import Focal, MarginBased, SelfPaced

N_TRAIN, N_VAL, SIZE, EPOCHS = 14, 12, 4, 2
METHODS = {
    "uniform": lambda optimizer: Uniform(N_TRAIN),
    "kmm": lambda optimizer: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_steps=2),
    "kliep": lambda optimizer: DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_steps=2),
    "lsif": lambda optimizer: DynamicReweighter("lsif", N_TRAIN, N_VAL, warmup_steps=2, val_refresh=8),
    "wasserstein": lambda optimizer: DynamicReweighter("wasserstein", N_TRAIN, N_VAL, warmup_epochs=0.5),
    "in turns": lambda optimizer: DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_steps=2, val_refresh=8, val_every=2),
    "by class in turns": lambda optimizer: DynamicReweighter(
        "kmm", N_TRAIN, N_VAL, warmup_steps=2, layer="1", val_refresh=8, val_every=2
    ),
    "by class": lambda optimizer: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_steps=2, layer="1"),
    "l2r": lambda optimizer: L2R(N_TRAIN),
    "mw_net": lambda optimizer: MWNet(N_TRAIN, optimizer=optimizer, fixed_step_length=True),
    "l2r of a bank": lambda optimizer: L2R(
        N_TRAIN, gradient=MetaGradient(mode="last_layer", optimizer=optimizer, n_val=N_VAL, val_refresh=8)
    ),
    "cmw_net_sl": lambda optimizer: CMWNetSL(
        N_TRAIN,
        data(N_TRAIN, 1).tensors[1],
        soft_labels=SoftLabels(mixup=None),
        gradient=MetaGradient(optimizer=optimizer, every=2),
        warmup_epochs=0.3,
    ),
    "cmw_net": lambda optimizer: CMWNet(
        N_TRAIN, data(N_TRAIN, 1).tensors[1], optimizer=optimizer, mode="last_layer", fixed_step_length=True
    ),
    "mcw": lambda optimizer: MCW(N_TRAIN, data(N_TRAIN, 1).tensors[1], optimizer=optimizer, warmup_epochs=0.5),
    "gdw": lambda optimizer: GDW(N_TRAIN, optimizer=optimizer),
    "bilaw": lambda optimizer: BiLAW(N_TRAIN, 3, optimizer=optimizer),
    "fsr": lambda optimizer: FSR(N_TRAIN, 3, k=3, optimizer=optimizer, warmup_epochs=0.5),
    "lilaw": lambda optimizer: LiLAW(N_TRAIN, warmup_epochs=0.5),
    "lrw_hard": lambda optimizer: LRWHard(N_TRAIN, 8, optimizer=optimizer),
    "lrw_opt": lambda optimizer: LRWOpt(N_TRAIN, 8, 3, optimizer=optimizer, every=2, splitter_warmup=0.5),
    "stable_net": lambda optimizer: StableNet(N_TRAIN, 8, n_saved=6),
    "focal": lambda optimizer: Focal(N_TRAIN),
    "self_paced": lambda optimizer: SelfPaced(N_TRAIN),
    "co_teaching": lambda optimizer: co_teaching(),
    "divide_mix": lambda optimizer: divide_mix(),
    "elr_plus": lambda optimizer: elr_plus(),
    "m_correction": lambda optimizer: MCorrection(N_TRAIN, warmup_epochs=0.5),
    "joint_optimization": lambda optimizer: JointOptimization(N_TRAIN, 3, warmup_epochs=0.5),
    "meta_cleaner": lambda optimizer: meta_cleaner(),
    "plc": lambda optimizer: LabelCorrection(N_TRAIN, 3, retroactive=1.0, warmup_epochs=0.5),
    "elr": lambda optimizer: ELR(N_TRAIN, 3, warmup_epochs=0.5),
    "margin_based": lambda optimizer: MarginBased(N_TRAIN),
}


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


def elr_plus():
    with torch.random.fork_rng():
        peer = network(1)
    return ELRPlus(N_TRAIN, 3, peer, torch.optim.Adam(peer.parameters()), mixup=None)


def divide_mix():
    with torch.random.fork_rng():
        peer = network(1)
    return DivideMix(N_TRAIN, peer, torch.optim.Adam(peer.parameters()), mixup=None, warmup_epochs=0.5, ramp_epochs=0.5)


def co_teaching():
    with torch.random.fork_rng():
        peer = network(1)
    return CoTeaching(N_TRAIN, peer, torch.optim.Adam(peer.parameters()), forget_rate=0.4, n_epochs=1)


def meta_cleaner():
    reweighter = MetaCleaner(N_TRAIN, 8, k=3, learning_rate=0.05, warmup_epochs=0.5)
    # Adam's own 1e-8 would let a slope that is nearly 0, and so rounding, decide on a whole step.
    reweighter.network_optimizer.param_groups[0]["eps"] = 1e-3
    return reweighter


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, 2, generator=generator), torch.randint(3, (n,), generator=generator))


def loaders(rank, n_ranks):
    """Batches of one rank; its last batch of an epoch is smaller, and of 14 rows each of 2 ranks has 4 and 3."""
    train, val = Indexed(data(N_TRAIN, 1)), Indexed(data(N_VAL, 2))
    samplers = [DistributedSampler(part, n_ranks, rank, shuffle=shuffle) for part, shuffle in ((train, True), (val, False))]
    return [
        DataLoader(part, batch_size=SIZE, sampler=sampler) for part, sampler in zip((train, val), samplers, strict=True)
    ], samplers


def joined(parts):
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def train(name, rank=0, n_ranks=1, epochs=range(EPOCHS), state=None):
    """One rank's run; with n_ranks = 1 the batches of two ranks, joined."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    # A rank takes the networks of rank 0, whatever its seed.
    torch.manual_seed(3 + rank)
    reweighter = METHODS[name](optimizer)
    if state is not None:
        for part, stored in zip((model, reweighter, optimizer), state, strict=True):
            part.load_state_dict(stored)
    of_ranks = [loaders(r, 2) for r in range(2)] if n_ranks == 1 else [loaders(rank, 2)]
    trained = model if n_ranks == 1 else DistributedDataParallel(model)
    val = zip(*[endless(pair[0][1]) for pair in of_ranks], strict=True)
    for epoch in epochs:
        for _, samplers in of_ranks:
            samplers[0].set_epoch(epoch)
        for batch in zip(*[pair[0][0] for pair in of_ranks], strict=True):
            loss = reweighter.weighted_loss(trained, joined(batch), joined(next(val)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.state_dict(), reweighter.state_dict(), optimizer.state_dict()


def one_rank(rank, folder):
    where, patience = f"file://{folder}/store", timedelta(minutes=3)
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=patience)
    torch.set_num_threads(1)
    for name in METHODS:
        torch.save(train(name, rank, 2), Path(folder) / f"{name}.{rank}")
        state = torch.load(Path(folder) / f"{name}.state")
        torch.save(train(name, rank, 2, range(EPOCHS // 2, EPOCHS), state), Path(folder) / f"{name}.{rank}.resumed")
    uneven(rank, folder)
    torch.save(of_uneven_rows(*(part[rank] for part in UNEVEN)), Path(folder) / f"learned.{rank}")
    torch.save(of_all_rows(rank), Path(folder) / f"rows.{rank}")
    # What comes last leaves the ranks apart.
    for ends in (rank_ends.drawn_and_told, rank_ends.joined, rank_ends.alone):
        ends(rank, Path(folder) / "ends")
    dist.destroy_process_group()


def second_rank(_, folder):
    one_rank(1, folder)


def uneven(rank, folder):
    """Three rows on one rank and five on the other; and a row that is no number on one of them."""
    reweighter = DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0)
    i = torch.arange(3) if rank == 0 else torch.arange(3, 8)
    val = torch.arange(6) / 6.0
    reweighter.partial_fit(i / 4.0, val, i)
    stored = reweighter.weights_.clone()
    losses = torch.where(i == 4, float("nan"), 1.0)
    try:
        reweighter.partial_fit(losses, val, i)
        message = ""
    except ValueError as error:
        message = str(error)
    torch.save((stored, reweighter.weights_, message), Path(folder) / f"uneven.{rank}")


# Training and validation rows of each rank.
UNEVEN = [torch.arange(3), torch.arange(3, 11)], [torch.arange(7), torch.arange(7, 9)]
LEARNED = {
    "l2r": lambda: L2R(N_TRAIN),
    "last layer": lambda: L2R(N_TRAIN, gradient=MetaGradient("last_layer")),
    "bank": lambda: L2R(N_TRAIN, gradient=MetaGradient("last_layer", n_val=N_VAL, val_refresh=9)),
    "mw_net": lambda: MWNet(N_TRAIN, gradient=MetaGradient("first_order"), learning_rate=0.1),
    "lilaw": lambda: LiLAW(N_TRAIN, learning_rate=0.5, warmup_epochs=0.0),
}


def of_uneven_rows(index, val_index):
    """What each method has stored, and its loss, after two batches of these rows."""
    (x, y), (x_val, y_val) = data(N_TRAIN, 1).tensors, data(N_VAL, 2).tensors
    found = {}
    for name, make in LEARNED.items():
        torch.manual_seed(1)
        reweighter, model = make(), network()
        batches = (x[index], y[index], index), (x_val[val_index], y_val[val_index], val_index)
        losses = torch.stack([reweighter.weighted_loss(model, *batches).detach() for _ in range(2)])
        found[name] = reweighter.state_dict() | {"losses": losses}
    return found


def of_all_rows(rank):
    """Sums, means and writes of three rows on one rank and two on the other, one row on both."""
    index = torch.tensor([[0, 1, 2], [2, 5]][rank])
    rows, stored = RowBatch.of(index, len(index), N_TRAIN, torch.device("cpu")), torch.zeros(N_TRAIN)
    values = (10.0 * rank + index).requires_grad_()
    rows.write(stored, values)
    mean = rows.mean(values)
    mean.backward()
    return stored, mean.detach(), rows.sum(values).detach(), values.grad, rows.own(rows.all(values.detach())), rows.count(values)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder that two processes wrote into, where one process had left its checkpoints half-way."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "ends").mkdir()
    torch.set_num_threads(1)
    for name in METHODS:
        torch.save(train(name, epochs=range(EPOCHS // 2)), folder / f"{name}.state")
    second = mp.spawn(second_rank, args=(str(folder),), nprocs=1, join=False)
    one_rank(0, str(folder))  # this process is the first
    while not second.join():
        pass
    return folder


def close(one, other):
    tensors = {key: value for key, value in one.items() if isinstance(value, torch.Tensor)}
    assert tensors and one.keys() == other.keys()
    for key, value in tensors.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


def counts(state):
    return {key: value for key, value in state.get("_extra_state", {}).items() if not key.endswith("_optimizer")}


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_give_the_weights_and_the_model_of_one_process(two_ranks, name):
    model, reweighter, _ = train(name)
    for rank in range(2):
        model_of_rank, reweighter_of_rank, _ = torch.load(two_ranks / f"{name}.{rank}")
        close(reweighter, reweighter_of_rank)
        close(model, model_of_rank)
        assert counts(reweighter_of_rank) == counts(reweighter)


@pytest.mark.parametrize("name", METHODS)
def test_the_banks_of_the_ranks_are_equal_to_the_bit(two_ranks, name):
    one, other = (torch.load(two_ranks / f"{name}.{rank}")[1] for rank in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one if isinstance(one[key], torch.Tensor))


def test_ranks_with_different_numbers_of_rows_are_one_batch(two_ranks):
    whole = DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0)
    i, val = torch.arange(8), torch.arange(6) / 6.0
    whole.partial_fit(i / 4.0, torch.cat([val, val]), i)
    for rank in range(2):
        torch.testing.assert_close(torch.load(two_ranks / f"uneven.{rank}")[0], whole.weights_, rtol=1e-5, atol=1e-6)


def test_what_is_wrong_on_one_rank_is_told_on_all_and_changes_nothing(two_ranks):
    for rank in range(2):
        before, after, message = torch.load(two_ranks / f"uneven.{rank}")
        assert "training rows [4]" in message and torch.equal(before, after)


@pytest.mark.parametrize("name", LEARNED)
def test_learned_methods_weigh_every_row_alike_whatever_the_split_of_training_and_validation_rows(two_ranks, name):
    whole = of_uneven_rows(*(torch.cat(part) for part in UNEVEN))[name]
    for rank in range(2):
        close(whole, torch.load(two_ranks / f"learned.{rank}")[name])


def test_a_row_batch_sums_averages_and_writes_the_rows_of_all_ranks(two_ranks):
    """Values 0, 1, 2 of rows 0, 1, 2 on one rank, and 12, 15 of rows 2, 5 on the other."""
    for rank, own in ((0, [0.0, 1.0, 2.0]), (1, [12.0, 15.0])):
        stored, mean, total, grad, back, count = torch.load(two_ranks / f"rows.{rank}")
        assert stored[:6].tolist() == [0.0, 1.0, 7.0, 0.0, 0.0, 15.0] and not stored[6:].any()
        assert (float(mean), float(total), int(count), back.tolist()) == (6.0, 30.0, 5, own)
        # Averaged over two ranks that is 1 / 5 for each row.
        torch.testing.assert_close(grad, torch.full_like(grad, 2 / 5))


@pytest.mark.parametrize("name", METHODS)
def test_a_checkpoint_of_one_process_goes_on_with_two(two_ranks, name):
    model, reweighter, _ = train(name, epochs=range(EPOCHS // 2, EPOCHS), state=torch.load(two_ranks / f"{name}.state"))
    for rank in range(2):
        model_of_rank, reweighter_of_rank, _ = torch.load(two_ranks / f"{name}.{rank}.resumed")
        close(reweighter, reweighter_of_rank)
        close(model, model_of_rank)
        assert counts(reweighter_of_rank) == counts(reweighter)


# ---------------------------------------------------------------- errors, draws and ends


@pytest.mark.parametrize("name", rank_ends.METHODS)
def test_every_rank_stores_the_same_whatever_rows_it_has(two_ranks, name):
    one, other = (torch.load(two_ranks / "ends" / f"{name}.{rank}")[0] for rank in range(2))
    assert_same(one, other)


def test_random_weights_of_two_ranks_are_those_of_one_process(two_ranks):
    reweighter, model = rank_ends.made("random")
    for _ in range(6):
        reweighter.weighted_loss(model, of(rank_ends.ALL), VAL)  # the fifth has a wrong validation label, which it never sees
    assert_same(torch.load(two_ranks / "ends" / "random.0")[0], stored(reweighter.state_dict()))


@pytest.mark.parametrize("what", rank_ends.WRONG)
@pytest.mark.parametrize("name", rank_ends.METHODS)
def test_an_index_or_label_that_is_wrong_on_one_rank_is_an_error_on_both_and_changes_nothing(two_ranks, name, what):
    for rank in range(2):
        message, before, after = torch.load(two_ranks / "ends" / f"{name}.{rank}")[1][what]
        if what == "a validation label" and not rank_ends.METHODS[name]().uses_validation:
            assert message == ""
            continue
        words = {"a length": "7 rows and index has 6", "floats": "must be (n,) integers", "a range": "out of range"}
        words |= dict.fromkeys(["a label", "a validation label"], "of the batch has 99")
        assert words[what] in message and (rank == 1 or what == "a range" or message.startswith("rank 1: "))
        assert_same(after, before)


@pytest.mark.parametrize("name", ["kmm", "l2r", "uniform"])
def test_ranks_with_other_numbers_of_batches_end_together_with_a_message(two_ranks, name):
    for rank in range(2):
        found = torch.load(two_ranks / "ends" / f"joined.{rank}")
        done, message = found[name, True]
        assert done == 2 and message.startswith("RuntimeError") and "exhausted" in message
        done, message = found[name, False]
        assert done == 0 and "Join([reweighter, model], throw_on_early_termination=True)" in message


def test_a_rank_whose_neighbor_has_left_is_told_why(two_ranks):
    assert torch.load(two_ranks / "ends" / "alone.0") == ""
    assert "Another rank took no part in this step: it has fewer batches" in torch.load(two_ranks / "ends" / "alone.1")
