"""Rows ranked by how likely their labels are wrong."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_cases import N_TRAIN, N_VAL, Log, losses, new, step, uniform
from torch import nn
from torch.nn.functional import cross_entropy

from densratio.training import LiLAW, Monitor, RandomWeights, Uniform, ValidationOnly, suspicious_rows
from densratio.training.loop.row_batch import RowBatch
from densratio.training.loop.row_losses import RowLosses

drawn = settings(max_examples=25, deadline=None)

# ---------------------------------------------------------------- the mean loss of each row


def test_the_mean_loss_counts_a_visit_by_its_epoch():
    reweighter = new(n_train=4, n_val=4)
    first, second, third = (torch.tensor(x) for x in ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0], [8.0, 1.0]))
    val = losses(4, 9)
    for train, index in ((first, [0, 1, 2, 3]), (second, [3, 0]), (third, [2, 3])):
        reweighter.partial_fit(train, val, index, range(len(val)))
    # Epochs 1 + rows seen / 4: 1, 2 and 2.5.
    expected = [(1 * 1 + 2 * 6) / 3, 2.0, (1 * 3 + 2.5 * 8) / 3.5, (1 * 4 + 2 * 5 + 2.5 * 1) / 5.5]
    assert reweighter.row_losses.means().tolist() == pytest.approx(expected, rel=1e-6)
    assert suspicious_rows(reweighter).tolist() == [2, 0, 3, 1]


def test_a_row_that_stands_twice_counts_with_both_losses():
    record = RowLosses(3)
    record.record(torch.tensor([1.0, 5.0, 2.0]), RowBatch.held(torch.tensor([0, 0, 2])), 1.0)
    assert record.means()[[0, 2]].tolist() == [3.0, 2.0]
    assert bool(record.means()[1].isnan())


def test_losses_of_the_warm_up_count_and_a_row_out_of_the_batch_keeps_its_mean():
    reweighter = new(warmup_epochs=1.0)
    step(reweighter, 3)
    before = reweighter.row_losses.means().clone()
    assert before.tolist() == pytest.approx(losses(N_TRAIN, 3).tolist())
    step(reweighter, 4, [1, 2])
    rest = [i for i in range(N_TRAIN) if i not in (1, 2)]
    assert torch.equal(reweighter.row_losses.means()[rest], before[rest])
    assert not torch.equal(reweighter.row_losses.means()[[1, 2]], before[[1, 2]])


def test_weighted_loss_records_losses_and_not_what_is_compared_in_their_place():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    x, y, i = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1]), torch.arange(5)
    expected = cross_entropy(model(x), y, reduction="none").tolist()
    for params in ({}, {"layer": "0"}, {"transformation": lambda prediction, label, losses: -losses}):
        reweighter = new("kmm", 5, 5, **params)
        reweighter.weighted_loss(model, (x, y, i), (x, y, i))
        assert reweighter.row_losses.means().tolist() == pytest.approx(expected, rel=1e-5)


def test_partial_fit_takes_the_losses_beside_features():
    features, told = torch.rand(3, 2), torch.tensor([3.0, 1.0, 2.0])
    reweighter = new(n_train=3, n_val=3).partial_fit(features, features, [0, 1, 2], [0, 1, 2], losses=told)
    assert suspicious_rows(reweighter).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match=r"losses must be \(3,\), one for each row of train; got shape \(2,\)"):
        reweighter.partial_fit(features, features, [0, 1, 2], [0, 1, 2], losses=told[:2])


def test_losses_beside_features_that_are_no_numbers_are_left_out():
    features, told = torch.rand(3, 2), torch.tensor([3.0, float("nan"), float("inf")])
    reweighter = new(n_train=3, n_val=3)
    for values in (torch.tensor([1.0, 2.0, 4.0]), told):
        reweighter.partial_fit(features, features, [0, 1, 2], [0, 1, 2], losses=values)
    assert reweighter.row_losses.means().tolist() == pytest.approx([(1 * 1 + 2 * 3) / 3, 2.0, 4.0])


def test_a_batch_that_cannot_be_used_leaves_the_means_to_the_bit():
    reweighter = step(new())
    before = reweighter.row_losses.means().clone()
    with pytest.raises(ValueError, match="NaN or infinity"):
        reweighter.partial_fit(torch.full((N_TRAIN,), float("nan")), losses(N_VAL, 1), range(N_TRAIN))
    assert torch.equal(reweighter.row_losses.means(), before)
    record = RowLosses(2)
    record.record(torch.tensor([1.0, 2.0]), RowBatch.held(torch.tensor([0, 1])), 1.0)
    record.record(torch.tensor([float("nan"), 7.0]), RowBatch.held(torch.tensor([0, 1]), torch.tensor(False)), 2.0)
    assert record.means().tolist() == [1.0, 2.0]


# ---------------------------------------------------------------- the ranking


means = st.lists(st.integers(0, 5), min_size=1, max_size=20)


def with_means(values, visited=None):
    """A reweighter whose rows had these losses, some of them never."""
    reweighter = new(n_train=len(values))
    visited = range(len(values)) if visited is None else visited
    at = torch.tensor([*visited], dtype=torch.int64)
    reweighter.row_losses.record(torch.tensor(values, dtype=torch.float32)[at], RowBatch.held(at), 1.0)
    return reweighter


@given(values=means)
@drawn
def test_the_ranking_is_a_permutation_from_the_highest_mean_to_the_lowest_with_ties_in_order(values):
    rows = suspicious_rows(with_means(values))
    assert isinstance(rows, np.ndarray) and np.issubdtype(rows.dtype, np.integer)
    assert rows.tolist() == sorted(range(len(values)), key=lambda i: (-values[i], i))


@given(values=means, k=st.integers(1, 20))
@drawn
def test_scores_are_the_mean_losses_in_the_order_of_the_rows(values, k):
    k, reweighter = min(k, len(values)), with_means(values)
    rows, scores = suspicious_rows(reweighter, k, return_scores=True)
    assert rows.tolist() == suspicious_rows(reweighter, k).tolist() and scores.tolist() == [values[row] for row in rows]


def test_scores_are_less_the_lower_quartile_of_the_class_and_nan_for_rows_never_visited():
    reweighter = with_means([1, 1, 5, 10, 10, 11], visited=[0, 1, 2, 3, 4])
    rows, scores = suspicious_rows(reweighter, labels=list("aaabbb"), return_scores=True)
    assert rows.tolist() == [2, 0, 1, 3, 4, 5] and scores[:5].tolist() == [4.0, 0.0, 0.0, 0.0, 0.0] and np.isnan(scores[5])


@given(values=st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True), seed=st.integers(0, 1000))
@drawn
def test_reordering_the_rows_reorders_the_ranking(values, seed):
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = suspicious_rows(with_means([values[i] for i in order]))
    assert order[shuffled].tolist() == suspicious_rows(with_means(values)).tolist()


@given(values=means, data=st.data())
@drawn
def test_k_rows_are_the_first_of_all(values, data):
    k = data.draw(st.integers(1, len(values)))
    reweighter = with_means(values)
    assert suspicious_rows(reweighter, k).tolist() == suspicious_rows(reweighter).tolist()[:k]


def test_rows_never_visited_come_last_in_their_order():
    assert suspicious_rows(with_means([0, 9, 1, 9, 2], visited=[0, 2, 4])).tolist() == [4, 2, 0, 1, 3]


def test_with_labels_a_row_is_held_against_the_lower_quartile_of_its_class():
    # Class "hard" has losses 10 to 14, lower quartile 11; class "easy" 0 to 6, lower quartile 0.
    values, labels = [10, 11, 12, 13, 14, 0, 0, 0, 6, 2], ["hard"] * 5 + ["easy"] * 5
    assert suspicious_rows(with_means(values), 3).tolist() == [4, 3, 2]
    scores = [-1, 0, 1, 2, 3, 0, 0, 0, 6, 2]
    ranked = sorted(range(10), key=lambda i: (-scores[i], i))
    assert suspicious_rows(with_means(values), labels=labels).tolist() == ranked


def test_with_labels_a_class_never_visited_comes_last():
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert suspicious_rows(with_means([1, 5, 9, 9, 3], visited=[0, 1, 4]), labels=labels).tolist() == [1, 4, 0, 2, 3]


def test_where_only_features_were_told_the_weights_rank_the_least_first():
    reweighter, features = new(), torch.rand(N_TRAIN, 2, generator=torch.Generator().manual_seed(0))
    reweighter.partial_fit(features, features[:N_VAL] / 2, range(N_TRAIN), range(N_VAL))
    weights = reweighter.weights_.tolist()
    assert len(set(weights)) > 1
    assert suspicious_rows(reweighter).tolist() == sorted(range(N_TRAIN), key=lambda i: (weights[i], i))


def test_a_reweighter_without_losses_ranks_by_its_weights_and_equal_ones_do_not_rank():
    assert suspicious_rows(uniform([0.5, 2.0, 0.0])).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="nothing to rank by"):
        suspicious_rows(Uniform(3))
    with pytest.raises(ValueError, match="nothing to rank by"):
        suspicious_rows(new())


def test_a_reweighter_that_is_warming_up_says_so():
    reweighter = new(warmup_epochs=1.0)
    step(reweighter, 0, range(N_TRAIN - 1))
    with pytest.raises(ValueError, match="still warming up"):
        suspicious_rows(reweighter)
    step(reweighter, 1, [0])
    assert suspicious_rows(reweighter).tolist()[-1] == N_TRAIN - 1


@pytest.mark.parametrize("k", [0, -1, 4, 2.0, True])
def test_k_must_be_a_number_of_rows(k):
    with pytest.raises(ValueError, match="k must be an int from 1 to 3"):
        suspicious_rows(with_means([1, 2, 3]), k)


def test_labels_must_be_one_for_each_row():
    with pytest.raises(ValueError, match=r"labels must be \(3,\).*got shape \(2,\)"):
        suspicious_rows(with_means([1, 2, 3]), labels=[0, 1])


@pytest.mark.parametrize(
    "labels", [["a", None, None], [1.0, float("nan"), float("nan")], np.array(["a", None, np.nan], dtype=object)]
)
def test_a_row_without_a_label_is_told(labels):
    with pytest.raises(ValueError, match="2 have none, the first is row 1"):
        suspicious_rows(with_means([1, 2, 3]), labels=labels)


def test_labels_of_several_types_are_classes():
    labels = np.array([("a", 1), 1, "a", ("a", 1), 1], dtype=object)
    assert suspicious_rows(with_means([5, 1, 7, 9, 1]), labels=labels).tolist() == [3, 1, 2, 4, 0]


def baseline(kind, n=N_TRAIN):
    return kind(n, loss=lambda prediction, label: prediction[:, 0])


@pytest.mark.parametrize("kind", [Uniform, RandomWeights, ValidationOnly])
def test_baselines_rank_by_the_mean_loss_of_each_row_and_keep_it(kind):
    reweighter, resumed = baseline(kind), baseline(kind)
    total, mass = np.zeros(N_TRAIN), np.zeros(N_TRAIN)
    for epoch in range(3):
        x = losses(N_TRAIN, epoch)[:, None]
        reweighter.weighted_loss(nn.Identity(), (x, x, torch.arange(N_TRAIN)), (x[:4], x[:4], torch.arange(4)))
        total, mass = total + (1 + epoch) * x[:, 0].numpy(), mass + 1 + epoch
        stored = io.BytesIO()
        torch.save(reweighter.state_dict(), stored)
        stored.seek(0)
        resumed.load_state_dict(torch.load(stored, weights_only=True))
    np.testing.assert_allclose(reweighter.row_losses.means(), total / mass, rtol=1e-5)
    assert suspicious_rows(reweighter).tolist() == np.argsort(-total, kind="stable").tolist()
    assert suspicious_rows(resumed).tolist() == suspicious_rows(reweighter).tolist() and resumed.epoch == 3


def test_validation_only_looks_at_training_rows_without_a_trace():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    twin = copy.deepcopy(model)
    x, y, i = torch.randn(8, 2), torch.tensor([0, 1] * 4), torch.arange(8)
    torch.default_generator.manual_seed(0)
    loss = ValidationOnly(8).weighted_loss(model, (x, y, i), (x + 1, y, i))
    torch.default_generator.manual_seed(0)
    expected = cross_entropy(twin(x + 1), y)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))
    loss.backward()
    expected.backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif", "wasserstein", "auto"])
def test_a_run_that_stops_and_resumes_ranks_the_same(name):
    whole, stopped, resumed = new(name), new(name), new(name)
    for seed in range(6):
        step(whole, seed)
    for seed in range(3):
        step(stopped, seed)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        step(resumed, seed)
    assert torch.equal(resumed.row_losses.means(), whole.row_losses.means())
    assert suspicious_rows(resumed).tolist() == suspicious_rows(whole).tolist()


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif", "wasserstein", "uniform"])
def test_flipped_labels_of_two_clouds_come_first(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = torch.tensor(rng.normal(6.0 * y[:, None] - 3.0, 1.0, (300, 2)), dtype=torch.float32)
    flipped = rng.choice(200, 60, replace=False)
    noisy = torch.tensor(np.where(np.isin(np.arange(300), flipped), 1 - y, y))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = nn.Linear(2, 2)
    reweighter = Uniform(200) if name == "uniform" else new(name, 200, 100, warmup_epochs=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    val = (x[200:], noisy[200:], torch.arange(100))
    for _ in range(15):
        for i in torch.tensor(rng.permutation(200)).split(50):
            optimizer.zero_grad()
            reweighter.weighted_loss(model, (x[i], noisy[i], i), val).backward()
            optimizer.step()
    assert set(suspicious_rows(reweighter, 60).tolist()) == set(flipped.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_recording_losses_and_counting_steps_do_not_wait():
    record, reweighter = RowLosses(8).to("cuda"), Uniform(8).to("cuda")
    monitor = Monitor(Log(), every=3)
    told, at, is_usable = torch.rand(4, device="cuda"), torch.arange(4, device="cuda"), torch.tensor(True, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for epoch in (1.0, 2.0):
            record.record(told, RowBatch.held(at, is_usable), epoch)
            monitor.step(reweighter, at)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert record.means()[:4].tolist() == pytest.approx(told.tolist())


# ---------------------------------------------------------------- LiLAW's easy part


@drawn
@given(seed=st.integers(0, 999), visited=st.integers(1, 12))
def test_the_easy_part_ranks_by_the_formula_and_rows_never_visited_come_last(seed, visited):
    draw = torch.Generator().manual_seed(seed)
    model = nn.Linear(3, 4)
    x, y, i = torch.randn(visited, 3, generator=draw), torch.randint(4, (visited,), generator=draw), torch.arange(visited)
    reweighter = LiLAW(12, warmup_epochs=0.0, learning_rate=0.0)
    reweighter.weighted_loss(model, (x, y, i), (x, y, i))
    softmax = torch.softmax(model(x).detach(), dim=1)
    easy = torch.sigmoid(10.0 * softmax[i, y] - softmax.amax(dim=1))
    rows, scores = suspicious_rows(reweighter, by="easy", return_scores=True)
    assert rows[visited:].tolist() == list(range(visited, 12)) and np.isnan(scores[visited:]).all()
    np.testing.assert_allclose(-scores[:visited], easy[rows[:visited]], rtol=1e-5)
    assert (np.diff(scores[:visited]) <= 0).all()


@pytest.mark.parametrize(
    ("reweighter", "by", "words"),
    [
        (new(), "easy", "ranks by a part of the weights of LiLAW, and DynamicReweighter has none: train with LiLAW, or"),
        (LiLAW(3, warmup_epochs=0.0), "easy", "nothing to rank by: no row was in a batch"),
        (new(), "alpha", 'by must be "losses" or "easy"; got .alpha.'),
    ],
)
def test_what_can_not_be_ranked_by_is_told(reweighter, by, words):
    with pytest.raises(ValueError, match=words):
        suspicious_rows(reweighter, by=by)
