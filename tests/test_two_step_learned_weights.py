"""learn_weights: its gradient against all subsets, its set against cvxpy, its risks by hand, and what it finds in tables."""

from __future__ import annotations

import warnings
from itertools import product

import cvxpy as cp
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import minimize
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC

from densratio.projections import box_sum_range
from densratio.two_step import LearnedWeights, learn_weights
from densratio.two_step.learned_weights import RISKS, policy_gradient, scale_slopes

SUBSETS = np.array(list(product([False, True], repeat=3)))
seeds = st.integers(0, 1000)


def chances(s, subsets):
    return np.prod(np.where(subsets, s, 1.0 - s), axis=1)


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_the_gradient_is_without_bias_over_all_triples_of_subsets(seed):
    rng = np.random.default_rng(seed)
    s, risk_of = rng.uniform(0.1, 0.9, 3), rng.normal(size=len(SUBSETS))
    p = chances(s, SUBSETS)
    expected = np.zeros(3)
    for triple in product(range(len(SUBSETS)), repeat=3):
        at = list(triple)
        expected += np.prod(p[at]) * policy_gradient(risk_of[at], SUBSETS[at])
    slope = np.array([np.average(risk_of[m], weights=p[m]) - np.average(risk_of[~m], weights=p[~m]) for m in SUBSETS.T])
    np.testing.assert_allclose(expected, s * (1.0 - s) * slope, atol=1e-12)
    moved = np.array([p_plus @ risk_of for p_plus in (chances(s + 1e-6 * row, SUBSETS) for row in np.eye(3))])
    np.testing.assert_allclose((moved - p @ risk_of) / 1e-6, slope, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, n=st.integers(1, 9), share=st.floats(0.05, 0.95))
def test_the_set_is_that_of_the_paper(seed, n, share):
    x = np.random.default_rng(seed).normal(0.5, 1.0, n)
    s = cp.Variable(n)
    cp.Problem(cp.Minimize(cp.sum_squares(s - x)), [s >= 0, s <= 1, cp.sum(s) <= share * n]).solve(solver="CLARABEL")
    np.testing.assert_allclose(box_sum_range(x, 1.0, 0.0, share * n), s.value, atol=1e-5)


def test_the_expected_risk_comes_near_its_least_value_over_all_subsets():
    """Of means of some of six numbers, which are to be near 1."""
    y, X = np.array([4.0, 1.5, -2.0, 0.5, 1.0, 3.0]), np.zeros((6, 1))
    subsets = np.array(list(product([False, True], repeat=6)))[1:]
    risks = np.array([(y[m].mean() - 1.0) ** 2 for m in subsets])

    def expected(s):  # of draws that are not empty
        p = chances(s, subsets)
        return p @ risks / p.sum()

    found = learn_weights(DummyRegressor(), X, y, X_val=X[:1], y_val=[1.0], share=0.5, n_steps=200, n_draws=10, step_size=0.05)
    rng, set_of = np.random.default_rng(0), {"type": "ineq", "fun": lambda s: 3.0 - s.sum()}
    best = min(
        minimize(expected, rng.uniform(0.1, 0.4, 6), bounds=[(1e-6, 1.0)] * 6, constraints=[set_of], method="SLSQP").fun
        for _ in range(20)
    )
    start = expected(np.full(6, 0.5))
    assert expected(found.probabilities) < best + 0.05 * (start - best)
    assert found.risks[-50:].mean() < 0.2 * start


def classes_and_groups(n=60):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    y = np.array(["a", "b", "c"])[np.argmax(X @ rng.normal(size=(3, 3)) + rng.normal(size=(n, 3)), axis=1)]
    return X, y, rng.integers(3, size=n)


def test_the_slope_by_the_scale_is_that_of_autograd():
    X, y, _ = classes_and_groups()
    model = LogisticRegression().fit(X, y)
    t = torch.ones(len(y), dtype=torch.float64, requires_grad=True)
    logits = torch.as_tensor(model.decision_function(X)) * t[:, None]
    torch.nn.functional.cross_entropy(logits, torch.as_tensor(np.searchsorted(model.classes_, y)), reduction="sum").backward()
    np.testing.assert_allclose(scale_slopes(model, X, y), t.grad.numpy(), atol=1e-10)
    line = LinearRegression().fit(X, X[:, 0] ** 2)
    t = torch.ones(len(y), dtype=torch.float64, requires_grad=True)
    ((t * torch.as_tensor(line.predict(X)) - torch.as_tensor(X[:, 0] ** 2)) ** 2).sum().backward()
    np.testing.assert_allclose(scale_slopes(line, X, X[:, 0] ** 2), t.grad.numpy(), atol=1e-10)


def test_the_risks_are_those_of_the_means_of_groups():
    values, groups = np.array([1.0, 3.0, 5.0, -1.0, 8.0]), np.array([0, 0, 1, 2, 1])
    assert RISKS["worst"](values, groups) == 6.5
    assert RISKS["rex"](values, groups) == pytest.approx(np.var([2.0, 6.5, -1.0]))
    assert RISKS["irm"](values, groups) == pytest.approx((2.0**2 + 6.5**2 + 1.0) / 3.0)
    assert RISKS["mean"](values, groups) == pytest.approx(3.2)


@pytest.mark.parametrize("risk", ["worst", "rex", "irm"])
def test_the_risk_is_taken_on_the_training_rows_where_no_others_are_given(risk):
    X, y, groups = classes_and_groups()
    names = np.array(["north", "east", "south"])[groups]
    own, given_again = (
        learn_weights(LogisticRegression(), X, y, groups=names, risk=risk, share=0.5, n_steps=3, **val)
        for val in ({}, {"X_val": X, "y_val": y})
    )
    np.testing.assert_array_equal(own.probabilities, given_again.probabilities)
    assert not np.allclose(own.probabilities, 0.5) and own.probabilities.sum() <= 30.0 + 1e-9


def half_wrong(n=80, seed=0):
    """Rows of which the first half has the wrong class, and validation rows."""
    rng = np.random.default_rng(seed)
    X, X_val = rng.normal(size=(n, 2)), rng.normal(size=(40, 2))
    y = (X[:, 0] > 0).astype(int)
    y[: n // 2] = 1 - y[: n // 2]
    return X, y, {"X_val": X_val, "y_val": (X_val[:, 0] > 0).astype(int)}


def test_rows_with_wrong_classes_lose_their_probability_and_the_model_is_right():
    X, y, val = half_wrong()
    found = learn_weights(LogisticRegression(), X, y, **val, share=0.4, n_steps=150)
    wrong, right = found.probabilities[:40], found.probabilities[40:]
    assert right.mean() > 0.6 and wrong.mean() < 0.15
    assert found.probabilities.min() >= 0.0 and found.probabilities.max() <= 1.0 and found.probabilities.sum() <= 32.0 + 1e-9
    np.testing.assert_allclose(found.weights, found.probabilities / found.probabilities.mean())
    model = LogisticRegression().fit(X, y, sample_weight=found.weights)
    assert model.score(val["X_val"], val["y_val"]) > 0.9
    assert found.risks.shape == (150,) and found.risks[-1] < found.risks[0]
    assert "80 rows" in repr(found) and isinstance(found, LearnedWeights)


def test_the_unit_of_the_risk_does_not_count():
    X, _, val = half_wrong()
    y = X[:, 0] ** 2
    one, other = (
        learn_weights(LinearRegression(), X, unit * y, X_val=val["X_val"], y_val=unit * val["X_val"][:, 0] ** 2, n_steps=5)
        for unit in (1.0, 1024.0)
    )
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-9)


def test_a_score_is_negated_and_a_function_is_a_loss():
    X, y, val = half_wrong()
    found = [
        learn_weights(LogisticRegression(), X, y, **val, n_steps=5, metric=metric).probabilities
        for metric in (
            "zero_one_loss",
            "accuracy",
            "neg_accuracy",
            lambda y, p: (y != p).astype(float),
            accuracy,
            "brier",
            "neg_brier",
        )
    ]
    for other in found[1:5]:
        np.testing.assert_allclose(found[0], other, atol=1e-9)
    # Unlike a score's, the sign of a loss in "neg_" is that of scikit-learn's scorers.
    np.testing.assert_allclose(found[5], found[6], atol=1e-9)


def accuracy(y, p):
    """A loss under the name of a score."""
    return (y != p).astype(float)


def test_frames_pipelines_and_seeds():
    X, y, val = half_wrong()
    kind = np.array(["low", "high"])[(X[:, 0] > 0).astype(int)]
    frame = pd.DataFrame({"kind": kind, "x": X[:, 1]}, index=np.arange(80) + 7)
    kind_val = np.array(["low", "high"])[(val["X_val"][:, 0] > 0).astype(int)]
    frame_val = pd.DataFrame({"kind": kind_val, "x": val["X_val"][:, 1]})
    model = make_pipeline(make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough"), LogisticRegression())
    options = {"X_val": frame_val, "y_val": pd.Series(val["y_val"]), "n_steps": 4}
    found = [learn_weights(model, frame, pd.Series(y, index=frame.index), random_state=seed, **options) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(found[0].probabilities, found[1].probabilities)
    assert not np.array_equal(found[0].probabilities, found[2].probabilities)


@pytest.mark.parametrize("form", [sparse.coo_matrix, sparse.csc_array, np.ndarray.tolist, torch.as_tensor])
def test_rows_of_any_form_and_labels_of_one_column(form):
    X, y, val = half_wrong()
    expected = learn_weights(LogisticRegression(), X, y, **val, n_steps=2).probabilities
    val = {"X_val": form(val["X_val"]), "y_val": val["y_val"][:, None]}
    found = learn_weights(LogisticRegression(), form(X), y[:, None], **val, n_steps=2).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_regression_of_one_column_or_several_has_the_mean_of_its_squares():
    X, _, val = half_wrong()
    X_val, options = val["X_val"], {"X_val": val["X_val"], "n_steps": 3}
    one, column, two = (
        learn_weights(LinearRegression(), X, X[:, at] ** 2, y_val=X_val[:, at] ** 2, **options).risks for at in (0, [0], [0, 0])
    )
    np.testing.assert_allclose(column, one)
    np.testing.assert_allclose(two, one)
    groups = np.arange(80) % 2
    flat, column = (
        learn_weights(LinearRegression(), X, X[:, at] ** 2, groups=groups, risk="irm", n_steps=3).risks for at in (0, [0])
    )
    np.testing.assert_allclose(column, flat)


def test_risks_that_are_all_alike_move_nothing():
    X = np.zeros((9, 1))
    found = learn_weights(DummyRegressor(strategy="constant", constant=0.0), X, np.arange(9.0), X_val=X, y_val=X[:, 0], n_steps=3)
    assert found.probabilities == pytest.approx([0.3] * 9, abs=0.0)


X, Y, VAL = half_wrong(12)


@pytest.mark.parametrize(
    ("given_options", "words"),
    [
        ({"risk": "vrex"}, r"risk must be one of \['mean', 'worst', 'rex', 'irm'\]; got 'vrex'. Did you mean 'rex'"),
        ({}, 'risk="mean" is the loss of rows of the distribution that counts: give X_val and y_val'),
        ({"X_val": X}, "X_val and y_val belong together"),
        (VAL | {"groups": Y}, 'For groups type risk="worst"'),
        ({"risk": "rex"}, r'risk="rex" needs groups=\(12,\), two or more environments .*; got none'),
        ({"risk": "rex", "groups": Y[:5]}, r"got shape \(5,\) with 2 different"),
        ({"risk": "irm", "groups": np.zeros(12)}, r"got shape \(12,\) with 1 different"),
        ({"risk": "irm", "groups": Y, "metric": "brier"}, "leave out metric"),
        (VAL | {"share": 1.0}, r"share must be a number in \(0, 1\)"),
        (VAL | {"n_draws": 1}, "n_draws must be an int >= 2, as each draw is compared with the others; got 1"),
        (VAL | {"n_steps": 0}, "n_steps must be an int >= 1; got 0"),
        (VAL | {"step_size": 0.0}, "step_size must be a number in"),
        ({"risk": ["rex"]}, r"risk must be one of .*; got \['rex'\]"),
        ({"risk": "rex", "groups": np.where(Y, 1.0, np.nan)}, r"groups must hold a group for each row; \d have none"),
        ({"risk": "rex", "groups": Y, "metric": "roc_auc", "share": 0.9}, "'roc_auc' is no mean over the rows of a group"),
        (
            {"risk": "irm", "groups": VAL["y_val"], "X_val": VAL["X_val"], "y_val": 1 + VAL["y_val"]},
            "y holds the class 2, which the",
        ),
        (VAL | {"y_val": np.array(["a", None] * 20, dtype=object)}, "y_val must hold a label for each row; 20 have none"),
        (VAL | {"share": 1e-6}, r"100 draws of 1.2e-05 of 12 rows on average all lack a class: give a larger share"),
    ],
)
def test_what_it_refuses(given_options, words):
    with pytest.raises(ValueError, match=words):
        learn_weights(LogisticRegression(), X, Y, **given_options)


def test_what_else_it_refuses():
    with pytest.raises(ValueError, match="needs probabilities, and SVC has no predict_proba"):
        learn_weights(SVC(), X, Y, groups=Y, risk="irm")
    with pytest.raises(ValueError, match=r'"irm" takes one label for each row; y has shape \(12, 2\)'):
        learn_weights(LinearRegression(), X, X, groups=Y, risk="irm")
    with pytest.raises(ValueError, match="y has no rows"):
        learn_weights(LinearRegression(), X[:0], Y[:0], **VAL)


def test_rows_and_labels_of_other_numbers_are_refused():
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        learn_weights(LogisticRegression(), X, Y[:5], **VAL)


def test_a_warning_of_each_training_is_given_once_with_how_many_gave_it():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learn_weights(LogisticRegression(C=1e9, max_iter=1), X, Y, **VAL, n_steps=4, n_draws=3, random_state=0)
    (warning,) = caught
    assert warning.category is ConvergenceWarning and warning.filename == __file__
    assert str(warning.message).endswith("(the first of 12 such warnings in 12 trainings)")


class _Outdated(LogisticRegression):
    def fit(self, X, y):
        warnings.warn_explicit("old", DeprecationWarning, "elsewhere.py", 1, module="elsewhere")
        return super().fit(X, y)


def test_a_warning_that_a_filter_hides_where_it_is_raised_stays_hidden():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module="elsewhere")
        learn_weights(_Outdated(), X, Y, **VAL, n_steps=2, n_draws=2, random_state=0)
    assert not caught
