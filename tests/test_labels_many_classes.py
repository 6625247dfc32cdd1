"""Rows of many classes keep the likeliest ones, and all others as one sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from densratio import label_issues_from_probabilities
from densratio.labels.label_rows import LikeliestRows, WholeRows, label_rows
from densratio.labels.sharpening import LikeliestClasses, sharpened, sharpened_likeliest
from densratio.labels.transition import fitted_confusion, log_likelihood, true_classes, with_diagonal

N_CLASSES, N_KEPT = 40, 31


def _transition(draw: np.random.Generator, n_entries: int, even: bool = False) -> np.ndarray:
    """T whose rows have a rate of wrong labels each, or one in common, and a few larger entries."""
    rates = np.full(N_CLASSES, 0.3) if even else draw.random(N_CLASSES)
    wrong = np.repeat(rates[:, None] / N_CLASSES, N_CLASSES, axis=1)
    for k, j in draw.integers(0, N_CLASSES, (n_entries, 2)):
        wrong[k, j] += 0.3 * draw.random()
    return with_diagonal(np.where(np.eye(N_CLASSES, dtype=bool), 0.0, wrong))


def _both_rows(seed: int, n: int = 60) -> tuple[WholeRows, LikeliestRows]:
    """The same rows with all classes and with the likeliest, where those that are left out are alike in each row."""
    draw = np.random.default_rng(seed)
    proba = draw.dirichlet(np.full(N_CLASSES, 0.3), n) + 1e-4
    given = draw.integers(0, N_CLASSES, n)
    kept = label_rows(proba / proba.sum(axis=1, keepdims=True), given, draw.random(n) < 0.2, 1.0 + draw.integers(0, 3, n), True)
    assert isinstance(kept, LikeliestRows)
    whole = WholeRows(kept.all_classes(kept.proba), given, kept.is_clean, kept.counts, kept.holds_noise)
    return whole, kept


@settings(max_examples=10)
@given(seed=st.integers(0, 9999), n_entries=st.sampled_from([0, 3, 60]))
def test_true_classes_are_those_of_the_iteration_in_each_row(seed, n_entries):
    """The oracle iterates the classes of one row, and one that stands for all others, by matrix products."""
    transition = _transition(np.random.default_rng(seed), n_entries)
    _, rows = _both_rows(seed)
    found = sharpened_likeliest(rows.proba, transition, LikeliestClasses(rows.classes, N_CLASSES))
    others, off = N_CLASSES - N_KEPT, ~np.eye(N_CLASSES, dtype=bool)
    usual = np.array([np.median(row[is_off]) for row, is_off in zip(transition, off, strict=True)])
    own = np.diag(transition) - usual
    for q, proba, classes in zip(found, rows.proba, rows.classes, strict=True):
        small = np.empty((N_KEPT + 1, N_KEPT + 1))
        small[:-1, :-1] = transition[np.ix_(classes, classes)]
        small[:-1, -1], small[-1, :-1] = others * usual[classes], usual.mean()
        small[-1, -1] = own.mean() + others * usual.mean()
        expected = proba.copy()
        for _ in range(30):
            # The last column is a sum of classes that are alike: what it hands back is a mean over them.
            ratio = proba / (expected @ small)
            expected *= small @ ratio
        np.testing.assert_allclose(q, expected, atol=2e-6)


@settings(max_examples=10)
@given(seed=st.integers(0, 9999), power=st.floats(0.4, 3.0))
def test_where_the_other_classes_are_alike_nothing_is_lost(seed, power):
    whole, kept = _both_rows(seed)
    transition = _transition(np.random.default_rng(seed), 0, even=True)
    log_q = [rows.log_classes(transition) for rows in (whole, kept)]
    q = [rows.raised(each, power) for rows, each in zip((whole, kept), log_q, strict=True)]
    np.testing.assert_allclose(kept.all_classes(q[1]), q[0], atol=1e-5)
    np.testing.assert_allclose(kept.of_given(kept.proba), whole.of_given(whole.proba))
    value = log_likelihood(whole, q[0], transition)
    assert log_likelihood(kept, q[1], transition) == pytest.approx(value, rel=1e-5)
    fits = [fitted_confusion(rows, transition, np.array([power])) for rows in (whole, kept)]
    joint = [true_classes(rows, fit) for rows, fit in zip((whole, kept), fits, strict=True)]
    np.testing.assert_allclose(kept.all_classes(joint[1]), joint[0], atol=1e-4)
    for sums in ("confusion", "class_sums"):
        exact, found = (getattr(rows, sums)(each) for rows, each in zip((whole, kept), joint, strict=True))
        assert found.sum() == pytest.approx(exact.sum()) and found.shape == exact.shape
        # The rest of a row is spread over all classes, also those that it keeps.
        np.testing.assert_allclose(found, exact, atol=1e-4 + joint[1][:, -1].sum())


@settings(max_examples=10)
@given(seed=st.integers(0, 9999))
def test_the_likeliest_and_surest_rows_of_a_class_are_the_same(seed):
    whole, kept = _both_rows(seed)
    draw = np.random.default_rng(seed)
    # A class that is not among the 31 likeliest has less than 1 / 32.
    least = draw.uniform(1.0 / 32.0, 1.0, N_CLASSES)
    np.testing.assert_array_equal(kept.likeliest(least), whole.likeliest(least))
    group = draw.random(N_CLASSES) < 0.2
    np.testing.assert_array_equal(kept.of_group(kept.proba, group, 0.1), whole.of_group(whole.proba, group, 0.1))
    numbers = draw.integers(0, 3, N_CLASSES)
    exact, found = whole.surest(numbers), kept.surest(numbers)
    np.testing.assert_allclose(found.sum(axis=1), exact.sum(axis=1))
    rows = np.sort(draw.permutation(len(kept.given))[:20])
    np.testing.assert_allclose(kept.take(rows).all_classes(kept.proba[rows]), whole.take(rows).proba)
    assert not kept.with_none_clean().is_clean.any()


def test_few_classes_are_all_kept_and_sharpened_by_the_iteration():
    draw = np.random.default_rng(0)
    transition = _transition(draw, 20)[:5, :5]
    transition /= transition.sum(axis=1, keepdims=True)
    proba = draw.dirichlet(np.ones(5), 700) @ transition
    assert type(label_rows(proba, np.zeros(700, int), np.zeros(700, bool), np.ones(700), True)) is WholeRows
    expected = proba.copy()
    for _ in range(30):
        expected *= (proba / np.maximum(expected @ transition, 1e-9)) @ transition.T
    np.testing.assert_allclose(sharpened(proba, transition), expected, atol=1e-12)


def test_wrong_labels_of_many_classes_are_found_and_counted():
    draw, n, n_classes = np.random.default_rng(0), 2000, 100
    logits = draw.normal(size=(n, n_classes))
    logits[np.arange(n), draw.integers(n_classes, size=n)] += 10.0
    q = np.exp(logits)
    q /= q.sum(axis=1, keepdims=True)
    true = (q.cumsum(axis=1) > draw.random((n, 1))).argmax(axis=1)
    is_wrong = draw.random(n) < 0.2
    labels = np.where(is_wrong, (true + draw.integers(1, n_classes, n)) % n_classes, true)
    proba = 0.8 * q + 0.2 * (1.0 - q) / (n_classes - 1)
    issues = label_issues_from_probabilities(labels, proba / proba.sum(axis=1, keepdims=True)).sort_values("row")
    exact = 1.0 - 0.8 * q[np.arange(n), labels] / proba[np.arange(n), labels]
    assert roc_auc_score(is_wrong, issues.score) > roc_auc_score(is_wrong, exact) - 0.002
    assert issues.is_issue.sum() == pytest.approx(is_wrong.sum(), rel=0.1)
    listed = issues.is_issue.to_numpy()
    assert (issues.suggested_label.to_numpy() == true)[listed & is_wrong].mean() > 0.95


def shares_of_others(true, labels, n_classes):
    """Probabilities (n, K): labels of the other rows of the true class, and a little of every class."""
    proba = np.full((len(true), n_classes), 0.02 / n_classes)
    for row, k in enumerate(true):
        others = np.flatnonzero((true == k) & (np.arange(len(true)) != row))
        np.add.at(proba[row], labels[others], 0.98 / len(others))
    return proba


def of_few_rows(n_rows, *, is_pair, looked_at=None):
    """Which labels of 60 classes of so many rows are wrong, 20 %, of any other class or of the next one; and issues."""
    draw, n_classes = np.random.default_rng(0), 60
    true = np.repeat(np.arange(n_classes), n_rows)
    is_wrong = draw.random(len(true)) < 0.2
    labels = np.where(is_wrong, (true + (1 if is_pair else draw.integers(1, n_classes, len(true)))) % n_classes, true)
    checked = None if looked_at is None else (looked_at, true[looked_at])
    issues = label_issues_from_probabilities(labels, shares_of_others(true, labels, n_classes), checked=checked)
    return is_wrong, issues


def test_of_four_rows_of_a_class_wrong_labels_are_found():
    """Three other rows make no model sure: the rows that are surest of each class tell its wrong labels."""
    is_wrong, issues = of_few_rows(4, is_pair=False)
    listed = issues.sort_values("row").is_issue.to_numpy()
    assert listed[is_wrong].all() and (listed & ~is_wrong).sum() <= 5
    least, most = issues.attrs["n_issues_interval"]
    assert least <= issues.attrs["n_issues"] <= most < 1.2 * is_wrong.sum()
    # Two wrong labels of four rows could as well be the right ones of the next class.
    is_wrong, issues = of_few_rows(4, is_pair=True)
    assert is_wrong[issues.row[issues.is_issue]].mean() > 0.85
    assert issues.attrs["n_issues_interval"][0] <= is_wrong.sum() <= issues.attrs["n_issues_interval"][1]


@pytest.mark.parametrize("is_pair", [False, True])
def test_of_eight_rows_of_a_class_wrong_labels_are_found(is_pair):
    is_wrong, issues = of_few_rows(8, is_pair=is_pair)
    np.testing.assert_array_equal(issues.sort_values("row").is_issue, is_wrong)


def test_of_few_rows_of_a_class_rows_that_were_looked_at_tell_the_number():
    rows = np.random.default_rng(0).choice(240, 100, replace=False)
    is_wrong, issues = of_few_rows(4, is_pair=True, looked_at=rows)
    least, most = issues.attrs["n_issues_interval"]
    assert least <= is_wrong.sum() <= most < 2 * is_wrong.sum()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 9999), place=st.integers(0, 4), rest=st.sampled_from([0.0, 1e-12, 1e-4]))
@pytest.mark.filterwarnings("ignore:.*can be wrong")
def test_classes_without_labels_that_the_probabilities_rule_out_change_nothing(seed, place, rest):
    draw = np.random.default_rng(seed)
    true = draw.integers(0, 4, 300)
    logits = np.eye(4)[true] * draw.uniform(1.0, 4.0, (300, 1)) + draw.normal(size=(300, 4))
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    is_flipped = draw.random(300) < 0.1
    labels = np.where(is_flipped, (true + draw.integers(1, 4, 300)) % 4, true)
    names = np.arange(5)[np.arange(5) != place]
    alone = label_issues_from_probabilities(names[labels], proba, classes=names)
    more = label_issues_from_probabilities(names[labels], np.insert((1.0 - rest) * proba, place, rest, axis=1), classes=range(5))
    found, expected = (frame.sort_values("row") for frame in (more, alone))
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(found.suggested_label, expected.suggested_label)
    own = {"n_issues", "n_issues_interval", "n_disagreements"}
    assert {name: more.attrs[name] for name in own} == {name: alone.attrs[name] for name in own}
    transition = np.delete(np.delete(more.attrs["transition"], place, axis=0), place, axis=1)
    np.testing.assert_allclose(transition, alone.attrs["transition"], rtol=1e-5, atol=1e-9)
    assert more.attrs["transition"][place] == np.eye(5)[place].tolist()
