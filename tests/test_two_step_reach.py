"""Weights reach every part of a nest that learns, or it is an error: the oracle is a fit by metadata routing, or by hand."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from two_step_cases import by_hand, table, tilt

from densratio.two_step import ImportanceWeighted
from densratio.two_step.reach import is_settled

N = 120
X, RESPONSE, LABEL = table(N)
WEIGHTS = by_hand(tilt, X)


def logistic():
    return LogisticRegression(C=0.1)


def step():
    return make_pipeline(StandardScaler(), logistic())


NESTS = {
    "calibrated search": lambda: CalibratedClassifierCV(GridSearchCV(logistic(), {"C": [0.1]}), cv=3),
    "calibrated search of steps": lambda: CalibratedClassifierCV(GridSearchCV(step(), {}), cv=3),
    "search of calibrated steps": lambda: GridSearchCV(CalibratedClassifierCV(step(), cv=3), {"method": ["sigmoid"]}, cv=3),
    "voting of steps": lambda: VotingClassifier([("a", step()), ("b", logistic())], voting="soft"),
    "voting of a search": lambda: VotingClassifier([("a", GridSearchCV(step(), {}))], voting="soft"),
    "stacked steps": lambda: StackingClassifier([("a", step()), ("b", logistic())], logistic()),
    "outputs of steps": lambda: MultiOutputClassifier(step()),
    "one against the rest": lambda: OneVsRestClassifier(logistic()),
    "calibrated voting": lambda: CalibratedClassifierCV(VotingClassifier([("a", step())], voting="soft"), cv=3),
    "bagged calibrated steps": lambda: BaggingClassifier(
        CalibratedClassifierCV(step(), cv=3), n_estimators=3, max_samples=50, random_state=0
    ),
    "step of stacked steps": lambda: make_pipeline(StandardScaler(), StackingClassifier([("a", step())], logistic())),
}


def labels_for(model):
    return LABEL[:, None] if isinstance(model, MultiOutputClassifier) else LABEL


def routed_by_hand(model):
    """The fit by scikit-learn's routing: every learner asks for weights, and every other step declines."""
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(model)
        for part in model.get_params().values():
            if isinstance(part, LogisticRegression | CalibratedClassifierCV):
                part.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            if isinstance(part, StandardScaler):
                part.set_fit_request(sample_weight=False)
        return model.fit(X, labels_for(model), sample_weight=WEIGHTS)


@pytest.mark.parametrize("name", NESTS)
def test_weights_reach_every_learner_of_a_nest(name):
    model = NESTS[name]()
    found = ImportanceWeighted(model, tilt).fit(X, labels_for(model))
    expected = routed_by_hand(model)
    np.testing.assert_allclose(np.asarray(found.predict_proba(X)), np.asarray(expected.predict_proba(X)), rtol=1e-6)
    plain = model.fit(X, labels_for(model))
    assert np.max(np.abs(np.asarray(found.predict_proba(X)) - np.asarray(plain.predict_proba(X)))) > 0.01
    assert not sklearn.get_config()["enable_metadata_routing"]


CHOICE = {"C": [1e-4, 0.1, 10.0]}
SEARCHES = {
    "a model": (logistic, "C", lambda model: model),
    "a Pipeline": (step, "logisticregression__C", lambda model: model),
    "a Pipeline within a vote": (step, "logisticregression__C", lambda model: VotingClassifier([("a", model)])),
    "a calibrated model": (logistic, "C", lambda model: CalibratedClassifierCV(model, cv=[(np.arange(N), np.arange(N))])),
}


@pytest.mark.parametrize("scoring", [None, "accuracy", "neg_log_loss"])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_inside_scores_held_out_rows_by_their_weights(name, scoring):
    make, parameter, around = SEARCHES[name]
    folds = list(KFold(3).split(X))
    search = GridSearchCV(make(), {parameter: CHOICE["C"]}, cv=folds, scoring=scoring)
    found = ImportanceWeighted(around(search), tilt).fit(X, LABEL).estimator_
    while not hasattr(found, "cv_results_"):
        found = found.estimators_[0] if hasattr(found, "estimators_") else found.calibrated_classifiers_[0].estimator
    measure = get_scorer(scoring or "accuracy")
    for place, C in enumerate(CHOICE["C"]):
        for number, (train, held) in enumerate(folds):
            model = make().set_params(**{parameter: C})
            label = "logisticregression__sample_weight" if make is step else "sample_weight"
            model.fit(X[train], LABEL[train], **{label: WEIGHTS[train]})
            by_hand_score = measure(model, X[held], LABEL[held], sample_weight=WEIGHTS[held])
            assert found.cv_results_[f"split{number}_test_score"][place] == pytest.approx(by_hand_score, rel=1e-5)


NAMED = {
    "boosting": lambda: AdaBoostClassifier(logistic(), n_estimators=3),
    "boosted trees": lambda: AdaBoostClassifier(n_estimators=3, random_state=0),
    "voting": lambda: VotingClassifier([("a", logistic()), ("b", RandomForestClassifier(3, random_state=0))], voting="soft"),
    "outputs": lambda: MultiOutputRegressor(Ridge()),
    "bagged neighbors": lambda: BaggingClassifier(KNeighborsClassifier(), random_state=0),
    "bagged steps": lambda: BaggingClassifier(step(), random_state=0),
    "calibrated frozen": lambda: CalibratedClassifierCV(FrozenEstimator(logistic().fit(X, LABEL)), cv=3),
}


@pytest.mark.filterwarnings("ignore:Since FrozenEstimator")
@pytest.mark.parametrize("name", NAMED)
def test_a_nest_that_takes_weights_by_name_gets_them_by_name(name):
    model = NAMED[name]()
    y = np.column_stack([RESPONSE, -RESPONSE]) if name == "outputs" else LABEL
    found = ImportanceWeighted(model, tilt).fit(X, y)
    expected = clone(model).fit(X, y, sample_weight=found.weights_)
    for method in ("predict_proba", "predict"):
        if hasattr(model, method):
            np.testing.assert_array_equal(getattr(found, method)(X), getattr(expected, method)(X))


IMPOSSIBLE = {
    "boosted steps": (lambda: AdaBoostClassifier(step()), "can't|does not|doesn't"),
    "voting of neighbors": (
        lambda: VotingClassifier([("a", KNeighborsClassifier())]),
        "KNeighborsClassifier takes no sample_weight",
    ),
    "calibrated neighbors": (lambda: CalibratedClassifierCV(KNeighborsClassifier()), "KNeighborsClassifier takes no sample_weight"),
    "frozen": (lambda: FrozenEstimator(logistic().fit(X, LABEL)), "FrozenEstimator learns nothing"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_nest_that_no_weights_can_reach_is_an_error_with_rows_to_draw(name):
    make, words = IMPOSSIBLE[name]
    model = ImportanceWeighted(make(), tilt)
    with pytest.raises(ValueError, match=words) as caught:
        model.fit(X, LABEL)
    assert not hasattr(model, "estimator_")
    # Boosting steps is beyond scikit-learn, with or without weights.
    if name not in ("frozen", "boosted steps"):
        code = "\n".join(line[4:] for line in str(caught.value).splitlines() if line.startswith("    "))

        class Ratio:
            transform = staticmethod(tilt)

        exec(code, {"ratio": Ratio, "X": X, "y": LABEL, "model": make()})


class TakesAnything(ClassifierMixin, BaseEstimator):
    """A classifier whose fit takes any parameter; it uses sample_weight or not."""

    def __init__(self, uses_weights=True):
        self.uses_weights = uses_weights

    def fit(self, X, y, **kwargs):
        self.model_ = LogisticRegression().fit(X, y, kwargs.get("sample_weight") if self.uses_weights else None)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: make_pipeline(StandardScaler(), model)])
def test_a_fit_that_takes_any_parameter_is_tried_and_not_trusted(wrap):
    found = ImportanceWeighted(wrap(TakesAnything()), tilt).fit(X, LABEL)
    expected = ImportanceWeighted(wrap(LogisticRegression()), tilt).fit(X, LABEL)
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    with pytest.raises(ValueError, match="takes sample_weight, but its predictions do not show it"):
        ImportanceWeighted(wrap(TakesAnything(uses_weights=False)), tilt).fit(X, LABEL)


def test_with_routing_a_learner_without_a_request_is_an_error_whose_code_mends_it(routing):
    model = CalibratedClassifierCV(GridSearchCV(logistic(), {}), cv=3)
    model.estimator.estimator.set_fit_request(sample_weight=False).set_score_request(sample_weight=False)
    with pytest.raises(ValueError, match=r"CalibratedClassifierCV does not pass sample_weight on to LogisticRegression") as caught:
        ImportanceWeighted(model, tilt).fit(X, LABEL)
    exec("\n".join(line[4:] for line in str(caught.value).splitlines() if line.startswith("    ")), {"model": model})
    found = ImportanceWeighted(model, tilt).fit(X, LABEL).predict_proba(X)
    np.testing.assert_allclose(found, routed_by_hand(model).predict_proba(X))


@pytest.mark.parametrize(
    "model", [logistic(), step(), GridSearchCV(step(), {}), BaggingClassifier(KNeighborsClassifier()), make_pipeline(step())]
)
def test_what_inspection_settles_is_fitted_once(model):
    assert is_settled(model)


def test_what_inspection_does_not_settle_is_tried_on_few_rows():
    rows = []

    class Slow(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            rows.append(len(y))
            return super().fit(X, y, sample_weight)

    ImportanceWeighted(VotingClassifier([("a", Slow())]), tilt).fit(X, LABEL)
    assert rows == [40, N]


def test_several_processes_do_not_hide_what_a_learner_gets():
    model = VotingClassifier(
        [("a", CalibratedClassifierCV(GridSearchCV(logistic(), {}, n_jobs=2), n_jobs=2))], n_jobs=2, voting="soft"
    )
    found = ImportanceWeighted(model, tilt).fit(X, LABEL).predict_proba(X)
    np.testing.assert_allclose(found, routed_by_hand(model).predict_proba(X), rtol=1e-6)


def test_rows_too_few_for_the_estimator_are_followed_by_all_rows():
    model = VotingClassifier([("a", GridSearchCV(logistic(), {}, cv=25))], voting="soft")
    found = ImportanceWeighted(model, tilt).fit(X, LABEL)
    np.testing.assert_allclose(found.predict_proba(X), logistic().fit(X, LABEL, WEIGHTS).predict_proba(X))


def test_a_skorch_net_is_shown_the_sampler_and_the_lines_work():
    pytest.importorskip("skorch")
    import torch
    from skorch import NeuralNetClassifier

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x, **kwargs):
            return self.linear(x)

    net = NeuralNetClassifier(Net, criterion=torch.nn.CrossEntropyLoss, lr=0.5, max_epochs=60, verbose=0)
    rows, labels = X.astype(np.float32), LABEL.astype(np.int64)

    class Ratio:
        @staticmethod
        def transform(Z):
            return np.where(np.asarray(Z)[:, 0] > 0, 1.0, 0.0)

    for model in (net, make_pipeline(StandardScaler(), net)):
        with pytest.raises(ValueError, match=r"NeuralNetClassifier is a skorch net, .*Draw its rows") as caught:
            ImportanceWeighted(model, Ratio.transform).fit(rows, labels)
    torch.manual_seed(0)
    code = "\n".join(line[4:] for line in str(caught.value).splitlines() if line.startswith("    "))
    exec(code, {"ratio": Ratio, "X": rows, "y": labels, "net": net})
    kept = Ratio.transform(rows) > 0
    oracle = LogisticRegression(C=1e6).fit(X[kept], LABEL[kept])
    assert np.mean(net.predict(rows[kept]) == oracle.predict(X[kept])) > 0.9


class Recorded(LogisticRegression):
    """Counts the fits, with and without weights."""

    fits: ClassVar[list[bool]] = []

    def fit(self, X, y, sample_weight=None):
        self.fits.append(sample_weight is not None)
        return super().fit(X, y, sample_weight)


SELECTORS = {
    "from a model": lambda one: SelectFromModel(one, threshold=-np.inf),
    "recursive": lambda one: RFE(one, n_features_to_select=1),
    "recursive, scored": lambda one: RFECV(one, cv=3),
    "recursive, by a metric": lambda one: RFECV(one, cv=3, scoring="roc_auc"),
    "forward": lambda one: SequentialFeatureSelector(one, n_features_to_select=1, cv=3),
    "forward, by a metric": lambda one: SequentialFeatureSelector(one, n_features_to_select=1, cv=3, scoring="neg_log_loss"),
}


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
@pytest.mark.parametrize("is_step", [True, False])
def test_weights_reach_the_learner_inside_a_selector_of_columns(selector, is_step):
    one = selector(Recorded())
    if not is_step and not hasattr(one, "predict"):
        pytest.skip("this selector predicts nothing")
    model = make_pipeline(StandardScaler(), one, Recorded()) if is_step else one
    Recorded.fits.clear()
    clone(model).fit(X, LABEL)
    n_fits = len(Recorded.fits)
    ImportanceWeighted(model, tilt).fit(X, LABEL)
    # Fits before the last ones find out which way the weights have to go.
    assert all(Recorded.fits[-n_fits:])


def test_a_selector_whose_learner_takes_no_weights_is_refused():
    selector = SequentialFeatureSelector(KNeighborsClassifier(), n_features_to_select=1, cv=3)
    with pytest.raises(ValueError, match="KNeighborsClassifier takes no sample_weight"):
        ImportanceWeighted(make_pipeline(selector, logistic()), tilt).fit(X, LABEL)
