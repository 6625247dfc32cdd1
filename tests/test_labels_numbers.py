"""Label issues of numbers and of several labels: scores are the exact probabilities of a drawn mixture."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import HuberRegressor, LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC

from densratio import find_label_issues
from densratio.labels.numbers import NumberModel, as_targets

WINES = load_wine().data
REAL = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "proline": lambda: (WINES[:, :-1], WINES[:, -1].copy()),
}
COLUMNS = ["row", "given_label", "suggested_label", "score", "is_issue"]


def drawn(n, share, seed):
    """Signals, spreads, targets of which some are of another row, which are, and the exact probability of that."""
    rng = np.random.default_rng(seed)
    signal, spread = rng.normal(0.0, 2.0, n), rng.uniform(0.3, 0.8, n)
    targets = signal + spread * rng.normal(size=n)
    is_wrong = rng.random(n) < share
    targets = np.where(is_wrong, rng.permutation(targets), targets)
    of_any = np.mean([norm.pdf(targets, 0.0, np.hypot(2.0, s)) for s in np.linspace(0.3, 0.8, 51)], axis=0)
    exact = share * of_any / (share * of_any + (1.0 - share) * norm.pdf(targets, signal, spread))
    return signal, spread, targets, is_wrong, exact


def wrong_numbers(targets, predicted, spread, is_clean):
    return NumberModel(targets, predicted, spread, is_clean).scores()


@given(share=st.floats(0.01, 0.45), seed=st.integers(0, 999))
@settings(max_examples=4, deadline=None)
def test_scores_of_numbers_are_the_exact_probabilities(share, seed):
    signal, spread, targets, _, exact = drawn(2000, share, seed)
    found = wrong_numbers(targets, signal, spread, np.zeros(2000, dtype=bool))
    # The share and the tails are estimated from 2000 rows: four standard deviations of the first.
    assert np.abs(found - exact).mean() < 0.01 + 4 * (share * (1 - share) / 2000) ** 0.5
    assert abs(found.sum() - exact.sum()) < 20 + 4 * (2000 * share * (1 - share)) ** 0.5


def test_units_of_the_targets_change_no_score():
    signal, spread, targets, _, _ = drawn(400, 0.2, 1)
    found = [wrong_numbers(u * targets, u * signal, u * spread, np.zeros(400, dtype=bool)) for u in (1.0, 2.0**20, 2.0**-20)]
    np.testing.assert_allclose(found[1:], [found[0]] * 2, atol=1e-6)


@given(tail=st.floats(2.5, 30.0), lean=st.floats(-1.0, 1.0), seed=st.integers(0, 999))
@settings(max_examples=6, deadline=None)
def test_broad_leaning_and_uneven_errors_are_no_evidence_of_wrong_numbers(tail, lean, seed):
    rng = np.random.default_rng(seed)
    signal, spread = rng.normal(size=500), rng.uniform(0.2, 2.0, 500)
    error = rng.standard_t(tail, size=500)
    targets = signal + spread * error * np.where(error > 0, np.exp(0.5 * lean), np.exp(-0.5 * lean))
    assert wrong_numbers(targets, signal, spread, np.zeros(500, dtype=bool)).sum() < 10  # 2 % of the rows


def test_rows_have_no_order():
    signal, spread, targets, _, _ = drawn(300, 0.2, 2)
    order, none = np.random.default_rng(0).permutation(300), np.zeros(300, dtype=bool)
    mixed = wrong_numbers(targets[order], signal[order], spread[order], none)
    np.testing.assert_allclose(mixed, wrong_numbers(targets, signal, spread, none)[order], atol=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.1, 0.25, 0.4])
def test_the_limits_hold_the_number_of_wrong_ones_and_little_more(share):
    signal, spread, targets, is_wrong, _ = drawn(400, share, 7)
    model = NumberModel(targets, signal, spread, np.zeros(400, dtype=bool))
    least, most = model.limits()
    assert least - 1 <= is_wrong.sum() <= most + 1 and least - 1 <= model.scores().sum() <= most + 1
    # Of 400 rows 2.4 in log-likelihood: 2.2 standard errors, each less than twice that of a share that is seen.
    assert most - least < 2 * 2.2 * 2 * (400 * max(share, 0.01) * (1 - share)) ** 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_the_limits_are_wider_than_those_of_the_exact_densities_but_not_twice_as_wide(seed):
    """Of the exact densities the share alone is unknown."""
    signal, spread, targets, _, _ = drawn(400, 0.2, seed)
    of_any = np.mean([norm.pdf(targets, 0.0, np.hypot(2.0, s)) for s in np.linspace(0.3, 0.8, 51)], axis=0)
    shares = np.linspace(0.01, 0.6, 500)
    right, wrong = np.outer(1 - shares, norm.pdf(targets, signal, spread)), np.outer(shares, of_any)
    likelihood, scores = np.log(right + wrong).sum(axis=1), wrong / (right + wrong)
    is_likely, best = likelihood > likelihood.max() - 1.35 * (1 + 400 / 500), scores[likelihood.argmax()]
    number, numbers = best.sum(), scores.sum(axis=1)[is_likely]
    off = np.hypot(np.abs(numbers[[0, -1]] - number), 1.645 * (best * (1 - best)).sum() ** 0.5)
    least, most = NumberModel(targets, signal, spread, np.zeros(400, dtype=bool)).limits()
    assert least < number - off[0] + 5 and most > number + off[1] - 5 and off.sum() < most - least < 2 * off.sum()


def test_what_rows_say_nothing_of_can_be_wrong_or_not():
    rng = np.random.default_rng(0)
    model = NumberModel(rng.normal(size=300), np.zeros(300), np.ones(300), np.zeros(300, dtype=bool))
    least, most = model.limits()
    assert least < 3 and most > 90 and model.scores().sum() < 3


def test_numbers_known_to_be_right_are_not_counted():
    signal, spread, targets, is_wrong, _ = drawn(400, 0.2, 5)
    is_clean = ~is_wrong & (np.arange(400) % 4 > 0)
    least, most = NumberModel(targets, signal, spread, is_clean).limits()
    assert least <= is_wrong.sum() <= most <= (~is_clean).sum()


@pytest.mark.parametrize("name", ["diabetes", "proline"])
def test_right_numbers_of_real_tables_are_let_alone_and_one_that_can_not_be_is_found(name):
    X, y = REAL[name]()
    assert find_label_issues(X, y, kind="numbers", n_repeats=1, random_state=0).is_issue.sum() <= 3
    y[7] = y.max() + 1.8 * np.ptp(y)
    found = find_label_issues(X, y, kind="numbers", n_repeats=1, random_state=0)
    assert found.row[0] == 7 and found.score[0] > 0.9 and found.is_issue.sum() <= 3


def regression(n, share, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    signal = X @ np.array([2.0, 1.0, -1.0, 0.0])
    y = signal + rng.normal(size=n) / 2
    is_wrong = rng.random(n) < share
    return X, signal, np.where(is_wrong, rng.permutation(y), y), is_wrong


def test_wrong_numbers_of_a_table_are_found_as_by_the_true_signal():
    X, signal, y, is_wrong = regression(1000, 0.15, 0)
    issues = find_label_issues(X, y, model=HuberRegressor(), n_repeats=1, random_state=0)
    assert list(issues.columns) == COLUMNS and issues.score.is_monotonic_decreasing
    assert issues.attrs["n_issues"] == issues.is_issue.sum() == round(issues.score.sum())
    least, most = issues.attrs["n_issues_interval"]
    assert least < is_wrong.sum() < most and least < issues.attrs["n_issues"] < most
    assert np.array_equal(issues.given_label, y[issues.row])
    score = issues.sort_values("row").score.to_numpy()
    by_truth = wrong_numbers(y, signal, np.full(1000, 0.5), np.zeros(1000, dtype=bool))
    assert average_precision_score(is_wrong, score) > average_precision_score(is_wrong, by_truth) - 0.03
    assert abs(score.sum() - by_truth.sum()) < 0.25 * by_truth.sum()


def test_suggested_numbers_are_means_over_folds_dealt_anew():
    X, _, y, _ = regression(60, 0.1, 3)
    several, *each = (
        find_label_issues(X, y, model=LinearRegression(), n_repeats=n_repeats, random_state=seed).sort_values("row")
        for n_repeats, seed in [(2, 7), (1, 7), (1, 8)]
    )
    np.testing.assert_allclose(several.suggested_label, np.mean([one.suggested_label for one in each], axis=0))


def test_clean_numbers_have_a_score_of_0_and_groups_are_held_out_whole():
    X, _, y, _ = regression(200, 0.2, 1)
    twice = np.repeat(np.arange(100), 2)
    issues = find_label_issues(X, y, model=LinearRegression(), clean=[3, 5], groups=twice, n_repeats=2, random_state=0)
    assert issues[issues.row.isin([3, 5])].score.eq(0.0).all() and not issues[issues.row.isin([3, 5])].is_issue.any()


def test_whole_numbers_are_numbers_where_that_is_said():
    X, _, y, _ = regression(300, 0.1, 2)
    issues = find_label_issues(X, np.round(10 * y), kind="numbers", model=LinearRegression(), n_repeats=1, random_state=0)
    assert issues.suggested_label.dtype == float and "transition" not in issues.attrs


@pytest.mark.parametrize(("spelled", "are_numbers"), [("{}", 1), ("{}.5", 1), ("0{}", 0), ("{}_1", 0), ("n{}", 0)])
@pytest.mark.parametrize("kind", [str, object])
def test_labels_that_are_codes_are_classes(spelled, are_numbers, kind):
    labels = np.array([spelled.format(number) for number in range(60)], dtype=kind)
    assert (as_targets(labels, "auto") is not None) == are_numbers


@pytest.mark.parametrize("as_labels", [np.asarray, lambda Y: pd.DataFrame(Y, columns=["cat", "dog"])])
def test_each_of_several_labels_is_listed_by_itself(as_labels):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    Y = (X[:, :2] > 0).astype(int)
    wrong = rng.random(Y.shape) < 0.1
    Y ^= wrong
    issues = find_label_issues(X, as_labels(Y), model=LogisticRegression(), n_repeats=1, random_state=0)
    assert list(issues.columns) == ["row", "column", *COLUMNS[1:]] and issues.score.is_monotonic_decreasing
    names = ["cat", "dog"] if as_labels is not np.asarray else [0, 1]
    for k, name in enumerate(names):
        alone = find_label_issues(X, Y[:, k], model=LogisticRegression(), n_repeats=1, random_state=0)
        own = issues[issues.column == name].drop(columns="column").reset_index(drop=True)
        pd.testing.assert_frame_equal(own.sort_values("row", ignore_index=True), alone.sort_values("row", ignore_index=True))
    assert issues.attrs["n_issues"] == issues.is_issue.sum()


ROWS = np.random.default_rng(0).normal(size=(20, 2))
BAD = {
    "kind": (lambda: find_label_issues(ROWS, ROWS[:, 0], kind="ranks"), 'kind must be "auto", "classes" or "numbers"'),
    "text": (lambda: find_label_issues(ROWS, ["a"] * 20, kind="numbers"), "Labels of the kind numbers must be numbers"),
    "codes": (lambda: find_label_issues(ROWS, ["10_2", "3"] * 10, kind="numbers"), "some are texts or codes, such as '10_2'"),
    "fractions": (lambda: find_label_issues(ROWS, ROWS[:, 0], kind="classes"), "fractions, and classes are needed"),
    "infinite": (lambda: find_label_issues(ROWS, [np.inf, *ROWS[1:, 0]]), "labels must be finite; row 0 is not"),
    "equal": (lambda: find_label_issues(ROWS, np.full(20, 0.5)), "All targets are equal"),
    "model": (lambda: find_label_issues(ROWS, ROWS[:, 0], model="trees"), "model must be a scikit-learn regressor for numbers"),
    "classifier": (lambda: find_label_issues(ROWS, ROWS[:, 0], model=LogisticRegression()), "is a classifier: pass a regressor"),
    "margins": (lambda: find_label_issues(ROWS, ROWS[:, 0], model=LinearSVC()), r"LinearSVC\(\) is a classifier: pass a regressor"),
    "search": (
        lambda: find_label_issues(ROWS, ROWS[:, 0], model=GridSearchCV(LinearSVC(), {"C": [1.0]})),
        'is a classifier: pass a regressor, or say that each number is a class, kind="classes"',
    ),
    "regressor": (
        lambda: find_label_issues(ROWS, [0, 1] * 10, model=Ridge()),
        r"model=Ridge\(\) is a regressor: pass a classifier, or say that they are numbers, kind=\"numbers\"",
    ),
    "rows": (lambda: find_label_issues(ROWS, ROWS[:9, 0]), "X has 20 rows and there are 9 labels"),
    "clean": (lambda: find_label_issues(ROWS, np.eye(20)[:, :2], clean=(ROWS, ROWS)), "clean must be row numbers or a mask"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_says_what_to_do(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
