"""The validation bank: what it remembers, forgets, and stands in for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dynamic_cases import N_TRAIN, N_VAL, NAMES, by_name, new, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from densratio.training.loop import row_batch
from densratio.training.loop.row_batch import RowBatch
from densratio.training.loop.validation_bank import ValidationBank

drawn = settings(max_examples=15, deadline=None)

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
        bank.refresh(torch.tensor([[100.0 * step + row] for row in rows]), RowBatch.held(torch.tensor(rows)))
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
def test_of_a_large_bank_64_rows_are_kernel_centers_and_all_are_the_target(name):
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
    # In turn every validation row is a center.
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
    """Steps without validation rows are those against all values last seen, whose centers go on taking turns."""
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
        torch.default_generator.manual_seed(0)
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
    monkeypatch.setattr(row_batch, "waits_for", lambda device: True)
    reweighter, i, j = new(name, val_refresh=4, val_every=3), torch.arange(10), torch.arange(4)
    train, val = uniform(10, 0, scale=2.0), uniform(4, 1)
    reweighter.partial_fit(train, torch.full((4,), float("nan")), i, j)
    reweighter.late_errors.forget()  # a host that looks late
    reweighter.partial_fit(train, None, i)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN)) and torch.equal(reweighter.row_losses.mass, torch.zeros(N_TRAIN))
    reweighter.partial_fit(train, val, i, j).partial_fit(train, None, i)
    again = new(name, val_refresh=4).partial_fit(train, val, i, j).partial_fit(train, None, i)
    assert not torch.equal(again.weights_[:10], torch.ones(10))
    torch.testing.assert_close(reweighter.weights_, again.weights_)


def test_without_any_recent_value_a_bank_that_forgets_goes_by_those_seen_last():
    bank = ValidationBank(4, forget=0.5)
    for value, rows in ((0.0, [1]), (5.0, [0, 2])):
        bank.refresh(torch.tensor([[value + row] for row in rows]), RowBatch.held(torch.tensor(rows)))
    for step in range(4):
        # Up to two steps old the first row counts too.
        assert bank.known()[:, 0].tolist() == ([5.0, 1.0, 7.0, 5.0] if step < 2 else [5.0, 7.0, 7.0, 7.0])
        bank.refresh(torch.empty(0, 1), RowBatch.held(torch.empty(0, dtype=torch.int64)))


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
