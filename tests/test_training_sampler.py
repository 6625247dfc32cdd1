"""A sampler that draws rows in proportion to their weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from two_step_cases import N, fitted_ratio, table

from densratio.training import Indexed, importance_sampler


def drawn(sampler, n):
    return np.bincount(list(sampler), minlength=n)


@pytest.mark.parametrize("kind", [np.asarray, np.float32, torch.tensor, lambda w: torch.tensor(w, requires_grad=True), list])
def test_rows_are_drawn_in_proportion_to_their_weights(kind):
    weights = np.array([0.5, 0.0, 1.5, 3.0, 0.25])
    sampler = importance_sampler(kind(weights), num_samples=20_000, generator=torch.Generator().manual_seed(0))
    assert isinstance(sampler, WeightedRandomSampler) and len(sampler) == 20_000
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
        (([],), "weights must have 1 to 16777216 entries.*got 0"),
        ((np.ones(2**24 + 1, dtype=np.int8),), "weights must have 1 to 16777216 entries.*got 16777217"),
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
