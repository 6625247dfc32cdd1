"""ImportanceWeighted keeps to scikit-learn's contract, predicts as what it wraps, and says what it refuses."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from two_step_cases import N, as_ratio, by_hand, fitted_ratio, ones, table, tilt

from densratio import KLIEP, stack_domains
from densratio.two_step import ImportanceWeighted, importance_weighted_score, make_iw_scorer
from densratio.two_step.weights import row_weights

# ---------------------------------------------------------------- the scikit-learn contract


@pytest.mark.parametrize("ratio", [ones, tilt], ids=["ones", "tilt"])
@pytest.mark.parametrize("estimator", [LogisticRegression(), Ridge()], ids=["classifier", "regressor"])
def test_it_passes_check_estimator(estimator, ratio):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(ImportanceWeighted(estimator, ratio), on_fail=None)
    passed = {result["check_name"] for result in results if result["status"] == "passed"}
    assert [(result["check_name"], result["exception"]) for result in results if result["status"] == "failed"] == []
    assert {"check_sample_weight_equivalence_on_dense_data", "check_estimators_pickle", "check_n_features_in"} <= passed


def test_a_clone_keeps_the_fitted_ratio_and_unfits_the_estimator():
    X, response, _ = table()
    ratio = fitted_ratio()
    model = ImportanceWeighted(Ridge(alpha=3.0), ratio, flatten=0.4).fit(X, response)
    twin = clone(model)
    assert twin.ratio is ratio and hasattr(twin.ratio, "weights_")
    assert twin.estimator is not model.estimator and twin.estimator.alpha == 3.0 and twin.flatten == 0.4
    assert not hasattr(twin, "estimator_") and not hasattr(twin, "weights_")
    assert model.ratio is ratio and hasattr(model, "estimator_")


def test_a_clone_inside_a_clone_keeps_the_fitted_ratio():
    ratio = fitted_ratio()
    search = clone(GridSearchCV(make_pipeline(StandardScaler(), ImportanceWeighted(Ridge(), ratio)), {}))
    assert search.estimator[-1].ratio is ratio


def test_a_clone_keeps_the_metadata_requests(routing):
    model = ImportanceWeighted(Ridge(), ones).set_fit_request(sample_weight="w")
    assert clone(model).get_metadata_routing().fit.requests == {"sample_weight": "w"}


def test_the_ratio_is_never_fitted():
    class Untouchable(KLIEP):
        def fit(self, X, y=None):
            raise AssertionError("fitted again")

    X, response, _ = table()
    ratio = Untouchable()
    ratio.__dict__.update(vars(fitted_ratio()))
    before = pickle.dumps(ratio.weights_)
    cross_val_score(ImportanceWeighted(Ridge(), ratio), X, response, error_score="raise")
    assert pickle.dumps(ratio.weights_) == before


def test_parameters_round_trip():
    ratio = fitted_ratio()
    model = ImportanceWeighted(Ridge(), ratio, flatten=0.5)
    assert model.get_params(deep=False) == {"estimator": model.estimator, "ratio": ratio, "flatten": 0.5, "tame": None}
    assert ImportanceWeighted(**model.get_params(deep=False)).get_params() == model.get_params()
    assert model.set_params(estimator__alpha=7.0, flatten=0.2) is model
    assert model.estimator.alpha == 7.0 and model.flatten == 0.2
    model.set_params(ratio=ones)
    assert model.ratio is ones


def test_a_parameter_of_the_fitted_ratio_is_neither_listed_nor_set():
    ratio = fitted_ratio()
    model = ImportanceWeighted(Ridge(), ratio)
    assert [name for name in model.get_params() if name.startswith("ratio__")] == []
    with pytest.raises(ValueError, match=r"ratio__gamma can't be set: the ratio is already fitted.*KLIEP\(gamma=g\)"):
        model.set_params(ratio__gamma=9.0, flatten=0.1)
    assert ratio.gamma == 0.5 and model.flatten == 1.0


def test_it_is_pickled_with_its_ratio():
    X, response, _ = table()
    model = ImportanceWeighted(Ridge(), fitted_ratio()).fit(X, response)
    twin = pickle.loads(pickle.dumps(model))
    assert np.array_equal(twin.predict(X), model.predict(X)) and np.array_equal(twin.weights_, model.weights_)
    assert np.array_equal(twin.ratio.weights_, model.ratio.weights_)


def test_the_tags_are_those_of_the_wrapped_estimator():
    assert is_classifier(ImportanceWeighted(LogisticRegression(), ones))
    assert is_regressor(ImportanceWeighted(make_pipeline(StandardScaler(), Ridge()), ones))
    tags = get_tags(ImportanceWeighted(RandomForestClassifier(), ones))
    assert tags.input_tags.allow_nan and tags.input_tags.sparse and tags.classifier_tags.multi_class
    assert not get_tags(ImportanceWeighted(RandomForestClassifier(), fitted_ratio())).input_tags.allow_nan
    assert not get_tags(ImportanceWeighted(LinearDiscriminantAnalysis(), ones)).input_tags.sparse


# ---------------------------------------------------------------- predictions


METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function", "transform"]
STUMPS = RandomForestClassifier(3, max_depth=1, random_state=0)


@pytest.mark.parametrize("wrapped", [LogisticRegression(), STUMPS, LinearSVC(), SelectFromModel(LogisticRegression())])
def test_it_has_the_methods_of_the_wrapped_estimator_and_gives_what_they_give(wrapped):
    X, _, label = table()
    model = ImportanceWeighted(wrapped, tilt)
    expected = [name for name in METHODS if hasattr(wrapped, name)]
    assert [name for name in METHODS if hasattr(model, name)] == expected
    model.fit(X, label)
    assert [name for name in METHODS if hasattr(model, name)] == expected
    for name in expected:
        assert np.array_equal(getattr(model, name)(X), getattr(model.estimator_, name)(X))


def test_its_score_is_that_of_the_wrapped_estimator():
    X, _, label = table()
    model = ImportanceWeighted(LogisticRegression(), tilt).fit(X, label)
    right, base = model.predict(X) == label, tilt(X)
    assert model.score(X, label) == pytest.approx(right.mean())
    assert model.score(X, label, sample_weight=base) == pytest.approx(np.average(right, weights=base))
    assert not hasattr(ImportanceWeighted(StandardScaler(), tilt), "score")


def test_its_classes_are_those_of_a_classifier_alone():
    X, response, label = table()
    names = np.array(["no", "yes"])[label]
    assert ImportanceWeighted(LogisticRegression(), tilt).fit(X, names).classes_.tolist() == ["no", "yes"]
    assert not hasattr(ImportanceWeighted(Ridge(), tilt).fit(X, response), "classes_")
    assert not hasattr(ImportanceWeighted(Ridge(), tilt), "n_features_in_")
    assert not hasattr(ImportanceWeighted(Ridge(), tilt).fit(X, response), "feature_names_in_")


def test_a_prediction_before_the_fit_is_an_error():
    with pytest.raises(NotFittedError, match="ImportanceWeighted instance is not fitted yet"):
        ImportanceWeighted(Ridge(), ones).predict(np.zeros((2, 2)))


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize("use", [lambda r: ImportanceWeighted(Ridge(), r).fit(*table()[:2]), make_iw_scorer])
def test_an_unfitted_ratio_shows_the_two_lines_to_write(use):
    with pytest.raises(NotFittedError) as caught:
        use(KLIEP(gamma=2.0))
    assert "The ratio KLIEP is not fitted" in str(caught.value)
    assert "    X, domain = stack_domains(X_train, X_target)\n" in str(caught.value)
    assert "    ratio = KLIEP(gamma=2.0).fit(X, domain)" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ValueError, match=r"ratio is the class KLIEP; pass a fitted instance:\n.*\n.*KLIEP\(\)\.fit\(X, domain\)"):
        use(KLIEP)
    with pytest.raises(ValueError, match=r"ratio must be a fitted density ratio, or a callable.*got ndarray.*\n.*stack_domains"):
        use(np.ones(N))


def test_the_lines_that_the_error_shows_work():
    X_train, y_train, _ = table()
    X_target = X_train + 0.3
    X, domain = stack_domains(X_train, X_target)
    model = ImportanceWeighted(Ridge(), KLIEP(gamma=0.5).fit(X, domain)).fit(X_train, y_train)
    np.testing.assert_allclose(model.weights_, model.ratio.weights_, rtol=1e-10)


def test_a_ratio_that_is_no_estimator_needs_only_transform():
    class Ratio:
        def fit(self):
            """Not scikit-learn's."""

        def transform(self, X):
            return tilt(X)

    X, response, _ = table()
    np.testing.assert_allclose(ImportanceWeighted(Ridge(), Ratio()).fit(X, response).weights_, by_hand(tilt, X))


@pytest.mark.parametrize("flatten", [-0.1, 1.1, np.nan, np.inf, "1", None, True])
def test_flatten_outside_zero_to_one_is_an_error(flatten):
    with pytest.raises(ValueError, match=r"flatten must be a number in \[0, 1\], from a plain fit to full weights; got"):
        ImportanceWeighted(Ridge(), ones, flatten).fit(*table()[:2])


@pytest.mark.parametrize("flatten", [0, 1, np.float32(0.5), np.int64(1)])
def test_flatten_may_be_any_real_number_from_zero_to_one(flatten):
    X, response, _ = table()
    np.testing.assert_allclose(ImportanceWeighted(Ridge(), tilt, flatten).fit(X, response).weights_, by_hand(tilt, X, flatten))


def with_entry(value):
    values = np.ones(N)
    values[[7, 9]] = value
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (with_entry(np.nan), "The ratio <lambda> must be finite and >= 0; it is NaN at 2 of 60 rows, first at row 7"),
        (with_entry(np.inf), "is infinite at 2 of 60 rows, first at row 7"),
        (with_entry(-1e-9), "is negative at 2 of 60 rows, first at row 7"),
        (np.ones(N - 1), r"must return one number for each row, shape \(60,\); got shape \(59,\)"),
        (np.ones((N, 1)), r"got shape \(60, 1\)"),
        (1.0, r"got shape \(\)"),
        (np.array(["a"] * N), "must return real numbers; got dtype <U1"),
        (np.ones(N) * 1j, "must return real numbers; got dtype complex128"),
        (np.zeros(N), r"The ratio is 0 at every row of positive weight \(60 of 60\): these rows do not overlap"),
    ],
)
def test_a_ratio_with_values_that_are_no_weights_is_an_error(values, words):
    X, response, _ = table()
    ratio = as_ratio(values)
    with pytest.raises(ValueError, match=words):
        ImportanceWeighted(Ridge(), ratio).fit(X, response)
    with pytest.raises(ValueError, match=words):
        importance_weighted_score(Ridge().fit(X, response), X, response, ratio)


def test_a_fitted_transformer_that_is_no_ratio_is_an_error():
    X, response, _ = table()
    with pytest.raises(ValueError, match=r"The ratio StandardScaler must return one number for each row.*got shape \(60, 2\)"):
        ImportanceWeighted(Ridge(), StandardScaler().fit(X)).fit(X, response)


def test_rows_that_overlap_the_target_but_do_not_count_are_no_overlap():
    with pytest.raises(ValueError, match=r"0 at every row of positive weight \(1 of 2\)"):
        row_weights(as_ratio(np.array([0.0, 1.0])), np.zeros((2, 1)), sample_weight=[1.0, 0.0])


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (np.ones(N + 1), r"sample_weight must be \(60,\), one number >= 0 for each row of X; got shape \(61,\)"),
        (np.ones((N, 2)), r"got shape \(60, 2\)"),
        (with_entry(np.nan), "sample_weight must hold finite numbers >= 0; row 7 of X has nan"),
        (with_entry(np.inf), "sample_weight must hold finite numbers >= 0; row 7 of X has inf"),
        (with_entry(-1.0), "sample_weight must hold finite numbers >= 0; row 7 of X has -1.0"),
        (np.zeros(N), "sample_weight must contain at least one non-zero number"),
    ],
)
def test_a_sample_weight_that_is_none_is_an_error(base, words):
    with pytest.raises(ValueError, match=words):
        ImportanceWeighted(Ridge(), ones).fit(*table()[:2], sample_weight=base)


def test_rows_that_are_none_are_errors():
    X, response, _ = table()
    with pytest.raises(ValueError, match=r"Expected 2D array, got 1D array instead: X has shape \(60,\)"):
        ImportanceWeighted(Ridge(), ones).fit(X[:, 0], response)
    with pytest.raises(ValueError, match="0 sample"):
        ImportanceWeighted(Ridge(), ones).fit(X[:0], response[:0])
    with pytest.raises(ValueError, match=r"0 sample\(s\).*X has no rows"):
        ImportanceWeighted(Ridge(), ones).fit(pd.DataFrame(X[:0]), response[:0])
