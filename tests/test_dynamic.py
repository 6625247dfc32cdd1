"""DynamicReweighter beyond one batch of losses: banks, classes, layers, devices that nobody waits for, and real training loops."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from densratio import KMM, LSIF
from densratio.estimators import IN_LOOPS
from densratio.training import DIW, DynamicReweighter, Indexed, endless
from densratio.training.loop import row_batch as batch_of_ranks
from densratio.training.loop.late_errors import Watch
from densratio.training.loop.validation_bank import ValidationBank
from densratio.training.losses import multilabel, pixel_cross_entropy, rows_mean, squared_error, token_cross_entropy
from densratio.training.ratio.class_priors import ClassFrequencies

NAMES = sorted(IN_LOOPS)
N_TRAIN, N_VAL = 40, 12
by_name = pytest.mark.parametrize("name", NAMES)
drawn = settings(max_examples=15, deadline=None)


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


# ---------------------------------------------------------------- nothing waits for the device


@pytest.mark.parametrize("bank", [None, 3])
@pytest.mark.parametrize("index", ["on the host", "on the device"])
@by_name
def test_a_whole_partial_fit_runs_where_no_value_can_be_read(name, index, bank):
    reweighter = new(name, val_refresh=bank, forget=0.1).to("meta")
    train, val = torch.empty(8, device="meta"), torch.empty(3, device="meta")
    i, j = (
        ([*range(8)], [*range(3)]) if index == "on the host" else (torch.empty(n, dtype=torch.int64, device="meta") for n in (8, 3))
    )
    for _ in range(2):
        weights = reweighter.partial_fit(train, val, i, j).transform(i)
    assert weights.device.type == "meta" and weights.shape == (8,)
    assert reweighter.rows_seen == 16


def watched(source, target, positions=None, val_positions=None, sizes=(N_TRAIN, N_VAL)):
    watch = Watch()
    source, target = (torch.tensor(x)[:, None] for x in (source, target))
    places = [torch.arange(len(x)) if i is None else torch.tensor(i) for x, i in ((source, positions), (target, val_positions))]
    return watch, bool(watch.usable(source, target, *places, sizes))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (([1.0, float("nan"), 2.0], [1.0], [7, 5, 3]), r"training rows \[5\]"),
        (([float("inf")] * 12, [1.0]), r"training rows \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\] \.\.\."),
        (([1.0], [1.0, -float("inf")], None, [2, 8]), r"validation rows \[8\]"),
        (([1.0], [1.0], [N_TRAIN]), "out of range"),
        (([1.0], [1.0], None, [-1]), "out of range"),
    ],
)
def test_what_a_device_finds_wrong_is_told_later_and_once(batch, message):
    watch, is_usable = watched(*batch)
    assert not is_usable
    with pytest.raises(ValueError, match=message):
        watch.raise_if_seen(wait=True)
    watch.raise_if_seen(wait=True)


def test_the_first_unusable_batch_is_the_one_that_is_told():
    watch, _ = watched([float("nan")], [1.0], [4])
    assert not watch.usable(
        torch.tensor([[float("nan")]]), torch.ones(1, 1), torch.tensor([9]), torch.tensor([0]), (N_TRAIN, N_VAL)
    )
    assert watch.usable(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([9]), torch.tensor([0]), (N_TRAIN, N_VAL))
    with pytest.raises(ValueError, match=r"\[4\]"):
        watch.raise_if_seen(wait=True)


def test_a_usable_batch_raises_nothing():
    watch, is_usable = watched([1.0, 2.0], [0.0])
    watch.raise_if_seen(wait=True)
    assert is_usable


# ---------------------------------------------------------------- the validation bank


@drawn
@given(
    n=st.integers(1, 12),
    parts=st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True), min_size=1, max_size=6),
    forget=st.sampled_from([0.0, 0.3, 0.9]),
)
def test_the_bank_holds_the_last_value_of_each_row_and_stands_in_for_what_it_does_not_know(n, parts, forget):
    bank, seen = ValidationBank(n, forget), {}
    for step, part in enumerate(parts):
        rows = [row for row in part if row < n] or [0]
        bank.refresh(torch.tensor([[100.0 * step + row] for row in rows]), torch.tensor(rows))
        seen.update({row: (step, 100.0 * step + row) for row in rows})
    known = [row for row in range(n) if row in seen and (len(parts) - 1 - seen[row][0]) * forget <= 1.0]
    expected = [seen[row][1] if row in known else seen[known[row % len(known)]][1] for row in range(n)]
    assert bank.known()[:, 0].tolist() == expected


@by_name
def test_a_bank_that_is_renewed_whole_changes_nothing(name):
    plain, banked = new(name), new(name, val_refresh=N_VAL)
    for step in range(4):
        batch = uniform(10, step, scale=2.0), uniform(N_VAL, 50 + step), torch.arange(10) + step, torch.arange(N_VAL)
        for reweighter in (plain, banked):
            reweighter.partial_fit(*batch)
    assert torch.equal(plain.weights_, banked.weights_)


@by_name
def test_with_a_bank_the_target_is_every_row_as_it_was_last_seen(name):
    banked, values = new(name, val_refresh=4), torch.zeros(N_VAL)
    by_hand = new(name)
    for step in range(6):
        j = (torch.arange(4) + 4 * step) % N_VAL
        values[j] = uniform(4, 70 + step)
        train, i = uniform(10, step, scale=2.0), torch.arange(10) + step
        # Until each row was seen, the rows that were stand in.
        if step == 3:
            by_hand.load_state_dict({key: value for key, value in banked.state_dict().items() if not key.startswith("bank.")})
        banked.partial_fit(train, values[j], i, j)
        if step >= 3:
            by_hand.partial_fit(train, values, i, torch.arange(N_VAL))
    assert torch.equal(banked.weights_, by_hand.weights_)


@pytest.mark.parametrize("name", ["kliep", "lsif"])
def test_of_a_large_bank_64_rows_are_kernel_centres_and_all_are_the_target(name):
    n_val = 700
    reweighter, values = new(name, n_val=n_val, val_refresh=n_val), uniform(n_val, 3)
    train = uniform(20, 4, scale=2.0)
    reweighter.partial_fit(train, values, torch.arange(20), torch.arange(n_val))
    is_center = torch.zeros(n_val, dtype=torch.bool)
    is_center[torch.arange(64) * n_val // 64 + 1] = True
    assert torch.equal(reweighter.coef_ != 1.0, is_center & (reweighter.coef_ != 1.0))
    centers = values[is_center][:, None].numpy()
    update = reweighter.ratio.update(
        train[:, None].numpy(), values[:, None].numpy(), np.ones(64, dtype=np.float32), centers=centers
    )
    np.testing.assert_allclose(reweighter.weights_[:20].numpy(), update.weights, rtol=1e-6)
    np.testing.assert_allclose(reweighter.coef_[is_center].numpy(), update.coef, rtol=1e-6)
    # In turn every validation row is a centre.
    for _ in range(-(-n_val // 64)):
        reweighter.partial_fit(train, values, torch.arange(20), torch.arange(n_val))
        is_center[torch.remainder(torch.arange(64) * n_val // 64 + int(reweighter.bank.turn) % 11, n_val)] = True
    assert bool(is_center.all())


def test_weighted_loss_passes_on_as_many_validation_rows_as_are_renewed():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.rows = nn.Linear(2, 3), []

        def forward(self, x):
            self.rows.append(len(x["rows"]))
            return self.linear(x["rows"])

    model, reweighter = Counting(), new("kmm", val_refresh=4)
    x, x_val = uniform(8, 0, d=2), uniform(N_VAL, 1, d=2)
    y, y_val = torch.zeros(8, dtype=torch.int64), torch.zeros(N_VAL, dtype=torch.int64)
    reweighter.weighted_loss(model, ({"rows": x}, y, torch.arange(8)), ({"rows": x_val}, y_val, torch.arange(N_VAL)))
    assert model.rows == [8, 4]
    assert (reweighter.bank.age >= 0).tolist() == [True] * 4 + [False] * (N_VAL - 4)


def test_a_bank_needs_to_know_the_rows_that_it_keeps():
    with pytest.raises(ValueError, match="val_index is needed: with val_refresh the value of each validation row is kept"):
        new("kmm", val_refresh=4).partial_fit(uniform(5, 0), uniform(4, 1), range(5))


@pytest.mark.parametrize("d", [None, 2])
@by_name
def test_between_looks_at_validation_rows_the_bank_is_the_target(name, d):
    """Steps without validation rows are those against all values last seen, whose centres go on taking turns."""
    params = {"potential": "sliced"} if (name, d) == ("wasserstein", 2) else {}
    banked, values = new(name, val_refresh=N_VAL, **params), uniform(N_VAL, 5, d)
    again = new(name, val_refresh=N_VAL, **params)
    for step in range(5):
        train, i = uniform(10, step, d, scale=2.0), torch.arange(10) + step
        banked.partial_fit(train, values if step == 0 else None, i)
        again.partial_fit(train, values, i)
    assert torch.equal(banked.weights_, again.weights_)
    assert torch.equal(banked.bank.turn, again.bank.turn)
    assert banked.bank.age.tolist() == [4] * N_VAL and again.bank.age.tolist() == [0] * N_VAL


class Passes(nn.Module):
    """A linear model that counts the rows of its passes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.rows = nn.Linear(2, 3), []

    def forward(self, x):
        self.rows.append(len(x))
        return self.linear(x)


@pytest.mark.parametrize("params", [{}, {"layer": "linear"}, {"y_train": [0, 1] * 20, "y_val": [0, 1] * 6}], ids=list)
@pytest.mark.parametrize("name", [*NAMES, "auto"])
def test_one_batch_in_val_every_passes_validation_rows_through_the_model(name, params):
    model, reweighter = Passes(), new(name, val_refresh=4, val_every=3, **params)
    generator = torch.Generator().manual_seed(0)
    y, y_val = torch.randint(2, (N_TRAIN,), generator=generator), torch.arange(N_VAL) % 2
    asked = []
    for step in range(7):
        i, j = torch.randperm(N_TRAIN, generator=generator)[:8], (torch.arange(6) + 4 * step) % N_VAL
        asked.append(reweighter.needs_validation)
        val = (uniform(6, step, d=2), y_val[j], j) if asked[-1] or step == 4 else None  # given in vain, it is not looked at
        reweighter.weighted_loss(model, (uniform(8, 90 + step, d=2), y[i], i), val)
    assert asked == [True, False, False, True, False, False, True]
    assert model.rows == [8, 4, 8, 8, 8, 4, 8, 8, 8, 4]
    assert bool(torch.isfinite(reweighter.weights_).all())


def test_a_step_without_validation_rows_runs_where_no_value_can_be_read():
    reweighter = new("kliep", val_refresh=3).to("meta")
    train, i = torch.empty(8, device="meta"), torch.empty(8, dtype=torch.int64, device="meta")
    reweighter.partial_fit(train, torch.empty(3, device="meta"), i, i[:3])
    assert reweighter.partial_fit(train, None, i).transform(i).shape == (8,)


def test_missing_validation_rows_are_told():
    batch = uniform(5, 0), None, range(5)
    with pytest.raises(ValueError, match="val is None: without val_refresh each step needs"):
        new("kmm").partial_fit(*batch)
    with pytest.raises(ValueError, match="val is None: before validation rows are known a step needs"):
        new("kmm", val_refresh=4).partial_fit(*batch)
    with pytest.raises(ValueError, match="val is None, and val_index or y_val were given"):
        banked = new("kmm", val_refresh=4).partial_fit(uniform(5, 0), uniform(4, 1), range(5), range(4))
        banked.partial_fit(*batch, y=[0] * 5, y_val=[0] * 4)
    assert banked.classes is None
    message = r"DynamicReweighter needs validation rows for this batch: weighted_loss\(model, \(x, y, index\), \(x_val"
    with pytest.raises(ValueError, match=message):
        new("kmm").weighted_loss(Passes(), (uniform(5, 0, d=2), torch.zeros(5, dtype=torch.int64), range(5)))


@by_name
def test_on_a_device_weights_are_held_until_a_validation_row_is_known(name, monkeypatch):
    monkeypatch.setattr(batch_of_ranks, "waits_for", lambda device: True)
    reweighter, i, j = new(name, val_refresh=4, val_every=3), torch.arange(10), torch.arange(4)
    train, val = uniform(10, 0, scale=2.0), uniform(4, 1)
    reweighter.partial_fit(train, torch.full((4,), float("nan")), i, j)
    reweighter.watch.seen.zero_()  # a host that looks late
    reweighter.partial_fit(train, None, i)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN)) and torch.equal(reweighter.row_losses.mass, torch.zeros(N_TRAIN))
    reweighter.partial_fit(train, val, i, j).partial_fit(train, None, i)
    again = new(name, val_refresh=4).partial_fit(train, val, i, j).partial_fit(train, None, i)
    assert not torch.equal(again.weights_[:10], torch.ones(10))
    torch.testing.assert_close(reweighter.weights_, again.weights_)


def test_without_any_recent_value_a_bank_that_forgets_goes_by_those_seen_last():
    bank = ValidationBank(4, forget=0.5)
    for value, rows in ((0.0, [1]), (5.0, [0, 2])):
        bank.refresh(torch.tensor([[value + row] for row in rows]), torch.tensor(rows))
    for step in range(4):
        # Up to two steps old the first row counts too.
        assert bank.known()[:, 0].tolist() == ([5.0, 1.0, 7.0, 5.0] if step < 2 else [5.0, 7.0, 7.0, 7.0])
        bank.refresh(torch.empty(0, 1), torch.empty(0, dtype=torch.int64))


# ---------------------------------------------------------------- forgetting


@pytest.mark.parametrize("name", ["kmm", "lsif"])
def test_forgetting_moves_the_start_of_a_step_towards_one(name):
    forgetful, plain = new(name, forget=0.25), new(name)
    stored = 2.0 * uniform(N_TRAIN if name == "kmm" else N_VAL, 5)
    forgetful.steps[0].stored.copy_(stored)
    plain.steps[0].stored.copy_(1.0 + 0.75 * (stored - 1.0))
    batch = uniform(N_TRAIN, 0, scale=2.0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL)
    weights = [reweighter.partial_fit(*batch).weights_ for reweighter in (forgetful, plain)]
    assert torch.equal(*weights)


def test_a_bank_that_forgets_follows_a_target_that_drifts():
    followers = {forget: new("wasserstein", val_refresh=2, forget=forget) for forget in (0.0, 0.5)}
    last = {}
    for step in range(60):
        level = 0.0 if step < 30 else 2.0
        j = torch.tensor([0, 1]) if step >= 30 else (torch.arange(2) + 2 * step) % N_VAL
        train = torch.linspace(0.0, 2.0, N_TRAIN)
        for forget, reweighter in followers.items():
            reweighter.partial_fit(train, torch.full((2,), level) + 0.01 * uniform(2, step), torch.arange(N_TRAIN), j)
            last[forget] = float((reweighter.weights_ * train).mean())
    # Only two of the twelve rows were seen again since the target moved from 0 to 2.
    assert last[0.5] > 1.8 and last[0.0] < 0.6


# ---------------------------------------------------------------- class by class


def classes(n, seed, k=3):
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


@by_name
@pytest.mark.parametrize("d", [None, 2])
def test_class_by_class_is_one_step_in_each_class_times_the_prior_ratio(name, d):
    if name == "wasserstein" and d is not None:
        pytest.skip("more than one column goes through a potential")
    y, y_val = classes(N_TRAIN, 1), classes(N_VAL, 2)
    joint, apart = new(name, y_train=y, y_val=y_val), {c: new(name) for c in range(3)}
    for step in range(3):
        i, j = torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(step))[:30], torch.arange(N_VAL)
        train, val = uniform(30, step, d, 2.0), uniform(N_VAL, 90 + step, d)
        joint.partial_fit(train, val, i, j)
        for c, reweighter in apart.items():
            at, val_at = y[i] == c, y_val == c
            reweighter.partial_fit(train[at], val[val_at], i[at], j[val_at])
    for c, reweighter in apart.items():
        prior = (y_val == c).double().mean() / (y == c).double().mean()
        # A row that no batch held has the weight 1 of the warm-up.
        met = (y == c) & (joint.weights_ != 1.0)
        assert int(met.sum()) >= int((y == c).sum()) - 1
        torch.testing.assert_close(joint.weights_[met].double(), prior * reweighter.weights_[met].double(), rtol=2e-5, atol=1e-6)


def test_classes_told_with_the_batches_are_those_declared_once_all_were_told():
    y, y_val = classes(N_TRAIN, 1), classes(N_VAL, 2)
    declared, told = new("kmm", y_train=y, y_val=y_val), new("kmm", warmup_steps=1)
    whole = uniform(N_TRAIN, 0, scale=2.0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL)
    told.partial_fit(*whole, y=y, y_val=y_val)
    declared.partial_fit(*whole)
    told.partial_fit(*whole, y=y, y_val=y_val)
    assert torch.equal(declared.weights_, told.weights_)
    assert told.classes.ratio(1) == pytest.approx(float((y_val == 1).double().mean() / (y == 1).double().mean()))


def test_a_class_too_small_in_a_batch_keeps_its_stored_weights_and_is_counted():
    y = torch.tensor([0] * 20 + [1] * 20)
    y_val = torch.tensor([0] * 6 + [1] * 6)
    reweighter = new("kmm", y_train=y, y_val=y_val)
    reweighter.partial_fit(uniform(N_TRAIN, 7, scale=2.0), uniform(N_VAL, 8), torch.arange(N_TRAIN), torch.arange(N_VAL))
    stored = reweighter.weights_.clone()
    i = torch.cat([torch.arange(10), torch.tensor([25])])  # one row of class 1
    reweighter.partial_fit(uniform(11, 0, scale=2.0), uniform(N_VAL, 1), i, torch.arange(N_VAL))
    assert torch.equal(reweighter.weights_[10:], stored[10:]) and not torch.equal(reweighter.weights_[:10], stored[:10])
    assert reweighter.too_small_ == {1: 1}
    j = torch.arange(7)  # one validation row of class 1
    reweighter.partial_fit(uniform(N_TRAIN, 5), uniform(7, 6), torch.arange(N_TRAIN), j)
    assert reweighter.too_small_ == {1: 2} and torch.equal(reweighter.weights_[20:], stored[20:])


def test_a_class_that_no_validation_row_has_gets_the_weight_zero():
    y, y_val = torch.arange(N_TRAIN) % 2, torch.zeros(N_VAL, dtype=torch.int64)
    reweighter = new("kmm", y_train=y, y_val=y_val)
    reweighter.partial_fit(uniform(N_TRAIN, 0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL))
    assert float(reweighter.weights_[y == 1].max()) == 0.0
    assert float(reweighter.weights_.mean()) == pytest.approx(1.0, rel=1e-5)


@drawn
@given(y=st.lists(st.integers(-1, 3), min_size=5, max_size=5), y_val=st.lists(st.integers(-1, 3), min_size=4, max_size=4))
def test_the_prior_ratio_is_of_the_labels_known_so_far(y, y_val):
    frequencies = ClassFrequencies(torch.tensor(y), torch.tensor(y_val))
    train, val = ([label for label in labels if label >= 0] for labels in (y, y_val))
    for label in range(5):
        if label not in train or (label not in val and len(val) < 4):
            assert frequencies.ratio(label) is None
        else:
            assert frequencies.ratio(label) == pytest.approx((val.count(label) / len(val)) / (train.count(label) / len(train)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"y_train": [0] * N_TRAIN}, "both y_train and y_val"),
        (
            {"y_train": [0] * 3, "y_val": [0] * N_VAL},
            r"y_train must hold the class of each row, integers \(40,\); got shape \(3,\)",
        ),
        ({"y_train": [0.5] * N_TRAIN, "y_val": [0] * N_VAL}, "y_train must hold the class"),
        ({"y_train": [0] * N_TRAIN, "y_val": [-1] * N_VAL}, "y_val must hold .* >= 0; got -1"),
        ({"val_refresh": 0}, "val_refresh must be an int >= 1"),
        ({"val_refresh": 4, "val_every": 0}, "val_every must be an int >= 1"),
        ({"val_every": 2}, "val_every=2 needs val_refresh"),
        ({"loss": "mse"}, r"loss must be a function \(prediction, label\) -> one loss a row; got 'mse'"),
        ({"y_train": ["a"] * N_TRAIN, "y_val": ["b"] * N_VAL}, r"y_train must hold .* got texts or other objects"),
        ({"forget": 1.0}, r"forget must be a number in \[0, 1\)"),
        ({"layer": "0", "transformation": lambda *_: None}, "give one of them"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        new("kmm", **params)


@pytest.mark.parametrize("name", ["KMM", "Kliep", "AUTO"])
def test_a_method_is_known_in_capitals_too(name):
    assert str(new(name)) == str(new(name.lower()))


def test_labels_of_one_sample_alone_are_refused():
    with pytest.raises(ValueError, match="both y and y_val"):
        new("kmm").partial_fit(uniform(5, 0), uniform(N_VAL, 1), range(5), range(N_VAL), y=[0] * 5)


# ---------------------------------------------------------------- odd batches


@by_name
def test_a_validation_batch_of_one_row_gives_finite_weights_of_mean_one(name):
    reweighter = new(name)
    for step in range(3):
        w = reweighter.partial_fit(uniform(10, step, scale=2.0), uniform(1, step), torch.arange(10), [3]).transform(
            torch.arange(10)
        )
        assert bool(torch.isfinite(w).all()) and float(w.min()) >= 0.0 and float(w.mean()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif"])
def test_features_that_require_a_gradient_are_detached(name):
    features, plain = uniform(10, 0, d=3).requires_grad_(), uniform(10, 0, d=3)
    batch = uniform(N_VAL, 1, d=3), torch.arange(10), torch.arange(N_VAL)
    followed = new(name).partial_fit(features * 1.0, *batch).weights_
    assert not followed.requires_grad and torch.equal(followed, new(name).partial_fit(plain, *batch).weights_)


# ---------------------------------------------------------------- what is compared


class Network(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.hidden = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
            self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.hidden(x))


def rows(n, seed):
    return uniform(n, seed, d=2), classes(n, seed)


def test_a_layer_is_compared_class_by_class_as_by_hand():
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    i, j = torch.arange(30), torch.arange(N_VAL)
    by_layer, by_hand = new("lsif", layer="hidden"), new("lsif")
    model = Network().eval()
    loss = by_layer.weighted_loss(model, (x, y, i), (x_val, y_val, j))
    weights = by_hand.partial_fit(model.hidden(x), model.hidden(x_val), i, j, y, y_val).transform(i)
    assert torch.equal(by_layer.weights_, by_hand.weights_) and not weights.requires_grad
    expected = (weights * functional.cross_entropy(model(x), y, reduction="none")).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_a_transformation_of_ones_own_is_compared():
    def margin(prediction, label, losses):
        return prediction.gather(1, label[:, None])[:, 0] - prediction.mean(dim=1)

    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    i, j, model = torch.arange(30), torch.arange(N_VAL), Network().eval()
    reweighter, by_hand = new("kmm", transformation=margin), new("kmm")
    reweighter.weighted_loss(model, (x, y, i), (x_val, y_val, j))
    by_hand.partial_fit(margin(model(x), y, None), margin(model(x_val), y_val, None), i, j)
    assert torch.equal(reweighter.weights_, by_hand.weights_)


def test_an_unknown_layer_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(ValueError, match=r"no layer 'fc'; its layers are \['hidden', 'hidden.0'"):
        new("kmm", layer="fc").weighted_loss(Network(), (*rows(5, 0), range(5)), (*rows(N_VAL, 1), range(N_VAL)))


def test_a_loss_that_is_not_one_number_a_row_is_refused():
    reweighter = new("kmm", loss=functional.cross_entropy)
    with pytest.raises(ValueError, match=r'one number for each row.*reduction="none"'):
        reweighter.weighted_loss(Network(), (*rows(5, 0), range(5)), (*rows(N_VAL, 1), range(N_VAL)))


def test_losses_of_tokens_and_pixels_are_means_over_what_has_a_label():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(4, 5, 3, generator=generator), torch.randint(3, (4, 5), generator=generator)
    label[0, 2:] = -100
    label[1] = -100
    each = [[-functional.log_softmax(logits[r, t], 0)[label[r, t]] for t in range(5) if label[r, t] >= 0] for r in range(4)]
    expected = torch.tensor([float(sum(row) / len(row)) if row else 0.0 for row in each])
    torch.testing.assert_close(token_cross_entropy(logits, label), expected)
    torch.testing.assert_close(pixel_cross_entropy(logits.movedim(2, 1)[..., None], label[..., None]), expected)


def test_losses_of_several_labels_and_numbers_are_means_over_the_row():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(4, 3, generator=generator), torch.randint(2, (4, 3), generator=generator)
    probability = torch.sigmoid(logits)
    expected = -(label * probability.log() + (1 - label) * (1 - probability).log()).mean(dim=1)
    torch.testing.assert_close(multilabel(logits, label), expected)
    torch.testing.assert_close(squared_error(logits, label), ((logits - label) ** 2).mean(dim=1))
    torch.testing.assert_close(squared_error(logits[:, :1], label[:, 0]), (logits[:, 0] - label[:, 0]) ** 2)


def test_a_masked_infinity_is_not_in_the_mean():
    values = torch.tensor([[1.0, float("inf")], [2.0, 4.0]])
    assert rows_mean(values, torch.tensor([[True, False], [True, True]])).tolist() == [1.0, 3.0]


# ---------------------------------------------------------------- real training loops


def test_a_validation_pass_leaves_statistics_and_random_draws_where_they_were():
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    model, twin = Network().train(), Network().train()
    torch.manual_seed(3)
    new("kmm").weighted_loss(model, (x, y, range(30)), (x_val, y_val, range(N_VAL)))
    after = torch.rand(1)
    torch.manual_seed(3)
    twin(x)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(model.hidden[1].running_mean, twin.hidden[1].running_mean)


def test_a_model_left_in_eval_mode_is_told_once():
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    reweighter, batch = new("kmm"), ((x, y, range(30)), (x_val, y_val, range(N_VAL)))
    with pytest.warns(UserWarning, match=r"eval mode.*model\.train\(\)"):
        reweighter.weighted_loss(Network().eval(), *batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reweighter.weighted_loss(Network().eval(), *batch)
        new("kmm").weighted_loss(Network().train(), *batch)
        new("kmm").weighted_loss(nn.Linear(2, 3).eval(), *batch)


@by_name
def test_inside_autocast_the_estimate_is_in_single_precision(name):
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    model, i, j = Network().eval(), torch.arange(30), torch.arange(N_VAL)
    inside, outside = new(name), new(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = inside.weighted_loss(model, (x, y, i), (x_val, y_val, j))
        rows_of = [functional.cross_entropy(model(a), b, reduction="none").detach() for a, b in ((x, y), (x_val, y_val))]
    outside.partial_fit(*rows_of, i, j)
    assert torch.equal(inside.weights_, outside.weights_) and loss.dtype == torch.float32


def train(reweighter, steps, *, seed=0, accumulate=1, clip=None, compiled=False, scaler=None):
    """A loop as people write it: shuffled loaders with a smaller last batch, a schedule, and what the arguments ask for."""
    (x, y), (x_val, y_val) = rows(N_TRAIN, 1), rows(N_VAL, 2)
    model = Network(seed).eval()
    callee = torch.compile(model, backend="aot_eager") if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    shuffled = torch.Generator().manual_seed(seed)
    loader = DataLoader(Indexed(TensorDataset(x, y)), batch_size=12, shuffle=True, generator=shuffled)
    val = endless(DataLoader(Indexed(TensorDataset(x_val, y_val)), batch_size=5))
    batches = endless(loader)
    for step in range(steps):
        loss = reweighter.weighted_loss(callee, next(batches), next(val)) / accumulate
        (loss if scaler is None else scaler.scale(loss)).backward()
        if (step + 1) % accumulate == 0:
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step() if scaler is None else (scaler.step(optimizer), scaler.update())
            optimizer.zero_grad()
            schedule.step()
    return reweighter.weights_.clone(), model


@by_name
def test_a_compiled_model_gives_the_weights_of_the_plain_one(name):
    plain, compiled = train(new(name), 9)[0], train(new(name), 9, compiled=True)[0]
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_a_layer_of_a_compiled_model_is_listened_to():
    torch.compiler.reset()
    plain, compiled = (train(new("lsif", layer="hidden"), 6, compiled=c)[0] for c in (False, True))
    assert not torch.equal(plain, torch.ones(N_TRAIN))
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", [{"accumulate": 2}, {"clip": 0.1}, {"scaler": True}], ids=str)
@by_name
def test_accumulation_clipping_and_scaling_leave_weights_finite_of_mean_one(name, how):
    how = {**how, "scaler": torch.amp.GradScaler("cpu")} if "scaler" in how else how
    reweighter = new(name)
    weights, model = train(reweighter, 12, **how)
    assert bool(torch.isfinite(weights).all()) and float(weights.min()) >= 0.0 and not torch.equal(weights, torch.ones(N_TRAIN))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_scaled_loss_gives_the_weights_of_the_plain_loss():
    scaled = train(new("kmm"), 8, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**6))[0]
    torch.testing.assert_close(scaled, train(new("kmm"), 8)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        {"val_refresh": 4},
        {"val_refresh": 4, "val_every": 3},
        {"y_train": True},
        {"layer": "hidden", "val_refresh": 5, "forget": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["kmm", "lsif"])
@pytest.mark.parametrize("stop", [1, 5])
def test_banks_and_classes_resume_to_the_bit(name, params, stop):
    (x, y), (x_val, y_val) = rows(N_TRAIN, 1), rows(N_VAL, 2)
    params = {**params, **({"y_train": y, "y_val": y_val} if "y_train" in params else {}), "warmup_steps": 2}
    plan = [torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(s))[:15] for s in range(9)]

    def go(reweighter, parts):
        for step, i in parts:
            j = (torch.arange(6) + 6 * step) % N_VAL
            reweighter.weighted_loss(Network().eval(), (x[i], y[i], i), (x_val[j], y_val[j], j))
        return reweighter

    straight = go(new(name, **params), enumerate(plan))
    before = go(new(name, **params), list(enumerate(plan))[:stop])
    after = new(name, **params)
    after.load_state_dict(copied(before.state_dict()))
    go(after, list(enumerate(plan))[stop:])
    one, other = straight.state_dict(), after.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key] for key in one)


def test_classes_told_with_the_batches_are_known_to_a_resumed_run():
    first = new("kmm")
    whole = uniform(N_TRAIN, 0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL)
    first.partial_fit(*whole, y=classes(N_TRAIN, 1), y_val=classes(N_VAL, 2))
    second = new("kmm")
    second.load_state_dict(copied(first.state_dict()))
    assert second.classes.ratio(2) == first.classes.ratio(2)


# ---------------------------------------------------------------- solved to convergence


@pytest.mark.parametrize("solver", ["auto", "cvxpy"])
def test_diw_solves_the_published_program(solver):
    cvxpy = pytest.importorskip("cvxpy")
    n, m, gamma = 24, N_VAL, 2.0
    train, val = uniform(n, 0, scale=2.0), uniform(m, 1)
    reweighter = DIW(n, m, gamma=gamma, solver=solver, warmup_epochs=0)
    update = reweighter.ratio.update(train[:, None].double().numpy(), val[:, None].double().numpy(), to_convergence=True)
    x, v = train.double().numpy()[:, None], val.double().numpy()
    kernel = np.exp(-gamma * (x - x.T) ** 2) + 1e-5 * np.eye(n)
    kappa = np.exp(-gamma * (x - v) ** 2).sum(axis=1) * n / m
    w, eps = cvxpy.Variable(n), (n**0.5 - 1) / n**0.5
    problem = cvxpy.Problem(
        cvxpy.Minimize((0.5 * cvxpy.quad_form(w, cvxpy.psd_wrap(kernel)) - kappa @ w) / n),
        [w >= 0, w <= 50.0, cvxpy.abs(cvxpy.sum(w) / n - 1) <= eps],
    )
    optimum = problem.solve(solver="CLARABEL")
    coef = np.asarray(update.coef, dtype=np.float64)
    assert (0.5 * coef @ kernel @ coef - kappa @ coef) / n == pytest.approx(optimum, rel=1e-6)
    assert coef.min() >= -1e-9 and abs(coef.mean() - 1) <= eps + 1e-9
    weights = reweighter.partial_fit(train, val, range(n), range(m)).weights_
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)


def test_solved_to_convergence_the_stored_weights_do_not_matter():
    train, val = uniform(N_TRAIN, 0, scale=2.0), uniform(N_VAL, 1)
    solved = []
    for stored in (uniform(N_TRAIN, 5), torch.ones(N_TRAIN)):
        reweighter = new(KMM(gamma=1.0, regularization=0.1, tol=1e-8), to_convergence=True)
        reweighter.steps[0].stored.copy_(stored)
        solved.append(reweighter.partial_fit(train.double(), val.double(), range(N_TRAIN), range(N_VAL)).weights_)
    torch.testing.assert_close(*solved, rtol=1e-4, atol=1e-4)
    assert isinstance(new(LSIF(gamma=1.0), to_convergence=True).ratio, LSIF)


# ---------------------------------------------------------------- all divergences at once


def of_last_layer(model, x, y):
    """Gradient (n, C, h + 1) of each row's loss in the last linear layer, by autograd."""
    gradients = []
    for row, label in zip(x, y, strict=True):
        model.zero_grad()
        functional.cross_entropy(model(row[None]), label[None]).backward()
        gradients.append(torch.cat([model.out.weight.grad, model.out.bias.grad[:, None]], dim=1).clone())
    model.zero_grad()
    return torch.stack(gradients)


def test_evidence_is_the_cosine_of_weighted_training_and_validation_gradients_of_the_last_layer():
    (x, y), (x_val, y_val) = rows(20, 1), rows(N_VAL, 2)
    model, i, j = Network().eval(), torch.arange(20), torch.arange(N_VAL)
    auto, singles = new("auto"), [new(name) for name in IN_LOOPS]
    evidence = torch.zeros(len(singles))
    target = of_last_layer(model, x_val, y_val).sum(dim=0)
    each = of_last_layer(model, x, y)
    for _ in range(3):
        auto.weighted_loss(model, (x, y, i), (x_val, y_val, j))
        for k, single in enumerate(singles):
            single.weighted_loss(model, (x, y, i), (x_val, y_val, j))
            weighted = (single.transform(i)[:, None, None] * each).sum(dim=0)
            evidence[k] = 0.99 * evidence[k] + functional.cosine_similarity(weighted.flatten(), target.flatten(), dim=0)
        torch.testing.assert_close(auto.agreement.evidence, evidence, rtol=1e-4, atol=1e-5)
    shares = dict(zip(IN_LOOPS, torch.softmax(evidence, 0).tolist(), strict=True))
    assert auto.share_ == pytest.approx(shares, rel=1e-4)


def test_the_weights_are_the_mixture_of_the_single_ones():
    auto, singles = new("auto"), [new(name) for name in IN_LOOPS]
    auto.agreement.evidence.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    share = torch.softmax(auto.agreement.evidence, 0)
    for step in range(3):
        batch = uniform(30, step, scale=2.0), uniform(N_VAL, 40 + step), torch.arange(30), torch.arange(N_VAL)
        auto.partial_fit(*batch)
        parts = torch.stack([single.partial_fit(*batch).weights_ for single in singles])
    torch.testing.assert_close(auto.weights_, share @ parts)
    assert float(auto.weights_[:30].mean()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    "params", [{}, {"val_refresh": 4}, {"transformation": lambda p, y, losses: -losses}], ids=["", "bank", "other"]
)
def test_shares_move_with_the_gradients_and_resume_to_the_bit(params):
    (x, y), (x_val, y_val) = rows(N_TRAIN, 1), rows(N_VAL, 2)

    def go(reweighter, n_steps):
        for step in range(n_steps):
            i, j = (torch.arange(15) + 15 * step) % N_TRAIN, (torch.arange(6) + 6 * step) % N_VAL
            reweighter.weighted_loss(Network().eval(), (x[i], y[i], i), (x_val[j], y_val[j], j))
        return reweighter

    stopped = new("auto", **params)
    stopped.load_state_dict(copied(go(new("auto", **params), 4).state_dict()))
    straight = go(new("auto", **params), 4)
    for reweighter in (stopped, straight):
        go(reweighter, 2)
    assert len(set(straight.share_.values())) > 1
    assert torch.equal(stopped.weights_, straight.weights_) and stopped.share_ == straight.share_


def test_a_model_without_a_linear_layer_is_judged_by_the_slope_of_its_output():
    class Sum(nn.Module):
        def forward(self, x):
            return torch.cat([x, x.sum(dim=1, keepdim=True)], dim=1)

    auto = new("auto")
    auto.weighted_loss(Sum(), (*rows(20, 1), range(20)), (*rows(N_VAL, 2), range(N_VAL)))
    assert float(auto.agreement.evidence.abs().min()) > 0.0


def test_the_mixture_runs_where_no_value_can_be_read():
    auto = new("auto").to("meta")
    model = nn.Linear(2, 3, device="meta")
    batch = [(torch.empty(n, 2, device="meta"), torch.empty(n, dtype=torch.int64, device="meta"), range(n)) for n in (8, N_VAL)]
    assert auto.weighted_loss(model, *batch).device.type == "meta"
