"""The default bandwidth of kernel expansions: of a third of the median distance where coefficients are >= 0."""

import numpy as np
import pytest
from sklearn.base import clone

from densratio import KLIEP, KMM, LSIF, SpectralRatio, stack_domains
from densratio.datasets import make_gaussian_shift, make_heavy_tails, make_mixture_shift
from densratio.features import Gaussian, Laplacian

KINDS = {"gaussian": (Gaussian, 2), "laplacian": (Laplacian, 1)}


@pytest.mark.parametrize("kernel", KINDS)
@pytest.mark.parametrize("n_columns", [1, 2, 3, 6])
@pytest.mark.parametrize("ratio", [KLIEP, LSIF])
def test_the_width_is_the_median_distance_over_the_columns_at_most_over_three(ratio, n_columns, kernel):
    rng, (kind, degree) = np.random.default_rng(n_columns), KINDS[kernel]
    source, target = rng.normal(size=(40, n_columns)), rng.normal(size=(30, n_columns))
    constant = np.column_stack([source, np.ones(40)]), np.column_stack([target, np.ones(30)])
    expected = float(kind().bandwidth(source, target)) * min(n_columns, 3) ** degree
    for pair in ((source, target), constant):
        fitted = ratio(kernel=kernel, scale=None).fit(*stack_domains(*pair))
        np.testing.assert_allclose(float(fitted.features_.gamma_), expected, rtol=1e-12)


@pytest.mark.parametrize("ratio", [LSIF(nonnegative=False, scale=None), KMM(scale=None)])
def test_coefficients_of_any_sign_and_weights_take_the_median_distance(ratio):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(40, 4)), rng.normal(size=(30, 4))
    fitted = ratio.fit(*stack_domains(source, target))
    np.testing.assert_allclose(float(fitted.features_.gamma_), float(Gaussian().bandwidth(source, target)), rtol=1e-12)


@pytest.mark.parametrize(("ratio", "n_columns"), [(KLIEP, 5), (LSIF, 2), (LSIF, 5)])
@pytest.mark.parametrize("shift", [make_gaussian_shift, make_mixture_shift, make_heavy_tails])
def test_it_is_nearer_to_known_ratios_than_the_median_distance(ratio, shift, n_columns):
    errors = np.zeros(2)
    for seed in range(4):
        drawn = shift(400, 400, n_columns, random_state=seed)
        truth, narrow = drawn.ratio(drawn.X[drawn.y == 0]), ratio(random_state=seed).fit(drawn.X, drawn.y)
        wide = clone(narrow).set_params(gamma=float(narrow.features_.gamma_) / min(n_columns, 3) ** 2).fit(drawn.X, drawn.y)
        errors += [np.mean((kind.weights_ - truth) ** 2) for kind in (narrow, wide)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("offset", [0.5, 1e6])
@pytest.mark.parametrize("gamma", ["target_spread", "median"])
@pytest.mark.parametrize("estimator", [KMM, KLIEP])
def test_a_target_that_is_constant_up_to_rounding_is_constant_to_the_rules(estimator, gamma, offset):
    """The scaled rows lie around the median, where what rounding left looks large."""
    rng = np.random.default_rng(0)
    source, constant = offset + rng.normal(size=(150, 1)), np.full((90, 1), offset)
    rounded = np.where(rng.random((90, 1)) < 0.5, constant, np.nextafter(constant, np.inf))
    X, y = stack_domains(source, constant)
    expected = estimator(gamma=gamma).fit(X, y).weights_
    assert np.ptp(expected) > 0.1
    found = estimator(gamma=gamma).fit(*stack_domains(source, rounded)).weights_
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gamma", ["target_spread", "median"])
def test_the_bandwidth_of_a_spectral_series_is_not_that_of_rounding(gamma):
    """Most values are copies of one, which rounding sets apart; in the scaled column they are near 0, where it looks large."""
    rng = np.random.default_rng(0)
    exact = [1e6 + np.where(rng.random((n, 1)) < 0.95, 0.0, rng.normal(size=(n, 1))) for n in (200, 150)]
    rounded = [np.where(rng.random(rows.shape) < 0.5, rows, np.nextafter(rows, np.inf)) for rows in exact]
    widths = [SpectralRatio(gamma=gamma, n_components=3).fit(*stack_domains(*rows)).gamma_ for rows in (exact, rounded)]
    assert widths[1] == pytest.approx(widths[0], rel=1e-8)
