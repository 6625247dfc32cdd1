"""Shifts with known ratios: against scipy's densities, decimal arithmetic, quadrature, Monte Carlo and exact sums over a table."""

from __future__ import annotations

import pickle
from decimal import Decimal, localcontext
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.linalg import null_space
from scipy.stats import f as fisher
from scipy.stats import kstest, multivariate_normal, multivariate_t, norm, uniform
from scipy.stats import t as student_t
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LinearRegression

from densratio.datasets import (
    SELECTION_KINDS,
    Shift,
    make_gaussian_shift,
    make_heavy_tails,
    make_mixture_shift,
    make_selection_bias,
    make_subspace_shift,
    true_ratio,
)

THREE_MEANS = np.array([[0.0, 0.0], [3.0, -1.0], [-2.0, 2.0]])
MOVED_MEANS = THREE_MEANS + np.array([[0.5, 0.0], [0.0, 0.3], [-0.2, 0.2]])
DRAWN = {
    "gaussian": lambda **more: make_gaussian_shift(**more),
    "gaussian, equal spread": lambda **more: make_gaussian_shift(n_columns=3, scale=1.0, shift=[0.5, -0.3, 0.0], **more),
    "gaussian, narrower alone": lambda **more: make_gaussian_shift(n_columns=2, scale=0.8, shift=0.0, **more),
    "gaussian, wider": lambda **more: make_gaussian_shift(n_columns=2, scale=1.1, shift=0.2, **more),
    "mixture": lambda **more: make_mixture_shift(**more),
    "mixture, moved": lambda **more: make_mixture_shift(
        means=THREE_MEANS, target_means=MOVED_MEANS, source_weights=[2, 1, 1], target_weights=[1, 1, 2],
        scales=[1.0, 1.4, 0.5], **more
    ),
    "mixture, a component in the source alone": lambda **more: make_mixture_shift(
        n_columns=1, source_weights=[1, 1], target_weights=[0, 1], scales=[2.0, 0.5], **more
    ),
    "heavy tails": lambda **more: make_heavy_tails(**more),
    "heavy tails, three columns": lambda **more: make_heavy_tails(
        n_columns=3, df_source=2.5, df_target=4.0, shift=[0.3, 0.0, -0.4], scale=0.9, **more
    ),
    "subspace": lambda **more: make_subspace_shift(**more),
    "subspace, one direction": lambda **more: make_subspace_shift(n_columns=50, n_directions=1, shift=0.7, scale=0.9, **more),
    "subspace, all directions": lambda **more: make_subspace_shift(n_columns=3, n_directions=3, shift=0.0, **more),
}  # fmt: skip
TABLES = {kind: lambda kind=kind, **more: make_selection_bias(kind=kind, **more) for kind in SELECTION_KINDS}
MAKERS = {**DRAWN, **TABLES}
by_drawn = pytest.mark.parametrize("name", sorted(DRAWN))
by_maker = pytest.mark.parametrize("name", sorted(MAKERS))
by_kind = pytest.mark.parametrize("kind", SELECTION_KINDS)
BREAST = load_breast_cancer()


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


def assert_within_five_standard_errors(values, expected=0.0, others=None):
    """Mean of `values` (n,) is `expected`, or the mean of the independent sample `others`."""
    variance = values.var(ddof=1) / len(values)
    if others is not None:
        expected, variance = others.mean(), variance + others.var(ddof=1) / len(others)
    assert abs(values.mean() - expected) <= 5 * np.sqrt(variance) + 1e-12


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


# ---------------------------------------------------------------- what every maker returns


@by_maker
def test_a_shift_unpacks_into_rows_domains_and_ratio_and_names_the_rest(name):
    shift = MAKERS[name](n_source=30, n_target=40)
    X, y, ratio = shift
    assert isinstance(shift, Shift) and X is shift.X and y is shift.y and ratio is shift.ratio
    assert X.dtype == np.float64 and X.shape[0] == 70 and y.dtype == np.int64
    assert_array_equal(y, np.repeat([0, 1], [30, 40]))
    assert_array_equal(np.vstack([shift.X_source, shift.X_target]), X)
    assert_array_equal(np.concatenate([shift.labels_source, shift.labels_target]), shift.labels)
    assert shift.labels.shape == (70,) and len(shift.X_source) == len(shift.labels_source) == 30
    assert ratio(X).shape == (70,) and ratio(X).dtype == np.float64 and ratio.n_columns == X.shape[1]
    assert (shift.subspace is not None) == name.startswith("subspace")
    assert (shift.index is not None) == (name in TABLES)


@by_maker
def test_the_same_seed_gives_the_same_shift_and_another_seed_another(name):
    one, same, seeded = (MAKERS[name](random_state=seed) for seed in (7, 7, np.random.default_rng(7)))
    for shift in (same, seeded):
        assert_array_equal(one.X, shift.X)
        assert_array_equal(one.labels, shift.labels)
        assert_array_equal(one.ratio(one.X), shift.ratio(one.X))
    other = MAKERS[name](random_state=8)
    assert other.X.shape != one.X.shape or not np.array_equal(one.X, other.X)


@by_maker
def test_a_generator_goes_on_where_it_was(name):
    rng = np.random.default_rng(7)
    first, second = MAKERS[name](random_state=rng), MAKERS[name](random_state=rng)
    assert first.X.shape != second.X.shape or not np.array_equal(first.X, second.X)


@by_maker
def test_the_global_random_state_is_neither_read_nor_moved(name):
    before = np.random.get_state()  # noqa: NPY002
    MAKERS[name]()
    after = np.random.get_state()  # noqa: NPY002
    assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


@by_maker
def test_a_shift_survives_pickling(name):
    shift = MAKERS[name]()
    again = pickle.loads(pickle.dumps(shift))
    assert_array_equal(again.ratio(again.X), shift.ratio(shift.X))


@by_drawn
def test_one_row_of_each_sample_is_enough(name):
    shift = DRAWN[name](n_source=1, n_target=1)
    assert np.isfinite(shift.ratio(shift.X)).all() and shift.X.shape[0] == 2


# ---------------------------------------------------------------- the ratio as a callable


@by_maker
def test_the_ratio_takes_frames_tensors_single_precision_and_no_rows(name):
    torch = pytest.importorskip("torch")
    shift = MAKERS[name]()
    rows = shift.X[:7].astype(np.float32)
    expected = shift.ratio(rows.astype(np.float64))
    for given_rows in (rows, pd.DataFrame(rows), torch.as_tensor(rows), rows.tolist()):
        assert_allclose(shift.ratio(given_rows), expected, rtol=1e-12)
    assert shift.ratio(shift.X[:0]).shape == (0,)
    assert_allclose(shift.ratio(np.repeat(rows, 3, axis=0)), np.repeat(expected, 3), rtol=1e-12)


@by_maker
def test_the_ratio_is_the_same_in_blocks(name, monkeypatch):
    shift = MAKERS[name]()
    whole = shift.ratio(shift.X)
    monkeypatch.setattr(true_ratio, "_BLOCK", 7)
    assert_allclose(shift.ratio(shift.X), whole, rtol=1e-13)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3), r"X must be rows \(n, d\), d >= 1; got shape \(3,\)"),
        (np.zeros((3, 0)), r"got shape \(3, 0\)"),
        (np.zeros((3, 3)), "X must have the 2 columns of the data that this ratio belongs to; got 3"),
        ([["a", "b"]], "X must hold numbers"),
        ([[0.0, np.nan]], "X contains NaN or infinity in column 1"),
        (pd.DataFrame({"age": [1.0, -np.inf], "sex": [1.0, np.nan]}), "X contains NaN or infinity in column 'age'"),
    ],
)
def test_rows_that_the_ratio_cannot_take_are_refused_in_words(rows, message):
    with pytest.raises(ValueError, match=message):
        make_mixture_shift(2, 2).ratio(rows)


# ---------------------------------------------------------------- selection bias


@by_kind
def test_the_ratio_times_the_selection_probability_is_its_mean_over_the_table(kind):
    shift = make_selection_bias(kind=kind)
    probability = shift.ratio.selection(BREAST.data)
    assert_allclose(shift.ratio(BREAST.data) * probability, probability.mean(), rtol=1e-12)
    # A source row is row i with probability P_i / sum P: the mean of the ratio is then exactly one.
    assert_allclose(np.average(shift.ratio(BREAST.data), weights=probability), 1.0, rtol=1e-12)
    means = np.average(BREAST.data, axis=0, weights=probability * shift.ratio(BREAST.data))
    assert_allclose(means, BREAST.data.mean(axis=0), rtol=1e-12)


def test_the_feature_kind_keeps_a_fifth_below_the_median_and_four_fifths_above():
    probability = make_selection_bias(kind="feature", column=3).ratio.selection(BREAST.data)
    is_low = BREAST.data[:, 3] <= np.median(BREAST.data[:, 3])
    assert_allclose(probability, np.where(is_low, 0.2, 0.8), rtol=1e-14)
    named = make_selection_bias(kind="feature", column="mean area")
    assert_array_equal(named.X, make_selection_bias(kind="feature", column=3).X)


def test_the_distance_kind_is_the_papers_on_nine_columns():
    X = BREAST.data[:, :9]
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    shift = make_selection_bias(X, BREAST.target, kind="distance")
    assert_allclose(shift.ratio.selection(X), np.exp(-(z**2).sum(axis=1) / 20), rtol=1e-10)


@by_kind
def test_weighted_totals_of_the_source_are_the_tables_on_average_over_seeds(kind):
    rng, n_seeds = np.random.default_rng(0), 400
    X = rng.standard_normal((60, 3))
    value = np.column_stack([np.ones(60), X[:, 0], np.sin(3 * X[:, 1])])
    totals, counts = np.empty((n_seeds, 3)), np.empty(n_seeds)
    for seed in range(n_seeds):
        shift = make_selection_bias(X, kind=kind, random_state=seed)
        kept = shift.index[shift.y == 0]
        totals[seed] = shift.ratio(shift.X_source) @ value[kept]
        counts[seed] = len(kept)
    expected_count = 30 * shift.ratio.selection(X).mean()
    assert_within_five_standard_errors(counts, expected_count)
    for column in range(3):
        assert_within_five_standard_errors(totals[:, column], expected_count * value[:, column].mean())


@by_kind
def test_no_row_is_in_both_samples_and_the_index_leads_back_to_the_table(kind):
    shift = make_selection_bias(kind=kind)
    assert len(np.unique(shift.index)) == len(shift.index) and (shift.y == 1).sum() == 569 // 2
    assert_array_equal(BREAST.data[shift.index], shift.X)
    assert_array_equal(BREAST.target[shift.index], shift.labels)
    assert set(np.unique(shift.labels)) == {0, 1}


@by_kind
def test_asking_for_fewer_source_rows_takes_some_of_those_kept(kind):
    everything, some = make_selection_bias(kind=kind), make_selection_bias(kind=kind, n_source=10)
    assert len(some.X_source) == 10 and set(some.index) <= set(everything.index)
    assert_array_equal(some.X_target, everything.X_target)


def test_a_persons_frame_is_taken_with_its_column_names_and_labels_of_any_kind():
    frame = pd.DataFrame({"age": [20, 30, 40, 50, 60, 70], "sex": [0, 1, 0, 1, 1, 0]})
    labels = pd.Series(list("abcabc"), index=range(10, 16))
    shift = make_selection_bias(frame, labels, column="age", threshold=45, probabilities=(1.0, 0.5), n_target=2)
    assert_allclose(shift.ratio(frame), [0.75, 0.75, 0.75, 1.5, 1.5, 1.5], rtol=1e-14)
    assert_array_equal(shift.labels, labels.to_numpy()[shift.index])
    assert make_selection_bias(frame, column="age", threshold=45, probabilities=(1.0, 1.0)).labels is None


def test_without_labels_the_parts_have_none():
    shift = make_selection_bias(BREAST.data)
    assert shift.labels is None and shift.labels_source is None and shift.labels_target is None


def test_equal_probabilities_or_no_strength_give_a_ratio_of_one():
    for shift in (make_selection_bias(probabilities=(0.3, 0.3)), make_selection_bias(kind="distance", strength=0.0)):
        assert_allclose(shift.ratio(shift.X), 1.0, rtol=1e-12)


def test_constant_and_huge_columns_leave_the_distance_finite():
    X = np.random.default_rng(0).standard_normal((40, 4))
    awkward = X * [1.0, 1e200, 1e-200, 0.0] + [0.0, 0.0, 0.0, 0.1]
    ratio, plain = (make_selection_bias(rows, kind="distance", strength=0.4).ratio(rows) for rows in (awkward, X[:, :3]))
    # A constant column adds nothing to the sum, only to the number of columns it is divided by.
    scaled = make_selection_bias(X[:, :3], kind="distance", strength=0.3).ratio(X[:, :3])
    assert_allclose(ratio, scaled, rtol=1e-10)
    assert not np.allclose(ratio, plain)


def test_a_selection_too_rare_for_float64_keeps_its_log_ratio():
    X = np.vstack([np.zeros((50, 1)), [[1.0]]])
    shift = make_selection_bias(X, kind="distance", strength=100.0)
    assert np.isfinite(shift.ratio.log(X)).all() and shift.ratio.log(X)[-1] > 4000


# ---------------------------------------------------------------- errors

TABLE = np.arange(20.0).reshape(10, 2)
ERRORS = {
    "no source row": (lambda: make_gaussian_shift(0, 5), "n_source must be an integer >= 1; got 0"),
    "a negative target": (lambda: make_mixture_shift(5, -1), "n_target must be an integer >= 1; got -1"),
    "half a row": (lambda: make_heavy_tails(2.5, 5), "n_source must be an integer >= 1; got 2.5"),
    "a truth for a size": (lambda: make_heavy_tails(5, True), "n_target must be an integer >= 1; got True"),
    "no column": (lambda: make_gaussian_shift(5, 5, 0), "n_columns must be an integer >= 1; got 0"),
    "no direction": (lambda: make_subspace_shift(n_directions=0), "n_directions must be an integer >= 1; got 0"),
    "too many directions": (lambda: make_subspace_shift(5, 5, 3, n_directions=4), "at most n_columns; got 4 directions in 3"),
    "a negative scale": (lambda: make_gaussian_shift(scale=-1.0), "scale must be a finite number > 0; got -1.0"),
    "no scale": (lambda: make_subspace_shift(scale=0.0), "scale must be a finite number > 0; got 0.0"),
    "scale not a number": (lambda: make_heavy_tails(scale=np.nan), "scale must be a finite number > 0; got nan"),
    "two scales": (lambda: make_gaussian_shift(scale=[1.0, 2.0]), "scale must be a finite number > 0"),
    "a long shift": (lambda: make_gaussian_shift(shift=[1.0, 2.0]), r"a vector \(1,\); got shape \(2,\)"),
    "an endless shift": (lambda: make_heavy_tails(shift=np.inf), "shift must be finite; got inf"),
    "negative noise": (lambda: make_gaussian_shift(noise=-0.1), "noise must be a finite number >= 0.*got -0.1"),
    "df": (lambda: make_heavy_tails(df_source=0.01), "df_source must be a finite number >= 0.1; got 0.01"),
    "infinite df": (lambda: make_heavy_tails(df_target=np.inf), "df_target must be a finite number >= 0.1; got inf"),
    "means of other columns": (
        lambda: make_mixture_shift(means=[[0.0], [1.0]]),
        r"means must be \(K, n_columns\) with n_columns=2; got shape \(2, 1\)",
    ),
    "target means": (lambda: make_mixture_shift(target_means=[0.0, 1.0]), r"target_means must be \(K, n_columns\)"),
    "components": (lambda: make_mixture_shift(means=np.zeros((3, 2))), "same number of components; got 3 means, 3 target"),
    "negative weights": (lambda: make_mixture_shift(source_weights=[-1, 2]), r"source_weights must be \(K,\) numbers >= 0"),
    "no weight": (lambda: make_mixture_shift(target_weights=[0, 0]), "target_weights must be .* one of them > 0"),
    "mixture scales": (lambda: make_mixture_shift(scales=[1.0, 0.0]), "scales must be a number > 0, or one for each of the 2"),
    "many mixture scales": (lambda: make_mixture_shift(scales=[1.0, 1.0, 1.0]), "one for each of the 2 components"),
    "an unknown kind": (lambda: make_selection_bias(kind="age"), r"'age' is not known; use one of \['distance', 'feature'\]"),
    "labels alone": (lambda: make_selection_bias(labels=[0, 1]), "labels were given without X"),
    "labels of another length": (lambda: make_selection_bias(TABLE, [0, 1]), r"labels must be \(10,\).*got shape \(2,\)"),
    "a column out of range": (lambda: make_selection_bias(TABLE, column=2), "column must be a number from 0 to 1; got 2"),
    "an unknown name": (
        lambda: make_selection_bias(pd.DataFrame(TABLE, columns=["a", "b"]), column="c"),
        r"from 0 to 1 or one of \['a', 'b'\]; got 'c'",
    ),
    "a probability of none": (lambda: make_selection_bias(probabilities=(0.0, 1.0)), r"two numbers in \(0, 1\].*no ratio"),
    "three probabilities": (lambda: make_selection_bias(probabilities=(0.1, 0.2, 0.3)), "two numbers in"),
    "a low threshold": (lambda: make_selection_bias(TABLE, threshold=-1.0), "All values of column 0 are > -1: give a threshold"),
    "a constant column": (lambda: make_selection_bias(np.ones((9, 1))), "All values of column 0 are <= 1: give a threshold"),
    "a negative strength": (lambda: make_selection_bias(kind="distance", strength=-1.0), "strength must be .*; got -1.0"),
    "too large a target": (lambda: make_selection_bias(TABLE, n_target=10), "from 1 to 9, as X has 10 rows; got 10"),
    "no target": (lambda: make_selection_bias(TABLE, n_target=0), "n_target must be an integer from 1 to 9"),
    "too large a source": (
        lambda: make_selection_bias(TABLE, probabilities=(1, 1), n_source=6),
        "n_source must be an integer from 1 to 5, as 5 of 5 candidates were kept; got 6",
    ),
    "nothing kept": (lambda: make_selection_bias(TABLE, probabilities=(1e-9, 1e-9)), "None of the 5 candidate rows was kept"),
    "one row": (lambda: make_selection_bias([[1.0]]), "X must have 2 rows or more, one for each sample; got 1"),
    "a hole in the table": (lambda: make_selection_bias([[1.0], [np.nan]]), "NaN or infinity in column 0"),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_mistake_is_refused_in_words(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
