"""Weights that follow the losses, batch by batch, and that survive a stop."""

from __future__ import annotations

import inspect
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import N_TRAIN, N_VAL, NAMES, TRAIN, VAL, by_name, losses, network, new, plan, same_bits, tensors, warm

import densratio.training
from densratio import KLIEP
from densratio.estimators import IN_LOOPS
from densratio.training import DynamicReweighter, RandomWeights, Reweighter

KINDS = [kind for kind in vars(densratio.training).values() if inspect.isclass(kind) and issubclass(kind, Reweighter)]
STORES_COEF = ["kliep", "lsif"]
drawn = settings(max_examples=15, deadline=None)


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# ---------------------------------------------------------------- the weights of a batch


batches = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=n, max_size=n),
        st.lists(st.integers(0, N_TRAIN - 1), min_size=n, max_size=n),
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=N_VAL, max_size=N_VAL),
    )
)


@by_name
@given(first=batches, second=batches)
@drawn
def test_weights_of_any_finite_batch_are_nonnegative_with_mean_one_and_detached(name, first, second):
    reweighter = new(name)
    for train, index, val in (first, second):
        train = torch.tensor(train, requires_grad=True)
        w = reweighter.partial_fit(train, torch.tensor(val, requires_grad=True), torch.tensor(index)).transform(index)
        assert w.shape == (len(index),) and not w.requires_grad and not reweighter.weights_.requires_grad
        assert bool(torch.isfinite(w).all()) and float(w.min()) >= 0
        assert float(w.mean()) == pytest.approx(1.0, abs=1e-5)


@by_name
def test_partial_fit_returns_the_reweighter_and_transform_reads_the_stored_vector(name):
    reweighter = new(name)
    assert reweighter.partial_fit(losses(6, 0), losses(N_VAL, 1), torch.arange(6)) is reweighter
    assert reweighter.weights_.shape == (N_TRAIN,)
    w = reweighter.transform(torch.tensor([4, 0]))
    assert torch.equal(w, reweighter.weights_[[4, 0]])
    w.zero_()
    assert float(reweighter.weights_[4]) > 0


@by_name
def test_rows_out_of_the_batch_keep_their_weights_and_coefficients_to_the_bit(name):
    reweighter = warm(name)
    before = tensors(reweighter)
    index, val_index = torch.tensor([3, 11, 7, 0]), torch.tensor([8, 1, 5])
    reweighter.partial_fit(losses(4, 7, 3.0), losses(3, 8), index, val_index)
    after = tensors(reweighter)
    rest = torch.ones(N_TRAIN, dtype=torch.bool).index_fill_(0, index, False)
    assert torch.equal(after["weights_"][rest], before["weights_"][rest])
    assert not torch.equal(after["weights_"][index], before["weights_"][index])
    if name in STORES_COEF:
        rest = torch.ones(N_VAL, dtype=torch.bool).index_fill_(0, val_index, False)
        assert torch.equal(after["steps.0.coef_"][rest], before["steps.0.coef_"][rest])
        assert not torch.equal(after["steps.0.coef_"][val_index], before["steps.0.coef_"][val_index])


@by_name
@given(seed=st.integers(0, 2**31 - 1))
@drawn
def test_the_order_of_the_rows_in_a_batch_does_not_matter(name, seed):
    generator = torch.Generator().manual_seed(seed)
    train, val = losses(N_TRAIN, seed, 2.0).double(), losses(N_VAL, seed + 1).double()
    order, val_order = torch.randperm(N_TRAIN, generator=generator), torch.randperm(N_VAL, generator=generator)
    plain, shuffled = warm(name).double(), warm(name).double()
    plain.partial_fit(train, val, torch.arange(N_TRAIN), torch.arange(N_VAL))
    shuffled.partial_fit(train[order], val[val_order], order, val_order)
    for key, value in tensors(plain).items():
        assert torch.allclose(tensors(shuffled)[key], value, rtol=1e-6, atol=1e-7)


@by_name
def test_a_row_that_stands_twice_gets_the_mean_of_its_two_weights(name):
    train, val = torch.linspace(0, 2, 5), losses(N_VAL, 1)
    apart = new(name).partial_fit(train, val, torch.tensor([0, 1, 2, 3, 4])).weights_
    twice = new(name).partial_fit(train, val, torch.tensor([0, 1, 2, 3, 0])).weights_
    assert apart[0] != apart[4]
    assert float(twice[0]) == pytest.approx(float(apart[0] + apart[4]) / 2, rel=1e-6)
    assert torch.equal(twice[1:4], apart[1:4])


@pytest.mark.parametrize("name", STORES_COEF)
def test_a_validation_row_that_stands_twice_gets_the_mean_of_its_two_coefficients(name):
    train, val = losses(N_TRAIN, 0, 2.0), torch.linspace(0, 1, 4)
    apart = new(name).partial_fit(train, val, torch.arange(N_TRAIN), torch.tensor([0, 1, 2, 3])).coef_
    twice = new(name).partial_fit(train, val, torch.arange(N_TRAIN), torch.tensor([0, 1, 2, 0])).coef_
    assert apart[0] != apart[3]
    assert float(twice[0]) == pytest.approx(float(apart[0] + apart[3]) / 2, rel=1e-6)
    assert torch.equal(twice[1:3], apart[1:3])


@by_name
def test_the_stored_entries_of_the_batch_are_the_start_of_its_step(name):
    cold, warmed = new(name), warm(name)
    args = (losses(N_TRAIN, 7, 2.0), losses(N_VAL, 8), torch.arange(N_TRAIN))
    assert not torch.allclose(cold.partial_fit(*args).weights_, warmed.partial_fit(*args).weights_, atol=1e-3)


@by_name
def test_one_column_and_no_column_are_the_same(name):
    flat, column = warm(name), warm(name)
    train, val, index = losses(6, 7, 2.0), losses(N_VAL, 8), torch.arange(6)
    flat.partial_fit(train, val, index)
    column.partial_fit(train[:, None], val[:, None], index)
    assert same_bits(tensors(flat), tensors(column))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "wasserstein"])
def test_rows_of_several_columns_are_features(name):
    generator = torch.Generator().manual_seed(0)
    train, val = torch.rand(N_TRAIN, 3, generator=generator), torch.rand(N_VAL, 3, generator=generator)
    train[:10] += 3.0
    reweighter = new(name)
    for _ in range(10):
        reweighter.partial_fit(train, val, torch.arange(N_TRAIN))
    assert float(reweighter.weights_[:10].max()) < 1.0 < float(reweighter.weights_[10:].mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@by_name
def test_half_precision_losses_are_those_losses_in_single_precision(name, dtype):
    half, single = new(name), new(name)
    train, val = losses(N_TRAIN, 0, 2.0).to(dtype), losses(N_VAL, 1).to(dtype)
    for _ in range(3):
        half.partial_fit(train, val, torch.arange(N_TRAIN))
        single.partial_fit(train.float(), val.float(), torch.arange(N_TRAIN))
    assert same_bits(tensors(half), tensors(single))
    assert half.weights_.dtype == torch.float32 and not torch.equal(half.weights_, torch.ones(N_TRAIN))


@pytest.mark.parametrize("index", [np.array([2, 0, 5]), [2, 0, 5], torch.tensor([2, 0, 5], dtype=torch.int32)], ids=type)
@by_name
def test_an_index_may_be_a_list_an_array_or_a_tensor(name, index):
    expected = new(name).partial_fit(losses(3, 0), losses(N_VAL, 1), torch.tensor([2, 0, 5]))
    got = new(name).partial_fit(losses(3, 0), losses(N_VAL, 1), index)
    assert same_bits(tensors(got), tensors(expected))
    assert torch.equal(got.transform(index), expected.transform(torch.tensor([2, 0, 5])))


@by_name
def test_rows_of_high_loss_get_lower_weights_than_rows_of_low_loss(name):
    low, high = 0.2 + 0.1 * losses(10, 0), 3.0 + losses(10, 1)
    val, reweighter = 0.2 + 0.1 * losses(N_VAL, 2), new(name)
    for _ in range(10):
        reweighter.partial_fit(torch.cat([low, high]), val, torch.arange(N_TRAIN))
    assert float(reweighter.weights_[10:].max()) < 0.1
    assert float(reweighter.weights_[:10].mean()) > 1.9


@by_name
def test_an_instance_and_its_name_make_the_same_reweighter(name):
    plain = {"regularization": 0.0} if name in ("kmm", "wasserstein") else {}
    instance = IN_LOOPS[name](gamma="target_spread", **plain)
    assert same_bits(tensors(warm(instance)), tensors(warm(name)))


def test_a_ratio_is_not_fitted_by_the_loop():
    ratio = KLIEP(gamma=1.0)
    warm(ratio)
    assert vars(ratio) == vars(KLIEP(gamma=1.0))


# ---------------------------------------------------------------- no wait for the device


@pytest.mark.parametrize("gamma", [0.7, "median", "target_spread"])
@pytest.mark.parametrize("start", ["cold", "warm"])
@by_name
def test_a_step_runs_on_meta_tensors_so_nothing_in_it_waits_for_a_gpu(name, start, gamma):
    source, target = torch.empty(6, 1, device="meta"), torch.empty(5, 1, device="meta")
    coef = torch.empty(5 if name in STORES_COEF else 6, device="meta") if start == "warm" else None
    update = IN_LOOPS[name](gamma=gamma, n_steps=3).update(source, target, coef)
    assert update.weights.device.type == update.coef.device.type == "meta"
    assert update.weights.shape == (6,) and update.coef.shape == (5 if name in STORES_COEF else 6,)


# ---------------------------------------------------------------- warm-up


@by_name
def test_weights_are_exactly_one_in_the_first_epoch_and_move_in_the_next(name):
    reweighter = DynamicReweighter(name, N_TRAIN, N_VAL)
    for seed, part in enumerate(torch.arange(N_TRAIN).split(8)):
        assert reweighter.is_warming_up
        reweighter.partial_fit(losses(len(part), seed, 2.0), losses(N_VAL, 50 + seed), part)
        assert torch.equal(reweighter.transform(part), torch.ones(len(part)))
    assert not reweighter.is_warming_up
    reweighter.partial_fit(losses(8, 9, 2.0), losses(N_VAL, 60), torch.arange(8))
    assert not torch.equal(reweighter.transform(torch.arange(8)), torch.ones(8))


@pytest.mark.parametrize(
    ("params", "n_even"),
    [
        ({"warmup_epochs": 0}, 0),
        ({"warmup_epochs": 0.5}, 2),
        ({"warmup_epochs": 2}, 8),
        ({"warmup_steps": 0}, 0),
        ({"warmup_steps": 3}, 3),
        ({"warmup_epochs": 0, "warmup_steps": 5}, 5),
    ],
    ids=str,
)
@by_name
def test_the_warm_up_lasts_exactly_its_epochs_or_steps(name, params, n_even):
    reweighter = DynamicReweighter(name, N_TRAIN, N_VAL, **params)
    even = []
    for step in range(10):
        part = torch.arange(N_TRAIN).split(5)[step % 4]
        reweighter.partial_fit(losses(5, step, 2.0), losses(N_VAL, 50 + step), part)
        even.append(torch.equal(reweighter.transform(part), torch.ones(5)))
    assert even == [True] * n_even + [False] * (10 - n_even)


# ---------------------------------------------------------------- stop and resume


def run(parts, reweighter, model, optimizer):
    for i, j in parts:
        loss = reweighter.weighted_loss(model, (TRAIN[0][i], TRAIN[1][i], i), (VAL[0][j], VAL[1][j], j))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fresh_run(make):
    model = network()
    return make(), model, torch.optim.Adam(model.parameters(), lr=0.05)


def check_resumes_bit_for_bit(make, parts, stop):
    straight = fresh_run(make)
    run(parts, *straight)
    before = fresh_run(make)
    run(parts[:stop], *before)
    after = fresh_run(make)
    for part, state in zip(after, saved_and_loaded([part.state_dict() for part in before]), strict=True):
        part.load_state_dict(state)
    run(parts[stop:], *after)
    assert same_bits(tensors(after[0]), tensors(straight[0]))
    assert same_bits(after[1].state_dict(), straight[1].state_dict())


@by_name
@settings(max_examples=6, deadline=None)
@given(stop=st.integers(0, 8), seed=st.integers(0, 100), warmup=st.sampled_from([{"warmup_epochs": 1}, {"warmup_steps": 3}]))
def test_a_run_that_stops_after_any_batch_and_resumes_gives_the_same_weights_to_the_bit(name, stop, seed, warmup):
    check_resumes_bit_for_bit(lambda: DynamicReweighter(name, N_TRAIN, N_VAL, **warmup), plan(8, seed), stop)


@settings(max_examples=6, deadline=None)
@given(stop=st.integers(0, 5), seed=st.integers(0, 100))
def test_random_weights_resume_to_the_bit(stop, seed):
    check_resumes_bit_for_bit(lambda: RandomWeights(N_TRAIN, seed=seed), plan(5, seed), stop)


@by_name
def test_a_state_of_another_number_of_training_rows_is_refused_with_both_sizes(name):
    other = new(name, n_train=N_TRAIN + 3)
    with pytest.raises(RuntimeError, match=rf"weights_(?s:.*){N_TRAIN}\b(?s:.*){N_TRAIN + 3}\b"):
        other.load_state_dict(warm(name).state_dict())


@pytest.mark.parametrize("name", STORES_COEF)
def test_a_state_of_another_number_of_validation_rows_is_refused_with_both_sizes(name):
    other = new(name, n_val=N_VAL + 3)
    with pytest.raises(RuntimeError, match=rf"coef_(?s:.*){N_VAL}\b(?s:.*){N_VAL + 3}\b"):
        other.load_state_dict(warm(name).state_dict())


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not inspect.isabstract(kind)])
def test_a_missing_argument_is_told_in_the_name_of_the_class_that_was_typed(kind):
    class Mine(kind):
        """A class of one's own."""

    for typed in (kind, Mine):
        with pytest.raises(TypeError, match=rf"{typed.__name__}.__init__\(\) missing"):
            typed()
    assert inspect.signature(Mine) == inspect.signature(kind)
