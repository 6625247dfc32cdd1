"""StackedRatio: the likeliest combination of its members, from their values at rows that they did not see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, sem
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from zoo_cases import sorted_rows

from densratio import KLIEP, KMM, LSIF, GaussianRatio, KDERatio, NearestNeighborsRatio, StackedRatio, stack_domains
from densratio.datasets import make_gaussian_shift, make_mixture_shift
from densratio.diagnostics.remedies import describe
from densratio.estimators.stacked.combination import Held, combined
from densratio.estimators.stacked.members import members_for
from densratio.model_selection import stratified_folds

MEMBERS = {"gaussian": GaussianRatio(), "kde": KDERatio(), "constant": KMM(gamma=1e-9)}


def table(seed=0, n=80, m=60, d=2):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 1.0, (n, d)), rng.normal(0.6, 0.8, (m, d))


def out_of_fold(source, target, members, cv=5):
    """The definition: rows in the order of estimators, and members refitted on each fold."""
    source, target = map(sorted_rows, (source, target))
    at_source, at_target = np.empty((len(source), len(members))), np.empty((len(target), len(members)))
    for fold in stratified_folds(len(source), len(target), cv):
        kept = fold.rest(len(source), len(target))
        for k, member in enumerate(members):
            fitted = clone(member).fit(*stack_domains(source[kept[0]], target[kept[1]]))
            at_source[fold.source, k] = fitted.transform(source[fold.source])
            at_target[fold.target, k] = fitted.transform(target[fold.target])
    return at_source, at_target


@settings(max_examples=5)
@given(seed=st.integers(0, 99))
def test_a_mixture_of_all_members_maximizes_the_likelihood_of_out_of_fold_ratios(seed):
    source, target = table(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("densratio.estimators.stacked.combination._FEW", 0.0)
        stack = StackedRatio(MEMBERS, pull=0.0).fit(*stack_domains(source, target))
    at_source, at_target = out_of_fold(source, target, list(MEMBERS.values()))
    level = np.maximum(at_source.mean(axis=0), 1.0)
    relative = np.clip(at_target / level, 0.01, 100.0)
    shares = np.array(list(stack.coefficients_.values())) * level
    assert shares.sum() == pytest.approx(1.0) and shares.min() >= 0.0
    likelihood = np.log(relative).mean(axis=0)
    kept = (likelihood > 0.0) | (likelihood == likelihood.max())
    assert not shares[~kept].any()
    # The slope towards any member bounds what the concave likelihood could still gain.
    assert np.mean(relative / (relative @ shares)[:, None], axis=0)[kept].max() < 1.0 + 2e-3
    scores = at_target.mean(axis=0) - 0.5 * (at_source**2).mean(axis=0)
    np.testing.assert_allclose([stack.scores_[name] for name in MEMBERS], scores, rtol=1e-9)


def two_shapes(seed, expected, share, n=2000):
    """Held-out ratios of members to a uniform source: each expects these shares of two shapes of target rows."""
    rng, shapes = np.random.default_rng(seed), [(2, 6), (6, 2)]
    first = round(share * n)
    target = np.concatenate([rng.beta(*shapes[0], first), rng.beta(*shapes[1], n - first)])
    ratios = [np.stack([beta.pdf(x, *shape) for shape in shapes], axis=1) @ np.transpose(expected) for x in (rng.random(n), target)]
    return Held(*ratios, np.ones(n), np.ones(n))


def halves(held):
    return [Held(*(part[k::2] for part in held)) for k in (0, 1)]


@given(seed=st.integers(0, 99))
def test_members_get_the_shares_of_rows_that_they_account_for(seed):
    held = two_shapes(seed, [[0.5, 0.5], [0.15, 0.85], [0.42, 0.58]], share=0.3)
    coef = combined(halves(held), 0.0, np.zeros(3, dtype=bool))[0]
    shares = coef * np.maximum(held.source.mean(axis=0), 1.0)
    assert shares @ [0.5, 0.15, 0.42] == pytest.approx(0.3, abs=0.05)
    owned = coef * np.sum(held.target / (held.target @ coef)[:, None], axis=0)
    kept = shares > 0.0
    np.testing.assert_allclose((owned - 2.0)[kept] / np.sum((owned - 2.0)[kept]), shares[kept], atol=5e-3)


def test_the_ratio_is_the_combination_of_the_members_refitted_on_all_rows():
    source, target = table()
    X, y = stack_domains(source, target)
    stack = StackedRatio(MEMBERS).fit(X, y)
    assert set(stack.estimators_) == {name for name, coef in stack.coefficients_.items() if coef > 0.0}
    expected = sum(stack.coefficients_[name] * clone(MEMBERS[name]).fit(X, y).transform(X) for name in stack.estimators_)
    np.testing.assert_allclose(stack.transform(X), expected / expected[y == 0].mean(), rtol=1e-9)
    np.testing.assert_allclose(stack.weights_, stack.transform(source), rtol=1e-9)


@given(pull=st.floats(0.0, 1.0))
def test_the_stack_lies_between_the_mixture_and_the_likeliest_member(pull):
    held = halves(two_shapes(0, [[0.5, 0.5], [0.15, 0.85]], share=0.25))
    mixture, between, alone = (combined(held, value, np.zeros(2, dtype=bool))[0] for value in (0.0, pull, 1.0))
    np.testing.assert_allclose(between, (1.0 - pull) * mixture + pull * alone)
    assert np.count_nonzero(alone) == 1 and mixture.all()


def test_gaussians_that_fit_stand_alone_and_others_do_not():
    members = {"gaussian": GaussianRatio(), "kliep": KLIEP(random_state=0)}
    fits, differs = (make(120, 120, 1, random_state=0) for make in (make_gaussian_shift, make_mixture_shift))
    assert list(StackedRatio(members).fit(fits.X, fits.y).estimators_) == ["gaussian"]
    assert "kliep" in StackedRatio(members).fit(differs.X, differs.y).estimators_


@given(seed=st.integers(0, 99), expected=st.sampled_from([0.15, 0.27, 0.33, 0.45]))
def test_a_simple_member_stands_alone_within_a_standard_error_of_the_likeliest(seed, expected):
    held = two_shapes(seed, [[0.3, 0.7], [expected, 1.0 - expected]], share=0.3, n=500)
    level = np.maximum(held.source.mean(axis=0), 1.0)
    of_target, of_source = np.log(held.target / level), held.source / level
    gaps = of_target[:, 0] - of_target[:, 1], of_source[:, 0] - of_source[:, 1]
    is_near = gaps[0].mean() <= np.hypot(*(sem(gap, ddof=0) for gap in gaps))
    coef = combined(halves(held), 0.0, np.array([False, True]))[0]
    if is_near:
        np.testing.assert_allclose(coef, [0.0, 1.0 / level[1]])
    else:
        assert coef[0] > 0.0


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


@pytest.mark.parametrize(("name", "value"), [("cv", 1), ("pull", -0.1), ("pull", 1.1), ("pull", float("nan"))])
def test_parameters_out_of_range_are_told(name, value):
    with pytest.raises(ValueError, match=name):
        StackedRatio(MEMBERS, **{name: value}).fit(*stack_domains(*table()))


def test_two_members_of_a_kind_get_names_of_their_own():
    stack = StackedRatio([KLIEP(gamma=0.1), KLIEP(gamma=1.0), ("mine", GaussianRatio())])
    assert list(stack.fit(*stack_domains(*table())).coefficients_) == ["kliep_1", "kliep_2", "mine"]


def test_a_coefficient_beyond_single_precision_keeps_the_weights(monkeypatch):
    """Held-out ratios of samples that hardly overlap are tiny, and their coefficients huge."""
    source, target = (rows.astype(np.float32) for rows in table())
    X, y = stack_domains(source, target)
    monkeypatch.setattr("densratio.estimators.stacked.estimator.combined", lambda *_: (np.array([0.0, 1e38]), np.zeros(3)))
    stack = StackedRatio([KMM(), GaussianRatio()]).fit(X, y)
    alone = GaussianRatio().fit(X, y)
    assert alone.weights_.max() > 3.5 and stack.weights_.dtype == np.float32
    np.testing.assert_allclose(stack.weights_, alone.weights_, rtol=1e-5)
    np.testing.assert_allclose(stack.transform(X), alone.transform(X), rtol=1e-5)


def test_a_report_names_the_members_by_their_factors():
    stack = StackedRatio([KMM(), GaussianRatio()])
    assert describe(stack).startswith("StackedRatio(estimators=")
    stack.coefficients_ = {"kmm": 0.1234, "gaussian": 0.9, "lsif": 0.0}
    assert describe(make_pipeline(stack)) == "StackedRatio(0.9 gaussian + 0.12 kmm)"
