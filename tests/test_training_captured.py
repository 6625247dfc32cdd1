"""A step that a graph replays is the step itself: recorded on the CPU, operation by operation, as a GPU records its kernels."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_steps import recording
from torch import nn
from training_cases import tensors

from densratio import KLIEP, KMM
from densratio.training import DynamicReweighter
from densratio.training.loop import captured
from densratio.training.loop.late_errors import LateErrors
from densratio.training.loop.row_losses import RowLosses

N_TRAIN, N_VAL = 40, 12
KINDS = {
    **{name: {"ratio": name} for name in ("kmm", "kliep", "lsif", "wasserstein", "auto")},
    "bank": {"ratio": "lsif", "val_refresh": 5},
    "bank that forgets": {"ratio": "kmm", "val_refresh": 5, "forget": 0.2},
    "bank in turns": {"ratio": "kliep", "val_refresh": 5, "val_every": 3},
    "as the divergence gives them": {"ratio": "lsif", "normalize": False},
}


def batch(seed, n, step):
    generator = torch.Generator().manual_seed(seed * 100 + step)
    index = torch.randperm(N_TRAIN, generator=generator)[:n]
    val_index = torch.randperm(N_VAL, generator=generator)[:5]
    return torch.rand(n, generator=generator), torch.rand(5, generator=generator), index, val_index


def steps(reweighter, seed, sizes):
    for step, n in enumerate(sizes):
        train, val, index, val_index = batch(seed, n, step)
        if not reweighter.needs_validation:
            val = val_index = None
        reweighter.partial_fit(train, val, index, val_index)
    return reweighter


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=4)
@given(seed=st.integers(0, 50), sizes=st.lists(st.sampled_from([8, 8, 5]), min_size=4, max_size=6), warmup=st.integers(0, 4))
def test_replayed_steps_leave_the_state_of_the_steps_themselves(name, seed, sizes, warmup):
    made = [DynamicReweighter(n_train=N_TRAIN, n_val=N_VAL, warmup_steps=warmup, **KINDS[name]) for _ in range(2)]
    made[0].captures = False
    with recording() as recorded:
        plain, replayed = (tensors(steps(reweighter, seed, sizes + [8] * 7)) for reweighter in made)
    assert recorded
    for entry in plain:
        torch.testing.assert_close(replayed[entry], plain[entry], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_batch_is_recorded_once(name):
    reweighter = DynamicReweighter(n_train=N_TRAIN, n_val=N_VAL, warmup_steps=0, **KINDS[name])
    with recording() as recorded:
        steps(reweighter, 0, [8] * 40)
    assert len(recorded) == (2 if "turns" in name else 1)


def test_the_host_s_own_changes_reach_the_next_step():
    plain, replayed = (DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_steps=0) for _ in range(2))
    plain.captures = False
    with recording() as recorded:
        for reweighter in (plain, replayed):
            steps(reweighter, 0, [8] * 5)
            reweighter.ratio.n_steps = 4
            steps(reweighter, 1, [8] * 5)
            reweighter.weights_ = torch.ones(N_TRAIN)
            steps(reweighter, 2, [8] * 5)
            reweighter.row_losses = RowLosses(N_TRAIN)
            steps(reweighter, 2, [8] * 5)
            reweighter.double()
            steps(reweighter, 3, [8] * 5)
            reweighter.load_state_dict(DynamicReweighter("kmm", N_TRAIN, N_VAL).double().state_dict())
            steps(reweighter, 4, [8] * 5)
    assert len(recorded) == 6
    for entry, value in tensors(plain).items():
        torch.testing.assert_close(tensors(replayed)[entry], value, rtol=1e-5, atol=1e-6)


def test_an_unusable_batch_changes_nothing_and_is_told_later():
    reweighter = DynamicReweighter("lsif", N_TRAIN, N_VAL, warmup_steps=0)
    with recording() as recorded:
        steps(reweighter, 0, [8] * 4)
        before = {name: value.clone() for name, value in tensors(reweighter).items()}
        train, val, index, val_index = batch(1, 8, 0)
        train[3] = float("nan")
        reweighter.partial_fit(train, val, index, val_index)
        assert recorded and all(torch.equal(before[name], value) for name, value in tensors(reweighter).items())
        with pytest.raises(ValueError, match=rf"training rows \[{int(index[3])}\]"):
            reweighter.check()


def test_copies_and_pickles_go_on_without_the_graphs():
    reweighter = DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_steps=0)
    with recording():
        steps(reweighter, 0, [8] * 4)
        copies = [copy.deepcopy(reweighter), pickle.loads(pickle.dumps(reweighter))]
        states = [tensors(steps(each, 1, [8] * 4)) for each in (reweighter, *copies)]
    for found in states[1:]:
        for entry, value in found.items():
            torch.testing.assert_close(value, states[0][entry])


def test_a_module_that_holds_the_reweighter_loads_it():
    """The host has seen on the CPU that the bank is full, and the loaded bank is not."""
    made = [DynamicReweighter("lsif", N_TRAIN, N_VAL, warmup_steps=0, val_refresh=5) for _ in range(2)]
    made[0].captures = False
    early = [copy.deepcopy(nn.ModuleList([steps(reweighter, 0, [8])]).state_dict()) for reweighter in made]
    for reweighter, state in zip(made, early, strict=True):
        steps(reweighter, 1, [8] * 9)
        with recording() as recorded:
            steps(reweighter, 2, [8] * 5)
            nn.ModuleList([reweighter]).load_state_dict(state)
            steps(reweighter, 3, [8] * 5)
    assert len(recorded) == 2
    for entry, value in tensors(made[0]).items():
        torch.testing.assert_close(tensors(made[1])[entry], value, rtol=1e-5, atol=1e-6)


def test_a_graph_of_steps_in_inference_mode_serves_steps_outside_of_it():
    plain, replayed = (DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_steps=0) for _ in range(2))
    plain.captures = False
    with recording() as recorded:
        for reweighter in (plain, replayed):
            with torch.inference_mode():
                steps(reweighter, 0, [8] * 4)
            steps(reweighter, 1, [8] * 4)
    assert len(recorded) == 1
    for entry, value in tensors(plain).items():
        torch.testing.assert_close(tensors(replayed)[entry], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [KLIEP, KMM])
def test_what_a_fit_of_the_ratio_left_is_no_setting_of_a_step(kind):
    X, y = torch.randn(60, 2).numpy(), [0] * 30 + [1] * 30
    plain, fitted = (DynamicReweighter(ratio, N_TRAIN, N_VAL).steps[0] for ratio in (kind(), kind().fit(X, y)))
    assert plain.settings == fitted.settings and str(plain.ratio.n_steps) in plain.settings


def test_memory_that_a_gpu_writes_is_not_copied():
    late = LateErrors()
    late._on_host = torch.zeros(2, 10)
    assert all(other._on_host is None for other in (copy.deepcopy(late), pickle.loads(pickle.dumps(late))))


def test_shares_are_in_single_precision_inside_autocast():
    def evidence(is_mixed):
        torch.default_generator.manual_seed(0)
        model, reweighter = torch.nn.Linear(6, 3), DynamicReweighter("auto", N_TRAIN, N_VAL, warmup_steps=0)
        x, y = torch.randn(N_TRAIN, 6), torch.arange(N_TRAIN) % 3
        own, other = torch.arange(20), torch.arange(N_VAL)
        slopes = []
        record = reweighter.agreement.record
        reweighter.agreement.record = lambda *args: slopes.append(args) or record(*args)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            reweighter.weighted_loss(model, (x[own], y[own], own), (x[20:32], y[20:32], other))
        found = reweighter.agreement.evidence.clone()
        reweighter.agreement.evidence.zero_()
        record(*slopes[0])
        return found, reweighter.agreement.evidence

    assert torch.equal(*evidence(True))


def test_sizes_that_never_recur_make_no_graph_and_a_refused_capture_is_not_tried_again(monkeypatch):
    tried = []

    def refuse(call, pool, device):
        tried.append(0)
        raise RuntimeError("operation not permitted when stream is capturing")

    reweighter = DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_steps=0)
    with recording() as recorded:
        steps(reweighter, 0, range(3, 30))
        assert not recorded
        monkeypatch.setattr(captured, "_capture", refuse)
        steps(reweighter, 1, [8] * 9)
    assert len(tried) == 1


def doubled(calls, lengths):
    """The values that calls of rows of these lengths write, each twice its row."""
    for number, length in enumerate(lengths):
        row, out = torch.full((length,), float(number)), torch.empty(length)
        out.copy_(calls("double", lambda row: row * 2.0, (row,)))
        assert torch.equal(out, 2.0 * row)


def test_lengths_that_come_later_take_the_place_of_those_that_come_no_more():
    calls = captured.CapturedCalls()
    with recording() as recorded:
        doubled(calls, [*range(1, 17)] * 20)
        assert len(recorded) == 16
        doubled(calls, [*range(20, 25)] * 120)
        assert len(recorded) == 16 + 5
        doubled(calls, [*range(20, 25)] * 9)
    assert len(calls._graphs) == 16 and len(recorded) == 16 + 5


def test_more_lengths_than_there_are_graphs_are_not_captured_again_and_again():
    calls, draws = captured.CapturedCalls(), torch.Generator().manual_seed(0)
    with recording() as recorded:
        doubled(calls, [*range(1, 41)] * 60)
        assert len(recorded) == 16
        doubled(calls, torch.randint(1, 41, (3000,), generator=draws).tolist())
    assert len(recorded) < 60 and len(calls._graphs) == 16


def test_a_frequent_length_among_many_that_never_recur_is_captured():
    calls = captured.CapturedCalls()
    with recording() as recorded:
        doubled(calls, [length for rare in range(10, 300) for length in (5, rare)])
    assert len(recorded) == 1


def test_lengths_that_could_not_be_captured_give_way_too(monkeypatch):
    def refuse(call, pool, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    calls = captured.CapturedCalls()
    with recording() as recorded:
        with monkeypatch.context() as patch:
            patch.setattr(captured, "_capture", refuse)
            doubled(calls, [*range(1, 17)] * 3)
        doubled(calls, [20] * 20)
    assert len(recorded) == 1 and len(calls._graphs) == 16


@pytest.mark.parametrize("name", ["auto", "bank"])
def test_a_loop_trains_alike_with_and_without_graphs(name):
    def trained(captures):
        torch.default_generator.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        reweighter = DynamicReweighter(n_train=N_TRAIN, n_val=N_VAL, warmup_steps=0, **KINDS[name])
        reweighter.captures = captures
        losses = []
        for step in range(9):
            _, _, index, val_index = batch(0, 8, step)
            x, y = torch.randn(N_TRAIN, 6, generator=torch.Generator().manual_seed(1)), torch.arange(N_TRAIN) % 3
            # Two losses are kept until one backward, and graphs leave the first as it was.
            losses.append(reweighter.weighted_loss(model, (x[index], y[index], index), (x[val_index], y[val_index], val_index)))
            if step % 2:
                optimizer.zero_grad()
                (losses[-1] + losses[-2]).backward()
                optimizer.step()
        return [loss.detach() for loss in losses], tensors(reweighter), tensors(model)

    with recording() as recorded:
        plain, replayed = (trained(captures) for captures in (False, True))
    assert len(recorded) == (2 if name == "auto" else 1)
    torch.testing.assert_close(replayed, plain, rtol=1e-4, atol=1e-5)
