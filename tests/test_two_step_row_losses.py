"""Labels and metrics that target_performance takes or refuses, and its interval where hardly any row is wrong."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, LogisticRegressionCV
from sklearn.metrics import accuracy_score, brier_score_loss, get_scorer, log_loss, make_scorer, roc_auc_score, zero_one_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from two_step_cases import N, fitted_ratio, ones, table, tilt

from densratio import ImportanceWeighted, stack_domains, target_performance
from densratio.diagnostics.weights import effective_sample_size
from densratio.two_step.performance import interval_of_share
from densratio.two_step.row_losses import row_losses
from densratio.two_step.shifted_mean import Regressed, cross_fitted, refitted_means

X, RESPONSE, LABELS = table()
MODEL = LogisticRegression().fit(X, LABELS)
WITH_A_GAP = np.where(np.arange(N) == 7, None, LABELS)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("metric", ["accuracy", "zero_one_loss", "log_loss", "brier", "roc_auc"])
@pytest.mark.parametrize("y", [LABELS.astype(str), LABELS + 0.5], ids=["text", "fractions"])
def test_labels_of_another_type_are_no_wrong_predictions(metric, y):
    words = "Mix of label input types|y holds fractions|y holds the class .*, which the model was not fitted on"
    with pytest.raises(ValueError, match=words):
        row_losses(metric, MODEL, X, y)


@pytest.mark.parametrize("metric", ["accuracy", "zero_one_loss", "log_loss", "roc_auc", "mean_squared_error", accuracy_score])
@pytest.mark.parametrize("gap", [None, np.nan, pd.NA, pd.NaT])
def test_a_row_without_a_label_is_refused_by_its_number(metric, gap):
    y = WITH_A_GAP.copy()
    y[7] = gap
    with pytest.raises(ValueError, match=re.escape(f"y has no label in 1 of {N} rows, first in row 7: leave these out of X and y")):
        row_losses(metric, MODEL, X, y)


@pytest.mark.parametrize("metric", ["accuracy", "zero_one_loss"])
def test_the_numbers_of_a_regressor_are_no_classes(metric):
    with pytest.raises(ValueError, match="mix of binary and continuous targets"):
        row_losses(metric, LinearRegression().fit(X, RESPONSE), X, LABELS)


@pytest.mark.parametrize("as_type", [bool, float, np.int8, "category", "Int64", "boolean"])
def test_equal_labels_of_other_types_count_as_equal(as_type):
    y = pd.Series(LABELS).astype(as_type)
    expected = row_losses("accuracy", MODEL, X, LABELS).values(np.ones(N))
    assert np.array_equal(row_losses("accuracy", MODEL, X, y).values(np.ones(N)), expected)


# ---------------------------------------------------------------- metrics


TWO, PAIRS = LinearRegression().fit(X, np.column_stack([RESPONSE, RESPONSE])), np.column_stack([RESPONSE, RESPONSE])


@pytest.mark.parametrize(
    ("metric", "model", "y", "words"),
    [
        ("accuracy", MODEL.predict, LABELS, "model must be a fitted estimator, with a method predict; got <bound method"),
        ("accuracy", LinearRegression().fit(X, RESPONSE), RESPONSE, "'accuracy' compares classes, and y holds fractions"),
        ("log_loss", MODEL, np.column_stack([LABELS, LABELS]), "takes one label for each row; y has shape (60, 2)"),
        ("roc_auc", MODEL, np.column_stack([LABELS, LABELS]), "takes one label for each row; y has shape (60, 2)"),
        ("mean_squared_error", LinearRegression().fit(X, RESPONSE), PAIRS, "y has shape (60, 2) and the predictions of the model"),
        (lambda y, p: (y - p) ** 2, TWO, PAIRS, "metric=lambda y, p: np.mean((y - p) ** 2, axis=1)."),
    ],
)
def test_labels_and_models_that_do_not_suit_a_metric_are_refused_in_plain_words(metric, model, y, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        row_losses(metric, model, X, y)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunks": "month"}, "shape (60,); got 'month': pass the column itself, X_target['month']."),
        ({"chunks": 3.0}, "chunks must be an int or a label for each target row, shape (60,); got 3.0."),
        ({"regressor": LinearRegression}, "regressor must be an unfitted scikit-learn regressor, such as Ridge(), or None"),
        ({"regressor": "linear"}, "such as Ridge(), or None; got 'linear'"),
    ],
)
def test_wrong_chunks_and_regressors_are_named(settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        target_performance(MODEL, fitted_ratio(), X, LABELS, X, **({"metric": "accuracy"} | settings))


@pytest.mark.parametrize(
    "scorer",
    [
        make_scorer(accuracy_score),
        make_scorer(zero_one_loss, greater_is_better=False),
        make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
        get_scorer("roc_auc"),
        get_scorer("neg_brier_score"),
    ],
)
def test_a_scorer_without_options_means_its_own_value(scorer):
    losses = row_losses(scorer, MODEL, X, LABELS)
    assert np.mean(losses.values(np.ones(N))) == pytest.approx(scorer(MODEL, X, LABELS), rel=1e-12)


@pytest.mark.parametrize(
    ("scorer", "instead"),
    [
        (make_scorer(accuracy_score, normalize=False), "metric='accuracy' if that is meant, or a function"),
        (make_scorer(roc_auc_score), "metric='roc_auc' if that is meant, or a function"),
        (make_scorer(brier_score_loss), "metric='brier' if that is meant, or a function"),
        (make_scorer(lambda y, p: np.mean(y == p)), "a function"),
    ],
)
def test_a_scorer_of_something_else_is_refused(scorer, instead):
    with pytest.raises(ValueError, match=rf"The scorer of .* a function of its own: pass {re.escape(instead)} \(y_true"):
        row_losses(scorer, MODEL, X, LABELS)


def pinball(y_true, y_pred, level):
    return np.maximum(level * (y_true - y_pred), (level - 1.0) * (y_true - y_pred))


def test_a_partial_metric_is_named_with_its_arguments():
    assert row_losses(partial(pinball, level=0.9), MODEL, X, LABELS).name == "pinball(level=0.9)"
    assert row_losses(lambda y, p: np.abs(y - p), MODEL, X, LABELS).name == "metric"
    assert row_losses(partial(lambda y, p, a: a * np.abs(y - p), a=2), MODEL, X, LABELS).name == "metric(a=2)"


# ---------------------------------------------------------------- intervals where the losses are all equal


class Right:
    """Predicts the sign of the first column, which is the label."""

    classes_ = np.array([0, 1])

    def predict(self, X):
        return (X[:, 0] > 0.0).astype(int)

    def decision_function(self, X):
        return X[:, 0]


def performance(y, metric, method, ratio, n):
    return target_performance(Right(), ratio, X[:n], y[:n], X, metric=metric, method=method)


@given(n=st.integers(8, N), method=st.sampled_from(["iw", "dr"]), ratio=st.sampled_from([ones, tilt]))
def test_rows_without_an_error_bound_its_share_by_the_rule_of_three(n, method, ratio):
    y, effective = Right().predict(X), effective_sample_size(ratio(X[:n]))
    # 0.025^(1/n), about 1 - 3.7 / n: the share of right rows of which n rows are all right in 2.5 % of the draws.
    bound = 0.025 ** (1.0 / effective)
    assert performance(y, "accuracy", method, ratio, n).interval == pytest.approx((bound, 1.0))
    assert performance(y, "zero_one_loss", method, ratio, n).interval == pytest.approx((0.0, 1.0 - bound))
    assert performance(1 - y, "accuracy", method, ratio, n).interval == pytest.approx((0.0, 1.0 - bound))


def test_so_does_an_area_of_1_by_the_rows_of_the_smaller_class():
    y = Right().predict(X)
    fewer = min(np.sum(y), np.sum(1 - y))
    for ratio in (ones, fitted_ratio()):
        effective = min(effective_sample_size((ones if ratio is ones else ratio.transform)(X)[y == kind]) for kind in (0, 1))
        found = target_performance(Right(), ratio, X, y, X, metric="roc_auc", n_bootstrap=5)
        assert found.interval == pytest.approx((0.025 ** (1.0 / effective), 1.0)) and effective <= fewer + 1e-9


def test_one_wrong_row_of_little_weight_does_not_make_the_interval_short():
    y = Right().predict(X)
    y[0] = 1 - y[0]

    def little(X):
        return np.where(np.arange(len(X)) == 0, 1e-6, 1.0)

    low, high = performance(y, "accuracy", "iw", little, N).interval
    assert low == pytest.approx(0.025 ** (1.0 / (N - 1)), rel=1e-3) and high > 1.0 - 1e-5


@given(wrong=st.integers(0, 12), n=st.integers(12, 60), confidence=st.floats(0.5, 0.999))
def test_the_interval_of_a_share_is_clopper_and_pearsons(wrong, n, confidence):
    low, high = interval_of_share(wrong / n, n, confidence)
    tail = 0.5 - 0.5 * confidence
    if wrong > 0:
        assert binom.sf(wrong - 1, n, low) == pytest.approx(tail)
    if wrong < n:
        assert binom.cdf(wrong, n, high) == pytest.approx(tail)
    assert low <= wrong / n <= high


@pytest.mark.parametrize("metric", ["mean_squared_error", "brier"])
def test_other_losses_keep_the_interval_of_their_spread(metric):
    model = LinearRegression().fit(X, X[:, 0]) if metric == "mean_squared_error" else MODEL
    y = model.predict(X)
    found = target_performance(model, ones, X, y, X, metric=metric, method="iw")
    assert found.interval[1] - found.interval[0] < 4.5 * found.standard_error + 1e-9


# ---------------------------------------------------------------- a class without weight


class Below(BaseEstimator):
    """A ratio that is 1 up to the largest target value of the first column, and 0 above it."""

    def fit(self, X, y):
        self.most_ = X[y == 1, 0].max()
        return self

    def transform(self, X):
        return (X[:, 0] <= self.most_).astype(float)


@pytest.mark.parametrize("method", ["iw", "dr"])
def test_a_chunk_whose_ratio_is_0_at_a_class_takes_no_other_chunk_with_it(method):
    y, negative = Right().predict(X), X[X[:, 0] < 0.0]
    target, months = np.concatenate([X, negative]), np.repeat(["all", "negative"], [N, len(negative)])
    ratio = Below().fit(*stack_domains(X, X))
    settings = {"metric": "roc_auc", "method": method, "n_bootstrap": 2}
    told, untold = target_performance(Right(), ratio, X, y, target, chunks=months, **settings)
    assert told.estimate == 1.0 and not (told.warning or "").startswith("Can't say")
    assert np.isnan(untold.estimate) and untold.interval == (0.0, 1.0) and untold.source_estimate == 1.0
    message = "Can't say: 'roc_auc' compares two classes, and the ratio is 0 at every source row of class 1"
    assert untold.warning.startswith(message)
    with pytest.raises(ValueError, match=message):
        target_performance(Right(), Below().fit(*stack_domains(X, negative)), X, y, negative, **settings)


@given(n=st.integers(4, 12), seed=st.integers(0, 99))
def test_draws_without_a_class_are_drawn_again(n, seed):
    y = (np.arange(n) == 0).astype(int)
    losses, nothing = row_losses("roc_auc", MODEL, X[:n], y), Regressed(np.zeros(n), np.zeros(3))

    def ones_of(drawn, drawn_target):
        assert 0 in drawn and drawn.any()
        return np.ones(n)

    assert len(list(refitted_means(losses, nothing, ones_of, 20, np.random.default_rng(seed)))) == 20


def test_refits_whose_ratio_is_0_at_a_class_are_left_out_and_said():
    # One positive row, which half of the draws of the target leave above their largest value.
    rows = X[np.argsort(X[:, 0])]
    y = (np.arange(N) == N - 1).astype(int)
    ratio = Below().fit(*stack_domains(rows, rows))
    warning = target_performance(Right(), ratio, rows, y, rows, metric="roc_auc", n_bootstrap=20, method="iw").warning
    lost = int(re.search(r"(\d+) of 20 draws of the bootstrap have no ratio, or none at a class, and are left out", warning)[1])
    assert 1 <= lost <= 14


# ---------------------------------------------------------------- units of the metric, and gaps in the rows


def numbers_of(unit, regressor, method="dr"):
    settings = {"metric": lambda y, p: unit * np.abs(y - p), "regressor": regressor, "method": method, "n_bootstrap": 3}
    found = target_performance(LINEAR, RATIO, X, RESPONSE, X[:40] + 0.3, **settings)
    return np.array([found.estimate, *found.interval, found.standard_error, found.source_estimate]), found.warning


LINEAR, RATIO = LinearRegression().fit(X, RESPONSE), fitted_ratio()


@pytest.mark.parametrize("regressor", [LinearRegression(), None], ids=["linear", "boosting"])
def test_a_metric_has_no_unit(regressor):
    plain = numbers_of(1.0, regressor)

    @settings(max_examples=10 if regressor else 3)
    @given(st.floats(-300.0, 300.0))
    def check(exponent):
        numbers, warning = numbers_of(10.0**exponent, regressor)
        np.testing.assert_allclose(numbers / 10.0**exponent, plain[0], rtol=1e-4)
        assert warning == plain[1]

    check()


@pytest.mark.parametrize(("regressor", "n_values"), [(LinearRegression(), 0), (None, 0), (None, 1)])
def test_a_column_without_a_value_in_a_fold_says_nothing(regressor, n_values):
    # Its one value is held out once.
    gaps = np.column_stack([X, np.where(np.arange(N) < n_values, 1.0, np.nan)])
    rows = gaps[:, :2]
    found = (cross_fitted(regressor, rows[:, 0] ** 2, some, some, 0) for some in (rows, gaps))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


# ---------------------------------------------------------------- models that search by themselves


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: make_pipeline(StandardScaler(), model)])
def test_a_classifier_that_searches_by_itself_is_weighted(wrap):
    model = wrap(LogisticRegressionCV(Cs=3, cv=3, use_legacy_attributes=False, scoring="neg_log_loss", l1_ratios=(0,)))
    name = "sample_weight" if not hasattr(model, "steps") else "logisticregressioncv__sample_weight"
    found = ImportanceWeighted(model, tilt).fit(X, LABELS)
    expected = model.fit(X, LABELS, **{name: found.weights_})
    assert np.array_equal(found.predict_proba(X), expected.predict_proba(X))
