"""ImportanceWeighted, importance-weighted scoring, and the sampler: against fits, sums and closed forms by hand."""

from __future__ import annotations

import pickle
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare, norm
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import BaggingRegressor, RandomForestClassifier, VotingRegressor
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.frozen import FrozenEstimator
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
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate, learning_curve
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from densratio import KLIEP, KMM, stack_domains
from densratio.training import Indexed, importance_sampler
from densratio.two_step import ImportanceWeighted, ImportanceWeightedScorer, importance_weighted_score, make_iw_scorer
from densratio.two_step.weights import row_weights

N = 60


def first_column(X):
    """The first column as floats, of arrays, frames, lists and sparse matrices."""
    dense = X.toarray() if scipy.sparse.issparse(X) else np.asarray(X, dtype=float)
    return dense[:, 0]


def ones(X):
    return np.ones(len(first_column(X)))


def tilt(X):
    """exp(0.5 x_1), the ratio of N(0.5, 1) to N(0, 1) up to scale."""
    return np.exp(0.5 * first_column(X))


def table(n=N, seed=0):
    """Source rows (n, 2), a real response and a class, both a function of the rows with noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    response = X[:, 0] ** 2 + X[:, 1] + 0.3 * rng.normal(size=n)
    return X, response, (response > 0.7).astype(int)


def fitted_ratio(kind=KLIEP, seed=1):
    X = table()[0]
    target = np.random.default_rng(seed).normal(0.6, 0.8, size=(50, 2))
    return kind(gamma=0.5).fit(*stack_domains(X, target))


def by_hand(ratio, X, flatten=1.0):
    weights = ratio(X) ** flatten
    return weights / weights.mean()


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


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
    assert model.get_params(deep=False) == {"estimator": model.estimator, "ratio": ratio, "flatten": 0.5}
    assert ImportanceWeighted(**model.get_params(deep=False)).get_params() == model.get_params()
    assert model.set_params(estimator__alpha=7.0, flatten=0.2) is model
    assert model.estimator.alpha == 7.0 and model.flatten == 0.2
    model.set_params(ratio=ones)
    assert model.ratio is ones


def test_a_parameter_of_the_fitted_ratio_is_neither_listed_nor_set():
    ratio = fitted_ratio()
    model = ImportanceWeighted(Ridge(), ratio)
    assert [name for name in model.get_params() if name.startswith("ratio__")] == []
    with pytest.raises(ValueError, match=r"ratio__gamma can't be set: the ratio is fitted already.*KLIEP\(gamma=g\)"):
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


# ---------------------------------------------------------------- the weights

RATIOS = hnp.arrays(np.float64, 8, elements=st.floats(0.01, 100.0))
BASES = hnp.arrays(np.float64, 8, elements=st.integers(1, 4).map(float))


def as_ratio(values):
    """A callable that gives `values` whatever the rows."""
    return lambda X: values


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


# ---------------------------------------------------------------- where sample_weight goes

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
    with pytest.raises(ValueError, match=r"Pipeline hands sample_weight to nothing.*set_fit_request\(sample_weight=True\)"):
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
    ids=["neighbours", "lda", "step", "search"],
)
def test_an_estimator_that_takes_no_sample_weight_is_named(wrapped, routed):
    X, _, label = table()
    with sklearn.config_context(enable_metadata_routing=routed):
        model = ImportanceWeighted(wrapped, tilt)
        is_wrapper = hasattr(wrapped, "steps") or hasattr(wrapped, "estimator")
        words = "hands sample_weight to nothing" if routed and is_wrapper else "takes no sample_weight in fit.*rng.choice"
        name = type(wrapped).__name__ if routed or not is_wrapper else "KNeighborsClassifier"
        with pytest.raises(ValueError, match=f"{name} {words}"):
            model.fit(X, label)
    assert not hasattr(model, "weights_")


@pytest.mark.parametrize("last", [None, "passthrough"])
def test_a_pipeline_without_a_last_estimator_is_an_error(last):
    X, response, _ = table()
    with pytest.raises(ValueError, match="The last step 'end' of the Pipeline passes its rows through"):
        ImportanceWeighted(Pipeline([("scale", StandardScaler()), ("end", last)]), tilt).fit(X, response)


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
    with pytest.raises(ValueError, match=r"A parameter grid unfits.*\[a.transform, b.transform\]"):
        search.fit(X, response)
    frozen = GridSearchCV(ImportanceWeighted(Ridge(), ones), {"ratio": [FrozenEstimator(fitted_ratio())]}, error_score="raise")
    np.testing.assert_allclose(frozen.fit(X, response).best_estimator_.weights_, by_hand(fitted_ratio().transform, X))


def test_it_and_its_scorer_work_in_processes():
    X, response, _ = table()
    ratio = fitted_ratio()
    model, scorer = ImportanceWeighted(Ridge(), ratio), make_iw_scorer(ratio, "neg_mean_squared_error")
    alone = cross_val_score(model, X, response, scoring=scorer)
    assert np.array_equal(cross_val_score(model, X, response, scoring=scorer, n_jobs=2), alone)


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
    assert "    ImportanceWeighted(estimator, KLIEP(gamma=2.0).fit(X, domain)).fit(X_train, y_train)" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(ValueError, match=r"ratio is the class KLIEP; give a fitted instance:\n.*\n.*KLIEP\(\)\.fit\(X, domain\)"):
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
    with pytest.raises(ValueError, match=r"flatten must be a number from 0 \(plain fit\) to 1 \(full weights\); got"):
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
        (with_entry(np.nan), "The ratio <lambda> is NaN at 2 of 60 rows, the first of them row 7"),
        (with_entry(np.inf), "is infinite at 2 of 60 rows, the first of them row 7"),
        (with_entry(-1e-9), "is negative at 2 of 60 rows, the first of them row 7"),
        (np.ones(N - 1), r"must give one number for each row, shape \(60,\); got shape \(59,\)"),
        (np.ones((N, 1)), r"got shape \(60, 1\)"),
        (1.0, r"got shape \(\)"),
        (np.array(["a"] * N), "must give real numbers; got dtype <U1"),
        (np.ones(N) * 1j, "must give real numbers; got dtype complex128"),
        (np.zeros(N), "The ratio is 0 at every one of the 60 rows that count: they have no overlap with the target"),
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
    with pytest.raises(ValueError, match=r"The ratio StandardScaler must give one number for each row.*got shape \(60, 2\)"):
        ImportanceWeighted(Ridge(), StandardScaler().fit(X)).fit(X, response)


def test_rows_that_overlap_the_target_but_do_not_count_are_no_overlap():
    with pytest.raises(ValueError, match="0 at every one of the 1 rows that count"):
        row_weights(as_ratio(np.array([0.0, 1.0])), np.zeros((2, 1)), sample_weight=[1.0, 0.0])


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (np.ones(N + 1), r"sample_weight must be \(n,\), one for each of the 60 rows of X; got shape \(61,\)"),
        (np.ones((N, 2)), r"got shape \(60, 2\)"),
        (with_entry(np.nan), "sample_weight must be finite and >= 0"),
        (with_entry(np.inf), "sample_weight must be finite and >= 0"),
        (with_entry(-1.0), "sample_weight must be finite and >= 0"),
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
    centred = y - np.sum(w * y) / np.sum(w)
    return 1 - np.sum(w * (predicted - y) ** 2) / np.sum(w * centred**2)


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
        (lambda y, p, sample_weight=None: 0.0, r"The name of the metric <lambda> does not tell.*make_scorer\(<lambda>, greater_is"),
        ("no such score", "no such score"),
        (["r2"], r"scoring must be None, a scorer's name, a scorer or a metric; got list.*\{name: make_iw_scorer\(ratio, name\)"),
        (make_iw_scorer(ones), "scoring is importance-weighted already"),
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


# ---------------------------------------------------------------- the sampler


def drawn(sampler, n):
    return np.bincount(list(sampler), minlength=n)


@pytest.mark.parametrize("kind", [np.asarray, np.float32, torch.tensor, lambda w: torch.tensor(w, requires_grad=True), list])
def test_rows_are_drawn_in_proportion_to_their_weights(kind):
    weights = np.array([0.5, 0.0, 1.5, 3.0, 0.25])
    sampler = importance_sampler(kind(weights), num_samples=20_000, generator=torch.Generator().manual_seed(0))
    assert isinstance(sampler, WeightedRandomSampler) and len(sampler) == 20_000
    counts = drawn(sampler, 5)
    expected = 20_000 * weights / weights.sum()
    assert counts[1] == 0
    assert chisquare(np.delete(counts, 1), np.delete(expected, 1)).pvalue > 0.01


def test_the_sampler_serves_a_loader_with_the_weights_of_a_fitted_ratio():
    X = torch.tensor(table()[0])
    ratio = fitted_ratio()
    sampler = importance_sampler(ratio.weights_, num_samples=40 * N, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([i for _, i in DataLoader(Indexed(TensorDataset(X)), batch_size=16, sampler=sampler)]).numpy()
    # The drawn rows' mean is the weighted mean, within four standard errors.
    weighted = np.average(X.numpy(), axis=0, weights=ratio.weights_)
    spread = np.sqrt(np.average((X.numpy() - weighted) ** 2, axis=0, weights=ratio.weights_) / len(rows))
    assert len(rows) == 40 * N
    assert np.all(np.abs(X.numpy()[rows].mean(axis=0) - weighted) < 4 * spread)


def test_a_pass_draws_as_many_rows_as_there_are_and_the_same_under_the_same_seed():
    weights = np.linspace(0.0, 1.0, 7)
    passes = [list(importance_sampler(weights, generator=torch.Generator().manual_seed(3))) for _ in range(2)]
    assert len(passes[0]) == 7 and passes[0] == passes[1]


def test_without_replacement_no_row_comes_twice():
    rows = list(importance_sampler([1.0, 0.0, 1e-3, 9.0], num_samples=np.int64(3), replacement=False))
    assert sorted(rows) == [0, 2, 3]
    with pytest.raises(ValueError, match=r"Only 3 rows have a weight > 0.*num_samples can be at most that; got 4"):
        importance_sampler([1.0, 0.0, 1e-3, 9.0], replacement=False)


@pytest.mark.parametrize("scale", [1e-320, 1e308])
def test_the_scale_of_the_weights_cancels_in_the_sampler(scale):
    sampler = importance_sampler(np.array([1.0, 1.0, 0.0]) * scale, num_samples=2000, generator=torch.Generator().manual_seed(0))
    counts = drawn(sampler, 3)
    assert counts[2] == 0 and chisquare(counts[:2]).pvalue > 0.01


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[1.0]],), r"weights must be \(n,\) real numbers; got shape \(1, 1\)"),
        ((["a"],), r"weights must be \(n,\) real numbers; got shape \(1,\) and dtype <U1"),
        (([],), "weights must have 1 to 16777216 entries.*got 0"),
        ((np.ones(2**24 + 1, dtype=np.int8),), "weights must have 1 to 16777216 entries.*got 16777217"),
        (([1.0, np.nan],), r"weights must be finite and >= 0; got nan at row 1 \(1 such rows\)"),
        (([1.0, np.inf],), "got inf at row 1"),
        (([-1.0, -2.0],), r"got -1.0 at row 0 \(2 such rows\)"),
        (([0.0, 0.0],), "weights are all 0: there is no row to draw"),
        (([1.0], 0), "num_samples must be an int >= 1 or None; got 0"),
        (([1.0], 1.5), "num_samples must be an int >= 1 or None; got 1.5"),
        (([1.0], True), "num_samples must be an int >= 1 or None; got True"),
    ],
)
def test_a_sampler_of_what_can_not_be_drawn_is_an_error(arguments, words):
    with pytest.raises(ValueError, match=words):
        importance_sampler(*arguments)


def test_other_estimators_are_weighted_as_well():
    X, response, _ = table()
    mean = ImportanceWeighted(DummyRegressor(), tilt).fit(X, response).predict(X[:1])[0]
    assert mean == pytest.approx(np.average(response, weights=tilt(X)))
    with pytest.raises(ValueError, match="KNeighborsRegressor takes no sample_weight"):
        ImportanceWeighted(KNeighborsRegressor(), tilt).fit(X, response)
