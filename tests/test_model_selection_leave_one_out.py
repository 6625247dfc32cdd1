"""Leave-one-out scores of uLSIF and RuLSIF against a fit for each row, and against each other on samples of the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_cases import sorted_rows

from densratio import LSIF, stack_domains
from densratio._scale import some_of
from densratio.estimators import lsif, objective_of
from densratio.features import Gaussian
from densratio.model_selection import leave_one_out_scores
from densratio.testing import gaussian_shift

STRENGTHS = [1e-3, 0.1, 3.0]
SHAPES = [(12, 20), (15, 15), (23, 9), (2, 5), (5, 2)]


def samples(n=60, m=50, d=2, seed=0):
    problem = gaussian_shift(n, m, d, seed=seed)
    return problem.source, problem.target


def by_brute_force(source, target, strength, alpha, nonnegative):
    """-J on the rows left out, by a fit for each row of either sample."""

    def left_out(row, s, t):
        hessian = alpha * t.T @ t / len(t) + (1.0 - alpha) * s.T @ s / len(s)
        ratio = row @ np.linalg.solve(hessian + strength * np.eye(s.shape[1]), t.mean(axis=0))
        return max(ratio, 0.0) if nonnegative else ratio

    r_x = np.array([left_out(row, np.delete(source, i, axis=0), target) for i, row in enumerate(source)])
    r_v = np.array([left_out(row, source, np.delete(target, i, axis=0)) for i, row in enumerate(target)])
    return np.mean(r_v - 0.5 * alpha * r_v**2) - 0.5 * (1.0 - alpha) * np.mean(r_x**2)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("n", "m"), SHAPES)
@given(k=st.integers(1, 8), seed=st.integers(0, 2**16))
@settings(max_examples=6)
def test_leave_one_out_scores_are_those_of_a_fit_for_each_row(n, m, alpha, nonnegative, k, seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(n, k)), rng.normal(0.3, 1.0, size=(m, k))
    scores = leave_one_out_scores(source, target, STRENGTHS, alpha=alpha, nonnegative=nonnegative)
    expected = [by_brute_force(source, target, strength, alpha, nonnegative) for strength in STRENGTHS]
    assert scores == pytest.approx(np.array(expected), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@given(k=st.integers(1, 8), seed=st.integers(0, 2**16))
@settings(max_examples=6)
def test_leaving_out_one_of_a_count_of_k_is_leaving_out_one_of_k_copies(alpha, k, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(9, k)), rng.normal(0.3, 1.0, size=(7, k))
    counts = rng.integers(1, 6, 9), rng.integers(1, 6, 7)
    weights = dict(zip(("source_weight", "target_weight"), (count.astype(float) for count in counts), strict=True))
    counted = leave_one_out_scores(*rows, STRENGTHS, alpha=alpha, **weights)
    copied = (np.repeat(part, count, axis=0) for part, count in zip(rows, counts, strict=True))
    assert counted == pytest.approx(leave_one_out_scores(*copied, STRENGTHS, alpha=alpha), rel=1e-8, abs=1e-8)


def test_leave_one_out_on_tensors_is_leave_one_out_on_arrays():
    source, target = samples()
    by_numpy = leave_one_out_scores(source, target, STRENGTHS, alpha=0.1)
    by_torch = leave_one_out_scores(torch.asarray(source), torch.asarray(target), STRENGTHS, alpha=0.1)
    assert by_torch.numpy() == pytest.approx(by_numpy, rel=1e-10)


def test_leave_one_out_of_one_row_is_refused():
    with pytest.raises(ValueError, match=r"at least two rows of each sample; got 1 source and 3 target"):
        leave_one_out_scores(np.ones((1, 2)), np.ones((3, 2)), [1.0])


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_ulsif_chooses_by_the_leave_one_out_scores_of_its_own_features(alpha):
    source, target = samples()
    gammas, strengths = [0.05, 0.5, 5.0], [0.01, 0.1, 1.0]
    ratio = LSIF(gamma=gammas, regularization=strengths, nonnegative=False, alpha=alpha, n_centers=None, scale=None)
    ratio.fit(*stack_domains(source, target))
    kernels = [Gaussian(gamma=g).fit(source, target, anchors="target") for g in gammas]
    expected = [[by_brute_force(*(k(x) for x in (source, target)), s, alpha, True) for s in strengths] for k in kernels]
    assert ratio.cv_results_["mean_test_score"] == pytest.approx(np.ravel(expected), rel=1e-6)
    best = np.unravel_index(np.argmax(expected), (3, 3))
    assert ratio.best_params_ == {"gamma": gammas[best[0]], "regularization": strengths[best[1]]}
    assert (ratio.gamma_, objective_of(ratio).regularization) == tuple(ratio.best_params_.values())


# ---------------------------------------------------------------- some rows left out


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@given(k=st.integers(1, 8), seed=st.integers(0, 2**16), n_parts=st.integers(2, 4))
@settings(max_examples=8)
def test_the_scores_of_some_rows_left_out_average_to_those_of_all(alpha, nonnegative, k, seed, n_parts):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(6 * n_parts, k)), rng.normal(0.3, 1.0, size=(4 * n_parts, k))
    parts = zip(*(np.split(rng.permutation(len(rows)), n_parts) for rows in (source, target)), strict=True)
    scores = [
        leave_one_out_scores(source, target, STRENGTHS, alpha=alpha, nonnegative=nonnegative, left_out=part) for part in parts
    ]
    expected = [by_brute_force(source, target, strength, alpha, nonnegative) for strength in STRENGTHS]
    assert np.mean(scores, axis=0) == pytest.approx(np.array(expected), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=8)
def test_all_rows_left_out_in_any_order_give_the_score_with_weights_too(alpha, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(9, 3)), rng.normal(0.3, 1.0, size=(7, 3))
    options = {"alpha": alpha, "source_weight": rng.uniform(0.3, 3.0, 9), "target_weight": rng.uniform(0.3, 3.0, 7)}
    shuffled = leave_one_out_scores(*rows, STRENGTHS, **options, left_out=(rng.permutation(9), rng.permutation(7)))
    assert shuffled == pytest.approx(leave_one_out_scores(*rows, STRENGTHS, **options), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_ulsif_leaves_out_some_of_many_rows(monkeypatch, alpha, weighted):
    monkeypatch.setattr(lsif, "_LEFT_OUT", 20)
    source, target = (sorted_rows(rows) for rows in samples())
    X, y = stack_domains(source, target)
    counts = np.random.default_rng(0).integers(1, 4, 110) if weighted else None
    ratio = LSIF(gamma=[0.05, 5.0], regularization=STRENGTHS, nonnegative=False, alpha=alpha, n_centers=None, scale=None)
    ratio.fit(X, y, counts)
    weights = {"source_weight": counts[y == 0], "target_weight": counts[y == 1]} if weighted else {}
    for gamma, scores in zip([0.05, 5.0], np.split(ratio.cv_results_["mean_test_score"], 2), strict=True):
        kernel = Gaussian(gamma=gamma).fit(source, target, anchors="target")
        rows = kernel(source), kernel(target)
        expected = leave_one_out_scores(*rows, STRENGTHS, alpha=alpha, left_out=(some_of(60, 20), some_of(50, 20)), **weights)
        assert scores == pytest.approx(expected, rel=1e-6)
