"""What `find_label_issues` and `NoisyLabelClassifier` take for rows, groups, copies, texts and classes."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics.pairwise import pairwise_distances
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from densratio import NoisyLabelClassifier, find_label_issues, label_issues_from_probabilities
from densratio._sentinels import warn_of_sentinels
from densratio.labels.default_model import default_model
from densratio.labels.frame import suggested_classes
from densratio.labels.held_out import copies_of, label_folds
from densratio.labels.rows import Rows, held_shares, merged

WORDS = [["red", "blue", "green"], ["cat", "dog", "cow"], ["car", "bus", "van"]]


@pytest.fixture
def quick_model(monkeypatch):
    """What reads the rows is in question, and not which model predicts them best."""
    monkeypatch.setattr("densratio.labels.find.default_model", lambda *given: LogisticRegression())


@pytest.fixture(scope="module")
def texts():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 300)
    rows = [" ".join(draw.choice(WORDS[k], 4)) + " it is" for k in true]
    wrong = draw.random(300) < 0.15
    return rows, np.where(wrong, (true + 1) % 3, true), wrong


@pytest.mark.parametrize("container", [list, pd.Series, lambda texts: np.array(texts, dtype=object), np.array])
def test_a_column_of_texts_is_told_by_its_words(texts, container, quick_model):
    rows, labels, wrong = texts
    frame = find_label_issues(container(rows), labels, n_repeats=1, random_state=0)
    listed = frame[frame.is_issue]
    assert wrong[listed.row].mean() > 0.9 and wrong[listed.row].sum() > 0.9 * wrong.sum()


def test_a_pipeline_that_reads_texts_or_frames_gets_them_as_they_are(texts):
    rows, labels, _ = texts
    words, columns = make_pipeline(TfidfVectorizer(), LogisticRegression()), {"text": rows, "size": np.arange(300) % 7}
    how = {"n_repeats": 1, "random_state": 0}
    one = find_label_issues(rows, labels, model=words, **how)
    pd.testing.assert_frame_equal(one, find_label_issues(rows, labels, model=words, encoder=None, **how))
    of_columns = make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), LogisticRegression())
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        pd.testing.assert_frame_equal(one, find_label_issues(frame, labels, model=of_columns, **how))


def test_a_classifier_takes_a_column_of_texts(texts):
    rows, labels, wrong = texts
    model = NoisyLabelClassifier(max_iter=10).fit(rows, labels)
    listed = model.label_issues_[model.label_issues_.is_issue]
    assert wrong[listed.row].mean() > 0.9 and wrong[listed.row].sum() > 0.9 * wrong.sum()
    np.testing.assert_array_equal(model.predict(np.array(rows)), model.predict(rows))
    with pytest.raises(ValueError, match="was fitted on texts"):
        model.predict(np.zeros((2, 3)))


def _with_gap(texts, gap):
    return [gap, *texts[1:]]


@pytest.mark.parametrize("gap", [None, float("nan"), pd.NA, ""])
@pytest.mark.parametrize("container", [list, pd.Series, lambda texts: np.array(texts, dtype=object)])
def test_a_missing_text_is_an_empty_one(texts, gap, container):
    rows, labels, _ = texts
    quick, empty = NoisyLabelClassifier("uniform", max_iter=2), _with_gap(rows, "")
    model = quick.fit(container(_with_gap(rows, gap)), labels)
    told = model.predict_proba(empty)
    np.testing.assert_array_equal(told, NoisyLabelClassifier("uniform", max_iter=2).fit(empty, labels).predict_proba(empty))
    np.testing.assert_allclose(model.predict_proba(container([gap, gap])), np.repeat(told[:1], 2, axis=0), rtol=1e-5)


@pytest.mark.parametrize("column", [pl.Series, pa.array, lambda texts: pa.chunked_array([texts[:100], texts[100:]])])
def test_texts_are_a_column_of_any_library(texts, column, quick_model):
    rows, labels, _ = texts
    model = NoisyLabelClassifier("uniform", max_iter=2).fit(column(rows), labels)
    np.testing.assert_array_equal(model.predict_proba(column(rows)), model.predict_proba(rows))
    frames = [find_label_issues(X, labels, n_repeats=1, random_state=0) for X in (column(rows), rows)]
    pd.testing.assert_frame_equal(*frames)


AS_ARRAY = {
    "objects": lambda frame: frame.to_numpy(dtype=object),
    "texts": lambda frame: frame.to_numpy(dtype=str),
    "rows": lambda frame: frame.to_numpy(dtype=object).tolist(),
}


@pytest.mark.parametrize("columns", [["text"], ["kind"], ["text", "kind", "size"]])
@pytest.mark.parametrize("container", AS_ARRAY)
def test_an_array_that_holds_texts_is_read_as_a_frame(texts, columns, container, quick_model):
    """One column (n, 1) too; the oracle is the frame of the same columns."""
    rows, labels, _ = texts
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"text": rows, "kind": draw.choice(["p", "q"], 300), "size": draw.normal(size=300)})[columns]
    X = AS_ARRAY[container](frame)
    quick = NoisyLabelClassifier("uniform", max_iter=2)
    proba = quick.fit(frame, labels).predict_proba(frame[:20])
    np.testing.assert_array_equal(quick.fit(X, labels).predict_proba(X[:20]), proba)
    assert quick.n_features_in_ == len(columns) and not hasattr(quick, "feature_names_in_")
    one, other = (find_label_issues(rows, labels, n_repeats=1, cv=2, random_state=0) for rows in (frame, X))
    pd.testing.assert_frame_equal(one, other)
    with pytest.raises(ValueError, match=r"X has no column|expecting|names or on an array"):
        quick.predict(np.zeros((2, 0)))


def test_a_model_of_ones_own_sees_an_array_of_texts_as_it_is(texts):
    rows, labels, _ = texts
    kinds = np.array([row.split()[0] for row in rows], dtype=object)[:, None]
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    assert find_label_issues(kinds, labels, model=model, n_repeats=1, random_state=0).is_issue.any()


FRAMES = {"pandas": lambda f: f, "Arrow": pa.Table.from_pandas, "polars": pl.from_pandas, "nullable": pd.DataFrame.convert_dtypes}


@pytest.mark.parametrize("fitted", FRAMES)
def test_a_frame_of_any_library_does_at_predict_what_it_does_at_fit(fitted, quick_model):
    draw, y = np.random.default_rng(0), np.arange(60) % 2
    frame = pd.DataFrame({"a": y + draw.normal(size=60), "b": draw.integers(0, 9, 60)})
    clean = frame[:10], y[:10]
    own, quick = FRAMES[fitted](frame), NoisyLabelClassifier("uniform", max_iter=2)
    models = [clone(quick).fit(own, y, clean=(X(clean[0]), clean[1])) for X in FRAMES.values()]
    for X in FRAMES.values():
        for model in models:
            np.testing.assert_allclose(model.predict_proba(X(frame)), models[0].predict_proba(frame), rtol=1e-5)
    frames = [find_label_issues(own, y, clean=(X(clean[0]), clean[1]), cv=2, n_repeats=1, random_state=0) for X in FRAMES.values()]
    for other in frames[1:]:
        pd.testing.assert_frame_equal(frames[0], other)
    with pytest.raises(ValueError, match=r"feature names|no column 'b'"):
        models[0].predict(pa.table({"a": [1.0]}))


class LooksLikeAClassifier:
    """A classifier of another library: no tags, no parameters."""

    def fit(self, X, y):
        self.inner = LogisticRegression().fit(X, y)
        self.classes_ = self.inner.classes_
        return self

    def predict_proba(self, X):
        return self.inner.predict_proba(X)


@pytest.mark.parametrize("alone", [False, True])
def test_a_model_of_another_library_is_what_it_wraps(alone):
    draw = np.random.default_rng(0)
    labels = np.r_[0, np.ones(59, dtype=int)] if alone else draw.integers(2, size=60)
    X = draw.normal(size=(60, 2)) + labels[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = (
            find_label_issues(X, labels, model=model, n_repeats=1) for model in (LooksLikeAClassifier(), LogisticRegression())
        )
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("ids", [np.arange(40), np.arange(100, 140), np.arange(200, 240)])
@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "Arrow"])
def test_row_numbers_beside_a_clean_table_are_left_out(library, ids):
    draw = np.random.default_rng(0)
    labels = np.sort(draw.integers(2, size=200))
    values = draw.normal(size=200) + 2.0 * labels
    own, clean = {"x": values}, {"x": values[::5]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = find_label_issues(
            library(own), labels, clean=(library(clean), labels[::5]), model=LogisticRegression(), n_repeats=1
        )
    with pytest.warns(UserWarning, match="Column 'id' counts up"):
        found = find_label_issues(
            library({"id": np.arange(200), **own}),
            labels,
            clean=[library({**clean, "id": ids}), labels[::5]],
            model=LogisticRegression(),
            n_repeats=1,
        )
    pd.testing.assert_frame_equal(found, expected)


def test_a_forest_is_tried_on_few_rows_with_many_labels_of_the_next_class():
    X, true = load_wine(return_X_y=True)
    is_wrong = np.random.default_rng(0).random(len(true)) < 0.4
    assert isinstance(default_model(X, np.where(is_wrong, (true + 1) % 3, true), 0), RandomForestClassifier)


def test_a_linear_network_of_few_rows_leaves_its_start():
    draw = np.random.default_rng(0)
    true = draw.integers(2, size=400)
    X, is_wrong = 4.0 * true[:, None] + draw.normal(size=(400, 2)), draw.random(400) < 0.1
    given_labels = np.where(is_wrong, 1 - true, true)
    found = find_label_issues(X, given_labels, model=torch.nn.Linear, n_repeats=1)
    assert abs(found.attrs["n_issues"] - is_wrong.sum()) <= 3
    model = NoisyLabelClassifier(model=torch.nn.Linear).fit(X, given_labels)
    assert np.log(model.predict_proba(X).max(axis=1)).mean() > np.log(0.8)


@pytest.mark.parametrize("words", [["good"], ["a", "b"], ["1 2", "3 4"], ["-", "+ -"]])
def test_texts_of_few_or_short_words_are_told_by_them(words):
    y = np.arange(40) % len(words) if len(words) > 1 else np.arange(40) % 2
    model = NoisyLabelClassifier(max_iter=20).fit([words[k % len(words)] for k in y], y)
    assert len(words) == 1 or model.predict(words).tolist() == [0, 1]


def test_texts_that_are_all_empty_are_told():
    with pytest.raises(ValueError, match="no words: all texts are empty"):
        NoisyLabelClassifier().fit(["", " ", None, ""], [0, 1, 0, 1])


def test_gray_images_need_no_axis_of_channels(monkeypatch):
    monkeypatch.setattr("densratio.labels.chosen_network._STEPS", 4)
    images = load_digits().images[:60]
    quick = NoisyLabelClassifier("uniform", max_iter=2)
    labels = load_digits().target[:60]
    gray, one = (quick.fit(X, labels).predict_proba(X) for X in (images, images[:, None]))
    np.testing.assert_array_equal(gray, one)
    np.testing.assert_array_equal(quick.predict_proba(images), quick.predict_proba(images[:, None]))
    with pytest.raises(ValueError, match=r"have shape \(1, 7, 8\)"):
        quick.predict(images[:, 1:])


def test_a_model_of_ones_own_sees_rows_of_any_shape():
    seen = []

    def made(shape, n_classes):
        seen.append(shape)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(shape)), n_classes))

    draw = np.random.default_rng(0)
    series = draw.normal(size=(60, 3, 5)) * np.array([1.0, 10.0, 100.0])[:, None] + np.array([0.0, 5.0, -50.0])[:, None]
    model = NoisyLabelClassifier(model=made, max_iter=2).fit(series, np.arange(60) % 2)
    assert set(seen) == {(3, 5)}
    np.testing.assert_allclose(model._center.ravel(), series.mean(axis=(0, 2)))
    np.testing.assert_allclose(model._spread.ravel(), series.std(axis=(0, 2)))


def test_weights_that_sum_to_one_count_as_rows_do():
    draw = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = draw.normal(size=(120, 2)) + 3.0 * y[:, None]
    weights = np.where(draw.random(120) < 0.2, 0.0, draw.random(120) + 0.5)
    found = [
        NoisyLabelClassifier(max_iter=3).fit(X, y, sample_weight=scale * weights).predict_proba(X)
        for scale in (1.0 / weights.sum(), 0.5 / weights[weights > 0].mean(), 1.0 / weights[weights > 0].mean())
    ]
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    np.testing.assert_allclose(found[1], found[2], atol=1e-6)


class Sentences:
    """As models of sentence-transformers: it can be called too, with other arguments."""

    def encode(self, texts):
        assert type(texts) is list
        return torch.tensor([[len(text), text.count("a")] for text in texts], dtype=torch.float32)

    def __call__(self, features, more):
        raise AssertionError


def test_a_model_of_sentences_encodes_them():
    texts = ["b" * k + "a" * (5 * (k % 2)) for k in range(60)]
    rows = Sentences().encode(texts).numpy()
    how = {"model": LogisticRegression(), "n_repeats": 1, "random_state": 0}
    expected = find_label_issues(rows, np.arange(60) % 2, **how)
    for given_texts in (texts, pd.Series(texts, index=range(60, 0, -1))):
        pd.testing.assert_frame_equal(find_label_issues(given_texts, np.arange(60) % 2, encoder=Sentences(), **how), expected)


@settings(max_examples=50)
@given(seed=st.integers(0, 9999), n_kinds=st.integers(1, 30), n=st.integers(1, 120))
def test_rows_of_equal_numbers_are_held_out_together_unless_their_labels_differ(seed, n_kinds, n):
    draw = np.random.default_rng(seed)
    x, y = draw.integers(0, n_kinds, n).astype(np.float32)[:, None], draw.integers(0, 2, n)
    rows, _ = merged(Rows(x, y, np.ones(n), np.zeros(n, dtype=bool)))
    shares = held_shares(rows, 3, seed)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    for value in np.unique(rows.x):
        own = np.flatnonzero(rows.x[:, 0] == value)
        if len(own) > 1 and rows.counts[own].sum() >= 3:
            copies = shares[own] * rows.counts[own, None]
            np.testing.assert_allclose(copies, np.round(copies), atol=1e-9)
            assert (np.ptp(copies, axis=1) <= 1.0 + 1e-9).all()
        else:
            assert (shares[own] == shares[own[0]]).all() and shares[own[0]].max() == 1.0


def test_few_distinct_rows_with_labels_that_differ_are_judged_by_all_of_their_copies():
    """No row tells of another: what is held out of one x is known by the rest of the rows with it."""
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 16, 1200)
    true_of = draw.integers(0, 2, 16)
    true = true_of[kind]
    wrong = draw.random(1200) < 0.2
    model = NoisyLabelClassifier(max_iter=30).fit(np.eye(16)[kind], np.where(wrong, 1 - true, true))
    is_issue = model.label_issues_.sort_values("row").is_issue.to_numpy()
    assert (is_issue == wrong).mean() > 0.98 and (model.predict(np.eye(16)) == true_of).all()


def test_a_tag_that_no_row_has_leaves_the_others_as_they_are():
    draw = np.random.default_rng(0)
    X = draw.normal(size=(120, 2))
    tags = pd.DataFrame({"left": (X[:, 0] > 0) * 1, "never": 0, "up": (X[:, 1] > 0) * 1})
    with pytest.warns(UserWarning, match="one value alone have no issues: never"):
        whole = find_label_issues(X, tags, model=LogisticRegression(), random_state=0)
    others = find_label_issues(X, tags[["left", "up"]], model=LogisticRegression(), random_state=0)
    never = whole[whole.column == "never"]
    assert len(never) == 120 and not never.is_issue.any() and (never.score == 0.0).all()
    pd.testing.assert_frame_equal(whole[whole.column != "never"].reset_index(drop=True), others, check_dtype=False)
    with pytest.raises(ValueError, match="hold one class alone"):
        find_label_issues(X, tags[["never"]])


@pytest.mark.parametrize("model", [None, LogisticRegression()])
def test_a_class_of_one_row_beside_one_other_class_is_not_doubted(model):
    X = np.random.default_rng(0).normal(size=(100, 2))
    frame = find_label_issues(X, np.arange(100) == 5, model=model, n_repeats=1, random_state=0)
    assert not frame.is_issue.any() and frame[frame.row == 5].score.item() == 0.0


def test_an_arrow_table_is_a_frame():
    pyarrow = pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": np.linspace(0.0, 1.0, 60), "b": ["u", "v", "w"] * 20})
    labels = (frame.a > 0.5).to_numpy()
    table = pyarrow.Table.from_pandas(frame)
    found = [NoisyLabelClassifier(max_iter=2).fit(X, labels).predict_proba(X) for X in (frame, table)]
    np.testing.assert_allclose(*found, atol=1e-6)


def test_sparse_rows_need_no_model(texts, quick_model):
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
    rows = draw.normal(size=(120, 2))
    targets = np.round(100.0 * rows[:, 0] + 5.0 * draw.normal(size=120)).astype(int)
    how = {"cv": 2, "n_repeats": 1}
    assert "classes" not in find_label_issues(rows, targets, model=LinearRegression(), **how).attrs
    assert len(find_label_issues(rows, targets % 3, model=LogisticRegression(), **how).attrs["classes"]) == 3


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
    with pytest.raises(ValueError, match="verbose must be True, False, or a function"):
        NoisyLabelClassifier(verbose="yes").fit(rows, labels)


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


@pytest.mark.parametrize(
    "container",
    [np.array, pd.DataFrame, *(lambda rows, of=of: of({"0": rows[:, 0], "1": rows[:, 1]}) for of in (pl.DataFrame, pa.table))],
)
@pytest.mark.parametrize("sentinel", [-999.0, 99999.0])
def test_a_number_that_stands_for_a_missing_value_is_told(container, sentinel, quick_model):
    rows, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    rows[:4, 1] = sentinel
    for call in (
        lambda X: find_label_issues(X, labels, n_repeats=1, random_state=0),
        lambda X: NoisyLabelClassifier(max_iter=1, model=torch.nn.Linear).fit(X, labels),
    ):
        with pytest.warns(
            UserWarning, match=f"share the number {sentinel:g}, far beyond all others, in column .?1.?[.] If it"
        ) as told:
            call(container(rows))
    advice = str(told[0].message).split("make it one: ")[1][:-1]
    mended = eval(advice, {"X": container(rows), "numpy": np, "polars": pl})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_sentinels({"X": mended}, 1)
    assert np.isnan(np.asarray(mended, dtype=float)).sum() == 4


def test_a_table_without_columns_is_told():
    with pytest.raises(ValueError, match=r"^X has no columns"):
        find_label_issues(pd.DataFrame(index=range(20)), np.arange(20) % 2)


@pytest.mark.filterwarnings("ignore:.*can be wrong|Classes of one row")
@pytest.mark.parametrize("lone", [False, True], ids=["two classes", "a class of one row"])
def test_of_a_matrix_of_distances_rows_and_columns_are_held_out(lone):
    X, y = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    X[:, 0] += 2.0 * y
    y[0] = 7 if lone else y[0]
    of_rows, of_distances = KNeighborsClassifier(7), KNeighborsClassifier(7, metric="precomputed")
    found = find_label_issues(pairwise_distances(X), y, model=of_distances, n_repeats=1)
    folds = label_folds(np.unique(y, return_inverse=True)[1], None, 5, 0)
    proba = np.zeros((60, len(np.unique(y))))
    for learned, held in folds:
        learner = of_rows.fit(X[learned], y[learned])
        proba[np.ix_(held, np.searchsorted(np.unique(y), learner.classes_))] = learner.predict_proba(X[held])
    expected = label_issues_from_probabilities(y, proba, clean=[0] if lone else None)
    pd.testing.assert_frame_equal(found, expected)
