"""KLIEP on more target rows than are gathered: the optimum on all of them, by passes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

pytest.importorskip("dask.array")
from dask_cases import (
    on_one_thread,  # noqa: F401
    samples,
    split,
    table,
    with_features_of,
)

import densratio
from densratio import KLIEP
from densratio.dask import DaskRatio, solve
from densratio.objectives.likelihood import LikelihoodSums, Mixture, MixtureSet


@pytest.mark.parametrize("is_weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("gamma", [0.05, "median", 30.0])
def test_kliep_reaches_the_optimum_on_all_target_rows_by_passes(gamma, is_weighted, monkeypatch):
    monkeypatch.setattr(solve, "_GATHERED", 40 * 100)
    X, y, weight = table(2000, 3000)
    weight = weight if is_weighted else None
    ratio = KLIEP(gamma=gamma, n_centers=40, tol=1e-9, random_state=0)
    model = DaskRatio(ratio, n_sample=200).fit(*split(X, y, weight))
    expected = with_features_of(model, ratio, X, y, weight)
    assert model.ratio_._problem.target.shape[0] <= 100
    assert model.converged_ and model.gap_ <= 1e-9
    np.testing.assert_allclose(model.objective_value_, expected.objective_value_, atol=1e-9)
    np.testing.assert_allclose(model.weights_.compute(), expected.weights_, rtol=0, atol=1e-6 * expected.weights_.max())
    np.testing.assert_allclose(np.average(model.weights_.compute(), weights=None if weight is None else weight[y == 0]), 1.0)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_target_rows_that_only_centers_far_from_the_source_are_near_do_not_spoil_the_passes(monkeypatch):
    monkeypatch.setattr(solve, "_GATHERED", 40 * 100)
    source, target = samples(500, 600)
    target[::3] += 9.0
    X, y = densratio.stack_domains(source, target)
    ratio = KLIEP(gamma=2.0, n_centers=40, random_state=0)
    model, expected = DaskRatio(ratio).fit(*split(X, y)), clone(ratio).fit(X, y)
    assert model.converged_ and (model.coef_ == 0.0).sum() >= 5
    np.testing.assert_allclose(model.objective_value_, expected.objective_value_, atol=1e-6)
    np.testing.assert_allclose(model.weights_.compute(), expected.weights_, atol=1e-3)


def test_kliep_on_some_target_rows_alone_would_be_another_ratio(monkeypatch):
    X, y, _ = table(2000, 3000)
    ratio = KLIEP(n_centers=40, random_state=0)
    whole = DaskRatio(ratio).fit(*split(X, y))
    monkeypatch.setattr(solve, "_GATHERED", 40 * 100)
    refined = DaskRatio(ratio).fit(*split(X, y))
    monkeypatch.setattr(solve, "_whole", lambda passes, problem: problem)
    rough = DaskRatio(ratio).fit(*split(X, y))
    apart = [np.abs(model.weights_ - whole.weights_).max().compute() for model in (refined, rough)]
    assert apart[0] < 1e-5 < 1e-1 < apart[1]


def likelihood_problem(seed=0):
    rng = np.random.default_rng(seed)
    target, b = rng.uniform(size=(50, 6)), rng.uniform(0.2, 1.0, size=6)
    shares = rng.dirichlet(np.ones(6))
    return target, rng.uniform(size=50), b, shares


def test_the_sums_of_the_likelihood_are_its_value_gradient_and_curvature():
    target, count, b, shares = likelihood_problem()
    where = Mixture.of(target, count, MixtureSet(b, np.ones(6, dtype=bool)))

    def log_likelihood(s):
        return float(count @ np.log(target @ (s / b)))

    sums = where.sums(shares)
    np.testing.assert_allclose([sums.total, sums.reached], count.sum())
    np.testing.assert_allclose(sums.log_ratio, log_likelihood(shares))
    step = 1e-5 * np.eye(6)
    slope = [(log_likelihood(shares + e) - log_likelihood(shares - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(sums.first, slope, rtol=1e-6)
    firsts = [where.sums(shares + e).first for e in (*step, *-step)]
    np.testing.assert_allclose(sums.second, -(np.array(firsts[:6]) - np.array(firsts[6:])) / 2e-5, rtol=1e-6)


def test_the_sums_of_two_parts_add_up_and_rows_near_no_center_are_not_reached():
    target, count, b, shares = likelihood_problem(1)
    target[40:] = 0.0
    feasible = MixtureSet(b, np.ones(6, dtype=bool))
    whole = Mixture.of(target, count, feasible).sums(shares)
    parts = [Mixture.of(target[at], count[at], feasible).sums(shares) for at in (slice(0, 20), slice(20, 50), slice(50, 50))]
    added = parts[0].plus(parts[1]).plus(parts[2])
    for name in LikelihoodSums._fields:
        np.testing.assert_allclose(getattr(added, name), getattr(whole, name), err_msg=name)
    np.testing.assert_allclose(whole.reached, count[:40].sum())
