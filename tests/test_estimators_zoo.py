"""What the ratios by classifier, neighbors, kernel densities and Gaussians have in common."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from zoo_cases import logistic, nmse, samples, source_places

from densratio import stack_domains
from densratio.datasets import make_gaussian_shift
from densratio.estimators.discriminator import Discriminator
from densratio.estimators.gaussian import GaussianRatio
from densratio.estimators.kde import KDERatio
from densratio.estimators.nearest_neighbors import NearestNeighborsRatio
from densratio.estimators.samples import Samples, row_counts

ZOO = {
    "discriminator": Discriminator(logistic()),
    "isotonic": Discriminator(logistic(), calibration="isotonic"),
    "gaussian": GaussianRatio(),
    "shared gaussian": GaussianRatio(shared_covariance=True),
    "kde": KDERatio(),
    "isotropic kde": KDERatio(gamma=2.0),
    "neighbors": NearestNeighborsRatio(),
    "3 neighbors": NearestNeighborsRatio(n_neighbors=3),
}
DEFAULTS = {
    "discriminator": Discriminator(),
    "gaussian": GaussianRatio(),
    "kde": KDERatio(),
    "neighbors": NearestNeighborsRatio(),
}
UNIT_FREE = ["discriminator", "gaussian", "shared gaussian", "kde", "neighbors"]


def fitted(name, source, target, sample_weight=None):
    return clone(ZOO[name]).fit(*stack_domains(source, target), sample_weight=sample_weight)


S, T = samples(30, 20, 3)
HARD = {
    "one source row": (S[:1], T),
    "one target row": (S, T[:1]),
    "one row each": (S[:1], T[:1]),
    "two rows each": (S[:2], T[:2]),
    "one point": (np.ones((5, 2)), np.ones((4, 2))),
    "two points": (np.zeros((5, 2)), np.ones((4, 2))),
    "constant column": (np.c_[S, np.ones(30)], np.c_[T, np.ones(20)]),
    "constant in the target": (S, np.c_[np.ones(20), T[:, 1:]]),
    "same column twice": (np.c_[S, S], np.c_[T, T]),
    "huge": (S * 1e6, T * 1e6),
    "tiny": (S * 1e-6, T * 1e-6),
    "offset": (S + 1e5, T + 1e5),
    "mixed scales": (S * [1.0, 1e6, 1e-6], T * [1.0, 1e6, 1e-6]),
    "far apart": (S, T + 1e4),
    "outlier": (np.r_[S, [[1e8, 0.0, 0.0]]], T),
    "duplicates": (np.round(S), np.round(T)),
    "zeros and ones": ((S[:, :1] > 0) * 1.0, (T[:, :1] > 0) * 1.0),
    "n << d": (np.random.default_rng(1).normal(size=(8, 50)), np.random.default_rng(2).normal(size=(6, 50))),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("name", ["discriminator", "isotonic", "gaussian", "kde", "neighbors"])
def test_weights_and_ratios_are_finite_for_any_finite_rows(name, case, dtype):
    source, target = (rows.astype(dtype) for rows in HARD[case])
    ratio = fitted(name, source, target)
    rows = np.r_[source, target]
    for values in (ratio.weights_, ratio.transform(rows), ratio.transform(1e3 + 1e3 * rows)):
        assert values.dtype == dtype and np.isfinite(values).all() and values.min() >= 0.0
    assert ratio.weights_.mean() == pytest.approx(1.0, rel=1e-5)
    assert np.isfinite(ratio.score(*stack_domains(source, target)))


@pytest.mark.parametrize("name", ZOO)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5)
def test_a_weight_of_k_is_k_copies_and_a_weight_of_zero_is_none(name, seed):
    source, target = samples(15, 12, seed=seed)
    X, y = stack_domains(source, target)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 7, len(y))
    counts[[0, 1, -1, -2]] = 1
    order = rng.permutation(counts.sum())
    weighted = clone(ZOO[name]).fit(X, y, sample_weight=counts)
    copied = clone(ZOO[name]).fit(np.repeat(X, counts, axis=0)[order], np.repeat(y, counts)[order])
    np.testing.assert_allclose(weighted.transform(X), copied.transform(X), rtol=1e-6, atol=1e-9)
    by_copy = np.empty(len(order))
    by_copy[order[np.repeat(y, counts)[order] == 0]] = copied.weights_
    first = np.cumsum(counts) - counts
    counted = counts[y == 0] > 0
    np.testing.assert_allclose(weighted.weights_[counted], by_copy[first[y == 0][counted]], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ZOO)
def test_weights_that_are_no_whole_numbers_have_no_unit(name):
    X, y = stack_domains(*samples())
    weight = np.random.default_rng(3).uniform(0.1, 2.0, len(y))
    once, scaled = (clone(ZOO[name]).fit(X, y, sample_weight=factor * weight) for factor in (1.0, np.pi * 1e-3))
    np.testing.assert_allclose(once.weights_, scaled.weights_, rtol=1e-6)
    assert np.average(once.weights_, weights=weight[y == 0]) == pytest.approx(1.0)
    assert np.max(np.abs(once.weights_ - clone(ZOO[name]).fit(X, y).weights_)) > 0.01


def test_row_counts_are_copies_or_add_up_to_the_effective_sample_size():
    def counts(source_weight, target_weight):
        return row_counts(Samples(None, None, np.array(source_weight), np.array(target_weight), None, None, None))

    assert [c.tolist() for c in counts([2.0, 3.0], [1.0])] == [[2.0, 3.0], [1.0]]
    source, target = counts([0.5, 1.5], [4.0, 4.0, 4.0])
    np.testing.assert_allclose(source, [0.4, 1.2])
    np.testing.assert_allclose(target, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ZOO)
def test_the_order_of_the_rows_is_the_order_of_the_weights(name):
    X, y = stack_domains(*samples())
    order = np.random.default_rng(1).permutation(len(y))
    ratio, shuffled = clone(ZOO[name]).fit(X, y), clone(ZOO[name]).fit(X[order], y[order])
    np.testing.assert_allclose(shuffled.weights_, ratio.weights_[source_places(y, order)], rtol=1e-6)
    np.testing.assert_allclose(shuffled.transform(X), ratio.transform(X), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", UNIT_FREE)
def test_the_unit_of_the_rows_changes_nothing(name, scale):
    source, target = samples()
    ratio, scaled = fitted(name, source, target), fitted(name, scale * source, scale * target)
    np.testing.assert_allclose(scaled.weights_, ratio.weights_, rtol=1e-6)
    np.testing.assert_allclose(scaled.transform(scale * target), ratio.transform(target), rtol=1e-6)


@pytest.mark.parametrize("name", ["discriminator", "gaussian", "shared gaussian", "kde"])
def test_the_unit_of_one_column_changes_nothing(name):
    source, target = samples()
    units = [1e-3, 1e4]
    np.testing.assert_allclose(
        fitted(name, source * units, target * units).weights_, fitted(name, source, target).weights_, rtol=1e-6
    )


@pytest.mark.parametrize("name", ZOO)
def test_a_tensor_gives_what_its_array_gives(name):
    X, y = stack_domains(*samples())
    ratio = clone(ZOO[name]).fit(torch.tensor(X), torch.tensor(y))
    by_array = clone(ZOO[name]).fit(X, y)
    for out in (ratio.weights_, ratio.transform(torch.tensor(X))):
        assert isinstance(out, torch.Tensor) and out.dtype == torch.float64
    np.testing.assert_array_equal(ratio.weights_.numpy(), by_array.weights_)
    for attribute in ratio._returns:
        assert isinstance(getattr(ratio, attribute), torch.Tensor)


@pytest.mark.parametrize("name", ZOO)
def test_pickle_keeps_the_fit_and_clone_forgets_it(name):
    X, y = stack_domains(*samples())
    ratio = clone(ZOO[name]).fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(ratio)).transform(X), ratio.transform(X))
    copy = clone(ratio)
    assert not hasattr(copy, "weights_")
    assert np.array_equal(copy.fit(X, y).weights_, ratio.weights_)


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_known_ratio_is_recovered_better_with_more_rows(name):
    errors = []
    for n in (100, 1600):
        shifts = [make_gaussian_shift(n, n, 2, shift=0.5, scale=0.8, random_state=seed) for seed in range(3)]
        fits = [clone(DEFAULTS[name]).fit(shift.X, shift.y) for shift in shifts]
        errors.append([np.mean([nmse(fit.weights_, s.ratio(s.X_source)) for fit, s in zip(fits, shifts, strict=True)])])
        errors[-1].append(np.mean([nmse(fit.transform(s.X), s.ratio(s.X)) for fit, s in zip(fits, shifts, strict=True)]))
    assert errors[1][0] < 0.5 * errors[0][0] and errors[1][1] < 0.5 * errors[0][1]
    # Weights of all ones have the variance of the ratio, 0.38.
    assert errors[1][0] < 0.07


@pytest.mark.parametrize(("name", "largest"), [("discriminator", 0.02), ("gaussian", 0.03), ("kde", 0.2), ("neighbors", 0.1)])
def test_equal_laws_give_weights_near_one(name, largest):
    X, y = stack_domains(*(np.random.default_rng(seed).normal(size=(600, 2)) for seed in (0, 1)))
    assert np.var(clone(DEFAULTS[name]).fit(X, y).weights_) < largest
