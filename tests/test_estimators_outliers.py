"""Outliers by the ratio: the scikit-learn contract, the stated rate of false alarms, and odd rows that are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

from densratio import KLIEP, LSIF, GaussianRatio, RatioOutlierDetector, stack_domains


def samples(seed=0, n=150, m=120, odd=20, d=2):
    """Clean reference rows, and new ones of which the last few are odd."""
    rng = np.random.default_rng(seed)
    new = rng.normal(size=(m, d))
    new[m - odd :] = rng.normal(3.0, 0.5, (odd, d))
    return rng.normal(size=(n, d)), new, np.arange(m) < m - odd


class First(BaseEstimator):
    """A ratio that is known: the exponential of the first column."""

    def fit(self, X, y):
        return self

    def transform(self, X):
        return np.exp(X[:, 0])


def test_check_estimator_passes():
    results = check_estimator(RatioOutlierDetector(), on_fail=None, on_skip=None)
    assert [result["check_name"] for result in results if result["status"] == "failed"] == []


@pytest.mark.parametrize(
    ("ratio", "knows_new"), [(None, False), (None, True), (LSIF(), False), (LSIF(), True), (GaussianRatio(), True)], ids=str
)
def test_odd_rows_are_found(ratio, knows_new):
    reference, new, is_clean = samples()
    detector = RatioOutlierDetector(ratio).fit(reference, new=new if knows_new else None)
    assert roc_auc_score(is_clean, detector.score_samples(new)) > 0.97
    assert (detector.predict(new)[~is_clean] == -1).mean() > 0.9 and (detector.predict(new)[is_clean] == -1).mean() < 0.15


@pytest.mark.parametrize("false_alarms", [0.05, 0.3])
def test_the_rows_that_a_known_ratio_flags_are_the_lowest_of_its_scores(false_alarms):
    reference, new, _ = samples()
    detector = RatioOutlierDetector(First(), false_alarms=false_alarms).fit(reference, new=new)
    scores = np.sort(np.exp(reference[:, 0]))
    p = np.array([(1 + np.sum(scores <= score)) / 151 for score in np.exp(new[:, 0])])
    np.testing.assert_allclose(detector.p_values(new), p, rtol=1e-12)
    np.testing.assert_array_equal(detector.predict(new) == -1, p <= false_alarms)
    np.testing.assert_allclose(detector.decision_function(new), np.exp(new[:, 0]) - detector.offset_)


def test_clean_rows_are_flagged_as_often_as_stated():
    flagged = []
    for seed in range(20):
        reference, clean, _ = samples(seed, n=100, m=100, odd=0)
        flagged.append(np.sum(RatioOutlierDetector(false_alarms=0.1).fit(reference).predict(clean) == -1))
    # The offset of each draw varies, too: the number of flagged rows has more than a binomial's variance.
    low, high = binom.interval(0.999, 1000, 0.1)
    assert low <= np.sum(flagged) / 2 <= high


def test_with_few_rows_no_row_is_an_outlier_rather_than_too_many():
    detector = RatioOutlierDetector(false_alarms=0.05).fit(samples(n=10)[0])
    assert detector.offset_ == 0.0 and (detector.predict([[50.0, 50.0]]) == 1).all()


def test_the_fit_is_that_of_the_ratio_of_the_reference_to_the_new_rows():
    reference, new, _ = samples()
    detector = RatioOutlierDetector(KLIEP(gamma=0.5, random_state=0)).fit(reference, new=new)
    by_hand = KLIEP(gamma=0.5, random_state=0).fit(*stack_domains(new, reference))
    np.testing.assert_allclose(detector.score_samples(new), by_hand.transform(new), rtol=1e-9)
    frames = [pd.DataFrame(rows, columns=["a", "b"]) for rows in (reference, new)]
    again = RatioOutlierDetector(KLIEP(gamma=0.5, random_state=0)).fit(frames[0], new=frames[1])
    np.testing.assert_array_equal(again.score_samples(frames[1]), detector.score_samples(new))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"false_alarms": 1.0}, r"false_alarms must be a number in \(0, 1\)"),
        ({"false_alarms": "auto"}, "got 'auto'"),
        ({"cv": 1}, "cv must be an int >= 2, the number of folds; got 1"),
        ({"ratio": KLIEP}, "such as KLIEP"),
        ({"ratio": "kliep"}, "got 'kliep'"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        RatioOutlierDetector(**settings).fit(samples()[0])


def test_new_rows_with_other_columns_are_refused():
    with pytest.raises(ValueError, match="X has 3 features, but RatioOutlierDetector is expecting 2"):
        RatioOutlierDetector().fit(samples()[0], new=np.zeros((5, 3)))


def test_the_code_in_the_message_on_text_runs():
    X = pd.DataFrame({"k": ["a", "b"] * 30, "x": np.random.default_rng(0).normal(size=60)})
    with pytest.raises(ValueError, match="RatioOutlierDetector needs numbers") as caught:
        RatioOutlierDetector().fit(X)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    names = {"X": X, "new": X.head(20)}
    exec("\n".join([*lines[:-1], lines[-1].removeprefix("With new rows: ").removesuffix(".")]), names)
