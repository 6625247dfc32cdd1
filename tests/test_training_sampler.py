"""A sampler that draws rows in proportion to their weights."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils.data import DataLoader, Sampler, TensorDataset
from two_step_cases import N, fitted_ratio, table

from densratio.training import ImportanceSampler, Indexed, importance_sampler


def drawn(sampler, n):
    return np.bincount(list(sampler), minlength=n)


@pytest.mark.parametrize("kind", [np.asarray, np.float32, torch.tensor, lambda w: torch.tensor(w, requires_grad=True), list])
def test_rows_are_drawn_in_proportion_to_their_weights(kind):
    weights = np.array([0.5, 0.0, 1.5, 3.0, 0.25])
    sampler = importance_sampler(kind(weights), num_samples=20_000, generator=torch.Generator().manual_seed(0))
    assert isinstance(sampler, Sampler) and len(sampler) == 20_000
    counts = drawn(sampler, 5)
    expected = 20_000 * weights / weights.sum()
    assert counts[1] == 0
    assert chisquare(np.delete(counts, 1), np.delete(expected, 1)).pvalue > 0.01


def test_the_sampler_serves_a_loader_with_the_weights_of_a_fitted_ratio():
    X = torch.tensor(table()[0])
    ratio = fitted_ratio()
    sampler = importance_sampler(ratio.weights_, num_samples=40 * N, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([i for _, i in DataLoader(Indexed(TensorDataset(X)), batch_size=16, sampler=sampler)]).numpy()
    # The drawn rows' mean is the weighted mean, within four standard errors.
    weighted = np.average(X.numpy(), axis=0, weights=ratio.weights_)
    spread = np.sqrt(np.average((X.numpy() - weighted) ** 2, axis=0, weights=ratio.weights_) / len(rows))
    assert len(rows) == 40 * N
    assert np.all(np.abs(X.numpy()[rows].mean(axis=0) - weighted) < 4 * spread)


def test_a_pass_draws_as_many_rows_as_there_are_and_the_same_under_the_same_seed():
    weights = np.linspace(0.0, 1.0, 7)
    passes = [list(importance_sampler(weights, generator=torch.Generator().manual_seed(3))) for _ in range(2)]
    assert len(passes[0]) == 7 and passes[0] == passes[1]


def test_without_replacement_no_row_comes_twice():
    rows = list(importance_sampler([1.0, 0.0, 1e-3, 9.0], num_samples=np.int64(3), replacement=False))
    assert sorted(rows) == [0, 2, 3]
    with pytest.raises(ValueError, match=r"Only 3 rows have a weight > 0.*num_samples can be at most that; got 4"):
        importance_sampler([1.0, 0.0, 1e-3, 9.0], replacement=False)


@pytest.mark.parametrize("scale", [1e-320, 1e308])
def test_the_scale_of_the_weights_cancels_in_the_sampler(scale):
    sampler = importance_sampler(np.array([1.0, 1.0, 0.0]) * scale, num_samples=2000, generator=torch.Generator().manual_seed(0))
    counts = drawn(sampler, 3)
    assert counts[2] == 0 and chisquare(counts[:2]).pvalue > 0.01


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[1.0]],), r"weights must be \(n,\) real numbers; got shape \(1, 1\)"),
        ((["a"],), r"weights must be \(n,\) real numbers; got shape \(1,\) and dtype <U1"),
        (([],), r"weights must be \(n,\) real numbers; got shape \(0,\)"),
        (([1.0, np.nan],), r"weights must be finite and >= 0; got nan at row 1 \(1 such rows\)"),
        (([1.0, np.inf],), "got inf at row 1"),
        (([-1.0, -2.0],), r"got -1.0 at row 0 \(2 such rows\)"),
        (([0.0, 0.0],), "weights are all 0: there is no row to draw"),
        (([1.0], 0), "num_samples must be an int >= 1 or None; got 0"),
        (([1.0], 1.5), "num_samples must be an int >= 1 or None; got 1.5"),
        (([1.0], True), "num_samples must be an int >= 1 or None; got True"),
    ],
)
def test_a_sampler_of_what_can_not_be_drawn_is_an_error(arguments, words):
    with pytest.raises(ValueError, match=words):
        importance_sampler(*arguments)


# ---------------------------------------------------------------- ranks and epochs


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 23), st.booleans(), st.integers(0, 3))
def test_the_draws_of_the_ranks_are_one_draw_in_turns(n_ranks, n_draws, replacement, epoch):
    weights = np.r_[0.0, np.linspace(0.1, 2.0, 40)]
    ranks = [ImportanceSampler(weights, n_draws, replacement, num_replicas=n_ranks, rank=r, seed=7) for r in range(n_ranks)]
    whole = ImportanceSampler(weights, -(-n_draws // n_ranks) * n_ranks, replacement, num_replicas=1, rank=0, seed=7)
    for sampler in (whole, *ranks):
        sampler.set_epoch(epoch)
    draws = [list(sampler) for sampler in ranks]
    assert {len(draw) for draw in draws} == {len(ranks[0])} and len(ranks[0]) * n_ranks >= n_draws
    assert [draws[i % n_ranks][i // n_ranks] for i in range(len(whole))] == list(whole)


def test_a_pass_is_known_by_its_epoch_and_new_weights_count_from_the_next_one():
    sampler = ImportanceSampler(np.ones(50), seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    sampler.set_weights(torch.eye(50)[3])
    assert set(sampler) == {3} and len(sampler) == 50


def test_without_replacement_the_order_is_that_of_drawing_one_row_after_the_other():
    weights, n = np.array([5.0, 3.0, 1.0, 1.0]), 12_000
    sampler, counts = ImportanceSampler(weights, 3, False), Counter()
    for epoch in range(n):
        sampler.set_epoch(epoch)
        counts[tuple(sampler)] += 1
    orders = list(permutations(range(4), 3))
    left = [[weights.sum() - weights[list(order[:k])].sum() for k in range(3)] for order in orders]
    expected = n * np.prod(weights[np.array(orders)] / left, axis=1)
    assert chisquare([counts[order] for order in orders], expected).pvalue > 0.01


def test_more_rows_than_torch_draws_from_are_drawn_by_weight():
    n = 2**24 + 5
    weights = np.zeros(n, dtype=np.float32)
    weights[[3, n - 2]] = 1.0, 3.0
    counts = Counter(ImportanceSampler(weights, 4000))
    assert set(counts) == {3, n - 2} and chisquare([counts[3], counts[n - 2]], [1000, 3000]).pvalue > 0.01
    assert set(ImportanceSampler(weights, 2, False)) == {3, n - 2}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_replicas": 2, "rank": 2}, "rank must be in 0..num_replicas - 1; got rank=2 and num_replicas=2"),
        ({"num_replicas": 2, "rank": 0, "seed": None}, "seed must be an int where several ranks share a draw; got NoneType"),
        ({"num_replicas": 2, "rank": 0, "num_samples": 3, "replacement": False}, "at most that; got 4 for 2 ranks"),
    ],
)
def test_ranks_that_can_not_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ImportanceSampler([1.0, 2.0, 3.0], **arguments)
