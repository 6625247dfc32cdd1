"""The rows of a batch: one way to write what was computed of them, whatever rows, ranks and devices do."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_loops import as_on_a_device
from torch import nn

from densratio.training import Reweighter
from densratio.training.loop import row_batch
from densratio.training.loop.late_errors import LateErrors
from densratio.training.loop.row_batch import RowBatch
from densratio.training.loop.state import before_loading

N = 9
named = st.lists(st.integers(0, N - 1), min_size=1, max_size=12)


def rows_of(index, is_usable=True):
    return RowBatch.held(torch.tensor(index), is_usable)


@pytest.mark.parametrize("on_device", [False, True])
@given(index=named, seed=st.integers(0, 99), width=st.sampled_from([None, 3]))
def test_a_row_gets_the_mean_of_its_values_and_no_other_row_changes(on_device, index, seed, width):
    values = torch.randn((len(index), *([] if width is None else [width])), generator=torch.Generator().manual_seed(seed))
    stored = torch.full((N, *values.shape[1:]), 7.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_batch, "waits_for", lambda device: on_device)
        rows_of(index, torch.tensor(True) if on_device else True).write(stored, values)
    for row in range(N):
        own = values[[k for k, i in enumerate(index) if i == row]]
        expected = own.mean(0) if len(own) else torch.full(values.shape[1:], 7.0)
        torch.testing.assert_close(stored[row], expected)


@pytest.mark.parametrize("is_usable", [True, torch.tensor(True), torch.tensor(False)])
def test_values_that_are_not_finite_and_unusable_batches_write_nothing(is_usable):
    stored, values = torch.zeros(N), torch.tensor([1.0, float("nan"), float("inf"), 4.0])
    rows_of([0, 1, 2, 3], is_usable).write(stored, values)
    expected = [1.0, 0.0, 0.0, 4.0] if bool(is_usable) else [0.0] * 4
    assert stored[:4].tolist() == expected and not stored[4:].any()


def test_whole_numbers_and_other_precisions_are_written_as_what_is_stored():
    ages, half = torch.full((N,), -1), torch.zeros(N, dtype=torch.bfloat16)
    rows_of([2, 2, 5]).write(ages, torch.zeros(3, dtype=torch.int64))
    rows_of([2, 5]).write(half, torch.tensor([1.5, 2.0], dtype=torch.float64))
    assert ages.tolist() == [-1, -1, 0, -1, -1, 0, -1, -1, -1] and half[[2, 5]].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("is_usable", [True, torch.tensor(True), torch.tensor(False)])
@given(index=named)
def test_sums_over_visits_count_each_finite_visit(is_usable, index):
    total, mass = torch.zeros(N), torch.zeros(N)
    values = torch.arange(1.0, len(index) + 1)
    values[0] = float("nan")
    rows_of(index, is_usable).add(total, mass, values, scale=2.0)
    for row in range(N):
        own = [values[k].item() for k, i in enumerate(index) if i == row and k > 0] if bool(is_usable) else []
        assert (total[row].item(), mass[row].item()) == (2.0 * sum(own), 2.0 * len(own))


def test_with_one_rank_sums_and_means_are_the_plain_ones():
    rows, values = rows_of([3, 1]), torch.tensor([1.0, 5.0])
    assert (float(rows.sum(values)), float(rows.mean(values)), rows.count(values)) == (6.0, 3.0, 2)
    assert rows.mean_one(values).tolist() == pytest.approx([1 / 3, 5 / 3])
    assert rows.own(rows.all(values)) is values


@pytest.mark.parametrize("index", [torch.tensor([0, N]), torch.tensor([-1, 0]), [0, N], np.array([0, -1]), torch.tensor([0])])
def test_an_index_that_names_no_rows_is_refused(index):
    with pytest.raises(ValueError, match="index"):
        RowBatch.of(index, 2, N, torch.device("cpu"))


@pytest.mark.parametrize("index", [[4, 0], (4, 0), np.array([4, 0], dtype=np.uint8), torch.tensor([4, 0], dtype=torch.int32)])
def test_rows_are_named_in_any_kind_of_whole_numbers(index):
    rows = RowBatch.of(index, 2, N, torch.device("cpu"))
    assert rows.positions.tolist() == [4, 0] and rows.positions.dtype == torch.int64


def test_a_write_runs_where_there_are_no_values():
    stored, values = torch.zeros(N, device="meta"), torch.ones(3, device="meta")
    rows = RowBatch.held(torch.zeros(3, dtype=torch.int64, device="meta"), torch.ones((), dtype=torch.bool, device="meta"))
    rows.write(stored, values)
    rows.add(stored, stored, values, scale=1.0)
    assert stored.shape == (N,) and stored.device.type == "meta"


# ---------------------------------------------------------------- what a loop keeps beside rows


class Plain(Reweighter):
    needs_validation = False

    def weighted_loss(self, model, train, val=None):
        raise NotImplementedError


@given(epochs=st.floats(0, 3), rows=st.integers(0, 50), steps=st.integers(0, 9), limit=st.none() | st.integers(0, 9))
def test_a_warm_up_counts_batches_where_they_are_given_and_passes_otherwise(epochs, rows, steps, limit):
    reweighter = Plain(10, warmup_epochs=epochs, warmup_steps=limit)
    reweighter.rows_seen, reweighter.steps_seen = rows, steps
    assert reweighter.is_warming_up == (rows < epochs * 10 if limit is None else steps < limit)


@pytest.mark.parametrize(("epochs", "steps", "name"), [(-1.0, None, "epochs"), (float("nan"), None, "epochs"), (1.0, -1, "steps")])
def test_a_warm_up_below_nothing_is_refused(epochs, steps, name):
    with pytest.raises(ValueError, match=f"warmup_{name} must be a number in"):
        Plain(10, warmup_epochs=epochs, warmup_steps=steps)


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("made", None)
        before_loading(self, make)


def make(module, stored):
    if "made" in stored and module.made is None:
        module.made = torch.zeros_like(stored["made"])


@pytest.mark.parametrize("twin", [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_what_is_made_with_the_first_batch_is_made_before_a_state_is_loaded(twin):
    state = {"0.made": torch.arange(3.0)}
    model = twin(nn.Sequential(Lazy()))
    model.load_state_dict(state)
    assert model[0].made.tolist() == [0.0, 1.0, 2.0]


def test_rows_that_one_check_found_unusable_stay_so_in_the_next():
    stored, late = torch.zeros(N), LateErrors()
    with as_on_a_device():
        rows = RowBatch.of(torch.arange(3), 3, N, stored.device)
        rows.check(torch.tensor([[1.0], [float("nan")], [2.0]]), N, late)
        rows.check(torch.ones(3, 1), N, late)
        rows.write(stored, torch.ones(3))
    assert not bool(rows.is_usable) and not stored.any()
