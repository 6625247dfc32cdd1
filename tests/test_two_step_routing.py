"""Where sample_weight goes: wrappers, pipelines, metadata routing."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingRegressor, VotingRegressor
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import (
    make_scorer,
    mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from two_step_cases import N, by_hand, ones, table, tilt

from densratio import KLIEP, stack_domains
from densratio.two_step import ImportanceWeighted
from densratio.two_step.weights import row_weights

STEPS = {
    "step": lambda: make_pipeline(StandardScaler(), Ridge()),
    "nested": lambda: Pipeline(
        [("scale", StandardScaler()), ("inner", Pipeline([("poly", PolynomialFeatures(2)), ("end", Ridge())]))]
    ),
    "target": lambda: TransformedTargetRegressor(Ridge(), func=np.sinh, inverse_func=np.arcsinh),
    "target of a step": lambda: TransformedTargetRegressor(make_pipeline(StandardScaler(), Ridge()), transformer=StandardScaler()),
    "bagging": lambda: BaggingRegressor(Ridge(), n_estimators=4, random_state=0),
    "bagged trees": lambda: BaggingRegressor(n_estimators=4, random_state=0),
    "search": lambda: GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, cv=3),
    "search of a step": lambda: GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 10.0]}, cv=3),
    "step of a search": lambda: make_pipeline(StandardScaler(), GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, cv=3)),
    "elimination": lambda: RFE(Ridge(), n_features_to_select=1),
    "voting": lambda: VotingRegressor([("a", Ridge(alpha=0.1)), ("b", Ridge(alpha=5.0))]),
    "weighted in itself": lambda: ImportanceWeighted(Ridge(), ones),
}
NAMES = {
    "step": "ridge__sample_weight",
    "nested": "inner__end__sample_weight",
    "target of a step": "ridge__sample_weight",
    "search of a step": "ridge__sample_weight",
    "step of a search": "gridsearchcv__sample_weight",
}


@pytest.mark.parametrize("name", sorted(STEPS))
def test_the_weights_reach_the_estimator_inside_a_wrapper(name):
    X, response, _ = table()
    model = ImportanceWeighted(STEPS[name](), tilt).fit(X, response)
    # Trees split ties by the last digit: they get the very weights, which are those by hand.
    np.testing.assert_allclose(model.weights_, by_hand(tilt, X), rtol=1e-12)
    expected = STEPS[name]().fit(X, response, **{NAMES.get(name, "sample_weight"): model.weights_}).predict(X)
    found = model.predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.max(np.abs(found - STEPS[name]().fit(X, response).predict(X))) > 1e-3


def asks(estimator):
    return estimator.set_fit_request(sample_weight=True)


@pytest.mark.parametrize("is_step", [False, True])
def test_a_calibrated_classifier_passes_the_weights_to_its_classifier_and_its_calibration(is_step):
    X, _, label = table()
    inner = make_pipeline(PolynomialFeatures(2), LogisticRegression()) if is_step else LogisticRegression()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = ImportanceWeighted(CalibratedClassifierCV(inner, cv=3), tilt).fit(X, label).predict_proba(X)
    # Routed metadata reaches every part, and is the oracle.
    with sklearn.config_context(enable_metadata_routing=True):
        asks(inner[-1] if is_step else inner)
        routed = CalibratedClassifierCV(inner, cv=3).fit(X, label, sample_weight=by_hand(tilt, X)).predict_proba(X)
    np.testing.assert_allclose(found, routed, rtol=1e-9)


def test_a_frame_reaches_the_ratio_and_a_column_transformer_unchanged():
    X, response, _ = table()
    frame = pd.DataFrame({"size": X[:, 0], "kind": np.where(X[:, 1] > 0, "a", "b")})
    seen = []

    def ratio(rows):
        seen.append(rows)
        return np.where(rows["kind"] == "a", 2.0, 0.5)

    columns = ColumnTransformer([("one_hot", OneHotEncoder(), ["kind"]), ("rest", "passthrough", ["size"])])
    model = ImportanceWeighted(make_pipeline(columns, Ridge()), ratio).fit(frame, response)
    assert seen[0] is frame
    assert model.feature_names_in_.tolist() == ["size", "kind"] and model.n_features_in_ == 2
    expected = make_pipeline(columns, Ridge()).fit(frame, response, ridge__sample_weight=by_hand(ratio, frame))
    np.testing.assert_allclose(model.predict(frame), expected.predict(frame))


def test_the_ratio_may_be_a_pipeline_fitted_on_the_same_frame():
    X, response, _ = table()
    frame = pd.DataFrame({"size": X[:, 0], "kind": np.where(X[:, 1] > 0, "a", "b")})
    columns = ColumnTransformer([("one_hot", OneHotEncoder(), ["kind"]), ("rest", StandardScaler(), ["size"])])
    target = frame[frame["size"] > -0.5].reset_index(drop=True)
    ratio = make_pipeline(columns, KLIEP(gamma=0.5)).fit(*stack_domains(frame, target))
    model = ImportanceWeighted(make_pipeline(columns, Ridge()), ratio)
    fold = model.fit(frame[:40], response[:40])
    np.testing.assert_allclose(fold.weights_, by_hand(ratio.transform, frame[:40]))
    unfitted = make_pipeline(clone(columns), KLIEP())
    with pytest.raises(NotFittedError, match="The ratio Pipeline is not fitted"):
        ImportanceWeighted(Ridge(), unfitted).fit(frame, response)


def asking(estimator):
    """The same estimator with its Ridge asking for sample_weight, and every other part of it declining."""
    for part in [estimator, *estimator.get_params().values()]:
        if hasattr(part, "set_fit_request"):
            part.set_fit_request(sample_weight=isinstance(part, Ridge))
        if isinstance(part, GridSearchCV):
            part.scoring = make_scorer(mean_squared_error, greater_is_better=False).set_score_request(sample_weight=False)
    return estimator


@pytest.mark.parametrize("name", ["nested", "search", "search of a step", "step", "step of a search", "target of a step"])
def test_with_metadata_routing_the_step_that_asks_gets_the_weights(name, routing):
    X, response, _ = table()
    found = ImportanceWeighted(asking(STEPS[name]()), tilt).fit(X, response).predict(X)
    expected = asking(STEPS[name]()).fit(X, response, sample_weight=by_hand(tilt, X)).predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.max(np.abs(found - asking(STEPS[name]()).fit(X, response).predict(X))) > 1e-3


def test_with_metadata_routing_an_estimator_of_its_own_needs_no_request(routing):
    X, response, _ = table()
    expected = Ridge().fit(X, response, sample_weight=by_hand(tilt, X)).coef_
    np.testing.assert_allclose(ImportanceWeighted(Ridge(), tilt).fit(X, response).estimator_.coef_, expected)


def test_with_metadata_routing_a_caller_routes_sample_weight_to_it(routing):
    X, response, _ = table()
    base = np.random.default_rng(3).integers(1, 4, size=N).astype(float)
    model = ImportanceWeighted(Ridge(), tilt).set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
    done = cross_validate(model, X, response, params={"sample_weight": base}, return_estimator=True, return_indices=True)
    for fold, rows in zip(done["estimator"], done["indices"]["train"], strict=True):
        np.testing.assert_allclose(fold.weights_, row_weights(tilt, X[rows], sample_weight=base[rows]))


def test_with_metadata_routing_a_pipeline_where_no_step_asks_is_an_error(routing):
    X, response, _ = table()
    with pytest.raises(ValueError, match=r"Pipeline passes sample_weight to none.*set_fit_request\(sample_weight=True\)"):
        ImportanceWeighted(make_pipeline(PolynomialFeatures(2), Ridge()), tilt).fit(X, response)
    with pytest.raises(UnsetMetadataPassedError, match="StandardScaler"):
        ImportanceWeighted(make_pipeline(StandardScaler(), asks(Ridge())), tilt).fit(X, response)


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize(
    "wrapped",
    [
        KNeighborsClassifier(),
        LinearDiscriminantAnalysis(),
        make_pipeline(StandardScaler(), KNeighborsClassifier()),
        GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3]}),
    ],
    ids=["neighbors", "lda", "step", "search"],
)
def test_an_estimator_that_takes_no_sample_weight_is_named(wrapped, routed):
    X, _, label = table()
    with sklearn.config_context(enable_metadata_routing=routed):
        model = ImportanceWeighted(wrapped, tilt)
        is_wrapper = hasattr(wrapped, "steps") or hasattr(wrapped, "estimator")
        words = "passes sample_weight to none" if routed and is_wrapper else "takes no sample_weight in fit.*rng.choice"
        name = type(wrapped).__name__ if routed or not is_wrapper else "KNeighborsClassifier"
        with pytest.raises(ValueError, match=f"(?s){name} {words}"):
            model.fit(X, label)
    assert not hasattr(model, "weights_")


@pytest.mark.parametrize("last", [None, "passthrough"])
def test_a_pipeline_without_a_last_estimator_is_an_error(last):
    X, response, _ = table()
    with pytest.raises(ValueError, match="The last step 'end' of the Pipeline is"):
        ImportanceWeighted(Pipeline([("scale", StandardScaler()), ("end", last)]), tilt).fit(X, response)
