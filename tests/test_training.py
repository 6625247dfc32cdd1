"""The training room: weights that follow the losses, batch by batch, and that survive a stop."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset

from densratio import KLIEP
from densratio.demo.methods import METHODS
from densratio.estimators import IN_LOOPS
from densratio.training import DynamicReweighter, Indexed, RandomWeights, Reweighter, Uniform, ValidationOnly, endless

NAMES = sorted(IN_LOOPS)
STORES_COEF = ["kliep", "lsif"]
N_TRAIN, N_VAL = 20, 10

by_name = pytest.mark.parametrize("name", NAMES)
drawn = settings(max_examples=15, deadline=None)


def new(name, n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **{"warmup_epochs": 0, **params})


def losses(n, seed, scale=1.0):
    return scale * torch.rand(n, generator=torch.Generator().manual_seed(seed))


def warm(name, steps=3, **params):
    """A reweighter that has seen some whole batches."""
    reweighter = new(name, **params)
    for seed in range(steps):
        reweighter.partial_fit(losses(N_TRAIN, seed, 2.0), losses(N_VAL, 100 + seed), torch.arange(N_TRAIN))
    return reweighter


def tensors(reweighter):
    return {key: value.clone() for key, value in reweighter.state_dict().items() if isinstance(value, torch.Tensor)}


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


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
    plain = {"regularization": 0.0} if name == "kmm" else {}
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


def network(seed=0, norm=None):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), *([norm] if norm else []), nn.ReLU(), nn.Linear(8, 3))


def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator), torch.randint(3, (n,), generator=generator)


TRAIN, VAL = data(N_TRAIN, 0), data(N_VAL, 1)


def plan(n_batches, seed):
    """The (index, val_index) of each batch of a run, drawn ahead so that a resumed run continues it."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(N_TRAIN, (7,), generator=generator), torch.randperm(N_VAL, generator=generator)[:6])
        for _ in range(n_batches)
    ]


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


def test_a_state_of_another_method_is_refused_by_the_name_of_its_bank():
    with pytest.raises(RuntimeError, match=r"Unexpected key.*coef_"):
        new("kmm").load_state_dict(warm("kliep").state_dict())


# ---------------------------------------------------------------- the one line


def gradients(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@by_name
def test_weighted_loss_is_the_loop_of_the_design_by_hand(name):
    model, twin = network(), network()
    reweighter, by_hand = new(name), new(name)
    for i, j in plan(4, 5):
        x, y, x_val, y_val = TRAIN[0][i], TRAIN[1][i], VAL[0][j], VAL[1][j]
        model.zero_grad()
        loss = reweighter.weighted_loss(model, (x, y, i), (x_val, y_val, j))
        loss.backward()

        twin.zero_grad()
        rows = cross_entropy(twin(x), y, reduction="none")
        with torch.no_grad():
            val_rows = cross_entropy(twin(x_val), y_val, reduction="none")
        w = by_hand.partial_fit(rows, val_rows, index=i, val_index=j).transform(i)
        expected = (w * rows).mean()
        expected.backward()

        assert loss.shape == () and torch.equal(loss, expected)
        assert torch.equal(gradients(model), gradients(twin))
        assert same_bits(tensors(reweighter), tensors(by_hand))


@by_name
def test_a_loss_of_ones_own_takes_the_place_of_cross_entropy(name):
    def squared(prediction, label):
        return (prediction[:, 0] - label) ** 2

    model, index, val_index = network(), torch.arange(N_TRAIN), torch.arange(N_VAL)
    reweighter, by_hand = new(name, loss=squared), new(name)
    loss = reweighter.weighted_loss(model, (*TRAIN, index), (*VAL, val_index))
    rows, val_rows = (squared(model(x), y).detach() for x, y in (TRAIN, VAL))
    w = by_hand.partial_fit(rows, val_rows, index).transform(index)
    assert loss.item() == pytest.approx((w * rows).mean().item(), rel=1e-6)
    assert not torch.equal(w, torch.ones(N_TRAIN))


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(8), nn.BatchNorm1d(8, momentum=None), nn.InstanceNorm1d(8, track_running_stats=True)],
    ids=["batch", "batch, cumulative", "instance"],
)
def test_the_validation_pass_leaves_running_statistics_and_the_mode_of_the_model_alone(norm):
    if isinstance(norm, nn.InstanceNorm1d):
        norm = nn.Sequential(nn.Unflatten(1, (8, 1)), _Tiled(), norm, nn.Flatten(), nn.Linear(16, 8))
    model, twin = _copy(network(norm=norm)).train(), _copy(network(norm=norm)).train()
    new("kmm").weighted_loss(model, (*TRAIN, torch.arange(N_TRAIN)), (VAL[0] + 100.0, VAL[1], torch.arange(N_VAL)))
    twin(TRAIN[0])
    buffers = dict(model.named_buffers())
    assert len(buffers) == 3 and same_bits(buffers, dict(twin.named_buffers()))
    assert all(module.training and getattr(module, "track_running_stats", True) for module in model.modules())


class _Tiled(nn.Module):
    def forward(self, x):
        return torch.cat([x, 2 * x + 1], dim=2)


def _copy(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_running_statistics_are_recorded_again_after_a_validation_pass_that_raised():
    model = network(norm=nn.BatchNorm1d(8)).train()
    with pytest.raises(IndexError):
        new("kmm").weighted_loss(model, (*TRAIN, torch.arange(N_TRAIN)), (VAL[0], VAL[1] + 7, torch.arange(N_VAL)))
    before = model[1].running_mean.clone()
    model(TRAIN[0] + 5.0)
    assert not torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_are_swapped_by_name_in_the_same_line(name):
    reweighter, model = METHODS[name](N_TRAIN, N_VAL, 0), network()
    assert isinstance(reweighter, Reweighter)
    for i, j in plan(6, 2):
        model.zero_grad()
        loss = reweighter.weighted_loss(model, (TRAIN[0][i], TRAIN[1][i], i), (VAL[0][j], VAL[1][j], j))
        assert loss.shape == () and bool(torch.isfinite(loss))
        loss.backward()
        assert float(gradients(model).abs().sum()) > 0
    w = reweighter.weights_
    assert w.shape == (N_TRAIN,) and bool(torch.isfinite(w).all()) and float(w.min()) >= 0


# ---------------------------------------------------------------- what it is compared with

WHOLE = (*TRAIN, torch.arange(N_TRAIN)), (*VAL, torch.arange(N_VAL))


def test_uniform_is_plain_training():
    model, reweighter = network(), Uniform(N_TRAIN)
    assert torch.allclose(reweighter.weighted_loss(model, *WHOLE), cross_entropy(model(TRAIN[0]), TRAIN[1]), rtol=1e-6)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


def test_validation_only_learns_the_validation_batch_and_nothing_else():
    model, reweighter = network(), ValidationOnly(N_TRAIN)
    loss = reweighter.weighted_loss(model, *WHOLE)
    assert torch.allclose(loss, cross_entropy(model(VAL[0]), VAL[1]), rtol=1e-6)
    assert torch.equal(reweighter.transform(torch.arange(N_TRAIN)), torch.zeros(N_TRAIN))


def test_random_weights_are_rectified_normals_of_mean_one_drawn_anew():
    model, reweighter = network(), RandomWeights(N_TRAIN, seed=4)
    rows = cross_entropy(model(TRAIN[0]), TRAIN[1], reduction="none")
    drawn_weights = []
    for _ in range(2):
        loss = reweighter.weighted_loss(model, *WHOLE)
        w = reweighter.transform(torch.arange(N_TRAIN))
        assert float(w.min()) == 0.0 and float(w.mean()) == pytest.approx(1.0, abs=1e-6)
        assert loss.item() == pytest.approx((w * rows).mean().item(), rel=1e-6)
        drawn_weights.append(w)
    assert not torch.equal(*drawn_weights)


def test_random_weights_follow_their_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (RandomWeights(N_TRAIN, seed=seed) for seed in (1, 1, 2))
    for reweighter in (one, same, other):
        reweighter.weighted_loss(network(), *WHOLE)
    assert torch.equal(one.weights_, same.weights_) and not torch.equal(one.weights_, other.weights_)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_without_a_positive_draw_trains_with_even_weights():
    model, index = network(), torch.tensor([0])
    seen = set()
    reweighter = RandomWeights(N_TRAIN)
    for _ in range(20):
        reweighter.weighted_loss(model, (TRAIN[0][:1], TRAIN[1][:1], index), WHOLE[1])
        seen.add(float(reweighter.weights_[0]))
    assert seen == {1.0}


# ---------------------------------------------------------------- indices and endless batches


class Rows(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (("x", "y"), ("x", "y", 0)),
        (["x", "y"], ("x", "y", 0)),
        ("x", ("x", 0)),
        (("x",), ("x", 0)),
        (("x", "y", "z"), ("x", "y", "z", 0)),
    ],
    ids=repr,
)
def test_indexed_puts_the_row_number_last(item, expected):
    assert Indexed(Rows([item]))[0] == expected


def test_a_loader_of_indexed_gives_the_rows_that_its_indices_name():
    indexed = Indexed(TensorDataset(*TRAIN))
    assert len(indexed) == N_TRAIN
    seen = []
    for x, y, i in DataLoader(indexed, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(0)):
        assert torch.equal(x, TRAIN[0][i]) and torch.equal(y, TRAIN[1][i])
        seen += i.tolist()
    assert sorted(seen) == list(range(N_TRAIN)) and seen != sorted(seen)


@pytest.mark.parametrize("stream", [iter([1, 2]), (x for x in "ab"), 3], ids=lambda s: type(s).__name__)
def test_indexed_refuses_what_has_no_row_numbers(stream):
    with pytest.raises(TypeError, match=f"map-style.*got {type(stream).__name__}"):
        Indexed(stream)


def test_endless_gives_each_row_once_a_pass_and_shuffles_every_pass_anew():
    loader = DataLoader(torch.arange(12), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    source = endless(loader)
    passes = [torch.cat([next(source) for _ in range(3)]).tolist() for _ in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_endless_of_nothing_says_why():
    empty = DataLoader(torch.arange(3), batch_size=5, drop_last=True)
    with pytest.raises(ValueError, match=r"no batches.*drop_last=True.*batch_size"):
        next(endless(empty))


def test_a_deep_copy_and_a_moved_module_keep_their_weights():
    reweighter = warm("kliep")
    moved = _copy(reweighter).to("cpu").to(torch.float64)
    assert torch.equal(moved.weights_, reweighter.weights_.double()) and moved.coef_.dtype == torch.float64
    w = moved.partial_fit(losses(4, 0), losses(N_VAL, 1), torch.arange(4)).transform(torch.arange(4))
    assert w.dtype == torch.float64 and float(w.mean()) == pytest.approx(1.0)
