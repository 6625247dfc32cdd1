"""StackedRatio: the least-squares combination of its members, from their values at rows that they did not see."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from densratio import KLIEP, KMM, LSIF, GaussianRatio, KDERatio, NearestNeighborsRatio, StackedRatio, stack_domains
from densratio.datasets import make_gaussian_shift
from densratio.estimators.stacked.members import members_for
from densratio.model_selection import stratified_folds

MEMBERS = {"gaussian": GaussianRatio(), "kde": KDERatio(), "constant": KMM(gamma=1e-9)}


def table(seed=0, n=80, m=60, d=2):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 1.0, (n, d)), rng.normal(0.6, 0.8, (m, d))


def brute_force(source, target, members, pull, cv=5):
    """The definition: rows in lexicographic order, members refitted on each fold, and a solver of its own."""
    source, target = (rows[np.lexsort(rows.T[::-1])] for rows in (source, target))
    at_source, at_target = np.empty((len(source), len(members))), np.empty((len(target), len(members)))
    for fold in stratified_folds(len(source), len(target), cv):
        kept = fold.rest(len(source), len(target))
        for k, member in enumerate(members):
            fitted = clone(member).fit(*stack_domains(source[kept[0]], target[kept[1]]))
            at_source[fold.source, k] = fitted.transform(source[fold.source])
            at_target[fold.target, k] = fitted.transform(target[fold.target])
    second, linear = at_source.T @ at_source / len(source), at_target.mean(axis=0)
    scores = linear - 0.5 * np.diag(second)
    likelihoods = np.log(np.clip(at_target, 0.01, 100.0)).mean(axis=0) - np.log(np.maximum(at_source.mean(axis=0), 1.0))
    best = np.argmax(likelihoods)
    strength = pull * np.diag(np.diag(second))
    root = np.linalg.cholesky(second + strength)
    left_out = np.eye(len(members))[(likelihoods <= 0.0) & (likelihoods < likelihoods[best])] * 1e6
    rows, wanted = [root.T, left_out], [np.linalg.solve(root, linear + strength[best]), np.zeros(len(left_out))]
    return scipy.optimize.nnls(np.concatenate(rows), np.concatenate(wanted))[0], scores, list(MEMBERS)[best]


@pytest.mark.parametrize("pull", [0.05, 1.0])
@given(seed=st.integers(0, 99))
def test_the_coefficients_are_the_least_squares_ones_of_out_of_fold_ratios(pull, seed):
    source, target = table(seed)
    stack = StackedRatio(MEMBERS, pull=pull).fit(*stack_domains(source, target))
    coef, scores, _ = brute_force(source, target, list(MEMBERS.values()), pull)
    np.testing.assert_allclose(list(stack.coefficients_.values()), coef, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose([stack.scores_[name] for name in MEMBERS], scores, rtol=1e-9)


def test_the_ratio_is_the_combination_of_the_members_refitted_on_all_rows():
    source, target = table()
    X, y = stack_domains(source, target)
    stack = StackedRatio(MEMBERS).fit(X, y)
    assert set(stack.estimators_) == {name for name, coef in stack.coefficients_.items() if coef > 0.0}
    expected = sum(stack.coefficients_[name] * clone(MEMBERS[name]).fit(X, y).transform(X) for name in stack.estimators_)
    np.testing.assert_allclose(stack.transform(X), expected / expected[y == 0].mean(), rtol=1e-9)
    np.testing.assert_allclose(stack.weights_, stack.transform(source), rtol=1e-9)


def test_a_strong_pull_leaves_the_likeliest_member_alone():
    source, target = table()
    stack = StackedRatio(MEMBERS, pull=1e6).fit(*stack_domains(source, target))
    best = brute_force(source, target, list(MEMBERS.values()), 1e6)[2]
    assert stack.coefficients_[best] == pytest.approx(1.0, abs=1e-4)
    assert max(coef for name, coef in stack.coefficients_.items() if name != best) < 1e-4


class _Wild(GaussianRatio):
    """A member whose ratio at a row has nothing to do with it, and is out of all bounds."""

    def transform(self, X):
        return np.exp(200.0 * np.sin(1e3 * np.asarray(X)[:, 0]))


def test_a_member_out_of_all_bounds_changes_nothing():
    X, y = stack_domains(*table())
    alone, beside = (StackedRatio(members).fit(X, y) for members in (MEMBERS, {"wild": _Wild()} | MEMBERS))
    assert beside.coefficients_ == pytest.approx(alone.coefficients_ | {"wild": 0.0}, rel=1e-9)
    np.testing.assert_allclose(beside.weights_, alone.weights_, rtol=1e-9)


def test_the_rows_have_no_order_and_copies_are_counts():
    source, target = table(n=40, m=30)
    X, y = stack_domains(source, target)
    order = np.random.default_rng(1).permutation(len(y))
    plain, shuffled = (StackedRatio(MEMBERS).fit(X[at], y[at]) for at in (np.arange(len(y)), order))
    places = np.cumsum(y == 0) - 1
    np.testing.assert_allclose(shuffled.weights_, plain.weights_[places[order[y[order] == 0]]], rtol=1e-9)
    counts = np.random.default_rng(2).integers(1, 4, len(y))
    weighted = StackedRatio(MEMBERS).fit(X, y, sample_weight=counts)
    copied = StackedRatio(MEMBERS).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(np.repeat(weighted.weights_, counts[y == 0]), copied.weights_, rtol=1e-6)


def test_the_members_fit_the_size_of_the_table():
    small, long = (members_for(n, n, 3, is_sparse=False, seed=0) for n in (250, 10**6))
    assert set(long) < set(small)
    assert "kmm" in small and "kmm" not in long
    assert "subspace" in members_for(250, 250, 20, is_sparse=False, seed=0)


def test_it_is_about_as_good_as_its_best_member_on_a_known_ratio():
    shift = make_gaussian_shift(400, 300, n_columns=2, random_state=3)
    names = ("gaussian", "nearest_neighbors", "kliep", "ulsif")
    members = {
        "gaussian": GaussianRatio(), "nearest_neighbors": NearestNeighborsRatio(), "kliep": KLIEP(random_state=0),
        "ulsif": LSIF(nonnegative=False, random_state=0),
    }  # fmt: skip
    truth = shift.ratio(shift.X_source)

    def error(ratio):
        return np.mean((ratio.weights_ - truth / truth.mean()) ** 2)

    found = error(StackedRatio(members).fit(shift.X, shift.y))
    alone = {name: error(clone(members[name]).fit(shift.X, shift.y)) for name in names}
    assert found < 1.5 * min(alone.values()) + 0.01
    assert found < np.median(list(alone.values()))


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ("all", 'estimators must be "auto"'),
        ([], "estimators is empty"),
        ([KMM], "must be an unfitted density ratio"),
        ({"mine": 3}, "Member 'mine' must be an unfitted density ratio"),
    ],
)
def test_estimators_that_are_none_are_told(estimators, message):
    with pytest.raises(ValueError, match=message):
        StackedRatio(estimators).fit(*stack_domains(*table()))


def test_a_single_row_of_a_domain_leaves_nothing_to_choose_by():
    source, target = table(n=1)
    stack = StackedRatio().fit(*stack_domains(source, target))
    assert set(stack.coefficients_.values()) == {0.5}
    assert stack.weights_ == pytest.approx(1.0)
    assert StackedRatio().fit(*stack_domains(*table(n=6, m=5))).weights_.mean() == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "value"), [("cv", 1), ("pull", -1.0), ("pull", float("nan"))])
def test_parameters_out_of_range_are_told(name, value):
    with pytest.raises(ValueError, match=name):
        StackedRatio(MEMBERS, **{name: value}).fit(*stack_domains(*table()))


def test_two_members_of_a_kind_get_names_of_their_own():
    stack = StackedRatio([KLIEP(gamma=0.1), KLIEP(gamma=1.0), ("mine", GaussianRatio())])
    assert list(stack.fit(*stack_domains(*table())).coefficients_) == ["kliep_1", "kliep_2", "mine"]
