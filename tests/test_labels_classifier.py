"""NoisyLabelClassifier: scikit-learn's contract, the laws of rows, every kind of input, and messages."""

from __future__ import annotations

import copy
import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integration_cases import one_thread  # noqa: F401
from scipy.sparse import csc_matrix, csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

from densratio import NoisyLabelClassifier
from densratio.datasets import label_noise
from densratio.labels.confusion import label_posterior
from densratio.labels.encoding import SparseEncoder
from densratio.labels.rows import Rows
from densratio.labels.training import corrected

QUICK = {"max_iter": 2, "model": lambda n_features, n_classes: nn.Linear(n_features, n_classes)}


def small(n_features, n_classes):
    return nn.Sequential(nn.Linear(n_features, 16), nn.ReLU(), nn.Linear(16, n_classes))


CHECKS = list(estimator_checks_generator(NoisyLabelClassifier(model=small, max_iter=3, batch_size=16, learning_rate=5e-2)))


# Names of their own: those of scikit-learn hold the address of the function, another in each worker.
@pytest.mark.parametrize("case", CHECKS, ids=[f"{i}-{getattr(c, 'func', c).__name__}" for i, (_, c) in enumerate(CHECKS)])
def test_the_contract_of_scikit_learn(case):
    estimator, check = case
    check(estimator)


@cache
def blobs(n=240, seed=0, wrong=0.3):
    """Rows of three classes far apart, given labels, and which of them are wrong."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    X = 4.0 * np.eye(3)[y] + rng.normal(size=(n, 3))
    is_wrong = rng.random(n) < wrong
    return X, np.where(is_wrong, (y + rng.integers(1, 3, size=n)) % 3, y), y, is_wrong


def test_wrong_labels_get_small_weights_and_are_listed_first():
    X, given_labels, y, is_wrong = blobs()
    model = NoisyLabelClassifier(max_iter=20).fit(X, given_labels)
    assert model.weights_.mean() == pytest.approx(1.0) and model.n_iter_ == len(model.history_) <= 20
    assert model.weights_[is_wrong].mean() < 0.2 * model.weights_[~is_wrong].mean()
    issues = model.label_issues_
    assert list(issues.columns) == ["row", "given_label", "suggested_label", "score", "is_issue"]
    found = issues.sort_values("row").is_issue.to_numpy()
    assert (found == is_wrong).mean() > 0.95 and (model.predict(X) == y).mean() > 0.97
    assert is_wrong[issues.row[:30]].all() and (issues.suggested_label[:30] == y[issues.row[:30]]).all()
    assert issues.is_issue.sum() == round(issues.score.sum()) == issues.attrs["n_issues"] and issues.score.is_monotonic_decreasing
    np.testing.assert_allclose(1.0 - issues.score, (model.weights_ / model.weights_.max())[issues.row], atol=1e-3)


@given(st.integers(2, 6), st.floats(0.01, 3.0), st.integers(0, 2**32 - 1))
def test_rows_are_learned_as_the_class_that_is_nearly_certain(n_classes, spread, seed):
    rng = np.random.default_rng(seed)
    posterior, counts = rng.dirichlet(np.full(n_classes, spread), 30), rng.integers(1, 4, size=30).astype(float)
    rows = Rows(np.zeros((30, 1)), rng.integers(n_classes, size=30), counts, np.zeros(30, dtype=bool))
    learned = corrected(rows, posterior)
    for p, label, own, count, weight in zip(posterior, rows.y, learned.y, counts, learned.counts, strict=True):
        sure = [k for k in range(n_classes) if p[k] > 0.95]
        assert own == (sure or [label])[0] and weight == count * p[own]


def test_hard_rows_are_not_left_out_in_place_of_wrong_labels_that_many_rows_share():
    X, y = load_digits(return_X_y=True)
    ratios = []
    for seed in range(2):
        rows = np.random.default_rng(seed).permutation(len(y))[:600]
        wrong = label_noise(y[rows], "pair", 0.4, random_state=seed)
        weights = NoisyLabelClassifier(max_iter=12, random_state=seed).fit(X[rows], wrong.labels).weights_
        ratios.append(weights[wrong.is_flipped].mean() / weights[~wrong.is_flipped].mean())
    assert np.mean(ratios) < 0.25


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000))
def test_rows_have_no_order_and_copies_are_counts(seed):
    X, y = (part[:60] for part in blobs()[:2])
    rng = np.random.default_rng(seed)
    counts, order = rng.integers(0, 3, size=60), rng.permutation(60)
    rows = np.repeat(np.arange(60), counts)
    counted = NoisyLabelClassifier(**QUICK).fit(X[order], y[order], sample_weight=counts[order])
    copied = NoisyLabelClassifier(**QUICK).fit(X[rows], y[rows])
    assert np.array_equal(counted.predict_proba(X), copied.predict_proba(X))
    of_rows = dict(zip(order, counted.weights_, strict=True))
    ratio = np.array([of_rows[row] for row in rows]) / copied.weights_
    assert np.allclose(ratio, ratio[0])


@pytest.mark.parametrize("name", ["divide_mix", "elr_plus"])
def test_methods_that_mix_images_count_rows_of_tables_by_their_weights(name):
    X, y = (part[:40] for part in blobs()[:2])
    counts = 1 + np.arange(40) % 3
    rows = np.repeat(np.arange(40), counts)
    counted, halved = (NoisyLabelClassifier(name, **QUICK).fit(X, y, sample_weight=unit * counts) for unit in (1.0, 0.5))
    copied = NoisyLabelClassifier(name, **QUICK).fit(X[rows], y[rows])
    even = NoisyLabelClassifier(name, **QUICK).fit(X, y)
    assert np.array_equal(counted.predict_proba(X), copied.predict_proba(X))
    assert np.allclose(counted.weights_[rows] / counted.weights_[rows].mean(), copied.weights_)
    np.testing.assert_allclose(halved.predict_proba(X), counted.predict_proba(X), rtol=1e-3)
    assert not np.allclose(even.predict_proba(X), counted.predict_proba(X), rtol=1e-3)


@pytest.mark.parametrize("name", ["divide_mix", "elr_plus"])
def test_methods_that_mix_images_take_copies_of_them_one_by_one(name):
    images, y = np.random.default_rng(0).random((12, 1, 6, 6)), np.arange(12) % 2
    NoisyLabelClassifier(name, max_iter=1).fit(images, y, sample_weight=1 + np.arange(12) % 3)
    with pytest.raises(ValueError, match=rf"method='{name}' takes no sample_weight but whole numbers.*type another method"):
        NoisyLabelClassifier(name, max_iter=1).fit(images, y, sample_weight=1.5 + np.arange(12) % 3)


def test_the_same_seed_gives_the_same_bits_and_the_global_state_is_left_alone(monkeypatch):
    X, y = blobs()[:2]
    monkeypatch.setattr("torch.cuda.manual_seed_all", lambda seed: pytest.fail("a fit on the CPU seeds the GPU"))
    before, draws = torch.get_rng_state(), copy.deepcopy(np.random.mtrand._rand.get_state(legacy=False))
    fits = [NoisyLabelClassifier(**QUICK, random_state=seed).fit(X, y).predict_proba(X) for seed in (3, 3, 4)]
    assert np.array_equal(fits[0], fits[1]) and not np.array_equal(fits[0], fits[2])
    after = np.random.mtrand._rand.get_state(legacy=False)
    assert torch.equal(torch.get_rng_state(), before) and str(after) == str(draws)


def test_clean_rows_are_numbers_or_a_second_sample_and_are_never_doubted():
    X, y, right, is_wrong = blobs()
    numbers = np.flatnonzero(~is_wrong)[:40]
    model = NoisyLabelClassifier(**QUICK).fit(X, y, clean=numbers)
    assert np.ptp(model.weights_[numbers]) == 0.0 and model.weights_[numbers[0]] == model.weights_.max()
    issues = model.label_issues_.set_index("row")
    assert issues.score[numbers].eq(0.0).all() and issues.suggested_label[numbers].eq(issues.given_label[numbers]).all()
    rest = np.setdiff1d(np.arange(len(y)), numbers)
    second = NoisyLabelClassifier(**QUICK).fit(X[rest], y[rest], clean=(X[numbers], right[numbers]))
    assert np.allclose(second.predict_proba(X), model.predict_proba(X)) and len(second.weights_) == len(rest)
    rows, clean = pd.DataFrame(X[rest], columns=list("abc")), pd.DataFrame(X[numbers], columns=list("abc"))
    by_name = NoisyLabelClassifier(**QUICK).fit(rows, y[rest], clean=(clean[list("cab")], right[numbers]))
    assert (by_name.predict_proba(rows) == second.predict_proba(X[rest])).all()


@pytest.mark.parametrize(
    "name",
    ["uniform", "wasserstein", "MW-Net", "mcw", "cmw_net_sl", "lrw_hard", "rho_loss", "jtt", "joint_optimization", "meta_cleaner",
     "focal"],
)  # fmt: skip
@pytest.mark.parametrize("with_clean", [True, False])
def test_any_method_trains_by_its_name(name, with_clean):
    X, y, _, is_wrong = (part[:80] for part in blobs())
    clean = np.flatnonzero(~is_wrong)[:20] if with_clean else None
    model = NoisyLabelClassifier(name, small, max_iter=3).fit(X, y, clean=clean)
    assert model.label_issues_.score.between(0.0, 1.0).all() and sorted(model.label_issues_.row) == list(range(80))
    assert model.weights_.shape == (80,) and np.isfinite(model.predict_proba(X)).all() and model.n_iter_ == 3


def test_images_text_labels_frames_pickles_and_searches():
    digits = load_digits()
    images, names = digits.images[:120, None], np.array(["one", "two"])[digits.target[:120] % 2]
    model = NoisyLabelClassifier(max_iter=2).fit(images, names)
    assert set(model.classes_) == {"one", "two"} and model.predict_proba(images).shape == (120, 2)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(images), model.predict_proba(images))
    X, y = blobs()[:2]
    frame = pd.DataFrame(X, columns=list("abc")).assign(kind=np.where(X[:, 0] > 2, "high", "low"))
    frame.loc[3, "a"] = np.nan
    fitted = NoisyLabelClassifier(**QUICK).fit(frame, y)
    assert fitted.encoder_ is not None and fitted.predict(frame).shape == y.shape
    search = GridSearchCV(NoisyLabelClassifier(**QUICK), {"method": ["auto", "uniform"]}, cv=2).fit(X, y)
    assert search.best_params_["method"] in ("auto", "uniform") and clone(search.best_estimator_).get_params()["max_iter"] == 2


def test_sparse_rows_are_dense_ones_and_an_array_with_gaps_is_a_frame():
    X, y = (part[:90] for part in blobs()[:2])
    gaps = np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)

    def predicted(train, new):
        return NoisyLabelClassifier(**QUICK).fit(train, y).predict_proba(new)

    assert np.array_equal(predicted(csc_matrix(X), csr_array(X)), predicted(X, X))
    assert np.array_equal(predicted(gaps, gaps), predicted(pd.DataFrame(gaps), pd.DataFrame(gaps)))
    assert np.array_equal(predicted(torch.tensor(gaps), gaps.tolist()), predicted(gaps, gaps))
    lacking, filled = X.copy(), X.copy()
    lacking[:, 1], filled[:, 1] = np.nan, X[:, 1].mean()
    np.testing.assert_allclose(predicted(X, lacking), predicted(X, filled), atol=1e-5)
    with pytest.raises(ValueError, match="X has 2 features, but NoisyLabelClassifier is expecting 3"):
        predicted(gaps, gaps[:, :2])


def test_wide_sparse_rows_are_learned_by_their_main_directions():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    words = csr_array((rng.random((120, 400)) < 0.02 + 0.1 * (np.arange(400) % 2 == y[:, None])).astype(int))
    assert NoisyLabelClassifier(max_iter=10).fit(words, y).score(words, y) > 0.95


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_wide_sparse_rows_that_are_all_alike_have_equal_directions_without_a_warning(value):
    rows = csr_array(np.full((60, 150), value))
    found = SparseEncoder().fit(rows).transform(rows)
    assert np.isfinite(found).all() and np.ptp(found, axis=0).max() < 1e-9


def test_rows_of_weight_0_are_no_issues_and_before_the_fit_there_are_none():
    X, y = (part[:60] for part in blobs()[:2])
    model = NoisyLabelClassifier(**QUICK)
    assert not hasattr(model, "label_issues_")
    model.fit(X, y, sample_weight=np.arange(60) > 9)
    first = model.label_issues_.set_index("row").loc[range(10)]
    assert first.score.eq(0.0).all() and np.array_equal(first.given_label, y[:10]) and first.suggested_label.eq(y[:10]).all()


def test_classes_of_one_row_and_more_classes_than_can_be_doubted_keep_their_weights():
    X, y = (part[:60] for part in blobs()[:2])
    rare = np.where(np.arange(60) == 7, 9, y)
    model = NoisyLabelClassifier(**QUICK).fit(X, rare)
    assert model.weights_[7] == model.weights_.max() and model.label_issues_.set_index("row").score[7] == 0.0
    alone = NoisyLabelClassifier(**QUICK).fit(X[:10], np.arange(10))
    assert np.array_equal(alone.weights_, np.ones(10)) and alone.label_issues_.score.eq(0.0).all()


class Fitting(nn.Linear):
    """Networks with a method of this name are no estimators."""

    def fit(self):
        raise AssertionError


def test_a_class_of_networks_with_a_method_fit_makes_networks():
    X, y = (part[:60] for part in blobs()[:2])
    assert type(NoisyLabelClassifier(model=Fitting, max_iter=1).fit(X, y).module_) is Fitting


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.zeros(60)}, "at least two classes; the labels hold one class, 0.0"),
        ({"y": np.r_[[np.nan], np.ones(59)]}, "1 have none, the first is row 0. Leave these rows out"),
        ({"y": [None, *["a"] * 59]}, "1 have none"),
        ({"y": np.linspace(0.1, 1, 60)}, "Unknown label type"),
        ({"y": np.eye(3)[np.arange(60) % 3]}, r"got shape \(60, 3\). For one-hot classes pass .*argmax.*MultiOutputClassifier\("),
        (
            {"clean": (np.zeros((2, 3)), np.eye(2))},
            r"labels of clean must be \(n,\), one label for each row; got shape \(2, 2\)",
        ),
        ({"y": [1, 2]}, "X has 60 rows and 2 labels were given"),
        ({"X": np.full((60, 3), np.nan)}, "No column is left to tell rows apart by. x0: dropped: no value in any row"),
        ({"X": np.full((60, 1, 8, 8), np.nan), "model": None}, "Input X contains NaN"),
        ({"X": csr_array(np.full((60, 3), np.inf))}, "Input X contains infinity"),
        ({"clean": (np.full((2, 3), np.nan), np.zeros(2))}, "Input X contains NaN"),
        ({"X": [np.zeros((1, 8, 8)), np.zeros((1, 9, 8))]}, r"All images must be of one size; got \(1, 8, 8\), \(1, 9, 8\)"),
        ({"X": np.zeros((60, 1, 3, 3, 3)), "model": None}, r"images \(n, c, h, w\) or \(n, h, w\); got shape \(60, 1, 3, 3, 3\)"),
        ({"clean": (np.zeros((2, 3)), np.array([0, 7]))}, "clean has classes that no label in y has: 7"),
        ({"clean": [60]}, "clean must be row numbers from 0 to 59"),
        ({"method": "mw_nett"}, "Did you mean 'mw_net'"),
        ({"model": nn.Linear(3, 3)}, "model must be a function"),
        ({"model": lambda n_features, n_classes: 3}, "it gave int"),
        ({"max_iter": 0}, "max_iter must be an int >= 1; got 0"),
        ({"batch_size": 1}, "batch_size must be an int >= 2 or None; got 1"),
        ({"learning_rate": 0.0}, r"learning_rate must be a number in \(0, inf\); got 0.0"),
    ],
)
def test_what_can_not_be_is_said(change, words):
    X, y = (part[:60] for part in blobs()[:2])
    given_data = {"X": X, "y": y, "clean": None, **{name: value for name, value in change.items() if name in ("X", "y", "clean")}}
    params = {**QUICK, **{name: value for name, value in change.items() if name not in given_data}}
    with pytest.raises(ValueError, match=words):
        NoisyLabelClassifier(**params).fit(given_data["X"], given_data["y"], clean=given_data["clean"])


def test_without_torch_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr("densratio.labels.classifier.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "densratio-toolkit\[torch\]"'):
        NoisyLabelClassifier().fit(np.zeros((2, 1)), [0, 1])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.4))
def test_where_the_true_class_is_known_for_sure_the_posterior_is_and_counts_are_copies(seed, rate):
    rng = np.random.default_rng(seed)
    true = rng.integers(4, size=400)
    y = np.where(rng.random(400) < rate, (true + 1) % 4, true)
    proba, counts = 0.9996 * np.eye(4)[true] + 1e-4, rng.integers(1, 3, size=400)
    counted = label_posterior(proba, y, np.zeros(400, dtype=bool), counts, holds_noise=False)
    assert np.array_equal(counted.posterior.argmax(axis=1), true)
    rows = np.repeat(np.arange(400), counts)
    copied = label_posterior(proba[rows], y[rows], np.zeros(len(rows), dtype=bool), holds_noise=False)
    np.testing.assert_allclose(copied.posterior, counted.posterior[rows], atol=1e-9)


@pytest.mark.parametrize(("dtype", "kind"), [("Int64", "i"), ("boolean", "b"), ("int64[pyarrow]", "i"), ("category", "i")])
def test_classes_keep_their_kind_in_nullable_columns(dtype, kind):
    X = np.random.default_rng(0).normal(size=(40, 2))
    labels = pd.Series(X[:, 0] > 0).astype("int64").astype(dtype)
    model = NoisyLabelClassifier(max_iter=1).fit(X, labels)
    assert model.classes_.dtype.kind == model.predict(X).dtype.kind == kind


def test_gaps_in_nullable_labels_are_named():
    labels = pd.Series([0, 1] * 20, dtype="Int64").mask(np.arange(40) == 3)
    with pytest.raises(ValueError, match="1 have none, the first is row 3"):
        NoisyLabelClassifier(max_iter=1).fit(np.eye(40), labels)
