"""ImportanceWeighted: its weights and fits by hand, kinds of rows, cross-validation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm
from sklearn.base import clone, is_classifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate, learning_curve
from sklearn.pipeline import make_pipeline
from two_step_cases import N, as_ratio, by_hand, fitted_ratio, ones, table, tilt

from densratio import KLIEP, KMM
from densratio.two_step import ImportanceWeighted, make_iw_scorer
from densratio.two_step.weights import row_weights

# ---------------------------------------------------------------- the weights


RATIOS = hnp.arrays(np.float64, 8, elements=st.floats(0.01, 100.0))
BASES = hnp.arrays(np.float64, 8, elements=st.integers(1, 4).map(float))


@given(RATIOS, BASES, st.floats(0.0, 1.0))
def test_the_weights_are_the_flattened_ratio_with_mean_one_under_the_base_weights(values, base, flatten):
    X = np.zeros((8, 1))
    plain = row_weights(as_ratio(values), X, flatten=flatten)
    np.testing.assert_allclose(plain, values**flatten / np.mean(values**flatten), rtol=1e-12)
    based = row_weights(as_ratio(values), X, flatten=flatten, sample_weight=base)
    np.testing.assert_allclose(based, base * values**flatten * base.sum() / np.sum(base * values**flatten), rtol=1e-12)


@given(RATIOS, BASES, st.floats(0.0, 1.0))
def test_a_base_weight_of_k_counts_as_k_rows(values, base, flatten):
    count = base.astype(int)
    based = row_weights(as_ratio(values), np.zeros((8, 1)), flatten=flatten, sample_weight=base)
    repeated = row_weights(as_ratio(np.repeat(values, count)), np.zeros((count.sum(), 1)), flatten=flatten)
    np.testing.assert_allclose(np.repeat(based / count, count), repeated, rtol=1e-12)


def test_a_row_of_base_weight_zero_counts_as_absent_however_large_its_ratio():
    values, base = np.array([1.0, 3.0, 1e300]), np.array([1.0, 1.0, 0.0])
    np.testing.assert_allclose(row_weights(as_ratio(values), np.zeros((3, 1)), sample_weight=base), [0.5, 1.5, 0.0])


@pytest.mark.parametrize("scale", [5e-324, 1e-300, 1e-30, 1e30, 1.7e308])
def test_the_scale_of_the_ratio_cancels_up_to_the_ends_of_the_floats(scale):
    weights = row_weights(as_ratio(np.array([1.0, 1.0, 0.0, 1.0]) * scale), np.zeros((4, 1)))
    np.testing.assert_allclose(weights, [4 / 3, 4 / 3, 0.0, 4 / 3])


def test_without_flattening_rows_outside_the_target_get_none_and_with_exponent_zero_all_count():
    values = np.array([0.0, 2.0])
    assert row_weights(as_ratio(values), np.zeros((2, 1)), flatten=1.0).tolist() == [0.0, 2.0]
    assert row_weights(as_ratio(values), np.zeros((2, 1)), flatten=0.0).tolist() == [1.0, 1.0]
    assert row_weights(as_ratio(np.zeros(2)), np.zeros((2, 1)), flatten=0.0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("give", [np.float32, torch.tensor, pd.Series, lambda x: x.astype(int), lambda x: x > 2.0])
def test_a_callable_may_give_any_kind_of_real_numbers(give):
    values = np.array([1.0, 2.0, 4.0])
    expected = np.asarray(give(values), dtype=float)
    np.testing.assert_allclose(row_weights(lambda X: give(values), np.zeros((3, 1))), expected / expected.mean(), rtol=1e-6)


def test_a_single_row_has_weight_one():
    assert row_weights(as_ratio(np.array([0.01])), np.zeros((1, 1))).tolist() == [1.0]


# ---------------------------------------------------------------- the fit


@pytest.mark.parametrize("flatten", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("make_ratio", [lambda: tilt, fitted_ratio, partial(fitted_ratio, KMM)], ids=["callable", "kliep", "kmm"])
@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), Ridge(), RandomForestClassifier(5, random_state=0)], ids=["logistic", "ridge", "forest"]
)
def test_the_fit_is_the_wrapped_fit_with_the_flattened_weights(estimator, make_ratio, flatten):
    X, response, label = table()
    ratio = make_ratio()
    y = label if is_classifier(estimator) else response
    weights = by_hand(getattr(ratio, "transform", ratio), X, flatten)
    model = ImportanceWeighted(estimator, ratio, flatten).fit(X, y)
    np.testing.assert_allclose(model.weights_, weights, rtol=1e-12)
    np.testing.assert_allclose(model.predict(X), clone(estimator).fit(X, y, sample_weight=model.weights_).predict(X), rtol=1e-9)
    assert not hasattr(estimator, "n_features_in_")


def test_with_flatten_zero_it_is_the_plain_fit():
    X, _, label = table()
    plain = LogisticRegression().fit(X, label)
    assert np.array_equal(ImportanceWeighted(LogisticRegression(), tilt, flatten=0.0).fit(X, label).estimator_.coef_, plain.coef_)


def test_a_misspecified_line_converges_to_the_best_line_on_the_target():
    # Of x^2 under N(m, s^2) the best line has slope 2 m; here the source has m = 0 and the target m = 0.8, s = 0.7.
    n, slopes, plain = 4000, [], []
    for seed in range(20):
        X = np.random.default_rng(seed).normal(size=(n, 1))
        y = X[:, 0] ** 2
        model = ImportanceWeighted(LinearRegression(), lambda X: norm.pdf(X[:, 0], 0.8, 0.7) / norm.pdf(X[:, 0])).fit(X, y)
        slopes.append(model.estimator_.coef_[0])
        plain.append(LinearRegression().fit(X, y).coef_[0])
    for found, exact in ((slopes, 1.6), (plain, 0.0)):
        assert abs(np.mean(found) - exact) < 4 * np.std(found) / np.sqrt(len(found)) + 1 / np.sqrt(n)


def test_sample_weight_multiplies_the_ratio():
    X, response, _ = table()
    base = np.random.default_rng(3).uniform(0.1, 2.0, size=N)
    expected = base * tilt(X)
    model = ImportanceWeighted(Ridge(), tilt).fit(X, response, sample_weight=list(base))
    np.testing.assert_allclose(model.weights_, expected * base.sum() / expected.sum())
    np.testing.assert_allclose(model.estimator_.coef_, Ridge().fit(X, response, sample_weight=model.weights_).coef_)


# ---------------------------------------------------------------- kinds of rows


@pytest.mark.parametrize("kind", [np.ndarray.tolist, np.float32, np.asfortranarray, scipy.sparse.csr_array, pd.DataFrame])
def test_rows_of_any_kind_give_the_same_fit(kind):
    X, response, _ = table()
    X = X.astype(np.float32).astype(float)
    expected = ImportanceWeighted(Ridge(solver="sparse_cg", tol=1e-10), tilt).fit(X, response)
    found = clone(expected).fit(kind(X), response)
    np.testing.assert_allclose(found.weights_, expected.weights_, rtol=1e-12)
    np.testing.assert_allclose(found.estimator_.coef_, expected.estimator_.coef_, rtol=1e-4)


def test_rows_may_be_texts():
    texts, label = ["good sun", "bad rain", "good rain", "bad sun"], [1, 0, 1, 0]
    model = ImportanceWeighted(make_pipeline(CountVectorizer(), LogisticRegression()), lambda rows: [1.0 + len(t) for t in rows])
    np.testing.assert_allclose(model.fit(texts, label).weights_, np.array([9, 9, 10, 8]) / 9)
    assert model.predict(texts).tolist() == label


# ---------------------------------------------------------------- under cross-validation


@pytest.mark.parametrize("kind", [KLIEP, KMM])
def test_a_fold_weighs_its_own_rows_by_the_ratio_at_them(kind):
    X, response, _ = table()
    ratio = fitted_ratio(kind)
    model = ImportanceWeighted(Ridge(), ratio)
    done = cross_validate(model, X, response, cv=KFold(4, shuffle=True, random_state=0), return_estimator=True, return_indices=True)
    for fold, rows in zip(done["estimator"], done["indices"]["train"], strict=True):
        np.testing.assert_allclose(fold.weights_, by_hand(ratio.transform, X[rows]), rtol=1e-10)
        np.testing.assert_allclose(fold.estimator_.coef_, Ridge().fit(X[rows], response[rows], fold.weights_).coef_)


def test_a_learning_curve_weighs_each_prefix():
    X, response, _ = table()
    cv = [(np.arange(40), np.arange(40, N))]
    sizes, _, scores = learning_curve(ImportanceWeighted(Ridge(), tilt), X, response, train_sizes=[10, 25, 40], cv=cv)
    expected = [Ridge().fit(X[:n], response[:n], by_hand(tilt, X[:n])).score(X[40:], response[40:]) for n in sizes]
    np.testing.assert_allclose(scores[:, 0], expected)


def test_a_grid_search_reaches_the_estimator_and_the_flattening():
    X, response, _ = table()
    grid = {"estimator__alpha": [0.1, 10.0], "flatten": [0.0, 0.5, 1.0]}
    search = GridSearchCV(ImportanceWeighted(Ridge(), fitted_ratio()), grid, error_score="raise").fit(X, response)
    scores = [
        cross_val_score(ImportanceWeighted(Ridge(alpha=p["estimator__alpha"]), fitted_ratio(), p["flatten"]), X, response).mean()
        for p in search.cv_results_["params"]
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores)
    assert len(set(np.round(scores, 12))) == 6


def test_a_grid_search_over_ratios_takes_their_transforms():
    X, response, _ = table()
    ratios = [fitted_ratio(), fitted_ratio(KMM)]
    grid = {"ratio": [ratio.transform for ratio in ratios]}
    search = GridSearchCV(ImportanceWeighted(Ridge(), ones), grid, error_score="raise").fit(X, response)
    expected = [cross_val_score(ImportanceWeighted(Ridge(), ratio), X, response).mean() for ratio in ratios]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected)


def test_a_grid_search_over_fitted_ratios_says_to_give_their_transforms():
    X, response, _ = table()
    search = GridSearchCV(ImportanceWeighted(Ridge(), ones), {"ratio": [fitted_ratio()]}, error_score="raise")
    with pytest.raises(ValueError, match=r"A parameter grid clones estimators.*\[a.transform, b.transform\]"):
        search.fit(X, response)
    frozen = GridSearchCV(ImportanceWeighted(Ridge(), ones), {"ratio": [FrozenEstimator(fitted_ratio())]}, error_score="raise")
    np.testing.assert_allclose(frozen.fit(X, response).best_estimator_.weights_, by_hand(fitted_ratio().transform, X))


def test_it_and_its_scorer_work_in_processes():
    X, response, _ = table()
    ratio = fitted_ratio()
    model, scorer = ImportanceWeighted(Ridge(), ratio), make_iw_scorer(ratio, "neg_mean_squared_error")
    alone = cross_val_score(model, X, response, scoring=scorer)
    # A process may have fewer threads than this one, and BLAS orders its sums by their number.
    np.testing.assert_allclose(cross_val_score(model, X, response, scoring=scorer, n_jobs=2), alone, rtol=1e-10)
