"""Choice of parameters: folds against scikit-learn's search, streams against the batch fit."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from zoo_cases import sorted_rows

from densratio import KLIEP, KMM, LSIF, DensityRatio, _blocks, stack_domains
from densratio.model_selection import choose, folds_of, stratified_folds
from densratio.objectives import SquaredDistance
from densratio.testing import gaussian_shift


def samples(n=60, m=50, d=2, seed=0):
    problem = gaussian_shift(n, m, d, seed=seed)
    return problem.source, problem.target


# ---------------------------------------------------------------- folds

SEARCHES = {
    "lsif": (LSIF(n_centers=None), {"gamma": [0.1, 1.0], "regularization": [0.01, 0.3]}),
    "ulsif": (LSIF(n_centers=None, nonnegative=False), {"gamma": [0.1, 1.0], "regularization": [0.01, 0.3]}),
    "rulsif": (LSIF(n_centers=None, alpha=0.2), {"regularization": [0.01, 0.3]}),
    "kliep": (KLIEP(n_centers=None), {"gamma": [0.1, 1.0]}),
    "kmm": (KMM(), {"gamma": [0.1, 1.0], "regularization": [0.0, 1.0]}),
    "base": (DensityRatio("lsif"), {"gamma": [0.1, 1.0]}),
}


def test_k_fold_scores_of_kmm_are_those_of_clones():
    source, target = (sorted_rows(rows) for rows in samples(30, 26))
    fitted = KMM(gamma=[0.1, 1.0], regularization=[0.0, 1.0], cv=3, scale=None).fit(*stack_domains(source, target))
    expected = []
    for candidate in fitted.cv_results_["params"]:
        of_folds = []
        for fold in stratified_folds(30, 26, 3):
            kept, out = fold.rest(30, 26), fold
            clone_ = KMM(scale=None, **candidate).fit(*stack_domains(source[kept[0]], target[kept[1]]))
            of_folds.append(clone_.score(*stack_domains(source[out.source], target[out.target])))
        expected.append(np.mean(of_folds))
    assert fitted.cv_results_["mean_test_score"] == pytest.approx(np.array(expected), rel=1e-6)
    assert fitted.best_params_ == fitted.cv_results_["params"][int(np.argmax(expected))]


def kernel_at(gamma, centers):
    return lambda x: np.exp(-gamma * ((x[:, None] - centers[None]) ** 2).sum(axis=2))


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_kliep_scores_are_the_bound_on_rows_left_out_of_both_domains(gamma):
    source, target = (sorted_rows(rows) for rows in samples())
    fitted = KLIEP(gamma=[gamma], n_centers=None, cv=4, tol=1e-9, scale=None).fit(*stack_domains(source, target))
    phi = kernel_at(gamma, target)
    for k, fold in enumerate(stratified_folds(len(source), len(target), 4)):
        kept_source, kept_target = (np.delete(x, out, axis=0) for x, out in ((source, fold.source), (target, fold.target)))
        coef = cp.Variable(len(target), nonneg=True)
        likelihood = cp.sum(cp.log(phi(kept_target) @ coef)) / len(kept_target)
        cp.Problem(cp.Maximize(likelihood), [phi(kept_source).mean(axis=0) @ coef == 1.0]).solve(cp.CLARABEL)
        at_target, at_source = (phi(x) @ coef.value for x in (target[fold.target], source[fold.source]))
        expected = np.log(at_target).mean() - at_source.mean() + 1.0
        assert fitted.cv_results_[f"split{k}_test_score"][0] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_lsif_scores_are_those_of_the_ratio_fitted_without_the_fold(alpha):
    from scipy.optimize import nnls

    source, target = (sorted_rows(rows) for rows in samples())
    fitted = LSIF(gamma=[0.3], regularization=[0.05], alpha=alpha, n_centers=None, cv=4, scale=None)
    fitted.fit(*stack_domains(source, target))
    phi = kernel_at(0.3, target)
    for k, fold in enumerate(stratified_folds(len(source), len(target), 4)):
        s, t = np.delete(source, fold.source, axis=0), np.delete(target, fold.target, axis=0)
        hessian = (1 - alpha) * phi(s).T @ phi(s) / len(s) + alpha * phi(t).T @ phi(t) / len(t) + 0.05 * np.eye(len(target))
        root = np.linalg.cholesky(hessian).T
        coef = nnls(root, np.linalg.solve(root.T, phi(t).mean(axis=0)))[0]
        # A relative ratio has mean 1 over the mixture that it is relative to.
        scale = (1 - alpha) * (phi(s) @ coef).mean() + alpha * (phi(t) @ coef).mean()
        r_s, r_t = phi(source[fold.source]) @ coef / scale, phi(target[fold.target]) @ coef / scale
        expected = r_t.mean() - 0.5 * (1 - alpha) * (r_s**2).mean() - 0.5 * alpha * (r_t**2).mean()
        assert fitted.cv_results_[f"split{k}_test_score"][0] == pytest.approx(expected, rel=1e-6)


def by_parameters(results):
    return {tuple(sorted(p.items())): s for p, s in zip(results["params"], results["mean_test_score"], strict=True)}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_splitter_of_scikit_learn_holds_out_its_test_rows(name):
    ratio, grid = SEARCHES[name]
    X, y = stack_domains(*samples(24, 20))
    order = np.random.default_rng(1).permutation(len(y))
    X, y = X[order], y[order]
    splits = list(StratifiedKFold(3, shuffle=True, random_state=2).split(X, y))
    given_splits = clone(ratio).set_params(cv=splits, **grid).fit(X, y).cv_results_
    by_splitter = clone(ratio).set_params(cv=StratifiedKFold(3, shuffle=True, random_state=2), **grid).fit(X, y).cv_results_
    assert np.array_equal(given_splits["mean_test_score"], by_splitter["mean_test_score"])
    if name == "kmm":
        # Clones of GridSearchCV would take the scale of the rows they keep, in place of that of all rows.
        in_own_units = clone(ratio).set_params(scale=None)
        given_splits = clone(in_own_units).set_params(cv=splits, **grid).fit(X, y).cv_results_
        search = GridSearchCV(in_own_units, grid, cv=splits).fit(X, y)
        in_grid, ours = by_parameters(search.cv_results_), by_parameters(given_splits)
        assert ours == pytest.approx(in_grid, rel=1e-6)


@pytest.mark.parametrize("name", SEARCHES)
def test_processes_change_nothing(name):
    ratio, grid = SEARCHES[name]
    X, y = stack_domains(*samples(20, 20))
    one, two = (clone(ratio).set_params(cv=2, n_jobs=n, **grid).fit(X, y) for n in (1, 2))
    assert one.best_params_ == two.best_params_
    assert one.cv_results_["mean_test_score"] == pytest.approx(two.cv_results_["mean_test_score"], rel=1e-9)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_parameters_given_stay_as_they_are_and_the_table_is_complete(name):
    ratio, grid = SEARCHES[name]
    fitted = clone(ratio).set_params(**grid, cv=2)
    before = fitted.get_params()
    fitted.fit(*stack_domains(*samples(20, 20)))
    assert fitted.get_params() == before
    n = int(np.prod([len(values) for values in grid.values()]))
    results = fitted.cv_results_
    assert len(results["params"]) == len(results["mean_test_score"]) == len(results["rank_test_score"]) == n
    assert results["params"][int(np.argmin(results["rank_test_score"]))] == fitted.best_params_
    for parameter, values in grid.items():
        assert set(results[f"param_{parameter}"]) == set(values)


def test_a_new_fit_with_plain_parameters_forgets_the_choice():
    X, y = stack_domains(*samples())
    ratio = KLIEP(gamma=[0.1, 0.2]).fit(X, y)
    ratio.set_params(gamma=3.0).fit(X, y)
    assert ratio.gamma_ == 3.0 and not hasattr(ratio, "best_params_") and not hasattr(ratio, "cv_results_")


@pytest.mark.parametrize(("scale", "power"), [("auto", 0), (None, 2)])
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e5])
def test_the_grid_of_cv_follows_the_unit_of_the_data(unit, scale, power):
    source, target = samples()
    ratio, at_one = (KLIEP(gamma="cv", scale=scale, random_state=0) for _ in range(2))
    ratio.fit(*stack_domains(unit * source, unit * target)), at_one.fit(*stack_domains(source, target))
    assert ratio.gamma_ * unit**power == pytest.approx(at_one.gamma_, rel=1e-6)
    assert ratio.weights_ == pytest.approx(at_one.weights_, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_kliep_chooses_no_narrow_kernel_on_equal_samples(d, seed):
    rng = np.random.default_rng(seed)
    source, target, fresh = (rng.normal(size=(300, d)) for _ in range(3))
    ratio = KLIEP(gamma="cv", random_state=0).fit(*stack_domains(source, target))
    at_fresh = ratio.transform(fresh)
    # The mean over fresh source rows is 1 up to the error of a mean of 300 and of the fit's own.
    assert abs(at_fresh.mean() - 1.0) < 4.0 * (at_fresh.std() + ratio.weights_.std()) / 300**0.5 + 1e-3


@given(n=st.integers(2, 40), m=st.integers(2, 40), k=st.integers(2, 8), seed=st.integers(0, 99))
def test_folds_part_both_domains(n, m, k, seed):
    folds = stratified_folds(n, m, k, seed=seed)
    assert len(folds) == min(n, m, k)
    for parts, size in (([f.source for f in folds], n), ([f.target for f in folds], m)):
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(size))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(seed=st.integers(0, 2**16), k=st.integers(2, 8), n=st.integers(1, 30), most=st.sampled_from([3, 60, 1000]))
def test_folds_deal_the_copies_of_frequent_rows_and_keep_those_of_others_together(seed, k, n, most):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most, n).astype(float), np.append(rng.integers(1, most, n), 1000.0)
    try:
        folds = stratified_folds(n, n + 1, k, seed=seed, counts=counts)
    except ValueError:
        assert n == 1 and counts[0][0] < 2 * k
        return
    n_splits = len(folds)
    for side, count in enumerate(counts):
        held_out = np.zeros((n_splits, len(count)))
        for out, fold in zip(held_out, folds, strict=True):
            assert np.all(np.diff(fold[side]) > 0)
            out[fold[side]] = count[fold[side]] if fold[2] is None else fold[side + 2]
        np.testing.assert_array_equal(held_out.sum(axis=0), count)
        frequent = (count >= 2 * k) & (count >= count.sum() / 200)
        np.testing.assert_array_equal(np.sum(held_out > 0.0, axis=0), np.where(frequent, n_splits, 1))
        assert np.all(held_out[:, frequent].max(axis=0) - held_out[:, frequent].min(axis=0) <= 1.0)
        np.testing.assert_array_equal(held_out, np.rint(held_out))


# ---------------------------------------------------------------- what a person meets


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        (KLIEP(gamma=[]), "gamma is an empty sequence"),
        (KLIEP(gamma="cv", cv=1), "cv must be at least 2 folds; got 1"),
        (LSIF(regularization=[0.1, -1.0]), r"regularization must be a number in \[0, inf\); got -1.0"),
        (KLIEP(gamma="CV"), 'an estimator\'s fit also takes "cv"'),
        (KLIEP(gamma="cv", cv=KFold(2)), "holds out (no|every) (source|target) row"),
    ],
)
def test_a_search_that_cannot_be_says_why(ratio, message):
    X, y = stack_domains(*samples(20, 20))
    source_first = np.argsort(y, kind="stable")
    with pytest.raises(ValueError, match=message):
        ratio.fit(X[source_first], y[source_first])


def test_one_row_cannot_be_cross_validated():
    with pytest.raises(ValueError, match=r"at least two rows of each domain; got 10 source and 1 target rows"):
        KLIEP(gamma="cv").fit(*stack_domains(*samples(10, 1)))


def test_no_finite_score_is_an_error_that_counts_the_candidates():
    with pytest.raises(ValueError, match="None of the 2 candidates for gamma has a finite score"):
        choose({"gamma": [1, 2]}, lambda candidates: np.full((2, 3), np.nan))


def test_a_score_that_is_not_finite_is_the_worst():
    assert choose({"gamma": [1, 2]}, lambda candidates: np.array([[np.nan], [-5.0]])).best_params == {"gamma": 2}


def test_huge_scores_have_means_and_deviations_too():
    scores = np.array([[-1e308, -1.5e308], [-3e200, -1e200], [-3.0, -1.0], [0.0, 0.0], [-np.inf, 1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = choose({"gamma": [1, 2, 3, 4, 5]}, lambda candidates: scores)
    np.testing.assert_allclose(choice.results["mean_test_score"], [-1.25e308, -2e200, -2.0, 0.0, -np.inf], rtol=1e-15)
    np.testing.assert_allclose(choice.results["std_test_score"], [0.25e308, 1e200, 1.0, 0.0, np.nan], rtol=1e-15)
    assert choice.best_params == {"gamma": 4} and choice.results["rank_test_score"].tolist() == [4, 3, 2, 1, 5]


def test_in_a_training_loop_cv_is_refused():
    with pytest.raises(ValueError, match=r"gamma='cv' asks for cross-validation, .* in a training loop"):
        KLIEP(gamma="cv").update(*samples())


def test_folds_of_positions_in_the_whole_table():
    folds = folds_of([[0, 3], [1, 2, 4]], np.array([0, 2]), np.array([1, 3, 4]))
    assert [(f.source.tolist(), f.target.tolist()) for f in folds] == [([0], [1]), ([1], [0, 2])]


# ---------------------------------------------------------------- streams

# The first batch of a stream sets the scale: in the columns' own units it is that of the fit on all rows.
STREAMED = {
    "kliep": KLIEP(tol=1e-9, scale=None),
    "lsif": LSIF(scale=None),
    "ulsif": LSIF(nonnegative=False, scale=None),
    "rulsif": LSIF(alpha=0.2, nonnegative=False, scale=None),
    "laplacian": LSIF(kernel="laplacian", scale=None),
}


def in_batches(X, y, bounds):
    """The rows, of both domains in each batch."""
    parts = zip(*(np.array_split(np.flatnonzero(y == domain), bounds) for domain in (0, 1)), strict=True)
    return [(X[rows], y[rows]) for rows in map(np.concatenate, parts)]


@pytest.mark.parametrize("name", STREAMED)
@given(seed=st.integers(0, 2**16), n_batches=st.integers(1, 5))
@settings(max_examples=8)
def test_a_stream_is_the_fit_on_all_its_rows(name, seed, n_batches):
    X, y = stack_domains(*samples(40, 35, seed=seed))
    batches = in_batches(X, y, n_batches)
    first = clone(STREAMED[name]).fit(*batches[0])
    centers, gamma = first.centers_, first.gamma_
    params = {"kernel": _at(first, centers, gamma)}
    whole = clone(STREAMED[name]).set_params(**params).fit(X, y)
    stream = clone(STREAMED[name]).set_params(**params)
    for batch in batches:
        stream.partial_fit(*batch)
    assert stream.coef_ == pytest.approx(whole.coef_, rel=1e-6, abs=1e-6 * np.abs(whole.coef_).max())
    if name != "ulsif" and name != "rulsif":
        assert stream.transform(X) == pytest.approx(whole.transform(X), rel=1e-6, abs=1e-7)


def _at(ratio, centers, gamma):
    return type("Fixed", (type(ratio.features_),), {"fit": lambda self, source, target, anchors: ratio.features_})(gamma=gamma)


def test_fit_and_then_partial_fit_is_a_stream():
    X, y = stack_domains(*samples())
    (first, second) = in_batches(X, y, 2)
    after_fit = LSIF(random_state=0).fit(*first).partial_fit(*second)
    stream = LSIF(random_state=0).partial_fit(*first).partial_fit(*second)
    assert after_fit.coef_ == pytest.approx(stream.coef_, rel=1e-12)


def test_blocks_of_rows_change_nothing(monkeypatch):
    X, y = stack_domains(*samples(200, 90))
    for ratio in (KLIEP(random_state=0), LSIF(random_state=0), LSIF(alpha=0.1, random_state=0)):
        whole = clone(ratio).fit(X, y)
        monkeypatch.setattr(_blocks, "BLOCK", 700)
        in_blocks = clone(ratio).fit(X, y)
        monkeypatch.undo()
        assert in_blocks.weights_ == pytest.approx(whole.weights_, rel=1e-6, abs=1e-8)


def test_a_long_stream_keeps_a_fair_sample_of_the_target(monkeypatch):
    from densratio.objectives import kliep

    monkeypatch.setattr(kliep, "_KEPT_TARGETS", 300)
    source, target = samples(2000, 2000)
    params = {"n_centers": 20, "gamma": 0.5, "scale": None, "random_state": 0}
    stream = KLIEP(**params)
    for batch in in_batches(*stack_domains(source, target), 20):
        stream.partial_fit(*batch)
    kept = stream._problem
    assert kept.target.shape[0] <= 300 and kept.n_seen == 2000
    assert float(kept.target_weight.sum()) == pytest.approx(2000.0)
    # Each batch of 100 is to hold 15 of the 300: the weighted mean of a feature is that of all rows within its standard error.
    features = stream.features_(target)
    mean = (kept.target_weight @ kept.target) / kept.target_weight.sum()
    error = np.abs(mean - features.mean(axis=0)) / (features.std(axis=0) / 300**0.5)
    assert error.max() < 4.0


# ---------------------------------------------------------------- sample weights and CSR rows

COUNTED = {
    **{name: clone(ratio).set_params(scale="auto") for name, ratio in STREAMED.items()},
    "kliep, cv": KLIEP(gamma=[0.1, 1.0], cv=2),
    "base": DensityRatio("lsif"),
}


@pytest.mark.parametrize("name", ["kliep", "lsif", "ulsif", "rulsif", "laplacian", "base"])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=8)
def test_a_weight_of_k_is_k_copies_and_a_weight_of_zero_is_none(name, seed):
    source, target = samples(15, 12, seed=seed)
    X, y = stack_domains(source, target)
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, len(y))
    counts[[0, -1]] = 1
    weighted = clone(COUNTED[name]).fit(X, y, sample_weight=counts)
    copied = clone(COUNTED[name]).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    assert weighted.transform(X) == pytest.approx(copied.transform(X), rel=1e-5, abs=1e-6)
    assert weighted.weights_ == pytest.approx(weighted.transform(source), rel=1e-9)
    assert np.average(weighted.weights_, weights=counts[y == 0]) == pytest.approx(1.0)
    assert weighted.score(X, y, counts) == pytest.approx(copied.score(np.repeat(X, counts, axis=0), np.repeat(y, counts)), rel=1e-5)
    assert clone(COUNTED[name]).fit(X, y, sample_weight=7.5 * counts).weights_ == pytest.approx(
        weighted.weights_, rel=1e-6, abs=1e-7
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(110), "sample_weight is zero on every source row"),
        (1.0 - stack_domains(*samples())[1], "sample_weight is zero on every target row"),
        (-np.ones(110), "row 0 of X has -1.0"),
        (np.ones(3), r"must be \(110,\), .* got shape \(3,\)"),
        (np.r_[np.ones(9), np.full(101, np.nan)], "row 9 of X has nan"),
    ],
)
def test_sample_weights_that_cannot_be_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        LSIF().fit(*stack_domains(*samples()), sample_weight=weights)


@pytest.mark.parametrize("ratio", [KLIEP(), LSIF(), LSIF(nonnegative=False), KLIEP(gamma=[0.1, 1.0], cv=2)], ids=str)
@pytest.mark.parametrize("as_matrix", [False, True])
def test_csr_rows_give_the_ratio_of_dense_ones(ratio, as_matrix):
    rng = np.random.default_rng(0)
    source, target = (rng.poisson(rate, (40, 8)).astype(float) for rate in (0.3, 0.6))
    X, y = stack_domains(csr_array(source), csr_array(target))
    dense = clone(ratio).fit(*stack_domains(source, target))
    sparse = clone(ratio).fit(X.tocoo() if as_matrix else X, y)
    assert sparse.weights_ == pytest.approx(dense.weights_, rel=1e-5, abs=1e-6)
    assert sparse.transform(csr_array(target)) == pytest.approx(dense.transform(target), rel=1e-5, abs=1e-6)
    assert dense.transform(csr_array(target)) == pytest.approx(dense.transform(target), rel=1e-6, abs=1e-9)


def test_a_kernel_that_takes_no_csr_rows_says_so():
    X, y = stack_domains(csr_array(np.eye(6)), csr_array(np.eye(6)))
    with pytest.raises(TypeError, match="dense data is required"):
        KLIEP(kernel="laplacian").fit(X, y)


def test_nan_in_csr_rows_names_its_column():
    X, y = stack_domains(csr_array(np.eye(6)), csr_array(np.eye(6)))
    X.data[3] = np.nan
    with pytest.raises(ValueError, match=f"NaN in column {X.indices[3]}"):
        LSIF().fit(X, y)


# ---------------------------------------------------------------- the relative ratio


@pytest.mark.parametrize("nonnegative", [False, True])
def test_the_relative_ratio_is_the_ratio_to_a_mixture(nonnegative):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(4000, 1)), rng.normal(1.0, 0.5, size=(4000, 1))
    density = [np.exp(-0.5 * ((source[:, 0] - m) / s) ** 2) / s for m, s in ((0.0, 1.0), (1.0, 0.5))]
    for alpha in (0.2, 0.5):
        true = density[1] / (alpha * density[1] + (1.0 - alpha) * density[0])
        ratio = LSIF(alpha=alpha, nonnegative=nonnegative, gamma=1.0, regularization=1e-3, random_state=0)
        ratio.fit(*stack_domains(source, target))
        relative = ratio.transform(source) * ratio.normalization_
        assert np.mean((relative - true) ** 2) / np.mean(true**2) < 0.01
        assert relative.max() < 1.15 / alpha
        assert ratio.weights_.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9])
def test_the_moments_stand_for_the_samples(alpha):
    rng = np.random.default_rng(3)
    source, target, coef = rng.normal(size=(50, 4)), rng.normal(size=(40, 4)), rng.uniform(size=4)
    problem = SquaredDistance(0.1, alpha=alpha).problem(source, target)
    second = (1.0 - alpha) * source.T @ source / 50 + alpha * target.T @ target / 40
    mean = target.mean(axis=0)
    expected = 0.5 * coef @ second @ coef - mean @ coef + 0.05 * coef @ coef, second @ coef - mean + 0.1 * coef
    for one, other in zip(expected, problem.value_and_grad(coef), strict=True):
        assert other == pytest.approx(one, rel=1e-10)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_folds_and_score_judge_a_relative_ratio_on_its_own_scale(nonnegative):
    rng = np.random.default_rng(0)
    X, y = stack_domains(rng.normal(size=(400, 1)), rng.normal(2.5, 0.5, size=(400, 1)))
    ratio = LSIF(alpha=0.5, nonnegative=nonnegative, gamma=[0.01, 1.0], regularization=0.01, cv=5, n_centers=None).fit(X, y)
    # A constant ratio, which the wide kernel comes near to, scores 1/2 at every alpha.
    assert ratio.best_params_ == {"gamma": 1.0}
    assert ratio.score(X, y) > 0.5 + ratio.cv_results_["std_test_score"].max()
