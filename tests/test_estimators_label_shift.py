"""LabelShiftRatio: class ratios from the predictions of a classifier, against likelihoods and confusion matrices by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC

from densratio import LabelShiftRatio, stack_domains
from densratio.estimators.label_shift.class_ratios import METHODS, Calibration, Predictions, class_shares, mlls
from densratio.estimators.label_shift.numbers import comparable

CENTERS = np.array([[0.0, 0.0], [2.5, 0.0], [0.0, 2.5]])
SOURCE, TARGET = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.2, 0.6])


def rows(rng, n, shares, moved=0.0):
    classes = np.concatenate([np.arange(3).repeat(2), rng.choice(3, n - 6, p=shares)])
    return CENTERS[classes] + rng.normal(0.0, 1.0, (n, 2)) + moved, classes


def table(seed, n=400, m=300, moved=0.0):
    rng = np.random.default_rng(seed)
    (source, classes), (target, _) = rows(rng, n, SOURCE), rows(rng, m, TARGET, moved)
    return *stack_domains(source, target), classes


def predictions(seed, n=30, m=25, k=3):
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    source, target = (rng.dirichlet(np.ones(k), size) for size in (n, m))
    return Predictions(source, classes, target, rng.integers(1, 4, n) * 1.0, rng.integers(1, 4, m) * 1.0)


@given(seed=st.integers(0, 999))
def test_the_maximum_likelihood_is_that_of_a_general_solver(seed):
    given_ = predictions(seed)
    prior = class_shares(given_.classes, given_.source_count, 3)

    def loss(share):
        added = 3.0 * prior @ np.log(np.maximum(share, 1e-300))
        return -given_.target_count @ np.log(np.maximum((given_.target / prior) @ share, 1e-300)) - added

    def softmax(free):
        return np.exp(free - free.max()) / np.exp(free - free.max()).sum()

    starts = [
        scipy.optimize.minimize(lambda free: loss(softmax(free)), start).fun for start in np.vstack([np.zeros(3), 3.0 * np.eye(3)])
    ]
    found = mlls(given_) * prior
    assert found.sum() == pytest.approx(1.0) and found.min() >= 0.0
    assert loss(found) <= min(starts) + 1e-5 * given_.target_count.sum()


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 999))
def test_counts_are_copies_and_ratios_have_mean_one_over_the_source(method, seed):
    given_ = predictions(seed)
    s, t = given_.source_count.astype(int), given_.target_count.astype(int)
    copied = Predictions(
        given_.source.repeat(s, 0), given_.classes.repeat(s), given_.target.repeat(t, 0), np.ones(s.sum()), np.ones(t.sum())
    )
    found = METHODS[method](given_)
    assert class_shares(given_.classes, given_.source_count, 3) @ found == pytest.approx(1.0)
    np.testing.assert_allclose(found, METHODS[method](copied), rtol=1e-5, atol=1e-6)


def test_a_perfect_classifier_gives_the_quotient_of_the_frequencies():
    classes, target = np.repeat([0, 1, 2], [60, 30, 10]), np.repeat([0, 1, 2], [10, 20, 70])
    given_ = Predictions(np.eye(3)[classes], classes, np.eye(3)[target], np.ones(100), np.ones(100))
    np.testing.assert_allclose(METHODS["bbse"](given_), [10 / 60, 20 / 30, 7.0], rtol=1e-6)
    # Three more target rows, of the source's classes.
    np.testing.assert_allclose(mlls(given_) * [0.6, 0.3, 0.1], np.array([11.8, 20.9, 70.3]) / 103, rtol=1e-6)


def test_the_confusion_matrix_is_solved_exactly():
    given_ = predictions(5, n=200, m=150)
    source, target = given_.source.argmax(axis=1), given_.target.argmax(axis=1)
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (source, given_.classes), given_.source_count / given_.source_count.sum())
    shares = np.bincount(target, given_.target_count) / given_.target_count.sum()
    expected = np.clip(np.linalg.solve(confusion, shares), 0.0, None)
    expected /= class_shares(given_.classes, given_.source_count, 3) @ expected
    np.testing.assert_allclose(METHODS["bbse"](given_), expected, rtol=1e-9)


def test_calibration_finds_the_temperature_and_bias_that_were_put_in():
    rng = np.random.default_rng(0)
    score = rng.normal(0.0, 2.0, (20000, 3))
    true = np.exp(score + np.array([0.5, 0.0, -0.5]))
    true /= true.sum(axis=1, keepdims=True)
    classes = (rng.random((len(true), 1)) > np.cumsum(true, axis=1)).sum(axis=1)
    given_ = np.exp(3.0 * score)
    calibration = Calibration.of(given_ / given_.sum(axis=1, keepdims=True), classes, np.ones(len(classes)))
    np.testing.assert_allclose(calibration(given_ / given_.sum(axis=1, keepdims=True)), true, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_the_intervals_hold_the_true_ratios_and_the_weights_are_those_of_the_classes(method):
    X, y, classes = table(seed=1, n=3000, m=3000)
    ratio = LabelShiftRatio(method=method, confidence=0.999, n_bootstrap=200).fit(X, y, labels=classes)
    low, high = ratio.intervals_.T
    assert (low <= TARGET / SOURCE).all() and (high >= TARGET / SOURCE).all()
    assert (high - low < TARGET / SOURCE).all()
    assert ratio.weights_.mean() == pytest.approx(1.0)
    np.testing.assert_allclose(ratio.weights_, ratio.class_ratios_[classes] / ratio.class_ratios_[classes].mean())


def test_adjusted_probabilities_are_those_of_the_target():
    X, y, classes = table(seed=2)
    ratio = LabelShiftRatio(n_bootstrap=20).fit(X, y, labels=classes)
    probability = np.random.default_rng(0).dirichlet(np.ones(3), 10)
    moved = probability * ratio.class_ratios_
    np.testing.assert_allclose(ratio.adjust(probability), moved / moved.sum(axis=1, keepdims=True))
    assert ratio.predict(X[y == 1]).shape == (300,)
    with pytest.raises(ValueError, match=r"probability must be \(n, 3\)"):
        ratio.adjust(probability[:, :2])


def test_the_accuracy_on_the_target_rises():
    rng = np.random.default_rng(4)
    (source, classes), (target, true) = rows(rng, 600, SOURCE), rows(rng, 600, TARGET)
    ratio = LabelShiftRatio(n_bootstrap=20).fit(*stack_domains(source, target), labels=classes)
    plain = LogisticRegression().fit(source, classes)
    assert np.mean(ratio.predict(target) == true) > np.mean(plain.predict(target) == true) + 0.03


def test_the_labels_of_target_rows_are_not_looked_at():
    X, y, classes = table(seed=3)
    of_all = np.full(len(y), -1)
    of_all[y == 0] = classes
    first, second = (LabelShiftRatio(n_bootstrap=20).fit(X, y, labels=labels) for labels in (classes, of_all))
    np.testing.assert_array_equal(first.weights_, second.weights_)
    np.testing.assert_array_equal(first.intervals_, second.intervals_)


@pytest.mark.long
def test_the_p_value_is_uniform_under_label_shift_and_small_under_another():
    label = [
        LabelShiftRatio(n_bootstrap=99).fit(*table(seed, 300, 300)[:2], labels=table(seed, 300, 300)[2]).p_value_
        for seed in range(60)
    ]
    other = [
        LabelShiftRatio(n_bootstrap=99).fit(*table(seed, 300, 300, 0.7)[:2], labels=table(seed, 300, 300)[2]).p_value_
        for seed in range(10)
    ]
    # 11 of 60 draws at a level of 5 % have a probability below one in a thousand.
    assert np.sum(np.array(label) <= 0.05) <= 11
    assert max(other) <= 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier": LinearSVC()}, "LinearSVC has no predict_proba"),
        ({"method": "em"}, "method='em' is not known"),
        ({"cv": 1}, "cv must be an int >= 2"),
        ({"confidence": 95}, r"confidence must be a number in \(0, 1\)"),
    ],
)
def test_parameters_that_cannot_be_are_told(change, message):
    X, y, classes = table(seed=0, n=60, m=40)
    with pytest.raises(ValueError, match=message):
        LabelShiftRatio(**change).fit(X, y, labels=classes)


def test_labels_that_cannot_be_are_told():
    X, y, classes = table(seed=0, n=60, m=40)
    with pytest.raises(ValueError, match=r"labels must be \(60,\)"):
        LabelShiftRatio().fit(X, y, labels=classes[:50])
    with pytest.raises(ValueError, match="one class only"):
        LabelShiftRatio().fit(X, y, labels=np.zeros(60))
    with pytest.raises(ValueError, match="has 1 source row"):
        LabelShiftRatio().fit(X, y, labels=np.append(np.ones(59), 2))


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 99))
@settings(max_examples=2)
def test_whole_weights_are_copies(method, seed):
    rng = np.random.default_rng(seed)
    (source, classes), (target, _) = rows(rng, 60, SOURCE), rows(rng, 40, TARGET)
    s, t = rng.integers(0, 4, 60), rng.integers(1, 4, 40)
    s[:6] += 1  # all classes keep two rows
    X, y = stack_domains(source, target)
    counts = np.empty(100)
    counts[y == 0], counts[y == 1] = s, t
    weighted = LabelShiftRatio(method=method, n_bootstrap=5).fit(X, y, labels=classes, sample_weight=counts)
    copied = LabelShiftRatio(method=method, n_bootstrap=5).fit(
        *stack_domains(source.repeat(s, 0), target.repeat(t, 0)), labels=classes.repeat(s)
    )
    for name in ("class_ratios_", "intervals_", "source_shares_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(copied, name), rtol=1e-6, atol=1e-9)
    assert weighted.p_value_ == copied.p_value_
    np.testing.assert_allclose(weighted.weights_.repeat(s), copied.weights_, rtol=1e-6, atol=1e-9)


def test_rows_of_few_values_give_the_quotient_of_the_frequencies():
    # Two classes of which each has one value: nothing of them can be held out.
    classes, target = np.repeat([0, 1], [300, 100]), np.repeat([0, 1], [100, 300])
    X, y = stack_domains(classes[:, None] * 1.0, target[:, None] * 1.0)
    ratio = LabelShiftRatio(LogisticRegression(C=1e4), n_bootstrap=50).fit(X, y, labels=classes)
    # Two more target rows, of the source's classes.
    np.testing.assert_allclose(ratio.target_shares_, [101.5 / 402, 300.5 / 402], atol=1e-3)
    low, high = ratio.intervals_.T
    assert (low < [1 / 3, 3.0]).all() and (high > [1 / 3, 3.0]).all()


@given(seed=st.integers(0, 99))
@settings(max_examples=3)
def test_rows_have_no_order(seed):
    rng = np.random.default_rng(seed)
    (source, classes), (target, _) = rows(rng, 60, SOURCE), rows(rng, 40, TARGET)
    weight, order, other = rng.integers(1, 4, 100) * 1.0, rng.permutation(60), rng.permutation(40)

    def fitted(first, second):
        X, domain = stack_domains(source[first], target[second])
        counts = np.empty(100)
        counts[domain == 0], counts[domain == 1] = weight[:60][first], weight[60:][second]
        return LabelShiftRatio(n_bootstrap=5).fit(X, domain, labels=classes[first], sample_weight=counts)

    one, two = fitted(np.arange(60), np.arange(40)), fitted(order, other)
    for name in ("class_ratios_", "intervals_", "p_value_"):
        np.testing.assert_array_equal(getattr(two, name), getattr(one, name))
    np.testing.assert_array_equal(two.weights_, one.weights_[order])
    np.testing.assert_array_equal(two.predict_proba(target), one.predict_proba(target))


@pytest.mark.parametrize("gap", [None, np.nan])
def test_a_source_row_without_a_class_is_named_and_target_rows_need_none(gap):
    X, domain, classes = table(0, 30, 20)
    labels = np.array(["a", "b", "c"], dtype=object)[classes]
    whole = np.full(50, gap, dtype=object)
    whole[domain == 0] = labels
    assert LabelShiftRatio(n_bootstrap=1).fit(X, domain, labels=whole).classes_.tolist() == ["a", "b", "c"]
    labels[3] = gap
    with pytest.raises(ValueError, match=r"1 have none, the first is source row 3\. Leave these rows out"):
        LabelShiftRatio().fit(X, domain, labels=labels)


# ---------------------------------------------------------------- frames


def tables(seed=0, n=200, m=150):
    """Source and target rows of a text and a number with gaps, stacked, and the classes of the source."""
    rng, frames, classes = np.random.default_rng(seed), [], []
    for size, share in ((n, 0.3), (m, 0.6)):
        kind = (rng.random(size) < share).astype(int)
        number = np.where(rng.random(size) < 0.1, np.nan, rng.normal(1.5 * kind))
        frames.append(pd.DataFrame({"k": np.where(rng.random(size) < 0.2 + 0.5 * kind, "a", "b"), "x": number}))
        classes.append(kind)
    return *stack_domains(*frames), classes[0]


def test_the_code_in_the_message_on_text_runs():
    X, y, labels = tables()
    X = X.fillna(0.0)
    with pytest.raises(ValueError, match="Column 'k' holds text") as caught:
        LabelShiftRatio().fit(X, y, labels=labels)
    lines = [line.strip() for line in str(caught.value).splitlines() if line.startswith("    ")]
    names = {"X": X, "y": y, "labels": labels}
    exec("\n".join([*lines[:-1], f"fitted = {lines[-1]}"]), names)
    assert names["fitted"].weights_.mean() == pytest.approx(1.0)


def test_a_classifier_that_encodes_a_frame_sees_what_it_would_see_encoded_before():
    X, y, labels = tables()
    X = X.fillna(0.0)
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["k"]), remainder="passthrough")
    inside = LabelShiftRatio(make_pipeline(encode, LogisticRegression()), n_bootstrap=20).fit(X, y, labels=labels)
    rows = np.column_stack([X["k"] == "a", X["k"] == "b", X["x"]]).astype(float)
    before = LabelShiftRatio(LogisticRegression(), n_bootstrap=20).fit(rows, y, labels=labels)
    np.testing.assert_allclose(inside.class_ratios_, before.class_ratios_, rtol=0.1)
    assert inside.feature_names_in_.tolist() == ["k", "x"] and 0.0 < inside.p_value_ <= 1.0
    assert inside.predict_proba(X).shape == (350, 2)
    with pytest.raises(ValueError, match="feature names"):
        inside.predict(X[["x"]])


@pytest.mark.parametrize("columns", [["k", "x"], ["x"]])
@pytest.mark.parametrize("made", [lambda X: X, polars.from_pandas], ids=["pandas", "polars"])
def test_a_classifier_that_takes_gaps_and_categories_gets_them(columns, made):
    X, y, labels = tables(n=400, m=400)
    X = made(X.astype({"k": "category"})[columns])
    ratio = LabelShiftRatio(HistGradientBoostingClassifier(max_iter=20), confidence=0.999).fit(X, y, labels=labels)
    low, high = ratio.intervals_[1]
    assert 0.5 < low < 2.0 < high < 5.0 and 0.0 < ratio.p_value_ <= 1.0
    assert set(ratio.predict(X)) == {0, 1}


def test_gaps_are_refused_where_the_classifier_takes_none():
    X, y, labels = tables()
    with pytest.raises(ValueError, match="contains NaN"):
        LabelShiftRatio().fit(X[["x"]], y, labels=labels)


def test_the_test_of_label_shift_compares_levels_and_gaps_as_numbers():
    rows = np.array([["a", 1.0], ["b", np.nan], [None, 3.0], ["a", 8.0]], dtype=object)
    source, target = comparable(rows[:3], rows[3:])
    # a, b, text missing; the number, 3 where there is none, and whether there is none.
    assert source.tolist() == [[1, 0, 0, 1, 0], [0, 1, 0, 3, 1], [0, 0, 1, 3, 0]] and target.tolist() == [[1, 0, 0, 8, 0]]
    numbers = np.ones((2, 2)), np.zeros((3, 2))
    assert comparable(*numbers) == numbers
