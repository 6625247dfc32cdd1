"""Rows have no order: the scores of label issues belong to the rows, wherever they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from densratio import find_label_issues
from densratio.labels.rows import own_order

KINDS = {
    "array": lambda X: X,
    "images": lambda X: np.repeat(X, 4, axis=1).reshape(len(X), 1, -1, 4),
    "frame": lambda X: pd.DataFrame(X).assign(kind=np.where(X[:, 0] > 0, "a", "b")),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*(can be wrong|can't be judged)")


def table(seed, n=60):
    """Rows, some of them copies, labels, groups, and a mask of clean rows."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, n)
    X = y[:, None] + draw.normal(size=(n, 3)).round(1)
    X[-6:] = X[:6]
    return X, (y + (draw.random(n) < 0.1)) % 3, draw.integers(0, 12, n), draw.random(n) < 0.1


def by_row(issues):
    return issues.sort_values("row").score.to_numpy()


@settings(max_examples=4, deadline=None)  # the fits of the confusion end within tolerances of their own
@given(seed=st.integers(0, 999), kind=st.sampled_from(list(KINDS)), has_groups=st.booleans())
def test_scores_of_classes_move_with_their_rows(seed, kind, has_groups):
    X, labels, groups, is_clean = table(seed)
    order = np.random.default_rng(seed).permutation(len(X))

    def scores(rows):
        own = {"groups": groups[rows]} if has_groups else {}
        return by_row(
            find_label_issues(KINDS[kind](X[rows]), labels[rows], model=GaussianNB(), clean=is_clean[rows], n_repeats=2, **own)
        )

    np.testing.assert_allclose(scores(order), scores(np.arange(len(X)))[order], rtol=1e-3, atol=1e-5)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 999))
def test_scores_beside_a_second_clean_table_move_with_their_rows(seed):
    (X, labels, _, _), (known, right, _, _) = table(seed), table(seed + 1, 20)
    order = np.random.default_rng(seed).permutation(len(X))
    found = [
        by_row(find_label_issues(X[rows], labels[rows], model=GaussianNB(), clean=(known[clean], right[clean])))
        for rows, clean in ((np.arange(len(X)), slice(None)), (order, slice(None, None, -1)))
    ]
    np.testing.assert_allclose(found[1], found[0][order], rtol=1e-3, atol=1e-5)


@settings(max_examples=1, deadline=None)
@given(seed=st.integers(0, 999))
def test_scores_of_numbers_move_with_their_rows(seed):
    X, _, groups, is_clean = table(seed)
    numbers = X @ np.arange(1.0, 4.0) + np.random.default_rng(seed).normal(size=len(X))
    order = np.random.default_rng(seed).permutation(len(X))
    found = [
        by_row(find_label_issues(X[rows], numbers[rows], model=Ridge(), clean=is_clean[rows], groups=groups[rows]))
        for rows in (np.arange(len(X)), order)
    ]
    np.testing.assert_allclose(found[1], found[0][order], rtol=1e-3, atol=1e-5)


@settings(max_examples=10)
@given(seed=st.integers(0, 9999), width=st.sampled_from([1, 3, 1200]))
def test_the_order_is_of_the_rows_alone(seed, width):
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(50, width)).astype(np.float32)
    shuffled, labels = draw.permutation(50), np.arange(50)
    expected = X[own_order(X, labels).rows]
    np.testing.assert_array_equal(X[shuffled][own_order(X[shuffled], labels[shuffled]).rows], expected)
    if width < 1000:  # powers of two, which round nothing
        units = 2.0 ** draw.integers(-3, 3, width)
        np.testing.assert_array_equal(own_order(X * units, labels).rows, own_order(X, labels).rows)


@pytest.mark.parametrize("other", [1e20, np.nan])
@pytest.mark.parametrize("width", [3, 1200])
def test_a_column_without_bounds_hides_no_row_and_no_copy(width, other):
    X = np.random.default_rng(0).normal(size=(50, width))
    X[:, 1] = other
    kind = own_order(np.vstack([X, X]), np.zeros(100)).kind
    assert len(set(kind)) == 50 and (kind[50:] == kind[:50]).all()


def test_rows_beside_each_other_are_not_alike():
    """Else the folds of a search within the model, which follow the order, would be of other rows than they predict."""
    X = np.arange(1000.0)[:, None]
    order = own_order(X, np.zeros(1000)).rows
    assert abs(np.corrcoef(X[order, 0], np.arange(1000))[0, 1]) < 0.1
    labels = (X[:, 0] > 500).astype(int)
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2)
    assert find_label_issues(X, labels, model=search).attrs["n_issues"] <= 5


def test_equal_rows_have_equal_scores():
    X, labels, _, _ = table(3)
    X, labels = np.repeat(X, 2, axis=0)[:90], np.repeat(labels, 2)[:90]
    score = by_row(find_label_issues(X, labels, model=GaussianNB()))
    np.testing.assert_allclose(score[1::2], score[::2], rtol=1e-12)


def test_rows_of_a_distance_matrix_stay_with_its_columns():
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    X = 8.0 * labels[:, None] - 4.0 + draw.normal(size=(60, 1))
    is_wrong = np.isin(np.arange(60), [3, 17, 40])
    flipped = np.where(is_wrong, 1 - labels, labels)
    issues = find_label_issues(np.abs(X - X.T), flipped, model=KNeighborsClassifier(7, metric="precomputed"))
    assert sorted(issues.row[:3]) == [3, 17, 40]
