"""KLIEP and LSIF on samples far apart and on tiny tables: ratios and scores are numbers, weights right, and no fit takes long."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from densratio import KLIEP, LSIF, stack_domains

MAKE = {
    "kliep": KLIEP,
    "lsif": LSIF,
    "ulsif": lambda **given: LSIF(nonnegative=False, **given),
    "rulsif": lambda **given: LSIF(nonnegative=False, alpha=0.1, **given),
}


def apart(distance, n_source=30, n_target=20, d=1, spread=0.01, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, spread, (n_source, d)), rng.normal(distance, spread, (n_target, d))


@pytest.mark.filterwarnings("ignore:The ratio of:UserWarning")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=15)
@given(distance=st.floats(0.0, 60.0), d=st.sampled_from([1, 3, 50]), spread=st.sampled_from([0.01, 1.0]))
def test_ratios_and_scores_are_finite_at_any_distance(name, dtype, distance, d, spread):
    source, target = (rows.astype(dtype) for rows in apart(distance, d=d, spread=spread))
    X, y = stack_domains(source, target)
    found = MAKE[name](gamma=1.0, scale=None, random_state=0).fit(X, y)
    ratio = found.transform(X)
    assert np.all(np.isfinite(ratio)) and ratio.min() >= 0.0
    assert np.isfinite(found.score(X, y))
    assert found.weights_.mean(dtype=np.float64) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("distance", [1.0, 10.0, 20.0, 25.0])
def test_far_from_the_only_center_weights_are_the_kernel_over_its_mean(name, distance):
    source, target = apart(distance, n_target=1)
    found = MAKE[name](gamma=1.0, scale=None).fit(*stack_domains(source, target))
    log_kernel = -np.sum((source - target) ** 2, axis=1)
    expected = np.exp(log_kernel - logsumexp(log_kernel) + np.log(len(source)))
    np.testing.assert_allclose(found.weights_, expected, rtol=1e-9)
    np.testing.assert_allclose(found.transform(source), expected, rtol=1e-9)


SEARCHES = {
    "l1, both": lambda: LSIF(gamma="cv", regularization="cv", l1_ratio=1.0, nonnegative=False, random_state=0),
    "l1, gamma": lambda: LSIF(gamma="cv", l1_ratio=1.0, nonnegative=False, random_state=0),
    "no penalty": lambda: LSIF(gamma="cv", regularization=0.0, random_state=0),
    "both": lambda: LSIF(gamma="cv", regularization="cv", random_state=0),
    "expectation maximization": lambda: KLIEP(gamma="cv", solver="expectation_maximization", random_state=0),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("distance", [0.5, 3.0])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_on_a_tiny_table_takes_seconds(name, distance):
    X, y = stack_domains(*apart(distance, n_source=24, n_target=15, d=2, spread=1.0))
    start = time.process_time()
    found = SEARCHES[name]().fit(X, y)
    assert time.process_time() - start < 10.0
    assert np.all(np.isfinite(found.weights_)) and np.all(np.isfinite(found.transform(X)))


@pytest.mark.parametrize("nonnegative", [True, False])
def test_an_unbounded_value_ends_the_fit_with_a_warning(nonnegative):
    X, y = stack_domains(*apart(3.0, d=2, spread=1.0))
    with pytest.warns(UserWarning, match="LSIF stopped after"):
        found = LSIF(gamma=30.0, scale=None, l1_ratio=1.0, nonnegative=nonnegative).fit(X, y)
    assert not found.converged_ and found.n_iter_ < 200


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_momentum_never_leaves_the_coefficients_for_which_the_likelihood_is_defined():
    """A negative ratio has no logarithm, and the gradient there points away from the optimum."""
    rng = np.random.default_rng(0)
    X, y = stack_domains(rng.normal(0.0, 1.0, (300, 4)), rng.normal(0.5, 1.0, (200, 4)))
    best = KLIEP(gamma=1.0).fit(X, y).objective_value_
    assert KLIEP(gamma=1.0, solver="projected_gradient").fit(X, y).objective_value_ == pytest.approx(best, abs=1e-6)
    KLIEP(gamma=30.0, solver="projected_gradient", max_iter=300).fit(X, y)
