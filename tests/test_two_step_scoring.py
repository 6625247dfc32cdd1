"""Importance-weighted scores, against weighted means by hand."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    fbeta_score,
    log_loss,
    make_scorer,
    max_error,
    mean_pinball_loss,
    mean_squared_error,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from two_step_cases import N, fitted_ratio, ones, table, tilt

from densratio.two_step import ImportanceWeighted, ImportanceWeightedScorer, importance_weighted_score, make_iw_scorer

# ---------------------------------------------------------------- importance-weighted scores


def score_by_hand(name, model, X, y, w):
    predicted = model.predict(X)
    if name == "accuracy":
        return np.sum(w * (predicted == y)) / np.sum(w)
    if name == "neg_log_loss":
        return np.sum(w * np.log(model.predict_proba(X)[np.arange(len(y)), y])) / np.sum(w)
    if name == "roc_auc":
        margin = model.decision_function(X)
        pairs = (w[y == 1][:, None] * w[y == 0]).ravel()
        above = margin[y == 1][:, None] - margin[y == 0]
        return np.sum(pairs * ((above > 0) + 0.5 * (above == 0)).ravel()) / pairs.sum()
    if name == "neg_mean_absolute_error":
        return -np.sum(w * np.abs(predicted - y)) / np.sum(w)
    if name == "neg_mean_squared_error":
        return -np.sum(w * (predicted - y) ** 2) / np.sum(w)
    centerd = y - np.sum(w * y) / np.sum(w)
    return 1 - np.sum(w * (predicted - y) ** 2) / np.sum(w * centerd**2)


CLASS_SCORES = ["accuracy", "neg_log_loss", "roc_auc"]
REAL_SCORES = ["neg_mean_absolute_error", "neg_mean_squared_error", "r2"]


@given(st.sampled_from(CLASS_SCORES + REAL_SCORES), st.integers(0, 1000))
def test_a_score_is_the_weighted_mean_by_hand(name, seed):
    X, response, label = table(seed=seed)
    estimator, y = (LogisticRegression(), label) if name in CLASS_SCORES else (Ridge(), response)
    model = estimator.fit(X[:30], y[:30])
    found = importance_weighted_score(model, X[30:], y[30:], tilt, scoring=name)
    assert found == pytest.approx(score_by_hand(name, model, X[30:], y[30:], tilt(X[30:])), rel=1e-9)


@pytest.mark.parametrize(("estimator", "name"), [(LogisticRegression(), "accuracy"), (Ridge(), "r2")])
def test_without_scoring_it_is_the_estimators_own_score(estimator, name):
    X, response, label = table()
    y = label if is_classifier(estimator) else response
    for model in (estimator, make_pipeline(StandardScaler(), estimator), ImportanceWeighted(estimator, tilt)):
        model.fit(X, y)
        assert importance_weighted_score(model, X, y, tilt) == pytest.approx(score_by_hand(name, model, X, y, tilt(X)))


def half_squared_error(y_true, y_pred, sample_weight=None):
    return 0.5 * np.average((y_true - y_pred) ** 2, weights=sample_weight)


def agreement_score(y_true, y_pred, *, sample_weight=None):
    return np.average(np.asarray(y_true) == y_pred, weights=sample_weight)


def hits(model, X, y, sample_weight):
    return np.sum(sample_weight * (model.predict(X) == y))


def lenient_hits(estimator, X, y=None, sample_weight=None):
    return hits(estimator, X, y, sample_weight)


@pytest.mark.parametrize(
    ("scoring", "same_as", "factor"),
    [
        (mean_squared_error, "neg_mean_squared_error", 1.0),
        (half_squared_error, "neg_mean_squared_error", 0.5),
        (partial(mean_pinball_loss, alpha=0.5), "neg_mean_absolute_error", 0.5),
        (make_scorer(mean_squared_error, greater_is_better=False), "neg_mean_squared_error", 1.0),
        (log_loss, "neg_log_loss", 1.0),
        (roc_auc_score, "roc_auc", 1.0),
        (accuracy_score, "accuracy", 1.0),
        (agreement_score, "accuracy", 1.0),
        (hits, "accuracy", N),
        (lenient_hits, "accuracy", N),
        (f1_score, "f1", 1.0),
        (partial(fbeta_score, beta=1.0), "f1", 1.0),
    ],
)
def test_a_metric_function_is_read_as_scikit_learn_names_it(scoring, same_as, factor):
    X, response, label = table()
    y, model = (response, Ridge()) if same_as in REAL_SCORES else (label, LogisticRegression())
    model.fit(X, y)
    found = importance_weighted_score(model, X, y, tilt, scoring=scoring)
    assert found == pytest.approx(factor * importance_weighted_score(model, X, y, tilt, scoring=same_as), rel=1e-12)


def test_sample_weight_multiplies_the_ratio_in_a_score_too():
    X, response, _ = table()
    model, base = Ridge().fit(X, response), np.random.default_rng(0).uniform(size=N)
    found = importance_weighted_score(model, X, response, tilt, "r2", sample_weight=base)
    assert found == pytest.approx(score_by_hand("r2", model, X, response, base * tilt(X)))


@given(st.floats(1e-12, 1e12))
def test_the_scale_of_the_ratio_cancels_in_a_score(scale):
    X, response, _ = table()
    model = Ridge().fit(X, response)
    scores = [importance_weighted_score(model, X, response, r, half_squared_error) for r in (tilt, lambda X: scale * tilt(X))]
    assert scores[1] == pytest.approx(scores[0], rel=1e-12)


def test_a_fitted_ratio_scores_by_its_transform():
    X, response, _ = table()
    model, ratio = Ridge().fit(X, response), fitted_ratio()
    expected = score_by_hand("r2", model, X, response, ratio.transform(X))
    assert importance_weighted_score(model, X, response, ratio) == pytest.approx(expected)


def test_it_estimates_the_error_on_the_target_without_bias():
    # Source N(0, 1), target N(0.6, 0.8^2), y = x^2 + noise of variance 0.09, and the prediction x: E (x^2 - x)^2 + 0.09 there.
    m, s, noise = 0.6, 0.8, 0.3
    moments = [m**2 + s**2, m**3 + 3 * m * s**2, m**4 + 6 * m**2 * s**2 + 3 * s**4]
    exact = moments[2] - 2 * moments[1] + moments[0] + noise**2
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    scorer = make_iw_scorer(lambda X: norm.pdf(X[:, 0], m, s) / norm.pdf(X[:, 0]), "neg_mean_squared_error")
    plain, found = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(5000, 1))
        y = X[:, 0] ** 2 + noise * rng.normal(size=5000)
        found.append(-scorer(model, X, y))
        plain.append(mean_squared_error(y, model.predict(X)))
    assert abs(np.mean(found) - exact) < 3 * np.std(found) / np.sqrt(40)
    assert abs(np.mean(plain) - exact) > 30 * np.std(plain) / np.sqrt(40)


def wave(x):
    return 3.0 * x * np.exp(-2.0 * x**2)


@pytest.mark.parametrize("seed", range(6))
def test_weighted_cross_validation_picks_the_degree_that_is_best_on_the_target_where_the_plain_one_does_not(seed):
    rng = np.random.default_rng(seed)
    X, X_target = rng.normal(0.0, 0.7, (600, 1)), rng.normal(1.5, 0.3, (20_000, 1))
    y = wave(X[:, 0]) + 0.2 * rng.normal(size=600)
    grid = {"polynomialfeatures__degree": [0, 1, 2, 3]}
    scorer = make_iw_scorer(lambda X: norm.pdf(X[:, 0], 1.5, 0.3) / norm.pdf(X[:, 0], 0.0, 0.7), "neg_mean_squared_error")

    def picked(scoring):
        search = GridSearchCV(make_pipeline(PolynomialFeatures(), LinearRegression()), grid, scoring=scoring).fit(X, y)
        return search.best_params_["polynomialfeatures__degree"]

    def target_error(degree):
        model = make_pipeline(PolynomialFeatures(degree), LinearRegression()).fit(X, y)
        return mean_squared_error(wave(X_target[:, 0]), model.predict(X_target))

    best = min(range(4), key=target_error)
    assert picked(scorer) == best
    assert picked("neg_mean_squared_error") != best


def test_a_scorer_works_in_every_search_and_beside_others():
    X, _, label = table()
    ratio = fitted_ratio()
    cv = KFold(3, shuffle=True, random_state=0)
    scoring = {"target": make_iw_scorer(ratio, "neg_log_loss"), "source": "neg_log_loss"}
    done = cross_validate(LogisticRegression(), X, label, scoring=scoring, cv=cv, return_estimator=True, return_indices=True)
    for k, (model, rows) in enumerate(zip(done["estimator"], done["indices"]["test"], strict=True)):
        expected = score_by_hand("neg_log_loss", model, X[rows], label[rows], ratio.transform(X[rows]))
        assert done["test_target"][k] == pytest.approx(expected)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, scoring=scoring, refit="target", cv=cv).fit(X, label)
    np.testing.assert_allclose(search.cv_results_["mean_test_target"][1], done["test_target"].mean())


@pytest.mark.skipif(
    not hasattr(GridSearchCV, "_check_scorers_accept_sample_weight"), reason="an older search keeps it from scorers"
)
def test_a_search_fitted_with_sample_weight_hands_it_to_the_scorer():
    X, response, _ = table()
    base = np.random.default_rng(0).uniform(0.5, 2.0, size=N)
    cv = [(np.arange(40), np.arange(40, N))]
    for scoring in (make_iw_scorer(tilt, "r2"), {"a": make_iw_scorer(tilt, "r2"), "b": "r2"}):
        search = GridSearchCV(Ridge(), {"alpha": [1.0]}, scoring=scoring, refit=False, cv=cv)
        search.fit(X, response, sample_weight=base)
        model = Ridge().fit(X[:40], response[:40], base[:40])
        expected = score_by_hand("r2", model, X[40:], response[40:], base[40:] * tilt(X[40:]))
        found = search.cv_results_["mean_test_a" if isinstance(scoring, dict) else "mean_test_score"][0]
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("scoring", [None, "r2", mean_squared_error, half_squared_error])
def test_a_scorer_works_with_metadata_routing(scoring, routing):
    X, response, _ = table()
    plain = Ridge().fit(X, response)
    with sklearn.config_context(enable_metadata_routing=False):
        expected = importance_weighted_score(plain, X, response, tilt, scoring)
    assert make_iw_scorer(tilt, scoring)(plain, X, response) == expected
    assert np.all(np.isfinite(cross_val_score(Ridge(), X, response, scoring=make_iw_scorer(tilt, scoring))))


def test_a_scorer_is_pickled_cloned_and_printed():
    X, response, _ = table()
    model = Ridge().fit(X, response)
    scorer = make_iw_scorer(fitted_ratio(), half_squared_error)
    assert isinstance(scorer, ImportanceWeightedScorer)
    twins = [pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)]
    assert [twin(model, X, response) for twin in twins] == [scorer(model, X, response)] * 2
    assert repr(make_iw_scorer(fitted_ratio(), "r2")) == "make_iw_scorer(KLIEP(gamma=0.5), 'r2')"


def test_a_model_that_takes_no_sample_weight_is_scored_all_the_same():
    X, _, label = table()
    model = KNeighborsClassifier().fit(X, label)
    expected = score_by_hand("accuracy", model, X, label, tilt(X))
    assert importance_weighted_score(model, X, label, tilt, "accuracy") == pytest.approx(expected)


def plain_score(y_true, y_pred):
    return 0.0


def plain_scorer(estimator, X, y):
    return 0.0


@pytest.mark.parametrize(
    ("scoring", "words"),
    [
        ("neg_max_error", "The metric max_error takes no sample_weight"),
        (max_error, "The metric max_error takes no sample_weight"),
        (plain_score, "The metric plain_score takes no sample_weight"),
        (plain_scorer, "The metric plain_scorer takes no sample_weight"),
        (make_scorer(plain_score), "The metric plain_score takes no sample_weight"),
        (lambda y, p, sample_weight=None: 0.0, r"The name of the metric <lambda> does not say.*make_scorer\(<lambda>, greater_is"),
        ("no such score", "no such score"),
        ("rocauc", "scoring='rocauc' is no scorer of scikit-learn. Did you mean 'roc_auc'"),
        (["r2"], r"scoring must be None, a scorer's name, a scorer or a metric; got list.*\{name: make_iw_scorer\(ratio, name\)"),
        (make_iw_scorer(ones), "scoring is already importance-weighted"),
    ],
)
def test_a_metric_that_can_not_be_weighted_is_an_error_before_any_fit(scoring, words):
    with pytest.raises(ValueError, match=words):
        make_iw_scorer(ones, scoring)


def test_an_estimator_whose_own_score_takes_no_sample_weight_is_named():
    class Plain(BaseEstimator):
        def score(self, X, y):
            return 0.0

    with pytest.raises(ValueError, match="The score of Plain takes no sample_weight"):
        importance_weighted_score(Plain(), np.zeros((2, 1)), [0, 1], ones)


def test_other_estimators_are_weighted_as_well():
    X, response, _ = table()
    mean = ImportanceWeighted(DummyRegressor(), tilt).fit(X, response).predict(X[:1])[0]
    assert mean == pytest.approx(np.average(response, weights=tilt(X)))
    with pytest.raises(ValueError, match="KNeighborsRegressor takes no sample_weight"):
        ImportanceWeighted(KNeighborsRegressor(), tilt).fit(X, response)
