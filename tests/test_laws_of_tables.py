"""The laws that every estimator keeps on tables: no units, no order, copies, failures, rows of the fit, discrete rows."""

import inspect
import pickle
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from zoo_cases import quick, source_places

from densratio import LSIF, Discriminator, stack_domains
from densratio.estimators import ESTIMATORS, IN_LOOPS

NAMES = sorted(ESTIMATORS)
seeds = st.integers(0, 2**16)
few = settings(max_examples=3)


def new(name, **params):
    ratio = ESTIMATORS[name]().set_params(**quick(name))
    if "random_state" in ratio.get_params():
        ratio.set_params(random_state=0)
    return ratio.set_params(**params)


def columns_of(name):
    return 1 if name == "wasserstein" else 2


def table(name, n_source, n_target, seed=0):
    rng, d = np.random.default_rng(seed), columns_of(name)
    return stack_domains(rng.normal(size=(n_source, d)), rng.normal(0.5, 0.8, size=(n_target, d)))


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


# More rows than any subsample and any number of centers has, and few.
sizes = pytest.mark.parametrize(
    "n_source, n_target", [pytest.param(700, 600, id="many"), pytest.param(30, 25, id="few"), pytest.param(9, 12, id="hardly any")]
)
names = pytest.mark.parametrize("name", NAMES)


def on_tables(law):
    """The law as a test on three drawn tables; on one if it has many rows, where it is the size that matters.

    A profile that derandomizes draws the same seeds for each law, as hypothesis knows them by the source of `drawn`.
    """

    def drawn(seed, **case):
        law(seed=seed, **case)

    of_few, of_many = (settings(max_examples=n_tables)(given(seed=seeds)(drawn)) for n_tables in (3, 1))

    def test(**case):
        (of_many if case["n_source"] > 100 else of_few)(**case)

    test.__name__, test.__signature__ = law.__name__, inspect.signature(given(seed=seeds)(law))
    return test


@cache
def fitted(name, n_source, n_target, seed, **params):
    """The estimator on the table as it is, with which several laws compare."""
    return new(name, **params).fit(*table(name, n_source, n_target, seed))


# ---------------------------------------------------------------- 5: columns have no unit


@names
@sizes
@on_tables
def test_units_and_offsets_of_the_columns_leave_weights_and_ratios(name, n_source, n_target, seed):
    X, y = table(name, n_source, n_target, seed)
    rng = np.random.default_rng([seed, 1])
    factor = 10.0 ** (rng.uniform(-8.0, 8.0, X.shape[1]) + rng.choice([-200, 0, 200]))
    offset = factor * rng.uniform(-100.0, 100.0, X.shape[1])
    plain, moved = fitted(name, n_source, n_target, seed), new(name).fit(X * factor + offset, y)
    assert_same(moved.weights_, plain.weights_)
    assert_same(moved.transform(X * factor + offset), plain.transform(X))


@names
@few
@given(seed=seeds, where=st.sampled_from([0, 1, -1]), value=st.floats(allow_nan=False, allow_infinity=False))
def test_a_constant_column_leaves_weights_and_ratios_whatever_unseen_rows_have_in_it(name, seed, where, value):
    X, y = table(name, 30, 25, seed)
    plain = new(name).fit(X, y)
    with_constant, unseen = (np.insert(X, where % (X.shape[1] + 1), column, axis=1) for column in (value, 7.0))
    ratio = new(name).fit(with_constant, y)
    assert_same(ratio.weights_, plain.weights_)
    assert_same(ratio.transform(unseen), plain.transform(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("discriminator", "stacked")])  # they draw rows as given
@few
@given(seed=seeds, is_of_domains=st.booleans(), size=st.floats(0.1, 1e6))
def test_a_column_that_rounding_alone_changes_is_constant(name, dtype, seed, is_of_domains, size):
    X, y = table(name, 30, 25, seed)
    constant = np.full(len(y), size).astype(dtype)
    at = y == 1 if is_of_domains else np.random.default_rng(seed).random(len(y)) < 0.5
    rounded = np.where(at, np.nextafter(constant, dtype(np.inf)), constant)
    plain, ratio = (new(name).fit(np.column_stack([X.astype(dtype), column]), y) for column in (constant, rounded))
    np.testing.assert_allclose(ratio.weights_, plain.weights_, rtol=1e-6 if dtype is np.float64 else 1e-3, atol=1e-6)


# ---------------------------------------------------------------- 6: rows and columns have no order, and copies are counts


SEARCHED = ["kliep", "kmm", "lsif", "spectral"]
MADE = [*(pytest.param(name, {}, id=name) for name in NAMES if columns_of(name) > 1),
        *(pytest.param(name, {"gamma": "cv"}, id=f"{name} cv") for name in SEARCHED)]  # fmt: skip


@pytest.mark.parametrize(("name", "params"), MADE)
@sizes
@on_tables
def test_the_order_of_the_columns_leaves_weights_and_ratios(name, params, n_source, n_target, seed):
    X, y = table(name, n_source, n_target, seed)
    plain, swapped = fitted(name, n_source, n_target, seed, **params), new(name, **params).fit(X[:, ::-1], y)
    assert_same(swapped.weights_, plain.weights_)
    assert_same(swapped.transform(X[:, ::-1]), plain.transform(X))


@names
@sizes
@on_tables
def test_permuting_the_rows_permutes_the_weights(name, n_source, n_target, seed):
    X, y = table(name, n_source, n_target, seed)
    order = np.random.default_rng([seed, 1]).permutation(len(y))
    plain, permuted = fitted(name, n_source, n_target, seed), new(name).fit(X[order], y[order])
    assert_same(permuted.weights_, plain.weights_[source_places(y, order)])
    assert_same(permuted.transform(X), plain.transform(X))


@few
@given(seed=seeds)
def test_a_search_of_weighted_rows_is_the_same_to_the_last_digit_in_any_order(seed):
    """A far row lets it amplify that digit to another subspace."""
    X, y = table("subspace_lsif", 25, 20, seed)
    rng = np.random.default_rng([seed, 1])
    X[np.flatnonzero(y == 1)[3]], weight = -1e9, 10.0 ** rng.uniform(-3.0, 3.0, len(y))
    X, y, weight = (np.concatenate([part, part[:9]]) for part in (X, y, weight))
    order = rng.permutation(len(y))
    plain, permuted = (new("subspace_lsif", n_components=1).fit(X[at], y[at], weight[at]) for at in (slice(None), order))
    np.testing.assert_array_equal(permuted.subspace_, plain.subspace_)
    np.testing.assert_array_equal(permuted.coef_, plain.coef_)


@names
@sizes
@on_tables
def test_a_count_of_k_is_k_copies_and_of_zero_is_none(name, n_source, n_target, seed):
    X, y = table(name, n_source, n_target, seed)
    rng = np.random.default_rng([seed, 1])
    counts = rng.integers(0, 4, len(y))
    for domain in (0, 1):
        counts[np.flatnonzero(y == domain)[:2]] = 1
    order = rng.permutation(counts.sum())
    copies = np.repeat(np.arange(len(y)), counts)[order]
    weighted, copied = new(name).fit(X, y, sample_weight=counts), new(name).fit(X[copies], y[copies])
    of_source = np.cumsum(y == 0) - 1
    assert_same(copied.weights_, weighted.weights_[of_source[copies[y[copies] == 0]]])
    assert_same(copied.transform(X), weighted.transform(X))


# KMM's kernel sums grow with the weights and its regularization does not, as its docstring says.
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"kmm"}))
@few
@given(seed=seeds, unit=st.floats(-30.0, 30.0))
def test_weights_of_rows_that_are_no_counts_have_no_unit(name, seed, unit):
    X, y = table(name, 40, 30, seed)
    weight = np.random.default_rng([seed, 1]).uniform(0.5, 2.0, len(y))
    plain, other = (new(name).fit(X, y, sample_weight=factor * weight) for factor in (1.0, 10.0**unit))
    assert_same(other.weights_, plain.weights_)


# ---------------------------------------------------------------- 8: a failing call changes nothing

# A parameter that only the fit itself refuses, after it has looked at the rows.
REFUSED = {
    "discriminator": {"calibration": "platt"},
    "gaussian": {},
    "kde": {"gamma": "narrow"},
    "kliep": {"gamma": -1.0},
    "kmm": {"gamma": -1.0},
    "lsif": {"regularization": -1.0},
    "nearest_neighbors": {"n_neighbors": 10_000},
    "spectral": {"n_components": 0},
    "stacked": {"pull": -1.0},
    "subspace_lsif": {"regularization": -1.0},
    "wasserstein": {"solver": "active_set"},
}
assert set(REFUSED) == set(ESTIMATORS), "a new estimator needs a line here"


def assert_unchanged(ratio, call, error=ValueError):
    values, content = dict(vars(ratio)), pickle.dumps(vars(ratio))
    with pytest.raises(error):
        call()
    assert vars(ratio).keys() == values.keys()
    assert all(vars(ratio)[key] is values[key] for key in values)
    assert pickle.dumps(vars(ratio)) == content


def bad_calls(name, method):
    """Calls that raise, on tables of other columns than the fit: what they learn before they raise must not stay."""
    X, y = table(name, 20, 15, seed=1)
    other = np.column_stack([5.0 + X] + [X[:, :1]] * (name != "wasserstein"))
    missing = other.copy()
    missing[3, 0] = np.nan
    yield lambda ratio: getattr(ratio, method)(missing, y)
    yield lambda ratio: getattr(ratio, method)(other, np.zeros(len(y)))
    yield lambda ratio: getattr(ratio, method)(other, y[:-1])
    yield lambda ratio: getattr(ratio, method)(other, y, sample_weight=-np.ones(len(y)))
    yield lambda ratio: getattr(ratio, method)(other, y, sample_weight=1.0 * y)


@names
@pytest.mark.parametrize("is_fitted", [True, False])
def test_a_fit_that_raises_changes_nothing(name, is_fitted):
    for call in bad_calls(name, "fit"):
        ratio = new(name, **({"n_restarts": 1, "max_iter": 5} if name == "subspace_lsif" else {}))
        if is_fitted:
            ratio.fit(*table(name, 30, 25))
        assert_unchanged(ratio, lambda call=call, ratio=ratio: call(ratio))


@names
def test_a_fit_with_a_parameter_that_it_refuses_changes_nothing(name):
    X, y = table(name, 30, 25)
    ratio, other = new(name).fit(X, y), table(name, 20, 15, seed=1)
    before = ratio.transform(X)
    ratio.set_params(**REFUSED[name])
    if REFUSED[name]:
        assert_unchanged(ratio, lambda: ratio.fit(*other))
    np.testing.assert_array_equal(ratio.transform(X), before)


@pytest.mark.parametrize("name", sorted(IN_LOOPS))
@pytest.mark.parametrize("is_fitted", [True, False])
def test_a_partial_fit_that_raises_changes_nothing(name, is_fitted):
    for call in bad_calls(name, "partial_fit"):
        ratio = new(name)
        if is_fitted:
            ratio.partial_fit(*table(name, 30, 25))
        assert_unchanged(ratio, lambda call=call, ratio=ratio: call(ratio))


@pytest.mark.parametrize("name", sorted(IN_LOOPS))
@pytest.mark.parametrize("is_fitted", [True, False])
def test_a_partial_fit_with_an_index_or_a_solver_that_cannot_be_changes_nothing(name, is_fitted):
    X, y = table(name, 20, 15)
    for solver, index in (("auto", [-1] * 20), ("auto", [0, 1]), ("newton", None)):
        ratio = new(name)
        if is_fitted:
            ratio.partial_fit(X, y)
        ratio.set_params(solver=solver)
        assert_unchanged(ratio, lambda index=index, ratio=ratio: ratio.partial_fit(3.0 + X, y, index=index))


@names
@pytest.mark.parametrize("is_fitted", [True, False])
def test_set_params_that_raises_changes_nothing(name, is_fitted):
    ratio = new(name)
    if is_fitted:
        ratio.fit(*table(name, 30, 25))
    known = next(iter(ratio.get_params(deep=False)))
    assert_unchanged(ratio, lambda: ratio.set_params(**{known: "other", "unknown": 1}))


def test_set_params_that_raises_changes_no_classifier_inside():
    from sklearn.linear_model import LogisticRegression

    ratio = Discriminator(LogisticRegression(C=1.0))
    assert_unchanged(ratio, lambda: ratio.set_params(classifier__C=2.0, classifier__unknown=1))


# ---------------------------------------------------------------- 9: finite, mean 1, and `transform` at rows of the fit

# The docstring of these says why not: a source row is no neighbor of itself, and its classifiers did not see it.
LEAVE_OUT_THE_ROW = {"nearest_neighbors", "discriminator"}


@pytest.mark.parametrize("name", sorted(set(NAMES) - LEAVE_OUT_THE_ROW))
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@few
@given(seed=seeds, is_weighted=st.booleans(), has_copies=st.booleans())
def test_the_ratio_at_the_source_rows_is_their_weights(name, dtype, seed, is_weighted, has_copies):
    X, y = table(name, 50, 40, seed)
    X = (np.round(2.0 * X) if has_copies else X).astype(dtype)
    weight = np.random.default_rng(seed).integers(0, 3, len(y)) + 1.0 * (np.arange(len(y)) < 9) if is_weighted else None
    ratio = new(name).fit(X, y, sample_weight=weight)
    near = {"rtol": 1e-9, "atol": 1e-6} if dtype == np.float64 else {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(ratio.transform(X[y == 0]), ratio.weights_, **near)


@pytest.mark.parametrize("name", sorted(LEAVE_OUT_THE_ROW))
def test_a_class_whose_ratio_at_a_row_is_not_its_weight_says_so(name):
    X, y = table(name, 50, 40)
    assert np.abs(new(name).fit(X, y).transform(X[y == 0]) / new(name).fit(X, y).weights_ - 1.0).max() > 0.01
    words = {"nearest_neighbors": "does not count as its own neighbor", "discriminator": "classifiers that did not see them"}
    assert words[name] in " ".join(ESTIMATORS[name].__doc__.split())


FAR = {
    "one row of the source": lambda X, y: np.flatnonzero(y == 0)[3],
    "one row of the target": lambda X, y: np.flatnonzero(y == 1)[3],
}


@names
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("where", FAR)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_one_row_far_away_leaves_the_weights_of_the_others(name, where, dtype, is_sparse):
    if is_sparse and not ESTIMATORS[name]().__sklearn_tags__().input_tags.sparse:
        return
    X, y = table(name, 200, 150)
    X = X.astype(dtype)
    far = FAR[where](X, y)
    plain = new(name).fit(csr_array(X) if is_sparse else X, y)
    X[far] = 1e10
    ratio = new(name).fit(csr_array(X) if is_sparse else X, y)
    assert np.isfinite(ratio.weights_).all() and ratio.weights_.min() >= 0.0
    assert ratio.weights_.mean(dtype=np.float64) == pytest.approx(1.0, rel=1e-5)
    assert np.isfinite(ratio.transform(X[:9] if not is_sparse else csr_array(X[:9]))).all()
    others = (y[:far] == 0).sum() != np.arange((y == 0).sum()) if y[far] == 0 else slice(None)
    if name not in OF_MOMENTS:
        assert np.corrcoef(ratio.weights_[others], plain.weights_[others])[0, 1] > 0.9


# Means and covariances, by which these fit or standardize, belong to one far row; so does a mean distance.
OF_MOMENTS = {"discriminator", "gaussian", "kde", "wasserstein"}


@pytest.mark.parametrize("name", sorted(IN_LOOPS))
@pytest.mark.parametrize("where", FAR)
@pytest.mark.parametrize("scale", ["auto", None])
def test_the_gap_is_true_where_one_row_is_far_away(name, where, scale):
    X, y = table(name, 60, 50)
    X[FAR[where](X, y)] = 1e10
    early, late = (new(name, scale=scale, tol=tol).fit(X, y) for tol in (1e-2, 1e-9))
    assert early.gap_ >= 0.0 and late.gap_ >= 0.0
    # Neither value lies below the optimum by more than rounding, so the bounds hold for each other.
    rounding = 1e-9 * max(1.0, abs(late.objective_value_))
    assert early.objective_value_ - early.gap_ <= late.objective_value_ + rounding
    assert late.objective_value_ - late.gap_ <= early.objective_value_ + rounding


# ---------------------------------------------------------------- 10: discrete rows

# GaussianRatio is a model of normal rows.
OF_FREQUENCIES = sorted(set(NAMES) - {"gaussian"})
# Its regularization spreads the mass of a value over those at a small distance.
PLAIN = {"wasserstein": {"regularization": 0.0}}


def quotient(X, y, values):
    at_source, at_target = ((X[y == domain] == values.T).mean(axis=0) for domain in (0, 1))
    return at_source, at_target / at_source


@pytest.mark.parametrize("name", OF_FREQUENCIES)
@pytest.mark.parametrize(("p", "q"), [(0.5, 0.9), (0.1, 0.4), (0.9, 0.5), (0.4, 0.1)])
def test_the_ratio_of_two_values_is_the_quotient_of_their_frequencies(name, p, q):
    values = np.array([[0.0], [1.0]])
    X, y = stack_domains(*(values[(np.arange(1000) < 1000 * share).astype(int)] for share in (p, q)))
    ratio = new(name, **PLAIN.get(name, {})).fit(X, y).transform(values)
    np.testing.assert_allclose(ratio, [(1.0 - q) / (1.0 - p), q / p], rtol=0.1)


@pytest.mark.parametrize("name", OF_FREQUENCIES)
@pytest.mark.parametrize("n_levels", [4, 5, 7, 14, 24])
def test_the_ratio_of_some_levels_is_near_the_quotient_of_their_frequencies(name, n_levels):
    rng, values = np.random.default_rng(0), np.arange(n_levels)[:, None].astype(float)
    inner = np.linspace(-1.5, 2.5, n_levels + 1)[1:-1]
    X, y = stack_domains(*(np.digitize(rng.normal(at, 1.0, 1000), inner)[:, None].astype(float) for at in (0.0, 1.0)))
    share, expected = quotient(X, y, values)
    found = new(name, **PLAIN.get(name, {})).fit(X, y).transform(values)
    bound = max(BOUND[n_levels], 0.2) if name == "nearest_neighbors" else BOUND[n_levels]
    assert share @ (found - expected) ** 2 < bound * (share @ expected**2)


# Where levels are many the frequencies are noisy, and a smooth ratio is nearer to the truth than to their quotient. A ball of
# k rows holds the neighbors of a level that has fewer.
BOUND = {4: 0.03, 5: 0.04, 7: 0.1, 14: 0.35, 24: 0.35}


def test_a_fit_of_its_own_units_is_the_fit_without_a_scale():
    X, y = table("lsif", 60, 50)
    scaled = LSIF(random_state=0).fit(X, y)
    unit = LSIF(random_state=0, scale=None).fit(X / scaled.scale_, y)
    np.testing.assert_allclose(unit.weights_, scaled.weights_, rtol=1e-9)
    assert unit.gamma_ == pytest.approx(scaled.gamma_, rel=1e-12)
