"""Shifts drawn from densities: against scipy's densities, decimal arithmetic, quadrature and Monte Carlo."""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.linalg import null_space
from scipy.stats import f as fisher
from scipy.stats import kstest, multivariate_normal, multivariate_t, norm, uniform
from scipy.stats import t as student_t
from shift_cases import DRAWN, MAKERS, assert_within_five_standard_errors, by_drawn, by_maker
from sklearn.linear_model import LinearRegression

from densratio.datasets import (
    make_gaussian_shift,
    make_heavy_tails,
    make_mixture_shift,
    make_subspace_shift,
)

# ---------------------------------------------------------------- the densities by other hands


def gaussian_log_density(mean, scale):
    mean = np.atleast_1d(np.asarray(mean, dtype=float))
    return lambda x: multivariate_normal.logpdf(x, mean, scale**2 * np.eye(len(mean)))


def mixture_log_density(law):
    parts = [gaussian_log_density(mean, scale) for mean, scale in zip(law.means, law.scales, strict=True)]
    return lambda x: np.log(sum(w * np.exp(part(x)) for w, part in zip(law.weights, parts, strict=True)))


def student_log_density(law):
    return lambda x: multivariate_t.logpdf(x, law.location, law.scale**2 * np.eye(len(law.location)), df=law.df)


def subspace_log_density(law, subspace):
    covariance = np.eye(len(subspace)) + (law.scales[0] ** 2 - 1) * subspace @ subspace.T
    return lambda x: multivariate_normal.logpdf(x, subspace @ law.means[0], covariance)


def log_ratio_by_scipy(shift):
    ratio = shift.ratio
    if shift.subspace is not None:
        pair = [subspace_log_density(law, shift.subspace) for law in (ratio.inner.target, ratio.inner.source)]
    else:
        density = student_log_density if hasattr(ratio.source, "df") else mixture_log_density
        pair = [density(ratio.target), density(ratio.source)]
    return lambda x: np.atleast_1d(pair[0](x) - pair[1](x))


@by_drawn
def test_the_ratio_is_the_quotient_of_scipys_densities(name):
    shift = DRAWN[name](n_source=300, n_target=300)
    assert_allclose(shift.ratio(shift.X), np.exp(log_ratio_by_scipy(shift)(shift.X)), rtol=1e-10)
    far = 4.0 * shift.X / np.linalg.norm(shift.X, axis=1, keepdims=True)
    assert_allclose(shift.ratio(far), np.exp(log_ratio_by_scipy(shift)(far)), rtol=1e-10)


@given(
    shift=st.lists(st.floats(-3, 3), min_size=1, max_size=5),
    scale=st.floats(0.05, 3.0),
    reach=st.floats(0.1, 5.0),
)
def test_any_gaussian_shift_has_the_ratio_of_scipys_densities(shift, scale, reach):
    made = make_gaussian_shift(5, 5, len(shift), shift=shift, scale=scale)
    x = reach * made.X
    log_ratio = gaussian_log_density(shift, scale)(x) - gaussian_log_density(np.zeros(len(shift)), 1.0)(x)
    assert_allclose(made.ratio.log(x), log_ratio, rtol=1e-10, atol=1e-10)


@given(df=st.tuples(st.floats(0.1, 1e5), st.floats(0.1, 1e5)), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_any_heavy_tails_have_the_ratio_of_scipys_densities(df, shift, scale):
    made = make_heavy_tails(5, 5, 2, df_source=df[0], df_target=df[1], shift=shift, scale=scale)
    x = np.array([[0.0, 0.0], [shift, 0.0], [1.0, -2.0], [30.0, 40.0]])
    # scipy's own constant loses digits as df grows: it is the difference of two large logarithms of gamma.
    assert_allclose(made.ratio.log(x), log_ratio_by_scipy(made)(x), rtol=1e-10, atol=1e-15 * 30 * max(df))


# ---------------------------------------------------------------- far out


def decimal_log_ratio(shift, row):
    """Of Gaussian mixtures, in 60 digits."""
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 60, -(10**15), 10**15

        def density(law):
            total = Decimal(0)
            for weight, mean, scale in zip(law.weights, law.means, law.scales, strict=True):
                s = Decimal(float(scale))
                square = sum((Decimal(float(a)) - Decimal(float(m))) ** 2 for a, m in zip(row, mean, strict=True)) / s**2
                total += Decimal(float(weight)) * (-square / 2).exp() / s ** len(row)
            return total

        return float((density(shift.ratio.target) / density(shift.ratio.source)).ln())


@pytest.mark.parametrize("name", [name for name in sorted(DRAWN) if name.startswith(("gaussian", "mixture"))])
@pytest.mark.parametrize("reach", [10.0, 1e3, 1e6])
def test_far_out_the_log_ratio_keeps_its_digits(name, reach):
    shift = DRAWN[name](n_source=2, n_target=2)
    x = reach * np.vstack([shift.X, -shift.X])
    assert_allclose(shift.ratio.log(x), [decimal_log_ratio(shift, row) for row in x], rtol=1e-12, atol=1e-12)


@by_maker
@pytest.mark.parametrize("reach", [1e8, 1e150, 1e200])
def test_no_row_is_so_far_out_that_its_ratio_is_not_a_number(name, reach):
    shift = MAKERS[name]()
    rows = np.vstack([np.eye(shift.X.shape[1]), -np.eye(shift.X.shape[1]), shift.X[:5]])
    with np.errstate(all="raise", under="ignore"):
        ratio = shift.ratio(reach * rows)
    assert not np.isnan(ratio).any() and (ratio >= 0).all()


def test_a_narrower_target_gives_zero_and_a_wider_one_infinity_far_out():
    far = np.array([[1e200, -1e3]])
    assert make_gaussian_shift(2, 2, 2, scale=0.9).ratio(far) == 0.0
    assert make_gaussian_shift(2, 2, 2, scale=1.2).ratio(far) == np.inf


@given(df=st.floats(0.5, 20.0), scale=st.floats(0.2, 5.0), d=st.integers(1, 4))
def test_equally_heavy_tails_have_the_limit_scale_to_the_df(df, scale, d):
    ratio = make_heavy_tails(2, 2, d, df_source=df, df_target=df, shift=2.0, scale=scale).ratio
    assert_allclose(ratio(np.full((1, d), 1e120)), scale**df, rtol=1e-9)


def test_a_light_tailed_target_has_a_ratio_that_falls_as_the_power_of_the_distance():
    log = make_heavy_tails(2, 2, df_source=3.0, df_target=5.0).ratio.log(np.array([[1e50], [1e60]]))
    assert_allclose(np.diff(log), -2.0 * np.log(1e10), rtol=1e-12)


def test_the_default_mixture_has_a_ratio_between_its_ratios_of_weights():
    ratio = make_mixture_shift(2, 2).ratio
    x = np.column_stack([np.linspace(-50, 50, 1001), np.zeros(1001)])
    values = ratio(x)
    assert_allclose([values[0], values[-1]], [0.25, 4.0], rtol=1e-12)
    assert np.diff(values).min() > -1e-12


# ---------------------------------------------------------------- what the docstrings promise


@pytest.mark.parametrize("scale", [0.5, 0.75, 0.95])
def test_a_narrower_gaussian_has_the_bound_that_its_docstring_states(scale):
    x = np.linspace(-10, 10, 200_001)[:, None]
    largest = make_gaussian_shift(2, 2, scale=scale, shift=0.3).ratio(x).max()
    assert_allclose(largest, np.exp(0.3**2 / (2 - 2 * scale**2)) / scale, rtol=1e-7)


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.2])
def test_the_second_moment_of_the_gaussian_ratio_is_the_one_that_its_docstring_states(scale):
    ratio, density = make_gaussian_shift(2, 2, scale=scale, shift=0.8).ratio, gaussian_log_density(0.0, 1.0)

    def integrand(x):
        return float(np.exp(2 * ratio.log(np.array([[x]]))[0] + density(np.array([x]))))

    expected = np.exp(0.8**2 / (2 - scale**2)) / (scale * np.sqrt(2 - scale**2))
    assert_allclose(quad(integrand, -40, 40, points=[0.8], limit=200)[0], expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["gaussian", "mixture, a component in the source alone", "heavy tails"])
def test_the_source_density_times_the_ratio_integrates_to_one(name):
    shift = DRAWN[name](n_source=2, n_target=2)
    density = (student_log_density if name == "heavy tails" else mixture_log_density)(shift.ratio.source)

    def integrand(x):
        return float(np.exp(shift.ratio.log(np.array([[x]]))[0] + np.squeeze(density(np.array([[x]])))))

    pieces = [quad(integrand, a, b, limit=400)[0] for a, b in [(-10, 0), (0, 10)]]
    tails = [quad(integrand, *ends)[0] for ends in [(-np.inf, -10), (10, np.inf)]] if name == "heavy tails" else []
    assert_allclose(sum(pieces) + sum(tails), 1.0, rtol=1e-7)


# ---------------------------------------------------------------- the samples follow the laws


@by_drawn
def test_the_ratio_has_mean_one_over_the_source_and_carries_means_to_the_target(name):
    shift = DRAWN[name](n_source=40_000, n_target=40_000, random_state=3)
    weights = shift.ratio(shift.X_source)
    assert_within_five_standard_errors(weights, 1.0)
    # The functions are bounded, as heavy tails have no variance to divide by.
    for f in (np.tanh, np.cos, lambda u: u > 1.0):
        for column in range(min(3, shift.X.shape[1])):
            there = f(shift.X_target[:, column]).astype(float)
            assert_within_five_standard_errors(weights * f(shift.X_source[:, column]), others=there)
    assert_within_five_standard_errors(weights * shift.labels_source, others=shift.labels_target)


def assert_follows(values, cdf):
    """By Kolmogorov and Smirnov; one draw in a million fails, and the seed is fixed."""
    assert kstest(values, cdf).pvalue > 1e-6


@by_drawn
def test_every_column_of_both_samples_follows_its_law(name):
    shift = DRAWN[name](n_source=5000, n_target=5000, random_state=6)
    ratio = shift.ratio if shift.subspace is None else shift.ratio.inner
    for X, law in [(shift.X_source, ratio.source), (shift.X_target, ratio.target)]:
        X = X if shift.subspace is None else X @ shift.subspace
        for column in range(X.shape[1]):
            if hasattr(law, "df"):
                cdf = student_t(law.df, law.location[column], law.scale).cdf
            else:
                cdf = partial(mixture_cdf, law, column)
            assert_follows(X[:, column], cdf)


def mixture_cdf(law, column, x):
    parts = zip(law.weights, law.means, law.scales, strict=True)
    return sum(weight * norm(mean[column], scale).cdf(x) for weight, mean, scale in parts)


def test_the_columns_of_a_heavy_tailed_row_share_one_radius():
    X = make_heavy_tails(5000, 1, 3, df_source=4.0).X_source
    # |x|^2 / d follows Fisher's F with d and df degrees of freedom; columns drawn apart would not.
    assert_follows((X**2).sum(axis=1) / 3, fisher(3, 4.0).cdf)


# ---------------------------------------------------------------- the subspace


SUBSPACES = pytest.mark.parametrize("name", [name for name in sorted(DRAWN) if name.startswith("subspace")])


@SUBSPACES
def test_the_subspace_has_orthonormal_columns(name):
    subspace = DRAWN[name](n_source=2, n_target=2).subspace
    assert_allclose(subspace.T @ subspace, np.eye(subspace.shape[1]), atol=1e-12)


@pytest.mark.parametrize("name", ["subspace", "subspace, one direction"])
def test_moving_across_the_subspace_leaves_the_ratio_and_along_it_does_not(name):
    shift = DRAWN[name](n_source=50, n_target=50)
    step = 3.0 * np.random.default_rng(1).standard_normal(shift.X.shape)
    along = step @ shift.subspace @ shift.subspace.T
    assert_allclose(shift.ratio(shift.X + step - along), shift.ratio(shift.X), rtol=1e-10)
    assert np.abs(np.log(shift.ratio(shift.X + along) / shift.ratio(shift.X))).min() > 1e-3


@pytest.mark.parametrize("name", ["subspace", "subspace, one direction"])
def test_across_the_subspace_both_samples_are_standard_normal(name):
    shift = DRAWN[name](n_source=5000, n_target=5000, random_state=8)
    rest = null_space(shift.subspace.T)
    for X in (shift.X_source, shift.X_target):
        for column in rest.T[:3]:
            assert_follows(X @ column, norm.cdf)
        # Independent of the coordinates inside: their correlation is that of independent samples.
        assert np.abs(np.corrcoef(X @ rest[:, 0], X @ shift.subspace[:, 0])[0, 1]) < 5 / np.sqrt(5000)


def test_the_first_direction_of_the_subspace_is_spread_over_all_directions():
    entries = [make_subspace_shift(1, 1, 3, n_directions=1, random_state=seed).subspace[:, 0] for seed in range(400)]
    # By Archimedes one coordinate of a uniform point on the sphere is uniform on [-1, 1].
    for column in np.array(entries).T:
        assert_follows(column, uniform(-1.0, 2.0).cdf)


def test_a_subspace_of_all_columns_has_the_ratio_of_the_gaussian_shift_in_its_coordinates():
    shift = make_subspace_shift(5, 5, 4, n_directions=4, shift=[1.0, 0.0, 0.5, 0.0], scale=0.6)
    straight = make_gaussian_shift(5, 5, 4, shift=[1.0, 0.0, 0.5, 0.0], scale=0.6)
    assert_allclose(shift.ratio(shift.X), straight.ratio(shift.X @ shift.subspace), rtol=1e-12)


# ---------------------------------------------------------------- the outcome


def outcome_coordinate(name, shift):
    ratio = shift.ratio if shift.subspace is None else shift.ratio.inner
    move = ratio.target.location if hasattr(ratio.target, "df") else ratio.target.mean - ratio.source.mean
    move = move if move.any() else np.eye(1, len(move))[0]
    return shift.X @ (move if shift.subspace is None else shift.subspace @ move) / np.linalg.norm(move)


@by_drawn
def test_the_outcome_is_the_cosine_along_the_move_of_the_mean_plus_noise(name):
    exact = DRAWN[name](n_source=3000, n_target=2000, noise=0.0)
    assert_allclose(exact.labels, np.cos(outcome_coordinate(name, exact)), atol=1e-12)
    noisy = DRAWN[name](n_source=3000, n_target=2000, noise=0.3)
    assert_array_equal(noisy.X, exact.X)
    assert_follows((noisy.labels - exact.labels) / 0.3, norm.cdf)


def best_line(u, labels):
    model = LinearRegression().fit(u, labels)
    return model.coef_[0], model


def test_the_best_lines_of_the_two_domains_are_those_of_the_docstring():
    shift = make_gaussian_shift(200_000, 200_000, shift=1.0, scale=0.75)
    for X, labels, m, s in [(shift.X_source, shift.labels_source, 0.0, 1.0), (shift.X_target, shift.labels_target, 1.0, 0.75)]:
        slope, model = best_line(X, labels)
        assert abs(slope + np.sin(m) * np.exp(-(s**2) / 2)) < 0.01
        assert abs(model.predict([[m]])[0] - np.cos(m) * np.exp(-(s**2) / 2)) < 0.01


@pytest.mark.parametrize("name", ["gaussian", "mixture", "heavy tails", "subspace"])
@pytest.mark.parametrize("seed", range(3))
def test_the_true_weights_mend_a_linear_model_that_the_shift_misleads(name, seed):
    shift = DRAWN[name](random_state=seed)
    fresh = DRAWN[name](n_source=1, n_target=20_000, random_state=seed + 100)
    turn, fresh_turn = (np.eye(made.X.shape[1]) if made.subspace is None else made.subspace for made in (shift, fresh))
    train, there = shift.X_source @ turn, fresh.X_target @ fresh_turn
    plain = LinearRegression().fit(train, shift.labels_source)
    weighted = LinearRegression().fit(train, shift.labels_source, sample_weight=shift.ratio(shift.X_source))
    errors = [np.mean((model.predict(there) - fresh.labels_target) ** 2) for model in (plain, weighted)]
    assert errors[1] < 0.85 * errors[0]
