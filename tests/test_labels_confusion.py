"""The confusion of labels is found from more than one place, and for many classes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from densratio import label_issues_from_probabilities
from densratio.labels import transition
from densratio.labels.confusion import label_posterior
from densratio.labels.label_rows import label_rows

N_CLASSES, N_ROWS = 6, 1500


def _misled(confusion: np.ndarray) -> np.ndarray:
    """Counts in which class 0 takes labels of the last class but one, and class 1 those of class 0: likeliest nearby."""
    wrong = confusion.copy()
    wrong[0] = 0.0
    wrong[0, [0, -2]] = 0.5, 0.45
    wrong[1] = 0.0
    wrong[1, [0, 1, 2]] = 0.3, 0.55, 0.1
    return wrong * N_ROWS / N_CLASSES


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_counts_that_mislead_are_left_for_a_likelier_confusion(seed: int) -> None:
    draw = np.random.default_rng(seed)
    confusion = 0.6 * np.eye(N_CLASSES) + 0.4 * np.roll(np.eye(N_CLASSES), 1, axis=1)
    true = draw.integers(N_CLASSES, size=N_ROWS)
    labels = (confusion[true].cumsum(axis=1) < draw.random((N_ROWS, 1))).sum(axis=1)
    proba = (confusion[true] + 0.002) * np.exp(0.5 * draw.normal(size=(N_ROWS, N_CLASSES)))
    nobody = np.zeros(N_ROWS, dtype=bool)
    found = label_posterior(proba / proba.sum(axis=1, keepdims=True), labels, nobody)
    own = transition._confident
    try:
        transition._confident = lambda rows: _misled(confusion)
        misled = label_posterior(proba / proba.sum(axis=1, keepdims=True), labels, nobody)
    finally:
        transition._confident = own
    assert np.mean(found.posterior.argmax(axis=1) == true) > 0.98
    assert np.mean(misled.posterior.argmax(axis=1) == true) > 0.98


@given(seed=st.integers(0, 10_000))
def test_rates_of_the_surest_rows_are_their_mean_probabilities(seed: int) -> None:
    draw, n_rows = np.random.default_rng(seed), 90
    proba, labels = draw.dirichlet(np.full(4, 0.3), n_rows), draw.integers(4, size=n_rows)
    labels[:4] = range(4)
    rows = label_rows(proba, labels, np.zeros(n_rows, dtype=bool), np.ones(n_rows), True)
    means = np.empty((4, 4))
    for k in range(4):
        n_surest = max(5, int(0.2 * np.sum(labels == k)))
        means[k] = proba[np.argsort(-proba[:, k], kind="stable")[:n_surest]].mean(axis=0)
    fits = transition.anchored_fits(rows)
    exact = max((fit.transition for fit in fits), key=lambda found: -np.abs(found - means).max())
    np.testing.assert_allclose(exact, means, rtol=1e-12)
    off = [1.0 - np.trace(fit.transition) / 4.0 for fit in fits]
    assert off == sorted(off) and all(np.allclose(fit.transition.sum(axis=1), 1.0) for fit in fits)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.05, 0.2]), noise=st.sampled_from([0.1, 0.3]))
def test_clean_rows_tell_how_many_labels_of_a_rare_class_are_wrong(seed: int, share: float, noise: float) -> None:
    draw, n_rows = np.random.default_rng(seed), 4000
    true = (draw.random(n_rows) < share).astype(int)
    wrong = draw.random(n_rows) < noise
    place = draw.normal(6.0 * true - 3.0)
    odds = share / (1.0 - share) * np.exp(6.0 * place)
    second = (noise + (1.0 - noise) * odds) / (1.0 + odds)
    labels = np.where(wrong, 1 - true, true)
    clean = draw.permutation(np.flatnonzero(~wrong))[:200]
    frame = label_issues_from_probabilities(labels, np.column_stack([1.0 - second, second]), clean=clean)
    np.testing.assert_allclose(frame.attrs["n_issues"], wrong.sum(), rtol=0.05)
    least, most = frame.attrs["n_issues_interval"]
    assert 0.9 * wrong.sum() < least <= 1.05 * wrong.sum() and 0.95 * wrong.sum() < most < 1.05 * wrong.sum()


def test_the_confusions_of_many_classes_are_held_one_at_a_time(monkeypatch):
    """A row keeps 32 numbers of 100 classes, and a confusion has 10,000."""
    found, counted = [], transition._counted
    monkeypatch.setattr(transition, "_TOGETHER", 15_000)
    monkeypatch.setattr(transition, "_counted", lambda rows, q, powers, T: found.append(len(powers)) or counted(rows, q, powers, T))
    labels = np.repeat(np.arange(100), 2)
    rows = label_rows(np.full((200, 100), 0.001) + 0.9 * np.eye(100)[labels], labels, np.zeros(200, bool), np.ones(200), True)
    transition._expected(rows)
    assert set(found) == {1}
