"""Label issues: scores are probabilities of being wrong, as many are issues as are wrong, on every kind of rows."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC
from torch.utils.data import TensorDataset

from densratio import NoisyLabelClassifier, find_label_issues, label_issues_from_probabilities
from densratio.labels.confusion import less_sure
from densratio.labels.encoding import FrameEncoder
from densratio.labels.frame import issue_frame
from densratio.labels.held_out import n_deals
from densratio.labels.probabilities import wrong_scores
from densratio.labels.rows import own_order
from densratio.labels.sharpening import sharpened

COLUMNS = ["row", "given_label", "suggested_label", "score", "is_issue"]


def classes(table, rng):
    """A class of each row of a table of probabilities (n, K)."""
    return (rng.random(len(table))[:, None] > table.cumsum(axis=1)[:, :-1]).sum(axis=1)


def drawn(n, n_classes, rate, seed, spread=12.0):
    """Posteriors q (n, K), true and given labels under a drawn transition T, and the exact probability that a label is wrong."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(n, n_classes))
    q = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    others = rng.dirichlet(np.ones(n_classes - 1), size=n_classes)
    transition = np.diag(np.full(n_classes, 1.0 - rate))
    transition[~np.eye(n_classes, dtype=bool)] = (rate * others).ravel()
    true = classes(q, rng)
    labels = classes(transition[true], rng)
    noisy = q @ transition
    exact = 1.0 - q[np.arange(n), labels] * transition[labels, labels] / noisy[np.arange(n), labels]
    return noisy, true, labels, exact, transition


@settings(max_examples=5)
@given(n_classes=st.integers(2, 6), rate=st.floats(0.02, 0.12), seed=st.integers(0, 999))
def test_scores_rank_as_the_exact_probabilities_and_sum_to_the_number(n_classes, rate, seed):
    noisy, true, labels, exact, _ = drawn(4000, n_classes, rate, seed)
    issues = label_issues_from_probabilities(labels, noisy)
    score = issues.sort_values("row").score.to_numpy()
    assert roc_auc_score(true != labels, score) > roc_auc_score(true != labels, exact) - 0.01
    # The confusion is estimated too, and hardly told by so few labels where no class is nearly certain.
    assert np.abs(score - exact).mean() < 0.7 * rate and abs(score.sum() / exact.sum() - 1.0) < 0.7
    assert issues.attrs["n_issues"] == issues.is_issue.sum() == round(score.sum())


@settings(max_examples=5, deadline=None)
@given(n_classes=st.integers(2, 7), rate=st.floats(0.02, 0.2), seed=st.integers(0, 999))
def test_as_many_wrong_labels_as_the_surest_rows_tell_are_in_the_interval(n_classes, rate, seed):
    noisy, _, labels, exact, _ = drawn(3000, n_classes, rate, seed, spread=25.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        least, most = label_issues_from_probabilities(labels, noisy).attrs["n_issues_interval"]
    # The number itself is .5 to 1 of the exact one here, as a smaller T with more overlap gives the same probabilities.
    assert 0.9 * least <= exact.sum() <= 1.25 * most


@settings(max_examples=3, deadline=None)
@given(n_deals=st.integers(1, 3), n_clean=st.sampled_from([0, 40]), seed=st.integers(0, 999))
def test_labels_that_are_not_the_likeliest_class_are_counted(n_deals, n_clean, seed):
    """More than are listed, where people mislabel the rows that are hard and no others."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.3, 1.0, 150)
    proba = np.column_stack([sure, np.outer(1.0 - sure, [0.6, 0.4])])
    labels = np.where(rng.random(150) < sure, 0, rng.integers(1, 3, 150))
    labels[:3] = range(3)
    dealt = np.stack([0.9 * proba + 0.1 * rng.dirichlet(np.ones(3), 150) for _ in range(n_deals)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issues = label_issues_from_probabilities(labels, dealt if n_deals > 1 else dealt[0], clean=range(n_clean))
    means = [sum(deal[row] for deal in dealt) for row in range(150)]
    n_others = sum(max(range(3), key=lambda k: means[row][k]) != labels[row] for row in range(n_clean, 150))
    assert issues.attrs["n_disagreements"] == n_others > issues.is_issue.sum()


def test_labels_that_are_wrong_for_certain_keep_their_order():
    right = np.concatenate([10.0 ** -np.arange(0.0, 90.0, 0.5), [0.0]])
    scores = wrong_scores(right)
    assert (np.diff(scores) > 0.0).all() and scores[0] == 0.0 and scores[-1] == 1.0
    np.testing.assert_allclose(scores, 1.0 - right, atol=1e-6)


@settings(max_examples=3, deadline=None)
@given(n_deals=st.integers(2, 4), seed=st.integers(0, 999))
def test_several_deals_are_ranked_by_their_mean_and_as_sure_as_they_are_on_average(n_deals, seed):
    noisy, _, labels, _, _ = drawn(200, 3, 0.2, seed)
    dealt = np.random.default_rng(seed).dirichlet(np.ones(3), (n_deals, 200)) * 0.3 + 0.7 * noisy
    of = [label_issues_from_probabilities(labels, proba).sort_values("row") for proba in [dealt, dealt.mean(axis=0), *dealt]]
    score, ranked, *each = (issues.score.to_numpy() for issues in of)
    assert (np.diff(score[np.argsort(ranked)]) >= 0.0).all()
    np.testing.assert_allclose(np.sort(score), np.sort(np.mean(each, axis=0)), atol=2e-6)  # a millionth keeps ties in order
    assert of[0].attrs["transition"] == of[1].attrs["transition"]


@settings(max_examples=10)
@given(too_sure=st.floats(0.7, 4.0), center=st.floats(0.0, 2.0), seed=st.integers(0, 999))
def test_clean_rows_tell_how_sure_probabilities_may_be(too_sure, center, seed):
    rng = np.random.default_rng(seed)
    odds = rng.normal(center, 2.0, 4000)
    is_right = rng.random(4000) < expit(odds)
    is_clean = is_right & (rng.random(4000) < 0.3)
    share = expit(odds).mean()
    shift = brentq(lambda shift: expit(too_sure * odds + shift).mean() - share, -50.0, 50.0)
    said = expit(too_sure * odds + shift)
    found = less_sure(said, is_clean)
    assert found[~is_clean].mean() == pytest.approx(said[~is_clean].mean(), abs=1e-9)
    assert (np.diff(found[np.argsort(said)]) >= 0.0).all()
    gap, before = (np.abs(values - expit(odds)).mean() for values in (found, said))
    assert gap < (0.7 if too_sure > 1.5 else 1.0) * before + 0.01
    assert less_sure(said, np.zeros(4000, dtype=bool)) is said


@pytest.mark.filterwarnings("ignore:From")
def test_classes_that_overlap_are_no_evidence_of_wrong_labels():
    n_issues = []
    for seed in range(12):
        proba, _, labels, _, _ = drawn(800, 2 + seed % 3, 0.0, seed, spread=0.4 + 0.2 * seed)
        issues = label_issues_from_probabilities(labels, proba)
        n_issues.append(issues.is_issue.sum())
        least, most = issues.attrs["n_issues_interval"]
        assert least <= issues.attrs["n_issues"] <= most and n_issues[-1] <= issues.attrs["n_issues"]
    # Limits of 90 %: one table of twelve may have labels that by chance look wrong.
    assert sorted(n_issues)[-2] < 0.03 * 800


@pytest.mark.filterwarnings("ignore:From")
def test_wrong_labels_between_classes_far_apart_are_found_beside_classes_that_overlap():
    found = []
    for seed in range(3):
        # Classes 0 to 2 are far apart, and 40 % of class 0 are called 1; the classes 3 to 6 lie on each other.
        rng = np.random.default_rng(seed)
        y = rng.choice(7, p=[0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1], size=900)
        X = 4.0 * np.eye(4)[np.minimum(y, 3)] + rng.normal(size=(900, 4))
        is_wrong = (y == 0) & (rng.random(900) < 0.4)
        labels = np.where(is_wrong, 1, y)
        folds = [StratifiedKFold(5, shuffle=True, random_state=deal) for deal in range(2)]
        dealt = [cross_val_predict(LogisticRegression(C=0.3), X, labels, cv=cv, method="predict_proba") for cv in folds]
        issues = label_issues_from_probabilities(labels, np.array(dealt)).sort_values("row")
        found.append((issues.is_issue[is_wrong].mean(), issues.is_issue[(y < 3) & ~is_wrong].mean()))
    recall, false = np.mean(found, axis=0)
    assert recall > 0.8 and false < 0.05


@settings(max_examples=5)
@given(n_classes=st.integers(2, 5), seed=st.integers(0, 999))
def test_labels_that_the_rows_do_not_tell_are_let_alone_with_a_warning(n_classes, seed):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(n_classes, 20.0), 1000)
    with pytest.warns(UserWarning, match="of 1000 labels can be wrong"):
        issues = label_issues_from_probabilities(rng.integers(0, n_classes, 1000), proba)
    assert issues.is_issue.sum() < 10 and issues.attrs["n_issues_interval"][1] > 300


@settings(max_examples=10)
@given(n_classes=st.integers(2, 6), rate=st.floats(0.02, 0.3), seed=st.integers(0, 999))
def test_true_classes_are_taken_back_out_of_the_probabilities_of_given_ones(n_classes, rate, seed):
    noisy, _, _, _, transition = drawn(200, n_classes, rate, seed)
    q = sharpened(noisy, transition)
    np.testing.assert_allclose(q.sum(axis=1), 1.0)
    loss = [-(noisy * np.log(p @ transition)).sum() for p in (noisy, q)]
    assert loss[1] <= loss[0] and np.abs(q @ transition - noisy).max() <= np.abs(noisy @ transition - noisy).max()


def test_the_frame_lists_the_worst_first_and_suggests_the_true_label():
    noisy, true, labels, _, _ = drawn(1000, 4, 0.2, 3)
    names = np.array(["ant", "bee", "cat", "dog"])
    issues = label_issues_from_probabilities(names[labels], noisy)
    assert list(issues.columns) == COLUMNS and (np.diff(issues.score) <= 0).all()
    assert sorted(issues.row) == list(range(1000)) and (issues.given_label == names[labels[issues.row]]).all()
    assert issues.score.between(0, 1).all() and issues.is_issue.is_monotonic_decreasing
    right = (issues.suggested_label == names[true[issues.row]])[issues.is_issue]
    best = np.take_along_axis(noisy, true[:, None], 1)[:, 0][issues.row[issues.is_issue]].mean()
    assert right.mean() > best  # the likeliest class is right at least as often as the true one is likely


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 999), n_sequences=st.integers(2, 20))
def test_tokens_are_judged_as_rows_are_and_listed_by_their_places(seed, n_sequences):
    noisy, _, labels, _, _ = drawn(300, 3, 0.2, seed)
    cuts = np.sort(np.random.default_rng(seed).integers(0, 301, n_sequences - 1))  # some sequences are empty
    names = np.array(["noun", "verb", "other"])[labels]
    clean = [0, n_sequences - 1]
    issues = label_issues_from_probabilities(
        [one.tolist() for one in np.split(names, cuts)], np.split(noisy, cuts), classes=["noun", "verb", "other"], clean=clean
    )
    assert list(issues.columns) == ["row", "token", *COLUMNS[1:]]
    at = np.concatenate([[0], cuts])[issues.row] + issues.token
    is_clean = np.isin(np.searchsorted(cuts, np.arange(300), side="right"), clean)
    flat = label_issues_from_probabilities(names, noisy, classes=["noun", "verb", "other"], clean=is_clean)
    assert np.array_equal(at, flat.row) and issues.attrs == flat.attrs
    pd.testing.assert_frame_equal(issues.drop(columns=["row", "token"]), flat.drop(columns="row"))


def test_clean_rows_are_no_issues_and_tell_the_confusion():
    noisy, _, labels, _, _ = drawn(600, 3, 0.3, 5)
    issues = label_issues_from_probabilities(labels, noisy, clean=np.arange(50)).sort_values("row")
    assert (issues.score[:50] == 0).all() and not issues.is_issue[:50].any() and (issues.score[50:] > 0).any()


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    labels, rng = y.copy(), np.random.default_rng(0)
    wrong = rng.choice(len(y), 60, replace=False)
    labels[wrong] = (y[wrong] + rng.integers(1, 10, 60)) % 10
    return X, labels, np.isin(np.arange(len(y)), wrong)


def quality(issues, is_wrong):
    return roc_auc_score(is_wrong[issues.row], issues.score)


LEARNER = LogisticRegression(C=0.01, max_iter=300)


def network(n_features, n_classes):
    from torch import nn

    width = int(np.prod(n_features))
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, n_classes))


@pytest.mark.parametrize("kind", ["array", "frame", "images", "network", "default", "encoder"])
def test_wrong_digits_are_found_in_rows_of_every_kind(digits, kind):
    X, labels, is_wrong = digits
    once = {"random_state": 0, "n_repeats": 1}
    call = {
        "array": lambda: find_label_issues(X, labels, model=LEARNER, **once),
        "frame": lambda: find_label_issues(pd.DataFrame(X).add_prefix("p"), labels, model=LEARNER, **once),
        "images": lambda: find_label_issues(X.reshape(-1, 1, 8, 8), labels, model=network, **once),
        "network": lambda: find_label_issues(X, labels, model=network, **once),
        "default": lambda: find_label_issues(X, labels, **once),
        "encoder": lambda: find_label_issues(
            [str(i) for i in range(600)], labels, model=LEARNER, encoder=lambda ids: X[[*map(int, ids)]], **once
        ),
    }[kind]
    found = call()
    assert quality(found, is_wrong) > 0.97 and 40 <= found.is_issue.sum() <= 80
    pd.testing.assert_frame_equal(found, call()) if kind in ("array", "network") else None


@pytest.mark.parametrize(("n_repeats", "n_dealt"), [(3, 3), (None, 4)])
def test_rows_are_dealt_into_folds_anew(digits, n_repeats, n_dealt):
    X, labels = digits[0][:200], digits[1][:200]
    deals = [StratifiedKFold(4, shuffle=True, random_state=seed) for seed in range(7, 7 + n_dealt)]
    order, model = own_order(X, labels, np.zeros(200)), GaussianNB(var_smoothing=0.1)
    own = X[order.rows], labels[order.rows]
    proba = order.given(np.stack([cross_val_predict(model, *own, cv=folds, method="predict_proba") for folds in deals]))
    found = find_label_issues(X, labels, model=GaussianNB(var_smoothing=0.1), cv=4, n_repeats=n_repeats, random_state=7)
    pd.testing.assert_frame_equal(found, label_issues_from_probabilities(labels, proba))


@pytest.mark.parametrize(("n_rows", "n_dealt"), [(20, 4), (5000, 4), (5001, 3), (10_000, 2), (10_001, 1), (10**6, 1)])
def test_large_tables_are_dealt_into_folds_once(n_rows, n_dealt):
    assert n_deals(None, n_rows) == n_dealt and n_deals(2, n_rows) == 2


def test_text_is_encoded_and_groups_are_held_out_together():
    rng = np.random.default_rng(1)
    words = {"sea": "wave salt fish tide", "wood": "tree leaf moss root"}
    labels = rng.choice(list(words), 120)
    texts = [" ".join(rng.choice(words[label].split(), 4)) for label in labels]
    labels[:6] = np.where(labels[:6] == "sea", "wood", "sea")
    from sklearn.feature_extraction.text import TfidfVectorizer

    found = find_label_issues(
        texts, labels, model=LogisticRegression(), encoder=TfidfVectorizer(), groups=np.arange(120) // 2, random_state=0
    )
    assert set(found.row[:6]) == set(range(6))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_columns_of_sentences_are_encoded_as_text_and_others_as_they_are_in_tables(library):
    rng = np.random.default_rng(0)
    words = [["wave", "salt", "fish", "tide"], ["tree", "leaf", "moss", "root"]]
    y = np.arange(60) % 2
    texts = [" ".join([*rng.permutation(words[k]), f"number {row}"]) for row, k in enumerate(y)]
    texts[5] = None
    columns = {"text": texts, "size": rng.normal(size=60), "kind": rng.choice(["old", "new"], 60)}
    X = {
        "pandas": pd.DataFrame, "polars": pytest.importorskip("polars").DataFrame, "pyarrow": pytest.importorskip("pyarrow").table
    }[library](columns)  # fmt: skip
    encoder = FrameEncoder()
    rows = encoder.fit(X).transform(X)
    np.testing.assert_allclose(encoder.transform(X), rows)
    assert list(encoder.texts) == ["text"] and rows.shape[1] == 1 + 2 + 6
    some = np.arange(60) != 5
    assert LogisticRegression().fit(rows[some, 3:], y[some]).score(rows[some, 3:], y[some]) == 1.0


def test_a_second_clean_sample_is_learned_from_and_not_listed(digits):
    X, labels, is_wrong = digits
    more, right = load_digits(return_X_y=True)
    found = find_label_issues(X, labels, clean=(more[600:900], right[600:900]), model=LEARNER, n_repeats=1, random_state=0)
    assert len(found) == 600 and quality(found, is_wrong) > 0.97


def test_classes_of_one_row_count_as_right():
    X, labels = np.random.default_rng(0).normal(size=(40, 2)), np.repeat([0, 1], 20)
    labels[3] = 7
    with pytest.warns(UserWarning, match="Classes of one row"):
        found = find_label_issues(X, labels, model=GaussianNB(), random_state=0)
    assert found.set_index("row").score[3] == 0.0


def test_a_class_of_one_group_counts_as_right():
    X, labels = np.random.default_rng(0).normal(size=(60, 2)), np.repeat([0, 1, 2], 20)
    groups = np.where(labels == 2, 0, 1 + np.arange(60) // 4)
    with pytest.warns(UserWarning, match=r"Classes of one row, or whose rows are one group or copies, can't be judged.*\[2\]"):
        found = find_label_issues(X, labels, groups=groups, model=GaussianNB(), n_repeats=1, random_state=0)
    assert (found.score[found.given_label == 2] == 0.0).all()


ROWS = np.random.default_rng(0).normal(size=(20, 2))
TWO = np.repeat([0, 1], 10)
FRAME = pd.DataFrame(ROWS, columns=["a", "b"])
BAD = {
    "one class": (lambda: find_label_issues(ROWS, np.zeros(20, int)), "one class alone"),
    "missing": (lambda: find_label_issues(ROWS, [None, *TWO[1:]]), "first is row 0"),
    "sets": (lambda: find_label_issues(ROWS, [{"a"}, {"a", "b"}] * 10), "Rows of labels have several labels, such as .*MultiLabel"),
    "lists": (lambda: NoisyLabelClassifier().fit(ROWS, [["a"], ["a", "b"]] * 10), r"Rows of y have several labels, such as .'a'."),
    "one column": (lambda: find_label_issues(ROWS, [["a"], ["b"]] * 10), r"One column of them is y\[:, 0\]"),
    "mixed": (lambda: find_label_issues(ROWS, np.array(["a", *TWO[1:].tolist()], dtype=object)), "mix text and numbers"),
    "more classes than rows": (lambda: find_label_issues(ROWS, np.arange(20)), "has one row"),
    "classes as groups": (lambda: find_label_issues(ROWS, TWO, groups=TWO), "All rows of each class are one group"),
    "lengths": (lambda: find_label_issues(ROWS, TWO[:-1].tolist()), "20 rows and there are 19 labels"),
    "clean class": (lambda: find_label_issues(ROWS, TWO, clean=(ROWS, TWO + 1)), "which labels lack"),
    "clean rows": (lambda: find_label_issues(ROWS, TWO, clean=[25]), "row numbers from 0 to 19"),
    "images": (lambda: find_label_issues([np.ones((1, 4, 4)), np.ones((1, 5, 5))] * 10, TWO, model=network), "one size first"),
    "text": (lambda: find_label_issues(["a b", "c d"] * 10, TWO, model=LogisticRegression()), "encoder="),
    "repeats": (lambda: find_label_issues(ROWS, TWO, n_repeats=0), "n_repeats must be an int >= 1"),
    "model": (lambda: find_label_issues(ROWS, TWO, model=3), "must be a scikit-learn classifier"),
    "proba": (lambda: label_issues_from_probabilities(TWO, np.full((20, 3), 1 / 3)), r"\(20, 2\)"),
    "class": (lambda: find_label_issues(ROWS, TWO, model=LogisticRegression), r"pass an instance of it, model=Log"),
    "network": (lambda: find_label_issues(ROWS, TWO, model=torch.nn.Linear(2, 2)), r"-> nn.Module; got Linear\(in_features=2"),
    "arguments": (lambda: find_label_issues(ROWS, TWO, model=lambda n: None), r"-> nn.Module; model\(2, 2\): "),
    "encoder": (lambda: find_label_issues(["a b"] * 20, TWO, encoder=LogisticRegression), "pass an instance of it, encoder=Log"),
    "data set": (lambda: find_label_issues(TensorDataset(torch.tensor(ROWS), torch.tensor(TWO)), TWO), "X is a TensorDataset"),
    "files": (lambda: find_label_issues(["a/1.png", "b/2.JPG"] * 10, TWO), "X holds names of image files, such as 'a/1.png'"),
    "NaN in texts": (lambda: find_label_issues(ROWS, ["a", np.nan, *"ab" * 9]), "1 have none, the first is row 1"),
    "NaN in a column": (
        lambda: find_label_issues(ROWS, pd.DataFrame({"t": TWO, "u": [None, *"ab" * 9, "a"]}), model=3),
        "column 'u' of labels must hold a label for each row; 1 have none",
    ),
    "name of groups": (lambda: find_label_issues(ROWS, TWO, groups="zip"), r"pass the groups \(n,\) themselves, X\['zip'\][.]$"),
    "other names": (
        lambda: label_issues_from_probabilities(TWO, pd.DataFrame(np.full((20, 2), 0.5), columns=["a", "b"])),
        r"proba has the columns \['a', 'b'\], and the classes are \[0, 1\]",
    ),
    "lazy": (lambda: label_issues_from_probabilities(TWO, pl.LazyFrame({"0": [0.5] * 20})), r"pass its rows, X.collect\(\)"),
    "one probability": (lambda: label_issues_from_probabilities(TWO, np.full(20, 0.5)), r"numpy.column_stack\(\[1 - p, p\]\)"),
    "predictions": (lambda: label_issues_from_probabilities(TWO, list("ab" * 10)), "proba must be probabilities .*; got 'a'"),
    "groups": (lambda: label_issues_from_probabilities(TWO, np.full((20, 2), 0.5), groups=TWO), "Hold out whole groups: cross_val"),
    "tokens": (
        lambda: label_issues_from_probabilities([[0, 1], [1]], [np.full((2, 2), 0.5)] * 2),
        r"Sequence 1 has 1 labels and probabilities of shape \(2, 2\): pass \(tokens, K\) for each sequence, without padding",
    ),
    "sequences": (
        lambda: label_issues_from_probabilities([[0, 1], [1]], [np.full((2, 2), 0.5)]),
        "There are 2 sequences of labels and 1 of probabilities",
    ),
    "sums": (lambda: label_issues_from_probabilities(TWO, np.ones((20, 2))), "sum to 1"),
    "second deal": (
        lambda: label_issues_from_probabilities(TWO, [np.full((20, 2), 0.5), np.full((20, 2), [0.5, 0.6])]),
        "20 rows do not, the first is row 0",
    ),
    "zeros and ones": (lambda: label_issues_from_probabilities(TWO, np.eye(2)[TWO], clean=TWO), "pass a mask, np.asarray"),
    "no mask": (lambda: NoisyLabelClassifier().fit(ROWS, TWO, clean=TWO), "clean holds 20 zeros and ones"),
    "one-hot": (lambda: label_issues_from_probabilities(np.eye(2)[TWO], np.eye(2)[TWO]), r"become labels by y.argmax\(axis=1\)"),
    "a frame": (lambda: label_issues_from_probabilities(pd.DataFrame(TWO), np.eye(2)[TWO]), r"is y.iloc\[:, 0\]"),
    "a vote": (lambda: find_label_issues(ROWS, TWO, model=SVC()), r"CalibratedClassifierCV\(SVC\(\)\)"),
    "fewer labels": (lambda: label_issues_from_probabilities(TWO[:-1], np.eye(2)[TWO]), r"got shape \(20, 2\)\.$"),
    "infinite": (
        lambda: find_label_issues(FRAME, TWO, clean=(FRAME.assign(b=np.inf), TWO), model=LogisticRegression()),
        "Column 'b' of the table clean is infinite in row 0",
    ),
    "text beside numbers": (
        lambda: find_label_issues(FRAME, TWO, clean=(FRAME.assign(b=["no"] * 20), TWO), model=LogisticRegression()),
        r"clean\['b'\] = pandas.to_numeric\(.*, or leave it out\.$",
    ),
    "no deal": (lambda: label_issues_from_probabilities(TWO, np.empty((0, 20, 2))), r"several of these; got shape \(0, 20, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_with_what_to_do(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("made", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "Arrow"])
def test_columns_of_probabilities_that_are_named_after_the_classes_may_have_any_order(made):
    proba = np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], 60)
    labels = np.array(["c", "a", "b"])[proba.argmax(axis=1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, expected = (
            label_issues_from_probabilities(labels, columns)
            for columns in (made(dict(zip("cab", proba.T, strict=True))), proba[:, [1, 2, 0]])
        )
    pd.testing.assert_frame_equal(found, expected)


@settings(max_examples=20)
@given(order=st.permutations(range(4)), seed=st.integers(0, 99))
def test_columns_of_probabilities_in_the_order_of_other_classes_are_told_at_the_line_of_the_call(order, seed):
    noisy, _, labels, _, _ = drawn(300, 4, 0.1, seed)
    kept = np.arange(4) == np.array(order)
    frames = (labels, noisy[:, order]), ([labels.tolist()], [noisy[:, order]])
    for call in frames:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            label_issues_from_probabilities(*call)
        told = [each for each in caught if "likeliest class is the given label" in str(each.message)]
        # Where two classes keep their columns, chance decides.
        assert kept.sum() == 2 or len(told) == (kept.sum() < 2)
        assert all(each.filename == __file__ for each in caught)
        assert all(f"stood for the classes {list(order)}, not [0, 1, 2, 3]" in str(each.message) for each in told)


def test_probabilities_may_be_rounded_below_0():
    noisy, _, labels, _, _ = drawn(300, 3, 0.1, 0)
    rounded = np.where(noisy < 1e-12, -1e-12, noisy)
    pd.testing.assert_frame_equal(*(label_issues_from_probabilities(labels, each) for each in (np.maximum(rounded, 0.0), rounded)))
    with pytest.raises(ValueError, match="1 rows do not"):
        label_issues_from_probabilities(labels, np.vstack([noisy[1:], [[-1e-3, 1e-3, 1.0]]]))


def test_warnings_about_columns_of_labels_point_to_the_call():
    X, labels = np.random.default_rng(0).normal(size=(60, 2)), np.random.default_rng(1).integers(2, size=(60, 2))
    with pytest.warns(UserWarning, match="labels can be wrong") as told:
        find_label_issues(X, labels, model=GaussianNB(), n_repeats=1)
    assert {each.filename for each in told} == {__file__}


def test_classes_that_differ_in_case_or_spaces_are_told():
    X, labels = np.random.default_rng(0).normal(size=(60, 2)), np.array(["up", "Up ", "down"] * 20)
    for call in (
        lambda: find_label_issues(X, labels, model=GaussianNB(), n_repeats=1),
        lambda: label_issues_from_probabilities(labels, np.full((60, 3), 1 / 3)),
        lambda: NoisyLabelClassifier("uniform", model=torch.nn.Linear, max_iter=1).fit(X, labels),
    ):
        with pytest.warns(UserWarning, match="Labels have the classes 'Up ', 'up', which differ only in case or spaces"):
            call()


def test_one_hot_labels_are_told():
    X, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 3
    with pytest.warns(UserWarning, match=r"exactly one 1, as one-hot classes do, .*labels.argmax\(axis=1\)"):
        find_label_issues(X, np.eye(3, dtype=int)[labels], model=GaussianNB(), n_repeats=1)


@given(score=arrays(float, st.integers(1, 60), elements=st.floats(0.0, 1.0) | st.floats(0.0, 0.15)))
def test_as_many_rows_are_issues_as_the_scores_sum_to_but_none_that_is_hardly_doubted(score):
    frame = issue_frame(np.zeros(len(score), int), np.zeros(len(score), int), score)
    n_issues, is_likely = frame.attrs["n_issues"], frame.score >= 0.1
    assert n_issues == round(score.sum()) and frame.is_issue.sum() == min(n_issues, is_likely.sum())
    assert (
        not (frame.is_issue & ~is_likely).any() and frame.is_issue.is_monotonic_decreasing and frame.score.is_monotonic_decreasing
    )


def test_gaps_are_told_or_learned_from():
    X = ROWS.copy()
    X[0, 0] = np.nan
    assert len(find_label_issues(X, TWO, random_state=0)) == 20


def test_columns_of_one_unit_keep_their_sizes_to_each_other_and_have_no_unit_together():
    pytest.importorskip("torch")
    from densratio.labels.mean_network import MeanNetwork

    samples = [(ROWS * [1.0, 100.0]).astype(np.float32), (ROWS * [4.0, 400.0] + 8.0).astype(np.float32)]
    scaled = [MeanNetwork(one_unit=True, random_state=1).fit(x, TWO).scale_(x) for x in samples]
    np.testing.assert_allclose(scaled[0], scaled[1], atol=1e-5)
    np.testing.assert_allclose(np.divide(*scaled[0].std(axis=0)), np.divide(*samples[0].std(axis=0)), rtol=1e-5)
