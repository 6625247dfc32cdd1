"""Columns with heavy tails as normal scores, and the ratios of the default classifiers on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kurtosis, norm, rankdata, t
from zoo_cases import nmse

from densratio import stack_domains
from densratio.estimators.discriminator import Discriminator
from densratio.estimators.discriminator.classifiers import LightTails

seeds = st.integers(0, 2**16)
MAPS = {
    "log-normal": np.exp,
    "t(2)": lambda z: t.ppf(norm.cdf(z), 2),
    "fifth power": lambda z: z**5,
    "mirrored": lambda z: -np.exp(-1.5 * z),
}


def gaussians(n, d, seed):
    """Rows of two Gaussians, which differ in the first column, and their true ratio."""
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    target[:, 0] = 0.7 + 0.8 * target[:, 0]

    def ratio(z):
        return norm.pdf(z[:, 0], 0.7, 0.8) / norm.pdf(z[:, 0])

    return source, target, ratio


@given(seed=seeds, n=st.integers(10, 300), offset=st.sampled_from([0.0, 1e6]), shift=st.floats(0.0, 20.0))
def test_gaussian_and_constant_columns_stay_as_they_are_whatever_the_shift(seed, n, offset, shift):
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=n), rng.uniform(size=n), np.ones(n)]) + offset
    y = np.arange(n) % 2
    X[y == 1] += shift
    # A Gaussian sample has a kurtosis three standard errors and one above 3 once in thousands.
    tails = LightTails().fit(X, y)
    assert [column.map for column in tails.maps_[1:]] == [None, None]
    by_domain = np.mean([kurtosis(X[y == label, 0], fisher=False) * (y == label).sum() / n * 2 for label in (0, 1)])
    assert (tails.maps_[0].map is None) == (by_domain <= 4.0 + 3.0 * np.sqrt(24.0 / n))
    if tails.maps_[0].map is None:
        np.testing.assert_array_equal(tails.transform(X), X)


@given(seed=seeds, n=st.integers(100, 400), name=st.sampled_from(sorted(MAPS)))
def test_scores_are_gaussian_quantiles_of_mean_ranks_and_know_no_increasing_map(seed, n, name):
    rng = np.random.default_rng(seed)
    z = np.round(rng.normal(size=n), 2)
    z[:2] = -6.0, 6.0
    x = MAPS[name](z)
    found = LightTails().fit(x[:, None]).transform(x[:, None])[:, 0]
    np.testing.assert_allclose(found, norm.ppf((rankdata(x) - 0.5) / n), rtol=1e-12)
    np.testing.assert_array_equal(found, LightTails().fit(1e-9 * x[:, None]).transform(1e-9 * x[:, None])[:, 0])
    beyond = LightTails().fit(x[:, None]).transform(np.array([[1e9], [-1e9]]) + np.abs(x).max() * np.array([[2.0], [-2.0]]))
    np.testing.assert_array_equal(beyond[:, 0], [found.max(), found.min()])


@given(seed=seeds, n=st.integers(60, 300))
def test_a_count_of_k_is_k_copies(seed, n):
    rng = np.random.default_rng(seed)
    X, y, counts = np.exp(2.0 * rng.normal(size=(n, 1))), np.arange(n) % 2, rng.integers(1, 4, n)
    weighted, copied = LightTails().fit(X, y, counts), LightTails().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.transform(X), copied.transform(X), rtol=1e-10, atol=1e-10)


def test_of_many_values_a_thousand_are_kept_and_the_scores_hardly_change():
    rng = np.random.default_rng(0)
    X = np.exp(2.0 * rng.normal(size=(20_000, 1)))
    tails = LightTails().fit(X)
    assert len(tails.maps_[0].map[0]) <= 1000
    exact = norm.ppf((rankdata(X[:, 0]) - 0.5) / len(X))
    assert np.abs(tails.transform(X)[:, 0] - exact).max() < 0.02
    assert tails.transform(X).max() == exact.max()


@given(seed=st.integers(0, 99))
@settings(max_examples=3, deadline=None)
def test_a_ratio_of_heavy_tails_is_that_of_the_gaussians_behind_them(seed):
    source, target, truth = gaussians(600, 1, seed)
    fresh, drawn = np.random.default_rng(seed).normal(size=(2000, 1)), gaussians(4000, 1, seed + 1000)[1]

    def error_and_divergence(column):
        fitted = Discriminator(n_repeats=1).fit(*stack_domains(column(source), column(target)))
        error = np.mean((fitted.transform(column(fresh)) - truth(fresh)) ** 2) / np.var(truth(fresh))
        return error, np.mean(np.log(fitted.transform(column(drawn))))

    plain, expected = error_and_divergence(lambda z: z)
    for name, column in MAPS.items():
        error, divergence = error_and_divergence(column)
        # One draw in 15 looks linear, with an error of .3 to .6 for the Gaussians too.
        assert error < 0.05 + 1.3 * plain, name
        # A far value does not take the divergence away.
        assert abs(divergence - expected) < 0.02, name


@pytest.mark.parametrize("name", ["log-normal", "fifth power"])
def test_weights_hardly_know_how_heavy_the_tails_are(name):
    source, target, _ = gaussians(300, 2, 3)
    heavier = [MAPS[name](power * part) for power in (1.5, 2.0) for part in (source, target)]
    weights = [Discriminator(n_repeats=1).fit(*stack_domains(*pair)).weights_ for pair in (heavier[:2], heavier[2:])]
    np.testing.assert_allclose(*weights, rtol=0.05, atol=0.02)


def test_tiny_values_have_scores_and_rows_that_count_0_have_none():
    rng = np.random.default_rng(0)
    X, y = rng.standard_cauchy((300, 2)), np.arange(300) % 2
    tiny = LightTails().fit(1e-310 * X, y).transform(1e-310 * X)
    np.testing.assert_allclose(tiny, LightTails().fit(X, y).transform(X), rtol=1e-9)
    counts = np.ones(300)
    counts[[X[:, 0].argmin(), X[:, 1].argmax()]] = 0.0
    without = LightTails().fit(X[counts > 0], y[counts > 0])
    np.testing.assert_array_equal(LightTails().fit(X, y, counts).transform(X), without.transform(X))
    few = LightTails().fit(X[:4], [0, 0, 1, 1], [1.0, 0.0, 1.0, 1.0])
    assert [column.map for column in few.maps_] == [None, None]


def with_sentinels(n, seed, name, shares):
    """(X, y, ratio) of one column, a map of Gaussians, in which some rows of either domain have a value that says nothing."""
    rng = np.random.default_rng(seed)
    source, target, truth = gaussians(n, 1, seed)
    z, y = np.concatenate([source, target]), np.repeat([0, 1], n)
    place = rng.random(2 * n)
    ends = np.cumsum([[a, b] for a, b in shares.values()], axis=0)
    kind = (place[:, None] >= ends[:, y].T).sum(axis=1)
    ratio = np.append([b / a for a, b in shares.values()], 1.0)[kind]
    rest = kind == len(shares)
    ratio[rest] = truth(z[rest]) * (1.0 - ends[-1, 1]) / (1.0 - ends[-1, 0])
    x = MAPS[name](z) if name else z
    return np.where(rest[:, None], x, np.append(list(shares), 0.0)[kind][:, None]), y, ratio


SHARES = [{-999.0: (0.05, 0.3)}, {0.0: (0.5, 0.2)}, {-999.0: (0.05, 0.3), -888.0: (0.2, 0.05)}]


@pytest.mark.parametrize("name", [None, "log-normal", "t(2)"])
@pytest.mark.parametrize("shares", SHARES)
def test_values_of_many_rows_have_ratios_of_their_own(name, shares):
    """The oracle is the quotient of the shares there and the ratio of the Gaussians elsewhere."""
    errors = []
    for seed in range(3):
        X, y, ratio = with_sentinels(600, seed, name, shares)
        errors.append(np.abs(np.log(Discriminator(n_repeats=1).fit(X, y).transform(X) / ratio))[y == 1].mean())
    assert np.mean(errors) < 0.15


def test_no_far_row_gets_a_huge_ratio_where_half_of_the_rows_are_0():
    """The linear classifier hardly fits the others, which the zeros hide from a likelihood of all."""
    X, y, ratio = with_sentinels(300, 1, "log-normal", SHARES[1])
    assert nmse(Discriminator(n_repeats=1).fit(X, y).weights_, ratio[y == 0]) < 1.0


@given(seed=seeds, name=st.sampled_from([None, "log-normal"]))
def test_an_atom_has_a_column_and_the_others_are_as_without_it(seed, name):
    X, y, _ = with_sentinels(300, seed, name, SHARES[0])
    is_atom = X[:, 0] == -999.0
    found = LightTails().fit(X, y).transform(X)
    np.testing.assert_array_equal(found[:, 1], is_atom)
    rest = LightTails().fit(X[~is_atom], y[~is_atom]).transform(X[~is_atom])
    np.testing.assert_array_equal(found[~is_atom, :1], rest)
    np.testing.assert_allclose(found[is_atom, 0], rest.mean(), rtol=1e-9, atol=1e-12)
    counts = np.random.default_rng(seed).integers(1, 4, len(X))
    weighted, copied = LightTails().fit(X, y, counts), LightTails().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(weighted.transform(X), copied.transform(X), rtol=1e-9, atol=1e-9)


@given(seed=seeds, atom=st.sampled_from([0.1, -99.9, 1e-30]), exact_first=st.booleans())
def test_rows_rounded_to_single_precision_have_the_atoms_of_the_exact_ones(seed, atom, exact_first):
    X, y, _ = with_sentinels(300, seed, None, {atom: (0.05, 0.3)})
    learned, seen = (X, X.astype(np.float32)) if exact_first else (X.astype(np.float32), X)
    tails = LightTails().fit(learned, y)
    np.testing.assert_allclose(tails.transform(seen), tails.transform(learned), atol=1e-6)
    # Another value that was learned is no atom, however near.
    X[0] = np.nextafter(atom, 1.0)
    assert LightTails().fit(X, y).transform(X)[0, 1] == 0.0


@given(seed=seeds, n=st.integers(60, 400))
def test_counts_levels_and_atoms_that_do_not_differ_get_no_column(seed, n):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    same = np.where(np.arange(n) // 2 % 5 == 0, -999.0, rng.normal(size=n))
    X = np.column_stack([same, rng.integers(0, 10, n), rng.random(n) < 0.1 + 0.6 * y, rng.geometric(0.4, n)])
    assert LightTails().fit(X, y).transform(X).shape == X.shape
