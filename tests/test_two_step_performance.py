"""target_performance: its estimate, its error and its interval against definitions, oracles and known shifts."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC
from two_step_cases import N, fitted_ratio, ones, table, tilt

from densratio import KLIEP, LSIF, Discriminator, importance_weighted_score, importance_weights, stack_domains, target_performance
from densratio.datasets import make_gaussian_shift
from densratio.two_step.performance import interval_within
from densratio.two_step.row_losses import row_losses
from densratio.two_step.shifted_mean import Regressed, refitted, shifted_mean

CLASSES = ["accuracy", "zero_one_loss", "log_loss", "brier", "roc_auc"]
NUMBERS = [
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_log_error",
    "mean_pinball_loss",
    "mean_poisson_deviance",
    "mean_gamma_deviance",
]


class Positive(BaseEstimator, RegressorMixin):
    """Predicts exp of the first column."""

    def predict(self, X):
        return np.exp(np.asarray(X)[:, 0])


class TrueLoss(BaseEstimator, RegressorMixin):
    """A regression of the loss that knows it: the square of the first column."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return X[:, 0] ** 2


def classifier():
    X, _, labels = table()
    return LogisticRegression().fit(X, labels)


def target(n=50, seed=1):
    return np.random.default_rng(seed).normal(0.4, 0.9, size=(n, 2))


def square(y_true, y_pred):
    return (y_true - y_pred) ** 2


def sklearns(name, model, X, y, weights):
    """The weighted metric by scikit-learn."""
    if name == "roc_auc":
        return sklearn.metrics.roc_auc_score(y, model.predict_proba(X)[:, 1], sample_weight=weights)
    if name in ("log_loss", "brier"):
        function = sklearn.metrics.log_loss if name == "log_loss" else sklearn.metrics.brier_score_loss
        return function(y, model.predict_proba(X), sample_weight=weights, labels=model.classes_)
    function = getattr(sklearn.metrics, "accuracy_score" if name == "accuracy" else name)
    return function(y, model.predict(X), sample_weight=weights)


# ---------------------------------------------------------------- losses of the rows


@given(name=st.sampled_from(CLASSES), seed=st.integers(0, 99))
def test_the_weighted_mean_of_the_values_is_scikit_learns_weighted_metric_of_classes(name, seed):
    X, _, labels = table(seed=seed)
    weights = np.random.default_rng(seed).exponential(size=N)
    values = row_losses(name, classifier(), X, labels).values(weights)
    assert np.average(values, weights=weights) == pytest.approx(sklearns(name, classifier(), X, labels, weights), rel=1e-12)


@given(name=st.sampled_from(CLASSES[:-1]), seed=st.integers(0, 99))
def test_so_it_is_with_three_classes_in_text(name, seed):
    X, response, _ = table(seed=seed)
    labels = np.array(["a", "b", "c"])[np.digitize(response, [0.2, 1.0])]
    model = LogisticRegression().fit(X, labels)
    weights = np.random.default_rng(seed).exponential(size=N)
    values = row_losses(name, model, X, labels).values(weights)
    assert np.average(values, weights=weights) == pytest.approx(sklearns(name, model, X, labels, weights), rel=1e-12)


@given(name=st.sampled_from(NUMBERS), seed=st.integers(0, 99), n_outputs=st.sampled_from([0, 1]))
def test_so_it_is_of_numbers(name, seed, n_outputs):
    X, response, _ = table(seed=seed)
    y = np.exp(response) if n_outputs == 0 else np.exp(response)[:, None]
    weights = np.random.default_rng(seed).exponential(size=N)
    values = row_losses(name, Positive(), X, y).values(weights)
    assert np.average(values, weights=weights) == pytest.approx(sklearns(name, Positive(), X, y, weights), rel=1e-9)


def test_several_outputs_count_alike():
    X, response, _ = table()
    y = np.column_stack([response, 2.0 * response])
    model = LinearRegression().fit(X, y)
    values = row_losses("mean_squared_error", model, X, y).values(np.ones(N))
    assert values == pytest.approx(np.mean((y - model.predict(X)) ** 2, axis=1))


@pytest.mark.parametrize(
    ("other", "name", "sign"),
    [
        ("neg_mean_squared_error", "mean_squared_error", -1.0),
        ("neg_brier_score", "brier", -1.0),
        (sklearn.metrics.log_loss, "log_loss", 1.0),
        (sklearn.metrics.accuracy_score, "accuracy", 1.0),
        (sklearn.metrics.roc_auc_score, "roc_auc", 1.0),
    ],
)
def test_names_of_scorers_and_functions_of_scikit_learn_mean_the_same(other, name, sign):
    X, _, labels = table()
    mine, theirs = (row_losses(metric, classifier(), X, labels) for metric in (other, name))
    assert np.array_equal(mine.values(tilt(X)), sign * theirs.values(tilt(X)))
    assert sorted(mine.bounds) == sorted(sign * bound for bound in theirs.bounds)


@pytest.mark.parametrize("row", [0, 7, 31])
def test_the_values_of_auc_are_its_slopes_in_the_weights(row):
    X, _, labels = table()
    model, weights, small = classifier(), tilt(X), 1e-6
    values = row_losses("roc_auc", model, X, labels).values(weights)
    more, less = weights.copy(), weights.copy()
    more[row] += small
    less[row] -= small
    slope = (sklearns("roc_auc", model, X, labels, more) - sklearns("roc_auc", model, X, labels, less)) / (2.0 * small)
    auc = sklearns("roc_auc", model, X, labels, weights)
    assert (values[row] - auc) / weights.sum() == pytest.approx(slope, rel=1e-6)


# ---------------------------------------------------------------- the estimate and its error


@given(seed=st.integers(0, 99))
def test_the_error_of_a_weighted_mean_is_the_jackknifes(seed):
    rng = np.random.default_rng(seed)
    losses, weights = rng.normal(size=12), rng.exponential(size=12)
    nothing = Regressed(np.zeros(12), np.zeros(5))
    whole = shifted_mean(losses, weights, nothing)
    without = [np.average(np.delete(losses, i), weights=np.delete(weights, i)) for i in range(12)]
    assert whole.estimate == pytest.approx(np.average(losses, weights=weights))
    assert whole.standard_error**2 == pytest.approx(np.sum((np.array(without) - whole.estimate) ** 2))


def test_one_row_with_all_the_weight_gives_a_number():
    found = shifted_mean(np.array([1.0, 2.0]), np.array([0.0, 3.0]), Regressed(np.zeros(2), np.zeros(2)))
    assert found.estimate == 2.0 and found.standard_error == 0.0


@pytest.mark.parametrize("metric", ["accuracy", "neg_log_loss"])
def test_the_weighted_estimate_is_the_importance_weighted_score(metric):
    X, _, labels = table(seed=3)
    ratio = fitted_ratio()
    found = target_performance(classifier(), ratio, X, labels, target(), metric=metric, method="iw", n_bootstrap=0)
    assert found.estimate == pytest.approx(importance_weighted_score(classifier(), X, labels, ratio, metric))
    assert found.source_estimate == pytest.approx(importance_weighted_score(classifier(), X, labels, ones, metric))


def test_a_right_regression_makes_up_for_a_wrong_ratio():
    X = table()[0]
    X_target = target(200)
    zero = Positive()
    found = target_performance(zero, ones, X, np.exp(X[:, 0]) + X[:, 0], X_target, metric=square, method="dr", regressor=TrueLoss())
    assert found.estimate == pytest.approx(np.mean(X_target[:, 0] ** 2))
    assert found.standard_error == pytest.approx(np.std(X_target[:, 0] ** 2, ddof=1) / np.sqrt(200))


def test_a_right_ratio_makes_up_for_a_wrong_regression():
    shift = make_gaussian_shift(40_000, 2000, random_state=0)
    loss = shift.X_source[:, 0] ** 2

    class Wrong(TrueLoss):
        def predict(self, X):
            return np.full(len(X), 7.0)

    y = np.exp(shift.X_source[:, 0]) + shift.X_source[:, 0]
    found = target_performance(Positive(), shift.ratio, shift.X_source, y, shift.X_target, metric=square, regressor=Wrong())
    # E x^2 of N(1, 0.75^2), within four standard errors.
    assert abs(found.estimate - 1.5625) < 4.0 * found.standard_error < 0.2
    assert found.source_estimate == pytest.approx(loss.mean())


BOUNDS = st.sampled_from([(0.0, 1.0), (0.0, np.inf), (-np.inf, 0.0), (-np.inf, np.inf)])


@given(bounds=BOUNDS, share=st.floats(0.001, 0.999), half=st.floats(1e-6, 10.0))
def test_an_interval_holds_its_estimate_within_the_metrics_range(bounds, share, half):
    mean = -share if bounds[1] == 0.0 else share
    low, high = interval_within(mean, half, bounds)
    assert bounds[0] <= low <= mean <= high <= bounds[1]
    wider = interval_within(mean, 2.0 * half, bounds)
    assert wider[0] <= low and high <= wider[1]


@given(bounds=BOUNDS, share=st.floats(0.1, 0.9))
def test_a_short_interval_is_as_long_as_the_error_says(bounds, share):
    mean = -share if bounds[1] == 0.0 else share
    low, high = interval_within(mean, 1e-6, bounds)
    assert high - low == pytest.approx(2e-6, rel=1e-4)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.0, np.inf)])
def test_an_estimate_beyond_the_range_has_an_interval_in_it(bounds):
    assert interval_within(-0.1, 0.2, bounds) == pytest.approx((0.0, 0.1))


def misses(found, truth):
    return not found.interval[0] <= truth <= found.interval[1]


def draws(metric, method, ratio_of, n_draws):
    """(share of the intervals that hold the true value, share of those of the source), of n_draws shifts of 200 + 200 rows.

    A quarter of the draws is enough to see that those of the source miss it.
    """
    known = make_gaussian_shift(300, 50_000, n_columns=2, noise=0.3, random_state=999)

    def labels_of(outcomes):
        return (outcomes > 0.5).astype(int) if metric in CLASSES else outcomes

    model = (LogisticRegression() if metric in CLASSES else LinearRegression()).fit(known.X_source, labels_of(known.labels_source))
    truth = sklearns(metric, model, known.X_target, labels_of(known.labels_target), None)
    held, held_by_source = 0, 0
    for seed in range(n_draws):
        shift = make_gaussian_shift(200, 200, n_columns=2, noise=0.3, random_state=seed)
        y, ratio = labels_of(shift.labels_source), ratio_of(shift)
        rows = (shift.X_source, y, shift.X_target)
        held += not misses(target_performance(model, ratio, *rows, metric=metric, method=method, n_bootstrap=15), truth)
        if seed % 4 == 0:
            held_by_source += not misses(target_performance(model, ones, *rows, metric=metric, method="iw"), truth)
    return held / n_draws, 4.0 * held_by_source / n_draws


def true_ratio(shift):
    return shift.ratio


def least_squares(shift):
    return LSIF(nonnegative=False).fit(shift.X, shift.y)


@pytest.mark.parametrize("metric", ["accuracy", "mean_squared_error"])
def test_the_interval_of_the_weighted_mean_covers_and_that_of_the_source_does_not(metric):
    held, by_source = draws(metric, "iw", true_ratio, 100)
    assert 0.90 <= held <= 0.99 and by_source <= 0.4


@pytest.mark.long
@pytest.mark.parametrize("metric", ["accuracy", "mean_squared_error", "roc_auc"])
def test_the_interval_of_the_doubly_robust_estimate_covers_with_an_estimated_ratio(metric):
    held, by_source = draws(metric, "dr", least_squares, 100)
    assert 0.90 <= held <= 0.99 and by_source <= 0.4


# ---------------------------------------------------------------- refits


def test_refits_widen_the_interval_are_reproducible_and_search_no_more():
    X, _, labels = table(seed=3)
    ratio = LSIF(gamma=[0.3, 0.6], nonnegative=False).fit(*stack_domains(X, target()))
    fresh = refitted(ratio, *stack_domains(X, target()))
    assert fresh.gamma == ratio.best_params_["gamma"] and not hasattr(fresh, "best_params_")
    assert fresh.transform(X) == pytest.approx(ratio.transform(X))

    def error(n_bootstrap, seed=0):
        settings = {"metric": "accuracy", "method": "iw", "n_bootstrap": n_bootstrap, "random_state": seed}
        return target_performance(classifier(), ratio, X, labels, target(), **settings).standard_error

    assert error(20) == error(20) >= error(0)


def test_a_ratio_without_a_seed_gives_the_same_error_twice():
    X, _, labels = table(seed=3)
    ratio = LSIF(n_centers=5).fit(*stack_domains(X, target()))
    first, second = (
        target_performance(classifier(), ratio, X, labels, target(), metric="accuracy", method="iw", n_bootstrap=3)
        for _ in range(2)
    )
    assert first == second


def test_the_parameters_of_a_search_in_a_pipeline_are_kept():
    X = table()[0]
    samples = stack_domains(X, target())
    ratio = make_pipeline(OneHotEncoder(handle_unknown="ignore", sparse_output=False), LSIF(gamma=[0.3, 0.6]))
    ratio.fit(np.round(samples[0]), samples[1])
    assert refitted(ratio, np.round(samples[0]), samples[1])[-1].gamma == ratio[-1].best_params_["gamma"]


def test_draws_on_which_no_ratio_can_be_fitted_are_left_out():
    class Choosy(LSIF):
        def fit(self, X, y=None, sample_weight=None):
            if len(np.unique(X[:, 0])) < len(X):
                raise ValueError("copies")
            return super().fit(X, y, sample_weight)

    X, _, labels = table(seed=3)
    ratio = Choosy().fit(*stack_domains(X, target()))
    found = [target_performance(classifier(), ratio, X, labels, target(), metric="accuracy", n_bootstrap=n) for n in (0, 3)]
    assert found[0].standard_error == found[1].standard_error


# ---------------------------------------------------------------- chunks


def test_each_chunk_is_estimated_with_a_ratio_of_its_own():
    X, _, labels = table(200, seed=3)
    X_target = np.concatenate([target(60, 1), target(60, 2) - 0.8])
    ratio = KLIEP(gamma=0.5).fit(*stack_domains(X, X_target))
    settings = {"metric": "log_loss", "n_bootstrap": 0}
    found = target_performance(classifier(), ratio, X, labels, X_target, chunks=np.repeat(["b", "a"], 60), **settings)
    assert [one.chunk for one in found] == ["a", "b"]
    for one, rows in zip(found, (X_target[60:], X_target[:60]), strict=True):
        own = KLIEP(gamma=0.5).fit(*stack_domains(X, rows))
        alone = target_performance(classifier(), own, X, labels, rows, **settings)
        assert one.estimate == pytest.approx(alone.estimate) and one.interval == pytest.approx(alone.interval)
    assert "chunk a" in repr(found[0])


def test_a_number_of_chunks_cuts_the_rows_in_their_order():
    X, _, labels = table(seed=3)
    ratio = fitted_ratio()
    found = target_performance(classifier(), ratio, X, labels, target(90), metric="accuracy", chunks=3, n_bootstrap=0)
    assert [one.chunk for one in found] == [0, 1, 2]
    labeled = np.repeat([0, 1, 2], 30)
    assert found == target_performance(classifier(), ratio, X, labels, target(90), metric="accuracy", chunks=labeled, n_bootstrap=0)


def test_times_are_labels_too():
    X, _, labels = table(seed=3)
    days = pd.Series(pd.date_range("2026-01-30", periods=60)).dt.to_period("M")
    found = target_performance(classifier(), fitted_ratio(), X, labels, target(60), metric="accuracy", chunks=days, n_bootstrap=0)
    assert [str(one.chunk) for one in found] == ["2026-01", "2026-02", "2026-03"]


# ---------------------------------------------------------------- what the data can't say


@pytest.mark.parametrize(("metric", "bounds"), [("accuracy", (0.0, 1.0)), ("log_loss", (0.0, np.inf))])
def test_no_overlap_is_said_and_the_interval_is_the_whole_range(metric, bounds):
    X, _, labels = table(200)
    found = target_performance(classifier(), fitted_ratio(), X, labels, target() + 4.0, metric=metric)
    assert found.warning.startswith("Can't say: no overlap for a part of the target") and found.interval == bounds
    assert "Warning: Can't say" in repr(found)


def test_one_row_that_counts_can_not_say():
    X, _, labels = table()
    third = lambda X: 1e-9 + (np.arange(len(X)) == 3)  # noqa: E731
    found = target_performance(classifier(), third, X, labels, X, metric="accuracy", method="iw")
    assert found.warning == "Can't say: the 60 source rows count as 1.0 on the target." and found.interval == (0.0, 1.0)
    found = target_performance(classifier(), ones, X, labels, X[:1], metric="accuracy")
    assert found.warning.startswith("Can't say: one target row") and found.interval == (0.0, 1.0)


def test_ten_rows_give_a_wide_interval_and_a_warning():
    X, _, labels = table(10)
    found = target_performance(classifier(), fitted_ratio(), X, labels, target(10), metric="accuracy")
    assert "count as" in found.warning and found.interval[1] - found.interval[0] > 0.3
    assert 1.0 <= found.effective_rows <= 10.0


def test_a_healthy_shift_has_no_warning():
    X, _, labels = table(300)
    found = target_performance(classifier(), fitted_ratio(), X, labels, target(300), metric="accuracy", n_bootstrap=0)
    assert found.warning is None
    assert repr(found).startswith(f"accuracy on the target: {found.estimate:.4g}, 95 % interval ")


# ---------------------------------------------------------------- tables


def test_columns_of_a_frame_are_matched_by_name():
    X, _, labels = table(seed=3)
    frames = [pd.DataFrame(rows, columns=["a", "b"]) for rows in (X, target())]
    ratio = KLIEP(gamma=0.5).fit(*stack_domains(*frames))
    model = LogisticRegression().fit(frames[0], labels)
    found = [
        target_performance(model, ratio, frames[0], labels, rows, metric="accuracy", n_bootstrap=2)
        for rows in (frames[1], frames[1][["b", "a"]])
    ]
    assert found[0] == found[1]


def test_categories_and_gaps_need_no_preparation():
    rng = np.random.default_rng(0)

    def rows(n, p):
        number = rng.normal(size=n)
        return pd.DataFrame({"city": rng.choice(["a", "b"], n, p=[p, 1 - p]), "x": np.where(rng.random(n) < 0.1, np.nan, number)})

    X, X_target = rows(300, 0.7), rows(200, 0.3)
    y = (X["city"] == "a").to_numpy() ^ (rng.random(300) < 0.1)
    trees = make_pipeline(
        make_column_transformer((OneHotEncoder(sparse_output=False), ["city"]), remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=10),
    )
    ratio = Discriminator(trees).fit(*stack_domains(X, X_target))
    model = trees.fit(X, y)
    found = target_performance(model, ratio, X, y, X_target, metric="accuracy", n_bootstrap=2)
    assert found.warning is None and 0.7 < found.interval[0] < found.interval[1] <= 1.0


def test_dates_and_the_ratio_of_importance_weights_need_none_either():
    rng = np.random.default_rng(0)

    def rows(n, first):
        day = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(first, 300, n), "D")
        return pd.DataFrame({"day": day, "kind": rng.choice(["a", "b"], n), "x": rng.normal(size=n)})

    X, X_target = rows(200, 0), rows(150, 100)
    y = X["x"] > 0.0
    model = make_pipeline(make_column_transformer(("passthrough", ["x"])), LogisticRegression()).fit(X, y)
    ratio = importance_weights(X, X_target, method=KLIEP(gamma=0.1)).ratio
    found = target_performance(model, ratio, X, y, X_target, metric="accuracy", n_bootstrap=2)
    assert found.warning is None and found.interval[0] > 0.9
    later = X_target.assign(day=X_target["day"] + pd.Timedelta(days=999))
    warning = target_performance(model, ratio, X, y, later, metric="accuracy").warning
    assert re.search("outside the source's range of .?day", warning)


def test_sparse_rows_are_taken():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    X, _, labels = table(seed=3)
    both = [
        target_performance(classifier(), LSIF(gamma=0.5).fit(*stack_domains(a, b)), a, labels, b, metric="accuracy", n_bootstrap=2)
        for a, b in ((X, target()), (scipy_sparse.csr_array(X), scipy_sparse.csr_array(target())))
    ]
    assert both[0].estimate == pytest.approx(both[1].estimate)


# ---------------------------------------------------------------- what it refuses


def call(**changes):
    X, _, labels = table()
    given = {"model": classifier(), "ratio": ones, "X": X, "y": labels, "X_target": target(), "metric": "accuracy"} | changes
    positional = [given.pop(name) for name in ("model", "ratio", "X", "y", "X_target")]
    return target_performance(*positional, **given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_target": np.zeros((5, 3))}, "The samples differ in their columns: the source has 2 and the target has 3"),
        ({"metric": "f1"}, "'f1' is not a mean over rows"),
        ({"metric": sklearn.metrics.r2_score}, "'r2_score' is not a mean over rows"),
        ({"metric": "neg_root_mean_squared_error"}, "is the root of a mean.*estimate 'mean_squared_error'"),
        ({"metric": "acuracy"}, "There is no metric 'acuracy'. Did you mean 'accuracy'. Known are accuracy, "),
        ({"metric": 3}, "metric must be a name or a function"),
        ({"metric": lambda y, p: np.mean(y == p)}, r"must return one number for each row, shape \(60,\).*got shape \(\)"),
        ({"metric": lambda y, p: np.where(y == p, np.nan, 0.0)}, "is nan at row"),
        ({"model": LinearSVC().fit(table()[0], table()[2]), "metric": "log_loss"}, r"LinearSVC has no predict_proba.*Calibrated"),
        ({"y": np.full(N, 2), "metric": "log_loss"}, "y holds the class .*2.*, which the model was not fitted on"),
        ({"y": np.zeros(N), "metric": "roc_auc"}, "'roc_auc' needs two classes, both of them in y; the model has 2 and y has 1"),
        ({"y": np.array(["a"] * N), "metric": "mean_squared_error"}, "needs numbers, and y or the predictions are"),
        ({"y": np.zeros(3)}, "X has 60 and y has 3"),
        ({"method": "ips"}, 'method must be "dr"'),
        ({"confidence": 95}, r"confidence must be a number in \(0, 1\), such as 0.95; got 95"),
        ({"n_bootstrap": -1}, "n_bootstrap must be an int >= 0"),
        ({"ratio": KLIEP()}, "The ratio KLIEP is not fitted"),
        ({"ratio": lambda X: np.zeros(len(X))}, "The ratio is 0 at every row"),
        ({"model": LogisticRegression}, r"got the class LogisticRegression: LogisticRegression\(...\).fit\(X, y\)"),
        ({"chunks": 3}, "with chunks the ratio must be an estimator"),
        ({"ratio": fitted_ratio(), "chunks": 51}, "chunks must be from 1 to the number of target rows, 50"),
        ({"ratio": fitted_ratio(), "chunks": [1, 2]}, r"a label for each target row, shape \(50,\); got shape \(2,\)"),
    ],
)
def test_it_says_what_it_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes)


def test_a_frame_with_other_columns_is_refused_by_their_names():
    frames = [pd.DataFrame(rows, columns=names) for rows, names in ((table()[0], ["a", "b"]), (target(), ["a", "c"]))]
    with pytest.raises(ValueError, match=r"only the source has \['b'\], only the target has \['c'\]"):
        call(X=frames[0], X_target=frames[1])
