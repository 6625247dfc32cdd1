"""What `find_label_issues` and `NoisyLabelClassifier` take for rows, groups, copies, texts and classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from densratio import NoisyLabelClassifier, find_label_issues
from densratio.labels.default_model import default_model
from densratio.labels.frame import suggested_classes
from densratio.labels.held_out import copies_of, label_folds

WORDS = [["red", "blue", "green"], ["cat", "dog", "cow"], ["car", "bus", "van"]]


@pytest.fixture(scope="module")
def texts():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 300)
    rows = [" ".join(draw.choice(WORDS[k], 4)) + " it is" for k in true]
    wrong = draw.random(300) < 0.15
    return rows, np.where(wrong, (true + 1) % 3, true), wrong


@pytest.mark.parametrize("container", [list, pd.Series, lambda texts: np.array(texts, dtype=object), np.array])
def test_a_column_of_texts_is_told_by_its_words(texts, container):
    rows, labels, wrong = texts
    frame = find_label_issues(container(rows), labels, n_repeats=1, random_state=0)
    listed = frame[frame.is_issue]
    assert wrong[listed.row].mean() > 0.9 and wrong[listed.row].sum() > 0.9 * wrong.sum()


def test_sparse_rows_need_no_model(texts):
    rows, labels, _ = texts
    sparse = csr_array(TfidfVectorizer().fit_transform(rows))
    by_rows = find_label_issues(sparse, labels, n_repeats=1, random_state=0)
    by_encoder = find_label_issues(rows, labels, encoder=TfidfVectorizer(), n_repeats=1, random_state=0)
    pd.testing.assert_frame_equal(by_rows, by_encoder)


def test_texts_that_a_model_would_not_get_as_they_are_are_told(texts):
    with pytest.raises(ValueError, match="encoder=None hands it"):
        find_label_issues(texts[0], texts[1], model=LogisticRegression())


def test_the_model_is_chosen_on_groups_that_it_does_not_know():
    draw, n_groups, size = np.random.default_rng(0), 100, 8
    groups = np.repeat(np.arange(n_groups), size)
    labels = draw.integers(0, 2, n_groups)[groups]
    own = draw.normal(size=(n_groups, 8))[groups] + 0.05 * draw.normal(size=(len(groups), 8))
    rows = np.column_stack([own, 1.2 * (2 * labels - 1) + draw.normal(size=len(groups))]).astype(np.float32)
    assert not isinstance(default_model(rows, labels, 0, groups), type(default_model(rows, labels, 0)))


@pytest.mark.parametrize("n_copies", [2, 3])
def test_copies_of_a_row_are_held_out_together_where_most_rows_have_some(n_copies):
    digits = load_digits().data[:100]
    rows = np.repeat(digits, n_copies, axis=0)
    kinds = copies_of(rows)
    assert kinds is not None and len(np.unique(kinds)) == 100
    labels = np.repeat(load_digits().target[:100], n_copies)
    for learned, held in label_folds(labels, kinds, 5, 0):
        assert not set(kinds[learned]) & set(kinds[held])
    assert copies_of(digits) is None
    assert copies_of(np.repeat(digits[:3], 40, axis=0)) is None, "values of categories are no copies"


def test_no_more_folds_than_groups():
    assert len(label_folds(np.tile([0, 1], 6), np.arange(12) % 3, 5, 0)) == 3
    with pytest.raises(ValueError, match="one group alone"):
        label_folds(np.tile([0, 1], 6), np.zeros(12, dtype=int), 5, 0)


def test_an_issue_is_suggested_the_likeliest_other_class():
    posterior = np.array([[0.4, 0.35, 0.25], [0.9, 0.06, 0.04], [0.1, 0.2, 0.7]])
    given = np.array([0, 0, 0])
    np.testing.assert_array_equal(suggested_classes(posterior, given, 1.0 - posterior[:, 0]), [1, 0, 2])


def test_many_whole_numbers_are_numbers_and_some_are_classes():
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(300, 2))
    targets = np.round(100.0 * rows[:, 0] + 5.0 * draw.normal(size=300)).astype(int)
    assert "classes" not in find_label_issues(rows, targets, n_repeats=1).attrs
    assert len(find_label_issues(rows, targets % 3, n_repeats=1).attrs["classes"]) == 3


def test_a_method_that_trains_on_clean_rows_alone_gives_weights_of_zero():
    rows, labels = load_digits(return_X_y=True)
    fitted = NoisyLabelClassifier("val_only", max_iter=2, random_state=0).fit(rows[:200], labels[:200])
    np.testing.assert_array_equal(fitted.weights_, 0.0)


def test_a_class_of_networks_is_a_model_and_clean_may_be_a_mask():
    from torch import nn

    rows, labels = load_digits(return_X_y=True)
    is_clean = np.arange(200) < 20
    by_mask, by_number = (
        NoisyLabelClassifier(model=nn.Linear, max_iter=2, random_state=0).fit(rows[:200], labels[:200], clean=clean)
        for clean in (is_clean, np.arange(20))
    )
    np.testing.assert_array_equal(by_mask.predict_proba(rows), by_number.predict_proba(rows))
    with pytest.raises(ValueError, match="verbose must be None or a function"):
        NoisyLabelClassifier(verbose=True).fit(rows, labels)


def test_methods_that_train_twice_hold_out_the_rows_that_their_names_say():
    rows, labels = load_digits(return_X_y=True)
    fitted = {
        name: NoisyLabelClassifier(name, max_iter=5, random_state=0).fit(rows[:300], labels[:300])
        for name in ("lrw_hard", "lrw_easy", "lrw_random")
    }
    held_out = {name: np.flatnonzero(one.weights_ == 0.0) for name, one in fitted.items()}
    plain = NoisyLabelClassifier("uniform", max_iter=5, random_state=0).fit(rows[:300], labels[:300]).predict_proba(rows[:300])
    own = plain[np.arange(300), labels[:300]]
    assert len({len(rows_out) for rows_out in held_out.values()}) == 1 and len(held_out["lrw_hard"]) > 0
    assert not set(held_out["lrw_hard"]) & set(held_out["lrw_easy"])
    assert own[held_out["lrw_hard"]].mean() < own[held_out["lrw_random"]].mean() < own[held_out["lrw_easy"]].mean()
