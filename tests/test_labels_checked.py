"""Rows drawn at random and looked at again: the number of wrong labels, its interval, and scores that agree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from densratio import find_label_issues, label_issues_from_probabilities
from densratio.labels.checked import Checked, recalibrated


def checked_at(rows, is_wrong):
    return Checked(rows, np.zeros(len(rows), dtype=int), is_wrong)


@st.composite
def looked_at(draw):
    """Scores (n,), which rows are known to be right, and rows that were looked at."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(5, 200))
    score = rng.beta(*draw(st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0))), n)
    is_known = rng.random(n) < draw(st.sampled_from([0.0, 0.2]))
    score[is_known] = 0.0
    rows = rng.permutation(n)[: draw(st.integers(1, n))]
    is_wrong = (rng.random(len(rows)) < draw(st.sampled_from([0.0, 0.3, 1.0]))) & ~is_known[rows]
    return score, is_known, checked_at(rows, is_wrong)


@given(looked_at())
@settings(deadline=None)
def test_scores_keep_their_order_and_say_what_was_found(problem):
    score, is_known, seen = problem
    found, (least, most) = recalibrated(score, is_known, seen)
    assert (found[seen.rows] == seen.is_wrong).all() and (found[is_known] == 0).all()
    left = np.setdiff1d(np.flatnonzero(~is_known), seen.rows)
    assert (np.diff(found[left][np.argsort(score[left])]) >= 0).all() and ((found >= 0) & (found <= 1)).all()
    assert seen.is_wrong.sum() <= least <= found.sum() + 1e-9 and found.sum() - 1e-9 <= most <= seen.is_wrong.sum() + len(left)


@given(looked_at())
@settings(deadline=None, max_examples=50)
def test_log_odds_are_moved_as_a_penalized_logistic_regression_moves_them(problem):
    score, is_known, seen = problem
    left = np.setdiff1d(np.flatnonzero(~is_known), seen.rows)
    tells = ~is_known[seen.rows]
    if len(left) < 3:
        return
    odds = logit(0.002 + 0.996 * score)

    def loss(at):
        right = expit(at[0] + np.exp(at[1]) * odds[seen.rows[tells]])
        likelihood = np.where(seen.is_wrong[tells], right, 1.0 - right)
        return 0.5 * (at[0] / 1.5) ** 2 + 0.5 * (at[1] / 0.5) ** 2 - np.log(likelihood).sum()

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 4000}).x
    expected = expit(best[0] + np.exp(best[1]) * odds[left])
    np.testing.assert_allclose(recalibrated(score, is_known, seen)[0][left], expected, atol=2e-4)


@pytest.mark.parametrize("bias", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("n_checked", [100, 400])
def test_the_interval_holds_the_number_in_nine_of_ten_draws(bias, n_checked):
    covered, errors = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        odds = rng.normal(-2.0, 2.0, 3000)
        is_wrong = rng.random(3000) < expit(odds)
        rows = rng.permutation(3000)[:n_checked]
        found, (least, most) = recalibrated(expit(1.3 * odds + bias), np.zeros(3000, dtype=bool), checked_at(rows, is_wrong[rows]))
        covered.append(least <= is_wrong.sum() <= most)
        errors.append(found.sum() / is_wrong.sum() - 1.0)
    # Three standard errors of 200 draws; a mean error that is small beside that of one draw.
    assert abs(np.mean(covered) - 0.9) < 3 * np.sqrt(0.09 / 200)
    assert abs(np.mean(errors)) < 0.5 * np.std(errors)


@pytest.fixture(scope="module")
def hard():
    """Rows of two classes, of which the hard ones are mislabeled: (labels, right labels, probabilities of the labels)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    true = (rng.random(3000) < expit(3 * x)).astype(int)
    flipped = rng.random(3000) < 0.5 * np.exp(-np.abs(x))
    chance = (1 - 0.5 * np.exp(-np.abs(x))) * expit(3 * x) + 0.5 * np.exp(-np.abs(x)) * expit(-3 * x)
    return np.where(flipped, 1 - true, true), true, np.column_stack([1 - chance, chance])


@pytest.mark.filterwarnings("ignore:From")
def test_checked_rows_tell_a_number_that_the_labels_do_not(hard):
    labels, true, proba = hard
    n_wrong = (labels != true).sum()
    assert label_issues_from_probabilities(labels, proba).attrs["n_issues"] < 0.7 * n_wrong
    errors, covered = [], []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(3000)[:300]
        attrs = label_issues_from_probabilities(labels, proba, checked=(rows, true[rows])).attrs
        errors.append(attrs["n_issues"] / n_wrong - 1.0)
        covered.append(attrs["n_issues_interval"][0] <= n_wrong <= attrs["n_issues_interval"][1])
    assert abs(np.mean(errors)) < 0.08 and np.mean(np.abs(errors)) < 0.15 and np.mean(covered) >= 0.6


@pytest.mark.filterwarnings("ignore:From")
def test_a_mask_names_the_checked_rows(hard):
    labels, true, proba = hard
    is_checked = np.random.default_rng(0).random(3000) < 0.05
    rows = np.flatnonzero(is_checked)
    listed = [label_issues_from_probabilities(labels, proba, checked=(which, true[rows])) for which in (is_checked, rows)]
    pd.testing.assert_frame_equal(*listed)
    with pytest.raises(ValueError, match=f"checked has {len(rows)} rows and 3000 labels"):
        label_issues_from_probabilities(labels, proba, checked=(is_checked, true))


@pytest.mark.filterwarnings("ignore:From")
def test_all_rows_checked_give_the_number(hard):
    labels, true, proba = hard
    listed = label_issues_from_probabilities(labels, proba, checked=(np.arange(3000), true))
    n_wrong = int((labels != true).sum())
    assert listed.attrs["n_issues"] == n_wrong and listed.attrs["n_issues_interval"] == [n_wrong, n_wrong]
    assert (listed.sort_values("row").suggested_label.to_numpy() == true).all()


def test_rows_of_a_table_their_labels_as_text_and_a_class_that_no_label_has():
    X, y = load_digits(return_X_y=True)
    names = np.array([f"digit {k}" for k in range(10)])
    rng = np.random.default_rng(0)
    flipped = rng.choice(len(y), 200, replace=False)
    given = names[np.where(np.isin(np.arange(len(y)), flipped), (y + 1) % 10, y)]
    rows = rng.permutation(len(y))[:150]
    right = names[y[rows]].astype(object)
    right[0] = "no digit at all"
    how = {"model": LogisticRegression(max_iter=50), "n_repeats": 1, "random_state": 0}
    listed = find_label_issues(X / 16, given, checked=(rows, right), **how)
    for same in (dict(zip(rows.tolist(), right, strict=True)), pd.Series(right, index=rows)):
        pd.testing.assert_frame_equal(listed, find_label_issues(X / 16, given, checked=same, **how))
    at = listed.set_index("row").loc[rows]
    assert (at.suggested_label == right).all() and (at.score == (given[rows] != right)).all() and at.is_issue.equals(at.score > 0)
    least, most = listed.attrs["n_issues_interval"]
    assert least <= 200 + 1 <= most


WRONG = [
    ([1, 2], {}, "checked must be"),
    (([1, 1], [0, 1]), {}, "has row 1 twice"),
    (([0, 90], [0, 1]), {}, "row numbers from 0 to 59"),
    (([0.5], [0]), {}, "row numbers from 0 to 59, or a mask of all"),
    (([True, False], [0]), {}, "row numbers from 0 to 59, or a mask of all"),
    (([], []), {}, "row numbers from 0 to 59"),
    (([0, 1], [0]), {}, "2 rows and 1 labels"),
    (([0, 1], [0, None]), {}, "checked labels must hold a label for each row"),
    (([0, 1], ["a", "b"]), {}, "labels have none of them"),
    (pd.DataFrame({"at": [0], "y": [1]}), {}, r"pass two of its columns \['at', 'y'\]"),
    (([0], [1]), {"kind": "numbers"}, "these labels are numbers"),
]


@pytest.mark.parametrize(("checked", "how", "words"), WRONG)
def test_mistakes_are_named(checked, how, words):
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match=words):
        find_label_issues(X, np.arange(60) % 2, checked=checked, **how)


def test_several_labels_a_row_take_none():
    with pytest.raises(ValueError, match=r"labels are \(n, L\)"):
        find_label_issues(np.zeros((4, 1)), np.zeros((4, 2), dtype=int), checked=([0], [0]))
    with pytest.raises(ValueError, match="these are sequences"):
        label_issues_from_probabilities([[0, 1], [1]], [np.full((2, 2), 0.5), np.full((1, 2), 0.5)], checked=([0], [0]))
