"""WeightedConformal: quantiles and sets by their definitions, coverage under known shifts, the scikit-learn contract."""

from __future__ import annotations

import pickle
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression, QuantileRegressor, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import check_estimator
from two_step_cases import fitted_ratio, ones, table, tilt

from densratio import KLIEP, ImportanceWeighted, WeightedConformal, stack_domains
from densratio.datasets import make_gaussian_shift
from densratio.two_step.weighted_quantile import needed, row_quantiles, score_quantiles, weight_below

METHODS = ["split", "cross"]
PAIR = (QuantileRegressor(quantile=0.05, alpha=0.0), QuantileRegressor(quantile=0.95, alpha=0.0))


def far_is_heavy(X):
    """1 where the first column is below 5, and a hundred thousand beyond."""
    return np.where(np.asarray(X)[:, 0] > 5.0, 1e5, 1.0)


def three_classes(n=120, seed=0):
    X, response, _ = table(n, seed)
    return X, np.array(["low", "middle", "high"])[np.digitize(response, [0.2, 1.0])]


# ---------------------------------------------------------------- the quantile


SCORES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=20)


@given(rows=SCORES, new=st.integers(0, 30), hundredths=st.integers(1, 99))
def test_the_quantile_is_that_of_exact_fractions(rows, new, hundredths):
    scores, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    least = Fraction(hundredths, 100) * (sum(weight for _, weight in rows) + new)
    reached = [score for score, _ in sorted(rows) if sum(weight for other, weight in rows if other <= score) >= least]
    need = needed(weights, np.array([float(new)]), hundredths / 100)
    found = score_quantiles(scores, weights, need)
    # With no weight at all, any score will do.
    if least > 0:
        assert found == [reached[0] if reached else np.inf]
        assert np.array_equal(found, row_quantiles(scores[None, :], weights, need))
        below = weight_below(scores, weights, np.arange(10.0))
        assert np.array_equal(below < need, np.arange(10.0) <= found[0])


@given(n=st.integers(1, 300), percent=st.integers(1, 99))
def test_equal_weights_give_the_plain_split_conformal_quantile(n, percent):
    scores = np.random.default_rng(n).normal(size=n)
    rank = -(-(n + 1) * percent // 100)
    expected = np.sort(scores)[rank - 1] if rank <= n else np.inf
    # Any common weight: one third is rounded.
    weights = np.full(n, 1.0 / 3.0)
    assert score_quantiles(scores, weights, needed(weights, weights[:1], percent / 100)) == [expected]


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9])
def test_the_interval_with_equal_weights_is_plain_split_conformal(confidence):
    X, y, _ = table(200)
    model = WeightedConformal(Ridge(), ones, confidence=confidence).fit(X, y)
    (fitted,) = model.estimators_
    rank = int(np.ceil(round((len(model.scores_) + 1) * confidence, 9)))
    radius = np.sort(model.scores_)[rank - 1]
    new = table(30, seed=4)[0]
    assert len(model.scores_) == 60
    assert model.predict_interval(new) == pytest.approx(fitted.predict(new)[:, None] + [-radius, radius])
    assert model.n_unbounded_ == 0


# ---------------------------------------------------------------- intervals and sets by definition


def held_by_definition(model, scores_of, new):
    """Whether (sum of the weights of scores below the new one of the same fold) < confidence times all weights, for each row."""
    w_new, held = model.ratio(new) / model.unit_, []
    for j in range(len(new)):
        below = sum(w for w, s, k in zip(model.weights_, model.scores_, model.fold_, strict=True) if s < scores_of(k)[j])
        held.append(below < model.confidence * (model.weights_.sum() + w_new[j]))
    return np.array(held)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("estimator", [Ridge(), PAIR], ids=["absolute", "quantile"])
def test_the_ends_of_an_interval_are_where_the_labels_begin_to_be_refused(method, estimator):
    X, y, _ = table(90)
    model = WeightedConformal(estimator, tilt, method=method, confidence=0.8, cv=3).fit(X, y)
    new = table(12, seed=5)[0]
    lower, upper = model.predict_interval(new).T

    def score_at(labels, k):
        pair = model.estimators_[k] if isinstance(model.estimators_[k], list) else [model.estimators_[k]] * 2
        return np.maximum(pair[0].predict(new) - labels, labels - pair[1].predict(new))

    for end, outward in ((lower, -1.0), (upper, 1.0)):
        assert held_by_definition(model, lambda k, end=end, step=outward: score_at(end - 1e-9 * step, k), new).all()
        # The interval of several folds is the hull of the two one-sided sets, so a little more than the labels that are held.
        if method == "split":
            beyond = held_by_definition(model, lambda k, end=end, step=outward: score_at(end + 1e-9 * step, k), new)
            assert not beyond.any()


def test_cross_intervals_are_weighted_quantiles_of_the_ends_of_each_rows_fold():
    X, y, _ = table(40)
    model = WeightedConformal(LinearRegression(), tilt, method="cross", confidence=0.7, cv=4).fit(X, y)
    new = table(6, seed=5)[0]
    interval, w_new = model.predict_interval(new), tilt(new) / model.unit_
    predictions = np.stack([model.estimators_[k].predict(new) for k in model.fold_])
    for j in range(6):
        least = 0.7 * (model.weights_.sum() + w_new[j])
        for end, sign in ((0, -1.0), (1, 1.0)):
            reach = sign * predictions[:, j] + model.scores_
            sums = [model.weights_[reach <= value].sum() for value in np.sort(reach)]
            assert sign * interval[j, end] == pytest.approx(np.sort(reach)[np.argmax(np.array(sums) >= least)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("score", ["lac", "aps"])
def test_a_set_holds_the_classes_that_the_definition_holds(method, score):
    X, y = three_classes()
    model = WeightedConformal(LogisticRegression(), tilt, method=method, conformity_score=score, cv=3).fit(X, y)
    new = table(12, seed=5)[0]
    shares = np.random.default_rng([0, 1]).random(12)
    found = model.predict_set(new)
    assert found.shape == (12, 3) and found.dtype == bool
    for number in range(3):

        def scores_of(k, number=number):
            p = model.estimators_[k].predict_proba(new)
            own = p[:, number]
            return 1.0 - own if score == "lac" else np.sum(p * (p > own[:, None]), axis=1) + (1.0 - shares) * own

        assert np.array_equal(found[:, number], held_by_definition(model, scores_of, new))


# ---------------------------------------------------------------- laws


@given(factor=st.floats(1e-6, 1e6), method=st.sampled_from(METHODS))
def test_the_unit_of_the_ratio_does_not_count(factor, method):
    X, y, _ = table(60)
    new = table(10, seed=5)[0]
    plain, scaled = (
        WeightedConformal(Ridge(), ratio, method=method).fit(X, y).predict_interval(new)
        for ratio in (tilt, lambda X: factor * tilt(X))
    )
    assert scaled == pytest.approx(plain)


@pytest.mark.parametrize("method", METHODS)
def test_more_confidence_gives_wider_intervals_and_larger_sets(method):
    X, y, _ = table(100)
    new, classes = table(20, seed=5)[0], three_classes(100)
    last, last_set = np.zeros(20), np.zeros((20, 3), dtype=bool)
    for confidence in (0.5, 0.7, 0.9, 0.99):
        lower, upper = WeightedConformal(Ridge(), tilt, method=method, confidence=confidence).fit(X, y).predict_interval(new).T
        held = WeightedConformal(LogisticRegression(), tilt, method=method, confidence=confidence).fit(*classes).predict_set(new)
        assert np.all(upper - lower >= last) and np.all(held >= last_set)
        last, last_set = upper - lower, held


@pytest.mark.parametrize("method", METHODS)
def test_where_the_new_row_outweighs_all_others_the_interval_is_infinite_and_the_set_full(method):
    X, y, _ = table(100)
    new = np.array([[0.0, 0.0], [6.0, 0.0], [7.0, 1.0]])
    model = WeightedConformal(Ridge(), far_is_heavy, method=method).fit(X, y)
    interval = model.predict_interval(new)
    assert np.isfinite(interval[0]).all() and np.array_equal(interval[1:], [[-np.inf, np.inf]] * 2)
    assert model.n_unbounded_ == 2
    sets = WeightedConformal(LogisticRegression(), far_is_heavy, method=method).fit(*three_classes())
    assert sets.predict_set(new)[1:].all() and sets.n_unbounded_ == 2
    sets.predict_set(new[:1])
    assert sets.n_unbounded_ == 0


def coverage(estimator, is_of_classes, n_draws, **params):
    """Mean coverage of the target over draws of a known shift, (with the true ratio, with none)."""
    held = np.zeros((n_draws, 2))
    for seed in range(n_draws):
        shift = make_gaussian_shift(1500, 1000, n_columns=2, shift=1.2, noise=0.3, random_state=seed)
        outcomes = (shift.labels_source, shift.labels_target)
        y, y_target = (np.digitize(labels, [-0.5, 0.5]) if is_of_classes else labels for labels in outcomes)
        for place, ratio in enumerate((shift.ratio, ones)):
            model = WeightedConformal(estimator, ratio, **params).fit(shift.X_source, y)
            if is_of_classes:
                held[seed, place] = np.mean(model.predict_set(shift.X_target)[np.arange(1000), y_target])
            else:
                lower, upper = model.predict_interval(shift.X_target).T
                held[seed, place] = np.mean((lower <= y_target) & (y_target <= upper))
    return held.mean(axis=0)


CASES = [
    (LinearRegression(), False, 40, {}),
    (LinearRegression(), False, 8, {"method": "cross"}),
    (LogisticRegression(), True, 40, {}),
    (LogisticRegression(), True, 40, {"conformity_score": "aps"}),
    (LogisticRegression(), True, 15, {"method": "cross"}),
    pytest.param(PAIR, False, 40, {}, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("estimator", "is_of_classes", "n_draws", "params"), CASES)
def test_the_target_is_covered_where_unweighted_sets_miss_it(estimator, is_of_classes, n_draws, params):
    weighted, plain = coverage(estimator, is_of_classes, n_draws, **params)
    assert 0.88 <= weighted <= 0.92 and plain < 0.85


def test_an_estimated_ratio_covers_too():
    held = []
    for seed in range(15):
        shift = make_gaussian_shift(800, 800, n_columns=2, shift=1.2, noise=0.3, random_state=seed)
        ratio = KLIEP(gamma=0.5).fit(shift.X, shift.y)
        model = WeightedConformal(ImportanceWeighted(LinearRegression(), ratio), ratio, method="cross")
        lower, upper = model.fit(shift.X_source, shift.labels_source).predict_interval(shift.X_target).T
        held.append(np.mean((lower <= shift.labels_target) & (shift.labels_target <= upper)))
    assert 0.88 <= np.mean(held) <= 0.92


# ---------------------------------------------------------------- the scikit-learn contract


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("estimator", [Ridge(), LogisticRegression()], ids=["regressor", "classifier"])
def test_it_passes_check_estimator(estimator, method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(WeightedConformal(estimator, ones, method=method), on_fail=None)
    assert [(result["check_name"], result["exception"]) for result in results if result["status"] == "failed"] == []
    assert len(results) > 40


def test_predictions_are_those_of_the_fitted_estimators():
    X, y, _ = table(100)
    new = table(10, seed=5)[0]
    of_folds = WeightedConformal(Ridge(), tilt, method="cross", cv=4).fit(X, y)
    assert of_folds.predict(new) == pytest.approx(np.mean([e.predict(new) for e in of_folds.estimators_], axis=0))
    pair = WeightedConformal(PAIR, tilt).fit(X, y)
    assert pair.predict(new) == pytest.approx(np.mean([e.predict(new) for e in pair.estimators_[0]], axis=0))
    X, y = three_classes()
    classes = WeightedConformal(LogisticRegression(), tilt, method="split").fit(X, y)
    assert np.array_equal(classes.predict(new), classes.estimators_[0].predict(new))
    assert list(classes.classes_) == ["high", "low", "middle"]
    assert classes.score(X, y) == pytest.approx(np.mean(classes.predict(X) == y))


def test_clones_and_pickles_keep_the_fitted_ratio():
    X, y, _ = table(100)
    ratio = fitted_ratio()
    model = WeightedConformal(Ridge(alpha=3.0), ratio, confidence=0.8).fit(X, y)
    twin = clone(model)
    assert twin.ratio is ratio and twin.estimator.alpha == 3.0 and not hasattr(twin, "estimators_")
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_interval(X), model.predict_interval(X))
    with pytest.raises(ValueError, match="ratio__gamma can't be set"):
        model.set_params(ratio__gamma=1.0)


def test_a_search_over_the_estimator_works_around_it():
    X, y, _ = table(100)
    search = GridSearchCV(WeightedConformal(Ridge(), fitted_ratio()), {"estimator__alpha": [0.1, 1e4]}, cv=3).fit(X, y)
    assert search.best_params_ == {"estimator__alpha": 0.1}


def test_frames_with_names_give_what_arrays_give():
    X, y, _ = table(100)
    frame = pd.DataFrame(X, columns=["a", "b"])
    target = pd.DataFrame(table(50, seed=2)[0] + 0.3, columns=["a", "b"])
    named = KLIEP(gamma=0.5).fit(*stack_domains(frame, target))
    plain = KLIEP(gamma=0.5).fit(*stack_domains(X, target.to_numpy()))
    found = WeightedConformal(Ridge(), named).fit(frame, y)
    assert found.predict_interval(target) == pytest.approx(
        WeightedConformal(Ridge(), plain).fit(X, y).predict_interval(target.to_numpy())
    )
    assert list(found.feature_names_in_) == ["a", "b"]


def test_a_class_that_a_fold_lacks_has_probability_0_there():
    X, _, labels = table(61)
    labels[0] = 2
    model = WeightedConformal(LogisticRegression(), ones, method="cross", cv=3).fit(X, labels)
    assert len(model.classes_) == 3 and model.predict_set(X).shape == (61, 3)
    assert model.scores_.max() == 1.0


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("estimator", "params", "message"),
    [
        (Ridge(), {"confidence": 90}, r"confidence must be a number in \(0, 1\)"),
        (Ridge(), {"method": "jackknife"}, 'method must be "split" or "cross"'),
        (Ridge(), {"conformity_score": "lac"}, r"must be 'auto' or one of \['absolute'\]; got 'lac'"),
        (LogisticRegression(), {"conformity_score": "absolute"}, r"one of \['lac', 'aps'\]"),
        (LinearSVC(), {}, "LinearSVC has no predict_proba.*CalibratedClassifierCV"),
        ((Ridge(), Ridge(), Ridge()), {}, r"a pair \(lower, upper\); got 3"),
    ],
)
def test_it_says_what_it_refuses(estimator, params, message):
    X, _, labels = table()
    with pytest.raises(ValueError, match=message):
        WeightedConformal(estimator, ones, **params).fit(X, labels)


def test_labels_of_several_columns_are_answered_with_code_that_covers_all_of_them():
    X, y, _ = table()
    y = np.column_stack([y, np.random.default_rng(0).normal(size=len(y))])
    with pytest.raises(ValueError, match="y has 2 columns") as refused:
        WeightedConformal(Ridge(), ones, confidence=0.8).fit(X, y)
    code = "\n".join(line.strip() for line in str(refused.value).splitlines() if line.startswith("    "))
    share = float(str(refused.value).split("confidence=")[1].split(",")[0])
    found = {"X": X, "y": y, "np": np, "model": WeightedConformal(Ridge(), ones, confidence=share)}
    exec(code, found)
    ends = np.stack([model.predict_interval(X) for model in found["models"]])
    inside = (ends[..., 0] <= y.T) & (ends[..., 1] >= y.T)
    assert share == pytest.approx(0.9) and inside.all(axis=0).mean() >= 0.8


def test_text_is_no_label_of_a_regressor():
    with pytest.raises(ValueError, match=r"y must be .* numbers for a regressor; got 'b'"):
        WeightedConformal(Ridge(), ones).fit(table()[0], np.full(len(table()[0]), "b"))


def test_a_ratio_that_is_not_fitted_or_sees_no_overlap_is_refused():
    X, y, _ = table()
    with pytest.raises(ValueError, match=r"ratio must be a fitted density ratio, or a callable .*; got Ridge"):
        WeightedConformal(KLIEP(), Ridge()).fit(X, y)
    with pytest.raises(NotFittedError, match="The ratio KLIEP is not fitted"):
        WeightedConformal(Ridge(), KLIEP()).fit(X, y)
    with pytest.raises(ValueError, match="The ratio is 0 at every row"):
        WeightedConformal(Ridge(), lambda X: np.zeros(len(X))).fit(X, y)


def test_intervals_of_classes_and_sets_of_numbers_are_refused():
    X, y, labels = table()
    with pytest.raises(AttributeError, match="no attribute 'predict_set'") as of_numbers:
        _ = WeightedConformal(Ridge(), ones).fit(X, y).predict_set
    with pytest.raises(AttributeError, match="no attribute 'predict_interval'") as of_classes:
        _ = WeightedConformal(LogisticRegression(), ones).fit(X, labels).predict_interval
    assert "use predict_interval" in str(of_numbers.value.__cause__)
    assert "use predict_set" in str(of_classes.value.__cause__)


def test_a_failing_fit_changes_nothing():
    X, _, labels = table()
    model = WeightedConformal(LogisticRegression(), tilt).fit(X, labels)
    before = pickle.dumps(vars(model))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan), 1 + labels)
    assert pickle.dumps(vars(model)) == before
