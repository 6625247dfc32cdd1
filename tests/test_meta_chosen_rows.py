"""Rows that validate, chosen by the least loss of each class."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    N_TRAIN,
    C,
    Network,
    X,
    Y,
    assert_same,
    of,
    optimizer_of,
    plan,
    stored,
)
from torch import nn
from torch.nn import functional
from torch.utils.data import Subset, TensorDataset

from densratio.training import DynamicReweighter, Indexed
from densratio.training.loop.data import ChosenRows
from densratio.training.loop.data.chosen_rows import rows_at
from densratio.training.loop.moving_average import MovingAverage
from densratio.training.losses import cross_entropy
from densratio.training.meta import LiLAW, LRWHard, MWNet

drawn = settings(max_examples=10)
DATA = TensorDataset(X, Y)


def chosen_by_hand(model, average, k, loss=cross_entropy):
    """For each class its k rows of the least loss under the averaged model in eval mode, one model made for it."""
    averaged = copy.deepcopy(model).eval()
    state = averaged.state_dict()
    averaged.load_state_dict({name: average.get(name, value) for name, value in state.items()})
    with torch.no_grad():
        losses = [(float(loss(averaged(X[i : i + 1]), Y[i : i + 1])[0]), i) for i in range(N_TRAIN)]
    return [sorted(i for _, i in sorted(pair for pair in losses if Y[pair[1]] == c)[:k]) for c in range(C)]


@drawn
@given(seed=st.integers(0, 1000), k=st.integers(1, 4), has_norm=st.booleans(), decay=st.sampled_from([0.0, 0.5, 0.99]))
def test_the_chosen_rows_are_those_of_the_least_loss_of_each_class(seed, k, has_norm, decay):
    model = Network(seed, has_norm).train()
    optimizer, chosen, own = optimizer_of(model), ChosenRows(DATA, Y, k=k, decay=decay, mixup=None), MovingAverage(decay)
    for index in plan(4, seed=seed):
        own.follow(model)
        chosen.batch(model)
        optimizer.zero_grad()
        cross_entropy(model(X[index]), Y[index]).mean().backward()
        optimizer.step()
    chosen.choose(model)
    found = chosen.rows_.reshape(C, k)
    assert [sorted(part) for part in found.tolist()] == chosen_by_hand(model, own.values, k)
    assert chosen.n_val == k * C


def test_before_any_average_the_model_as_it_is_chooses():
    model, chosen = Network(0).train(), ChosenRows(DATA, Y, k=2)
    chosen.choose(model)
    assert [sorted(part) for part in chosen.rows_.reshape(C, 2).tolist()] == chosen_by_hand(model, {}, 2)


def test_a_class_of_fewer_rows_than_k_gives_all_of_them_again():
    sizes = [int((c == Y).sum()) for c in range(C)]
    k = max(sizes) + 3
    chosen = ChosenRows(DATA, Y.numpy(), k=k)
    chosen.choose(Network(0))
    for c, part in enumerate(chosen.rows_.reshape(C, k)):
        times = torch.bincount(part, minlength=N_TRAIN)
        assert torch.equal(times > 0, c == Y) and int(times[c == Y].max()) - int(times[c == Y].min()) <= 1


def test_by_chance_each_choice_is_another_draw_of_the_smallest_class_size_from_every_class():
    k, model = int(torch.bincount(Y).min()), Network(0)
    chosen, again = (ChosenRows(DATA, Y, k=k, by="chance", mixup=None, seed=seed) for seed in (3, 3))
    seen = set()
    for _ in range(60):
        for own in (chosen, again):
            own.choose(model)
        assert torch.equal(chosen.rows_, again.rows_)
        assert torch.equal(Y[chosen.rows_].reshape(C, k), torch.arange(C)[:, None].expand(C, k))
        assert len(set(chosen.rows_.tolist())) == C * k
        seen |= set(chosen.rows_.tolist())
    assert len(seen) == N_TRAIN
    with pytest.raises(ValueError, match='by must be "loss" or "chance"'):
        ChosenRows(DATA, Y, by="margin")


def test_batches_go_through_all_chosen_rows_before_one_comes_again():
    model = Network(0, has_norm=False)
    chosen = ChosenRows(DATA, Y, k=4, batch_size=6, mixup=None)
    for _ in range(3):
        parts = [chosen.batch(model) for _ in range(2)]
        index = torch.cat([part[2] for part in parts])
        assert sorted(index.tolist()) == list(range(12))
        for x, y, at in parts:
            assert torch.equal(x, X[chosen.rows_[at]]) and torch.equal(y, Y[chosen.rows_[at]]) and len(at) == 6
    assert len(ChosenRows(DATA, Y, k=2, batch_size=100, mixup=None).batch(model)[1]) == 6


@drawn
@given(seed=st.integers(0, 1000), mixup=st.sampled_from([0.2, 1.0, 8.0]))
def test_mixed_rows_and_labels_are_mixed_by_one_share(seed, mixup):
    model = Network(0, has_norm=False).double()
    data = TensorDataset(X.double(), Y)
    chosen = ChosenRows(data, Y, k=3, batch_size=9, mixup=mixup, seed=seed)
    x, y, index = chosen.batch(model)
    assert y.shape == (9, C) and y.dtype == x.dtype == torch.float64
    torch.testing.assert_close(y.sum(dim=1), torch.ones(9, dtype=torch.float64))
    assert float(y.min()) >= 0.0
    own, one_hot = X.double()[chosen.rows_[index]], functional.one_hot(Y[chosen.rows_[index]], C).double()
    for i in range(9):
        # x_i = s own_i + (1 - s) own_j for one row j, with the s that mixes the labels too.
        found = False
        for j in range(9):
            along = own[i] - own[j]
            s = 1.0 if i == j else float((x[i] - own[j]) @ along / (along @ along))
            is_x = torch.allclose(x[i], s * own[i] + (1 - s) * own[j], atol=1e-9) and -1e-9 <= s <= 1 + 1e-9
            found = found or (is_x and torch.allclose(y[i], s * one_hot[i] + (1 - s) * one_hot[j], atol=1e-9))
        assert found


@pytest.mark.parametrize(("by", "mixup"), [("loss", 1.0), ("chance", None)])
def test_rows_are_mixed_by_default_where_their_loss_chose_them(by, mixup):
    found, given = (ChosenRows(DATA, Y, k=3, by=by, seed=4, **own).batch(Network(0)) for own in ({}, {"mixup": mixup}))
    assert all(torch.equal(a, b) for a, b in zip(found, given, strict=True))
    assert found[1].is_floating_point() == (by == "loss")


@pytest.mark.parametrize("mixup", [None, 1.0])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_chosen_rows_resume_to_the_bit(stop, mixup):
    def made():
        return ChosenRows(DATA, Y, k=3, batch_size=4, mixup=mixup, decay=0.9)

    def run(chosen, model, steps):
        batches = []
        for step in steps:
            if step % 3 == 2:
                chosen.choose(model)
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(0.9)
            batches.append(chosen.batch(model))
        return batches

    model, chosen = Network(0, has_norm=False), made()
    whole = run(chosen, model, range(9))
    model, first, resumed = Network(0, has_norm=False), made(), made()
    run(first, model, range(stop))
    resumed.load_state_dict(stored(first.state_dict()))
    assert_same(run(resumed, model, range(stop, 9)), whole[stop:])
    assert_same(resumed.state_dict(), chosen.state_dict())


def test_choosing_leaves_no_trace_in_the_model():
    model = Network(0).train()
    model.hidden[3].eval()
    cross_entropy(model(X), Y).mean().backward()
    before, gradients = copy.deepcopy(model.state_dict()), [p.grad.clone() for p in model.parameters()]
    modes, draws = [layer.training for layer in model.modules()], torch.get_rng_state()
    chosen = ChosenRows(Indexed(DATA), Y, k=2, mixup=1.0)
    batch = chosen.batch(model)
    chosen.choose(model)
    assert_same(model.state_dict(), before)
    assert_same([p.grad for p in model.parameters()], gradients)
    assert [layer.training for layer in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), draws)
    assert not any(part.requires_grad for part in [*batch, *chosen.average.values.values()])


METHODS = {
    "kmm": lambda optimizer, n_val: DynamicReweighter("kmm", N_TRAIN, n_val, warmup_epochs=0.5),
    "kliep": lambda optimizer, n_val: DynamicReweighter("kliep", N_TRAIN, n_val, warmup_epochs=0.5),
    "mw_net": lambda optimizer, n_val: MWNet(N_TRAIN, optimizer=optimizer, learning_rate=0.05),
    "lilaw": lambda optimizer, n_val: LiLAW(N_TRAIN, warmup_epochs=0.5),
    "lrw_hard": lambda optimizer, n_val: LRWHard(N_TRAIN, 6, optimizer=optimizer),
}


# LiLAW takes class labels alone.
@pytest.mark.parametrize(("name", "mixup"), [(n, None) for n in METHODS] + [(n, 1.0) for n in METHODS if n != "lilaw"])
def test_chosen_rows_validate_in_a_loop(name, mixup):
    model = Network(0).train()
    optimizer = optimizer_of(model)
    chosen = ChosenRows(DATA, Y, k=3, batch_size=5, mixup=mixup)
    reweighter = METHODS[name](optimizer, chosen.n_val)
    for step, index in enumerate(plan(8)):
        if step % 3 == 0:
            chosen.choose(model)
        loss = reweighter.weighted_loss(model, of(index), chosen.batch(model))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert math.isfinite(float(loss.detach()))
    assert bool(torch.isfinite(reweighter.weights_).all()) and not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


class Whole(torch.utils.data.Dataset):
    """Rows of integers, which cannot be mixed."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.tensor([i, 1]), i % 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChosenRows(DATA, Y[:7]), r"labels must be \(40,\) integers >= 0.*got shape \(7,\)"),
        (lambda: ChosenRows(DATA, Y.double()), "dtype float64"),
        (lambda: ChosenRows(DATA, Y - 1), "integers >= 0"),
        (lambda: ChosenRows(DATA, torch.where(Y == 1, 3, Y)), r"the classes \[1\] have none. Number the classes from 0 on"),
        (lambda: ChosenRows(DATA, Y, k=0), "k must be an int >= 1 of each class; got 0"),
        (lambda: ChosenRows(DATA, Y, batch_size=0), "batch_size must be an int >= 1; got 0"),
        (lambda: ChosenRows(DATA, Y, mixup=0.0), "mixup must be a number in"),
        (lambda: ChosenRows(DATA, Y, mixup=float("nan")), "mixup must be a number in"),
        (lambda: ChosenRows(DATA, Y, mixup="beta"), "mixup must be a number in .*, None or \"auto\"; got 'beta'"),
        (lambda: ChosenRows(DATA, Y, decay=1.0), r"decay must be a number in \[0, 1\)"),
        (lambda: ChosenRows(Whole(), [0, 1, 0, 1]).batch(nn.Sequential(nn.Embedding(4, 2), nn.Flatten())), "give mixup=None"),
    ],
)
def test_chosen_rows_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Broken(TensorDataset):
    """A data set with a row that can't be read."""

    def __getitem__(self, row):
        if row == 5:
            raise OSError("the file of row 5 is damaged")
        return super().__getitem__(row)


def test_a_batch_that_raises_leaves_average_draws_and_rows_as_they_were():
    model = Network(0, False)
    for data, error in ((Broken(X, Y), OSError), (TensorDataset((100 * X).long(), Y), ValueError)):
        chosen = ChosenRows(data, Y, k=N_TRAIN, by="chance", mixup=1.0)
        before = stored(chosen.state_dict())
        with pytest.raises(error):
            for _ in range(N_TRAIN):
                before = stored(chosen.state_dict())
                chosen.batch(model)
        assert_same(chosen.state_dict(), before)


@pytest.mark.parametrize("key", ["rows_", "_extra_state", "average._extra_state"])
@pytest.mark.parametrize("found", [torch.zeros(3), None, {}], ids=["a vector", "none", "empty"])
def test_a_state_that_does_not_fit_changes_nothing(key, found):
    model, chosen, other = Network(0, False), ChosenRows(DATA, Y, k=2), ChosenRows(DATA, Y, k=2, seed=1)
    for rows in (chosen, other):
        rows.batch(model)
    before = stored(chosen.state_dict())
    with pytest.raises(RuntimeError, match=f"does not fit ChosenRows of {2 * C} rows; nothing was loaded"):
        chosen.load_state_dict({**other.state_dict(), key: found})
    assert_same(chosen.state_dict(), before)


class Mirrored(TensorDataset):
    """Rows with the other sign, as an augmentation gives them, and labels that are no tensors."""

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return -x, int(y)


class AtOnce(Mirrored):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.asked = []

    def __getitems__(self, rows):
        self.asked.append(rows)
        return [super(AtOnce, self).__getitem__(row) for row in rows]


@pytest.mark.parametrize(
    "make",
    [
        lambda: DATA,
        lambda: Indexed(DATA),
        lambda: Subset(Indexed(Subset(DATA, range(N_TRAIN - 1, -1, -1))), torch.arange(0, N_TRAIN, 2)),
        lambda: Mirrored(X, Y),
        lambda: Subset(Mirrored(X, Y), range(3, N_TRAIN)),
        lambda: AtOnce(X, Y),
        lambda: Indexed([{"pixels": x, "label": int(y)} for x, y in DATA], x_key="pixels", y_key="label"),
    ],
    ids=["tensors", "indexed", "subsets", "own items", "subset of own items", "several at once", "mappings"],
)
def test_rows_at_once_are_the_items_of_the_data_set(make):
    data = make()
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:9].numpy()
    x, y = rows_at(data, rows)
    items = [data[int(row)] for row in rows]
    torch.testing.assert_close(x, torch.stack([item[0] for item in items]), rtol=0, atol=0)
    assert y.tolist() == [int(item[1]) for item in items]
    if isinstance(data, AtOnce):
        assert data.asked == [rows.tolist()]


def test_a_model_that_diverged_chooses_no_rows_and_leaves_the_average_as_it_was():
    model = Network(0)
    rows = ChosenRows(TensorDataset(X, Y), Y, k=2)
    before = copy.deepcopy(rows.state_dict())
    nn.init.constant_(model.out.weight, float("nan"))
    for ask in (rows.choose, rows.batch):
        with pytest.raises(ValueError, match="losses are NaN or infinite on all rows"):
            ask(model)
        assert_same(rows.state_dict(), before)


def test_a_data_set_without_a_length_is_told_what_to_give():
    with pytest.raises(TypeError, match=r"dataset must be a map-style data set.* which a stream does not number"):
        ChosenRows(iter(TensorDataset(X, Y)), Y)
