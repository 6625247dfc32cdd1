"""Wasserstein as an estimator of tables: transform, discrete rows, counts, accuracy, and the critic in place of the potentials."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densratio import DensityRatio, Wasserstein, stack_domains
from densratio.datasets import make_gaussian_shift, make_mixture_shift
from densratio.objectives import Wasserstein1
from densratio.solvers import Reference
from densratio.testing import gaussian_shift
from densratio.training import DynamicReweighter

PARAMETERS = [{}, {"regularization": 0.0}, {"max_weight": 1.5}, {"max_iter": 2}, {"potential": "critic", "max_iter": 30}]


def table(d, n=60, m=50, seed=0):
    problem = gaussian_shift(n, m, d, shift=0.7, seed=seed)
    return problem.source, problem.target


def nmse(found, truth):
    return np.mean((found / found.mean() - truth / truth.mean()) ** 2) / np.mean((truth / truth.mean()) ** 2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("params", PARAMETERS, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_transform_gives_the_weights_of_the_source_rows(d, params, dtype):
    source, target = (rows.astype(dtype) for rows in table(d))
    ratio = Wasserstein(random_state=0, **params).fit(*stack_domains(source, target))
    np.testing.assert_array_equal(ratio.transform(source), ratio.weights_)
    # Rows on either side of a row of the fit are as near to its weight as they are to it, where there are potentials.
    if params.get("regularization", 1.0) != 0.0 and "max_iter" not in params:
        aside = ratio.transform((source + 1e-3).astype(dtype))
        assert np.abs(aside - ratio.weights_).max() <= 1e-3 * np.sqrt(d) / 0.3 * 1.01 + 1e-5


CODES = np.arange(4.0)[:, None]
SHARES = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize("regularization", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize("d", [1, 2])
def test_few_distinct_rows_give_the_quotient_of_frequencies(regularization, d):
    """A code is at distance 1 from the next, so a penalty whose slopes differ by less leaves all mass where it is."""
    counts = np.array([40, 30, 20, 10]), np.array([10, 20, 30, 40])
    source, target = (np.repeat(CODES, count, axis=0) * np.ones(d) for count in counts)
    ratio = Wasserstein(regularization=regularization).fit(*stack_domains(source, target))
    expected = np.array([10 / 40, 20 / 30, 30 / 20, 40 / 10])
    np.testing.assert_allclose(ratio.weights_, np.repeat(expected, counts[0]), atol=1e-6)
    np.testing.assert_allclose(ratio.transform(CODES * np.ones(d)), expected, atol=1e-6)


@pytest.mark.parametrize("d", [1, 2])
def test_counts_are_copies_and_their_unit_is_none(d):
    source, target = table(d, 25, 20)
    X, y = stack_domains(source, target)
    counts = np.random.default_rng(0).integers(1, 4, 45)
    copied = Wasserstein().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    for unit in (1.0, 1e-200, 1e200):
        weighted = Wasserstein().fit(X, y, sample_weight=unit * counts)
        np.testing.assert_allclose(np.repeat(weighted.weights_, counts[y == 0]), copied.weights_, atol=1e-6)
        assert weighted.gap_ <= 1e-9


@pytest.mark.parametrize("d", [1, 2])
def test_counts_over_twenty_orders_of_magnitude_are_solved(d):
    X, y = stack_domains(*table(d))
    counts = 10.0 ** np.random.default_rng(0).uniform(-20.0, 0.0, len(y))
    ratio = Wasserstein().fit(X, y, sample_weight=counts)
    assert ratio.gap_ <= 1e-6 * ratio.objective_value_
    assert np.average(ratio.weights_, weights=counts[y == 0]) == pytest.approx(1.0)
    assert np.isfinite(ratio.transform(X)).all()


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("params", [{}, {"max_weight": 1.5}, {"regularization": 0.0, "max_weight": 3.0}], ids=str)
def test_the_value_is_the_optimum_of_cvxpy(d, params):
    source, target = table(d, 30, 25, seed=2)
    ratio = Wasserstein(scale=None, **params).fit(*stack_domains(source, target))
    problem = Wasserstein1(**{"regularization": 0.3, **params}).problem(source, target)
    best = float(problem.value_and_grad(Reference().solve(problem).coef)[0])
    assert ratio.objective_value_ == pytest.approx(best, rel=1e-6) and ratio.converged_


@given(seed=st.integers(0, 2**16))
def test_a_distance_that_no_plan_avoids_costs_no_digits(seed):
    """Most of the target lies far away, where its distances are linear in the source rows, but for 1e-6 of them."""
    rng = np.random.default_rng(seed)
    source, weight = rng.normal(size=(30, 3)), np.concatenate([10.0 ** rng.uniform(-3, 3, 30), [1.0, 2.0, 60.0]])
    fits = [
        Wasserstein(regularization=0.1, scale=None).fit(
            *stack_domains(source, np.array([[6.0, 1.0, 0.0], [1.0, 1.0, 1.0], 3 * [far]])), weight
        )
        for far in (-1e6, -1e10)
    ]
    np.testing.assert_allclose(fits[1].weights_, fits[0].weights_, atol=1e-4 * fits[0].weights_.max())
    assert fits[1].converged_ and fits[1].gap_ < 1e-7


def test_tensors_and_arrays_give_the_same_weights():
    X, y = stack_domains(*table(2))
    expected = Wasserstein().fit(X, y)
    found = Wasserstein().fit(torch.tensor(X), torch.tensor(y))
    assert isinstance(found.weights_, torch.Tensor)
    np.testing.assert_allclose(found.weights_.numpy(), expected.weights_, atol=1e-12)
    np.testing.assert_allclose(found.transform(torch.tensor(X)).numpy(), expected.transform(X), atol=1e-12)


def test_the_regularization_may_be_chosen_by_cross_validation():
    ratio = Wasserstein(regularization="cv", cv=3).fit(*stack_domains(*table(2)))
    assert len(ratio.cv_results_["params"]) == 5 and ratio.best_params_["regularization"] > 0.0


# Measured on other seeds: .030 and .086 (Gaussian, one and two columns), .030 and .086 (mixture).
KNOWN = [
    (make_gaussian_shift, 1, 0.05),
    (make_gaussian_shift, 2, 0.12),
    (make_mixture_shift, 1, 0.05),
    (make_mixture_shift, 2, 0.12),
]


@pytest.mark.parametrize(("make", "d", "most"), KNOWN)
def test_a_known_ratio_is_recovered_on_rows_of_the_fit_and_on_others(make, d, most):
    errors = []
    for seed in range(3):
        shift, fresh = make(250, 250, n_columns=d, random_state=seed), make(500, 2, n_columns=d, random_state=99 + seed).X_source
        rows = np.concatenate([shift.X_source, shift.X_target])
        unit = [(part - rows.mean(axis=0)) / rows.std(axis=0) for part in (shift.X_source, shift.X_target, fresh)]
        ratio = Wasserstein().fit(*stack_domains(*unit[:2]))
        errors.append([nmse(ratio.weights_, shift.ratio(shift.X_source)), nmse(ratio.transform(unit[2]), shift.ratio(fresh))])
    assert np.max(np.mean(errors, axis=0)) <= most


def test_a_loop_takes_the_published_step_without_regularization():
    assert DynamicReweighter("wasserstein", 8, 4).ratio.regularization == 0.0
    assert DensityRatio("wasserstein").fit(*stack_domains(*table(1))).converged_


# ---------------------------------------------------------------- the critic


def critic(**params):
    return Wasserstein(**{"potential": "critic", "random_state": 0, "max_iter": 40, **params})


def test_a_critic_is_the_same_for_a_seed_and_survives_pickling():
    X, y = stack_domains(*table(2))
    ratio, again, other = (critic(random_state=seed).fit(X, y) for seed in (0, 0, 1))
    np.testing.assert_array_equal(ratio.weights_, again.weights_)
    assert np.abs(ratio.weights_ - other.weights_).max() > 1e-3
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ratio)).transform(X), ratio.transform(X))
    assert ratio.weights_.dtype == X.dtype and 1 <= ratio.n_iter_ <= 40


def test_a_critic_leaves_the_generators_of_the_caller_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    critic().fit(*stack_domains(*table(2)))
    assert torch.rand(1) == expected


@pytest.mark.parametrize("make", [make_gaussian_shift, make_mixture_shift])
def test_a_critic_recovers_a_known_ratio(make):
    shift = make(250, 250, n_columns=2, random_state=0)
    rows = np.concatenate([shift.X_source, shift.X_target])
    unit = [(part - rows.mean(axis=0)) / rows.std(axis=0) for part in (shift.X_source, shift.X_target)]
    ratio = critic(max_iter=10_000).fit(*stack_domains(*unit))
    assert nmse(ratio.weights_, shift.ratio(shift.X_source)) <= 0.2
    assert ratio.converged_ and ratio.n_iter_ < 500


def test_a_critic_refuses_what_it_cannot_do():
    X, y = stack_domains(*table(2))
    with pytest.raises(ValueError, match=r"potential must be None or one of \['critic'\]; got 'sliced'"):
        Wasserstein(potential="sliced").fit(X, y)
    with pytest.raises(ValueError, match=r"needs regularization > 0"):
        critic(regularization=0.0).fit(X, y)
    with pytest.raises(ValueError, match=r'DynamicReweighter\(Wasserstein\(\), ..., potential="critic"\)'):
        critic().update(X[:4], X[4:8])
    assert not hasattr(critic(), "partial_fit") and hasattr(Wasserstein(), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit") as caught:
        critic().partial_fit(X[:4])
    assert 'DynamicReweighter(Wasserstein(), ..., potential="critic")' in str(caught.value.__cause__)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_critic_on_a_gpu_is_the_same_for_a_seed_and_near_that_of_the_cpu():
    X, y = stack_domains(*table(2, 250, 250))
    on_gpu, again, on_cpu = (critic(device=device).fit(X, y) for device in ("cuda", "cuda", "cpu"))
    np.testing.assert_array_equal(on_gpu.weights_, again.weights_)
    assert isinstance(on_gpu.weights_, np.ndarray) and on_gpu._coef.device.type == "cuda"
    # The two draw different points for the penalty.
    assert np.sqrt(np.mean((on_gpu.weights_ - on_cpu.weights_) ** 2)) <= 0.05
