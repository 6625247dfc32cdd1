"""Kernel mean matching of rows that count, and of more rows than a kernel matrix holds."""

from __future__ import annotations

import tracemalloc

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from zoo_cases import by_row, sorted_rows

from densratio import KMM, Wasserstein, _blocks, stack_domains
from densratio.estimators import explicit_map
from densratio.features import Gaussian, Nystroem, RandomFourier
from densratio.model_selection import stratified_folds
from densratio.objectives import MaximumMeanDiscrepancy, Wasserstein1
from densratio.projections import weighted_box_sum, weighted_box_sum_range
from densratio.solvers import ActiveSet, ClosedForm, ProjectedGradient
from densratio.testing import array_libraries, check_projection

seeds = st.integers(0, 2**16)
few = settings(max_examples=8)


def samples(n_source=30, n_target=20, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_source, d)), rng.normal(0.5, 0.9, (n_target, d))


def counts_of(n, seed, least=1):
    return np.random.default_rng([seed, n]).integers(least, 5, n).astype(float)


# ---------------------------------------------------------------- projections


def weight(n):
    return np.random.default_rng(n).uniform(0.1, 5.0, n)


def upper(n):
    return np.random.default_rng([n, 1]).uniform(0.5, 3.0, n)


def filled(rng, n, total):
    """A point of {0 <= p <= upper, weight . p = total}, not by projection: rows filled up in a random order."""
    p, left = np.zeros(n), total
    for i in rng.permutation(n):
        p[i] = min(upper(n)[i], left / weight(n)[i])
        left -= weight(n)[i] * p[i]
    t = rng.uniform()
    return t * p + (1.0 - t) * upper(n) * total / (weight(n) @ upper(n))


def most(n):
    return float(weight(n) @ upper(n))


SETS = {
    "sum": (
        lambda v: weighted_box_sum(v, upper(len(v)), weight(len(v)), 0.4 * most(len(v))),
        lambda p: abs(weight(len(p)) @ p - 0.4 * most(len(p))) <= 1e-9 * most(len(p)),
        lambda rng, n: filled(rng, n, 0.4 * most(n)),
        lambda p, n: [weight(n) @ p == 0.4 * most(n)],
    ),
    "range": (
        lambda v: weighted_box_sum_range(v, upper(len(v)), weight(len(v)), 0.3 * most(len(v)), 0.6 * most(len(v))),
        lambda p: 0.3 - 1e-9 <= weight(len(p)) @ p / most(len(p)) <= 0.6 + 1e-9,
        lambda rng, n: filled(rng, n, rng.uniform(0.3, 0.6) * most(n)),
        lambda p, n: [weight(n) @ p >= 0.3 * most(n), weight(n) @ p <= 0.6 * most(n)],
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_a_weighted_projection_obeys_the_laws(name):
    project, is_feasible, member, _ = SETS[name]
    check_projection(
        project, lambda p: is_feasible(p) and p.min() >= 0.0 and np.all(p <= upper(len(p)) * (1.0 + 1e-12)), member=member
    )


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("n", [1, 2, 15])
def test_a_weighted_projection_is_the_quadratic_programs_answer(name, n):
    project, _, _, constraints = SETS[name]
    for seed in range(4):
        v = 2.0 * np.random.default_rng(seed).standard_normal(n)
        p = cp.Variable(n)
        cp.Problem(cp.Minimize(cp.sum_squares(p - v)), [*constraints(p, n), p >= 0, p <= upper(n)]).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(project(v), p.value, atol=2e-5)


@given(seeds, st.integers(1, 200), st.floats(0.01, 1.0), st.sampled_from([0, 15]))
def test_a_weighted_sum_is_the_shift_that_bisection_finds(seed, n, share, decimals):
    v = np.round(3.0 * np.random.default_rng(seed).standard_normal(n), decimals)
    w, u, total = weight(n), upper(n), share * most(n)
    low, high = ((v - u) / w).min() - 1.0, (v / w).max() + 1.0
    for _ in range(200):
        tau = 0.5 * (low + high)
        low, high = (tau, high) if w @ np.clip(v - tau * w, 0.0, u) > total else (low, tau)
    np.testing.assert_allclose(weighted_box_sum(v, u, w, total), np.clip(v - tau * w, 0.0, u), atol=1e-9)


# ---------------------------------------------------------------- products in blocks


@pytest.mark.parametrize("library", sorted(array_libraries()))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 7, 40_000])  # the last in several blocks
def test_products_in_blocks_are_the_plain_products_in_the_vectors_precision(library, dtype, n):
    convert, rng = array_libraries()[library], np.random.default_rng(n)
    matrix = rng.standard_normal((n, 60)).astype(dtype)
    right, left, weights = rng.standard_normal((60, 2)), rng.standard_normal((n, 2)), rng.uniform(0.0, 2.0, n)
    wide, there = matrix.astype(np.float64), convert(matrix)
    assert len(_blocks.row_slices(n, 60)) == (1 if n < 100 else 3)
    for found, expected in (
        (_blocks.times(there, convert(right)), wide @ right),
        (_blocks.times(there, convert(right[:, 0])), wide @ right[:, 0]),
        (_blocks.transposed_times(there, convert(left)), wide.T @ left),
        (_blocks.transposed_times(there, convert(left[:, 0])), wide.T @ left[:, 0]),
        (_blocks.gram(there, convert(weights)), (wide * weights[:, None]).T @ wide),
    ):
        assert np.asarray(found).dtype == np.float64
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_blocks_are_all_rows_once_and_their_results_stay_in_order():
    blocks = _blocks.row_slices(1003, _blocks.BLOCK // 100)
    assert np.concatenate([np.arange(1003)[block] for block in blocks]).tolist() == list(range(1003))
    assert _blocks.over_blocks(lambda block: block.start, blocks, np.empty(0)) == [block.start for block in blocks]


# ---------------------------------------------------------------- objectives: a row that counts k times is k copies

OBJECTIVES = {
    "kmm": MaximumMeanDiscrepancy(regularization=0.3),
    "kmm, factored": MaximumMeanDiscrepancy(regularization=0.3, is_factored=True),
    "kmm, bounded": MaximumMeanDiscrepancy(max_weight=1.5, mean_tol=0.2),
    "kmm, no bound": MaximumMeanDiscrepancy(max_weight=None),
    "wasserstein": Wasserstein1(),
    "wasserstein, bounded": Wasserstein1(max_weight=1.3),
}


def features_of(objective, source, target):
    if objective.takes == "rows":
        return source[:, :1], target[:, :1]
    fitted = (Nystroem(0.5, 1000) if objective.is_factored else Gaussian(0.5)).fit(source, target, anchors="source")
    return fitted(source), fitted(target)


def counted_and_copied(name, seed, convert=np.asarray):
    """The problem on rows that count, that on copies of them, and how often each row is there."""
    objective, (source, target) = OBJECTIVES[name], samples(seed=seed)
    counts = counts_of(30, seed), counts_of(20, seed)
    copies = [rows.repeat(times.astype(int), axis=0) for rows, times in zip((source, target), counts, strict=True)]
    counted = objective.problem(*map(convert, (*features_of(objective, source, target), *counts)))
    return counted, objective.problem(*features_of(objective, *copies)), counts[0].astype(int)


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(seed=seeds)
def test_value_gradient_and_gap_of_counted_rows_are_those_of_copies(name, seed):
    counted, plain, times = counted_and_copied(name, seed)
    # F is a mean over rows of sums over rows: it grows with the number of copies. A distance does not.
    scale = times.mean() if name.startswith("kmm") else 1.0
    coef = counted.project(np.random.default_rng(seed).uniform(0.0, 2.0, 30))
    value, grad = counted.value_and_grad(coef)
    expected, slope = plain.value_and_grad(coef.repeat(times))
    assert scale * value == pytest.approx(expected, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(scale * grad, np.add.reduceat(slope, np.r_[0, times.cumsum()[:-1]]), atol=1e-9)
    gap = plain.gap(coef.repeat(times), slope)
    assert scale * counted.gap(coef, grad) == pytest.approx(gap, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
@few
@given(seed=seeds)
def test_the_counted_projection_is_that_of_copies(name, seed):
    counted, plain, times = counted_and_copied(name, seed)
    point, feasible = np.random.default_rng(seed).normal(1.0, 1.0, 30), counted.weights
    np.testing.assert_allclose(feasible.project_counted(point).repeat(times), plain.project(point.repeat(times)), atol=1e-9)
    p, root = cp.Variable(30), np.sqrt(feasible.counts)
    low, high = feasible.total
    total = feasible.counts @ p
    bounds = [p >= 0, total >= low, total <= high, *([] if feasible.max_weight is None else [p <= feasible.max_weight])]
    for metric, found in ((1.0, counted.project(point)), (root, feasible.project_counted(point))):
        cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(metric, p - point))), bounds).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(found, p.value, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name.startswith("kmm")])
@few
@given(seed=seeds)
def test_the_curvature_of_counted_rows_bounds_the_hessian_in_either_norm(name, seed):
    counted, plain, _ = counted_and_copied(name, seed)
    hessian = np.array([counted.value_and_grad(e)[1] - counted.value_and_grad(0 * e)[1] for e in np.eye(30)])
    root = np.sqrt(counted.weights.counts)
    assert np.linalg.eigvalsh(hessian)[-1] <= counted.curvature() * (1.0 + 1e-9)
    assert np.linalg.eigvalsh(hessian / np.outer(root, root))[-1] <= counted.count_curvature() * (1.0 + 1e-9)
    if name != "kmm, factored":
        assert counted.count_curvature() == pytest.approx(plain.curvature(), rel=1e-9)


@pytest.mark.parametrize("library", sorted(array_libraries()))
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_array_libraries_agree_on_counted_rows(name, library):
    convert, point = array_libraries()[library], np.random.default_rng(3).normal(1.0, 1.0, 30)

    def everything(problem, point):
        coef = problem.project(point)
        value, grad = problem.value_and_grad(coef)
        return [coef, value, grad, problem.gap(coef, grad), problem.curvature(), problem.weights.project_counted(point)]

    there, here = counted_and_copied(name, 3, convert)[0], counted_and_copied(name, 3)[0]
    for found, expected in zip(everything(there, convert(point)), everything(here, point), strict=True):
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-8, atol=1e-10)


def test_the_exact_minimizer_of_counted_rows_is_a_linear_programs():
    source, target = samples(12, 9, 1, seed=4)
    counts = counts_of(12, 4), counts_of(9, 4)
    found = ClosedForm().solve(Wasserstein1(max_weight=1.4).problem(source, target, *counts))
    grid = np.unique(np.concatenate([source, target]))
    mass, drawn = counts[0] / counts[0].sum(), counts[1] / counts[1].sum()
    w = cp.Variable(12)
    at = grid[:-1, None]
    reached = (at >= source.T) @ cp.multiply(mass, w) - (at >= target.T) @ drawn
    best = cp.Problem(cp.Minimize(np.diff(grid) @ cp.abs(reached)), [w >= 0, w <= 1.4, mass @ w == 1]).solve(solver=cp.CLARABEL)
    assert found.value == pytest.approx(best, rel=1e-6)
    assert mass @ found.coef == pytest.approx(1.0, abs=1e-12)


# ---------------------------------------------------------------- solvers


@pytest.mark.parametrize("name", ["kmm", "kmm, factored"])
def test_projected_gradient_and_active_set_agree_on_counted_rows(name):
    counted = counted_and_copied(name, 1)[0]
    answers = [solver.solve(counted).coef for solver in (ProjectedGradient(1e-9, 50_000), ActiveSet(1e-9))]
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_active_set_reaches_a_certified_optimum_where_few_rows_take_most_of_the_weight(dtype):
    source, target = samples(20_000, 2000, 5, seed=4)
    fitted = Nystroem(n_centers=60).fit(source[:1000], target[:1000] + 1.5, anchors="source")
    inputs = fitted(source).astype(dtype), fitted(target + 1.5).mean(axis=0, keepdims=True)
    found = ActiveSet(max_iter=200).solve(MaximumMeanDiscrepancy(is_factored=True).problem(*inputs))
    assert found.converged and found.coef.dtype == np.float64
    assert 0.0 <= found.gap <= 1e-6 * abs(found.value)


# ---------------------------------------------------------------- estimators: counts and copies

COUNTED = {
    "kmm": (KMM(gamma=0.5), 2),
    "kmm, no penalty": (KMM(gamma=0.5, regularization=0.0), 2),
    "kmm, bounded": (KMM(gamma=0.5, max_weight=2.0, mean_tol=0.3, regularization=0.0), 2),
    "kmm, no bound": (KMM(gamma=0.5, max_weight=None), 2),
    "kmm, approximated": (KMM(gamma=0.5, exact_up_to=5, n_centers=1000, regularization=0.0), 2),
    "kmm, laplacian": (KMM(gamma=0.5, kernel="laplacian"), 2),
    "wasserstein": (Wasserstein(gamma=0.5), 1),
    "wasserstein, map": (Wasserstein(gamma=0.5, kernel=Nystroem(0.5, 1000), max_weight=1.5), 1),
}


@pytest.mark.parametrize("name", COUNTED)
@few
@given(seed=seeds)
def test_a_count_of_k_is_k_copies_to_the_last_digits(name, seed):
    ratio, d = COUNTED[name]
    source, target = samples(d=d, seed=seed)
    counts = counts_of(30, seed), counts_of(20, seed)
    times = [c.astype(int) for c in counts]
    X, y = stack_domains(source, target)
    weighted = ratio.fit(X, y, sample_weight=by_row(y, *counts))
    weights, at_rows, value = weighted.weights_, weighted.transform(X), weighted.objective_value_
    copied = ratio.fit(*stack_domains(source.repeat(times[0], axis=0), target.repeat(times[1], axis=0)))
    np.testing.assert_allclose(weights.repeat(times[0]), copied.weights_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(at_rows, copied.transform(X), rtol=1e-6, atol=1e-8)
    assert value == pytest.approx(copied.objective_value_, rel=1e-8)
    assert np.average(weights, weights=counts[0]) == pytest.approx(1.0, abs=1e-9)


# ---------------------------------------------------------------- more rows than a kernel matrix holds


def value_under(kernel_pairs, kernel_cross, weights):
    """w'Kw / 2 - kappa'w, over n^2."""
    return 0.5 * weights @ kernel_pairs @ weights / len(weights) ** 2 - np.mean(weights @ kernel_cross) / len(weights)


@pytest.mark.parametrize("regularization", [0.0, 1.0])
def test_a_map_with_all_rows_as_centers_gives_what_the_exact_kernel_gives(regularization):
    X, y = stack_domains(*samples(80, 60))
    exact = KMM(regularization=regularization).fit(X, y)
    by_map = KMM(regularization=regularization, exact_up_to=79, n_centers=1000).fit(X, y)
    assert (exact.approximation_, by_map.approximation_) == ("exact", "nystroem")
    assert exact.approximation_error_ == 0.0 and by_map.approximation_error_ < 1e-10
    assert by_map.objective_value_ == pytest.approx(exact.objective_value_, rel=1e-6)
    new = samples(40, 5, seed=9)[0]
    tolerance = 2e-3 if regularization == 0.0 else 1e-5  # without a penalty the weights have flat directions
    np.testing.assert_allclose(by_map.transform(new), exact.transform(new), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("approximation", ["nystroem", "random_fourier"])
def test_the_approximation_error_is_that_of_the_value_against_the_exact_kernel(approximation):
    source, target = samples(300, 200, 3)
    ratio = KMM(exact_up_to=100, approximation=approximation, n_centers=20, scale=None, random_state=0)
    ratio.fit(*stack_domains(source, target))
    assert ratio.approximation_ == approximation
    kernel, phi = Gaussian(ratio.gamma_).fit(target, target, anchors="source"), ratio.features_
    exact = value_under(Gaussian(ratio.gamma_).fit(source, source, anchors="source")(source), kernel(source), ratio.weights_)
    approximate = value_under(phi(source) @ phi(source).T, phi(source) @ phi(target).T, ratio.weights_)
    assert ratio.approximation_error_ == pytest.approx(abs(approximate - exact) / abs(exact), rel=1e-9)


def test_the_approximation_error_on_some_rows_is_near_that_on_all():
    source, target = samples(6000, 5000, 2)
    ratio = KMM(n_centers=4, scale=None, random_state=0).fit(*stack_domains(source, target))
    phi, w = ratio.features_, ratio.weights_
    blocks = [slice(i, i + 1000) for i in range(0, 6000, 1000)]
    at_source, at_target = (Gaussian(ratio.gamma_).fit(x, x, anchors="source") for x in (source, target))
    pairs = sum(w[rows] @ (at_source(source[rows]) @ w) for rows in blocks) / 6000**2
    exact = 0.5 * pairs - sum(w[rows] @ at_target(source[rows]).mean(axis=1) for rows in blocks) / 6000
    moment = w @ phi(source) / 6000
    approximate = 0.5 * moment @ moment - phi(target).mean(axis=0) @ moment
    expected = abs(approximate - exact) / abs(exact)
    assert ratio.approximation_error_ == pytest.approx(expected, rel=0.2)


def test_more_centers_lessen_the_approximation_error():
    X, y = stack_domains(*samples(4000, 1000, 3))
    errors = [KMM(n_centers=k, random_state=0).fit(X, y).approximation_error_ for k in (5, 20, 80)]
    assert errors[0] > 2.0 * errors[1] > 4.0 * errors[2]


def test_the_weights_are_the_exact_solution_of_the_approximate_problem():
    source, target = samples(4000, 500, 3)
    ratio = KMM(scale=None, random_state=0).fit(*stack_domains(source, target))
    phi, objective = ratio.features_, MaximumMeanDiscrepancy(regularization=1.0, is_factored=True)
    problem = objective.problem(phi(source), phi(target))
    value, grad = problem.value_and_grad(ratio.weights_)
    assert ratio.objective_value_ == pytest.approx(value, rel=1e-9)
    assert -1e-12 * abs(value) <= problem.gap(ratio.weights_, grad) <= 1e-6 * abs(value)
    assert ratio.weights_.mean() == pytest.approx(1.0, abs=1e-12) and len(ratio.weights_) == 4000


@pytest.mark.parametrize("regularization", [0.0, 1.0])
def test_features_in_single_precision_and_in_blocks_change_the_weights_by_single_rounding(regularization, monkeypatch):
    X, y = stack_domains(*samples(3500, 500, 3))
    double = KMM(random_state=0, n_centers=30, regularization=regularization).fit(X, y)
    monkeypatch.setattr(explicit_map, "_SINGLE_BEYOND", 1000)
    monkeypatch.setattr(_blocks, "BLOCK", 3000)
    single = KMM(random_state=0, n_centers=30, regularization=regularization).fit(X, y)
    assert single.weights_.dtype == np.float64 and single.weights_.mean() == pytest.approx(1.0, abs=1e-12)
    assert single.objective_value_ == pytest.approx(double.objective_value_, rel=1e-5)
    np.testing.assert_allclose(single.weights_, double.weights_, atol=1e-2)
    np.testing.assert_allclose(single.transform(X), double.transform(X), atol=1e-2)


def test_memory_is_linear_in_the_rows():
    X, y = stack_domains(*samples(20_000, 20_000, 3))
    tracemalloc.start()
    try:
        KMM(n_centers=30, random_state=0).fit(X, y).transform(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000 * 20_000 * 8 / 10


@pytest.mark.parametrize("kernel", ["nystroem", "random_fourier"])
def test_the_average_under_a_map_stays_within_the_weights_and_is_one_far_from_all_rows(kernel):
    source, target = samples(200, 100)
    ratio = KMM(kernel=kernel, n_centers=50, regularization=0.0, random_state=0).fit(*stack_domains(source, target))
    new = 3.0 * samples(500, 5, seed=1)[0]
    assert ratio.weights_.min() <= ratio.transform(new).min() and ratio.transform(new).max() <= ratio.weights_.max()
    if kernel == "nystroem":
        np.testing.assert_allclose(ratio.transform(np.full((1, 2), 1e3)), 1.0, atol=1e-9)


@pytest.mark.parametrize("kernel", [Gaussian(0.5), "gaussian", Nystroem(0.5, 40), RandomFourier(0.5, 40)], ids=str)
def test_a_kernel_is_approximated_by_its_map_alone(kernel):
    names = {Nystroem: "nystroem", RandomFourier: "random_fourier"}
    ratio = KMM(kernel=kernel, gamma=0.5, exact_up_to=50, n_centers=40, random_state=0).fit(*stack_domains(*samples(60, 30)))
    assert ratio.approximation_ == names.get(type(kernel), "nystroem")
    assert ratio.features_.n_columns == 40 and ratio.gamma_ == 0.5


def test_a_batch_beyond_exact_up_to_is_matched_through_the_map_too():
    source, target = samples(60, 30)
    estimator = KMM(exact_up_to=50, gamma=0.5, n_centers=1000, scale=None, random_state=0)
    exact = KMM(gamma=0.5).update(source, target)
    large, small = estimator.update(source, target), estimator.update(source[:50], target)
    assert large.features.is_map and not small.features.is_map
    np.testing.assert_allclose(large.weights, exact.weights, atol=0.05)
    stepped = estimator.partial_fit(*stack_domains(source, target))
    np.testing.assert_allclose(stepped.weights_, large.weights, atol=1e-12)
    assert stepped.transform(source).shape == (60,)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("kernel", ["laplacian", type("Own", (Gaussian,), {})()], ids=str)
def test_a_kernel_without_a_map_is_refused_beyond_exact_up_to_and_said_what_to_do(kernel, method):
    X, y = stack_domains(*samples(60, 30))
    with pytest.raises(ValueError, match=r"60 source rows .* exact_up_to=59: .*kernel=\"gaussian\".* exact_up_to=None"):
        getattr(KMM(kernel=kernel, exact_up_to=59), method)(X, y)
    assert KMM(kernel=kernel, exact_up_to=None).fit(X, y).approximation_ == "exact"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"exact_up_to": 0}, "exact_up_to must be an int >= 1"),
        ({"exact_up_to": 2.5}, "exact_up_to must be an int >= 1"),
        ({"exact_up_to": 5, "approximation": "gaussian"}, "approximation='gaussian' is not known; use one of"),
    ],
)
def test_parameters_that_cannot_be_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        KMM(**parameters).fit(*stack_domains(*samples()))


# ---------------------------------------------------------------- CSR rows, and chosen bandwidths


@pytest.mark.parametrize("exact_up_to", [None, 30])
@pytest.mark.parametrize("regularization", [0.0, 1.0])
def test_csr_rows_give_what_dense_rows_give(exact_up_to, regularization):
    rng = np.random.default_rng(0)
    source, target = (rng.poisson(rate, (n, 6)).astype(float) for rate, n in ((0.3, 60), (0.6, 40)))
    ratio = KMM(exact_up_to=exact_up_to, regularization=regularization, n_centers=100, random_state=0)
    dense = ratio.fit(*stack_domains(source, target))
    expected = dense.weights_, dense.transform(target), dense.objective_value_
    sparse = ratio.fit(*stack_domains(csr_array(source), csr_array(target)))
    assert sparse.objective_value_ == pytest.approx(expected[2], rel=1e-6)
    # Equal rows leave the weights open along their differences, but for the solver's symmetry.
    np.testing.assert_allclose(sparse.weights_, expected[0], atol=1e-3)
    np.testing.assert_allclose(sparse.transform(csr_array(target)), expected[1], atol=1e-3)
    np.testing.assert_allclose(sparse.transform(target), sparse.transform(csr_array(target)), atol=1e-6)


def test_cv_takes_the_bandwidth_of_the_best_held_out_score():
    source, target = (sorted_rows(rows) for rows in samples(40, 30))
    ratio = KMM(gamma="cv", cv=3, scale=None).fit(*stack_domains(source, target))
    scores = []
    for gamma in ratio.cv_results_["param_gamma"]:
        by_fold = []
        for fold in stratified_folds(40, 30, 3):
            kept = stack_domains(np.delete(source, fold.source, axis=0), np.delete(target, fold.target, axis=0))
            by_fold.append(KMM(gamma=gamma, scale=None).fit(*kept).score(*stack_domains(source[fold.source], target[fold.target])))
        scores.append(np.mean(by_fold))
    np.testing.assert_allclose(ratio.cv_results_["mean_test_score"], scores, rtol=1e-6)
    assert ratio.gamma_ == ratio.cv_results_["param_gamma"][int(np.argmax(scores))] and len(scores) == 9
