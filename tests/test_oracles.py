"""Answers known from elsewhere: cvxpy's optima, scipy's distance, torch's derivatives, and exact density ratios."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from sklearn.exceptions import ConvergenceWarning

from densratio import KLIEP, KMM, LSIF, Wasserstein, stack_domains
from densratio.features import Gaussian, Nystroem, RandomFourier
from densratio.objectives import KullbackLeibler, MaximumMeanDiscrepancy, SquaredDistance, Wasserstein1
from densratio.solvers import ActiveSet, ClosedForm, ExpectationMaximization, LikelihoodNewton, ProjectedGradient, Reference
from densratio.testing import draw_problem, gaussian_shift

# ---------------------------------------------------------------- optima against cvxpy

GRADIENT = ProjectedGradient(tol=1e-9, max_iter=200_000)

# name: (objective, solvers, features)
OPTIMA = {
    "lsif, l2": (SquaredDistance(0.1), [GRADIENT, ActiveSet()], None),
    "lsif, l1": (SquaredDistance(0.1, l1_ratio=1.0), [GRADIENT], None),
    "lsif, both": (SquaredDistance(0.1, l1_ratio=0.3), [GRADIENT, ActiveSet()], None),
    "ulsif": (SquaredDistance(0.1, nonnegative=False), [GRADIENT, ClosedForm()], None),
    "ulsif, l1": (SquaredDistance(0.1, l1_ratio=1.0, nonnegative=False), [GRADIENT], None),
    "ulsif, both": (SquaredDistance(0.1, l1_ratio=0.3, nonnegative=False), [GRADIENT, ActiveSet()], None),
    "ulsif, random features": (SquaredDistance(0.1, nonnegative=False), [GRADIENT, ClosedForm()], RandomFourier(0.5, 20)),
    "kmm": (MaximumMeanDiscrepancy(), [ActiveSet()], None),
    "kmm, unbounded": (MaximumMeanDiscrepancy(max_weight=None), [ActiveSet()], None),
    "kmm, small max_weight": (MaximumMeanDiscrepancy(max_weight=1.3), [ActiveSet()], None),
    "kmm, only even weights": (MaximumMeanDiscrepancy(max_weight=1.0), [ActiveSet(), GRADIENT], None),
    "kmm, mean_tol": (MaximumMeanDiscrepancy(max_weight=5.0, mean_tol=0.2), [ActiveSet()], None),
    "kmm, ridge": (MaximumMeanDiscrepancy(regularization=1.0), [ActiveSet(), GRADIENT], None),
    "kmm, ridge and mean_tol": (MaximumMeanDiscrepancy(2.0, 0.3, 1.0), [ActiveSet(), GRADIENT], None),
    "kmm, diw": (MaximumMeanDiscrepancy(50.0, "diw", 1e-5), [ActiveSet()], None),
    "kmm, factored": (MaximumMeanDiscrepancy(5.0, is_factored=True), [ActiveSet()], Nystroem(0.5, 10)),
    "kmm, factored ridge": (
        MaximumMeanDiscrepancy(5.0, 0.1, 1.0, is_factored=True),
        [ActiveSet(), GRADIENT],
        Nystroem(0.5, 10),
    ),
    "kliep": (
        KullbackLeibler(),
        [LikelihoodNewton(tol=1e-10), ExpectationMaximization(tol=3e-6), ProjectedGradient(tol=3e-6, max_iter=100_000)],
        None,
    ),
    "wasserstein": (Wasserstein1(), [ClosedForm()], None),
    "wasserstein, small max_weight": (Wasserstein1(max_weight=1.3), [ClosedForm()], None),
    "wasserstein, only even weights": (Wasserstein1(max_weight=1.0), [ClosedForm()], None),
    "wasserstein, unbounded": (Wasserstein1(max_weight=None), [ClosedForm()], None),
}


def samples_of(objective, features, seed):
    problem = gaussian_shift(35, 25, 1 if objective.takes == "rows" else 2, shift=0.8, seed=seed)
    if objective.takes == "rows":
        return problem.source, problem.target
    fitted = (features or Gaussian(gamma=0.5)).fit(problem.source, problem.target, anchors=objective.anchors)
    return fitted(problem.source), fitted(problem.target)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OPTIMA)
def test_the_optimum_is_cvxpys(name, seed):
    objective, solvers, features = OPTIMA[name]
    samples = samples_of(objective, features, seed)
    problem = objective.problem(*samples)
    optimum = Reference().solve(problem).value
    for solver in solvers:
        found = solver.solve(problem)
        assert found.converged
        assert found.value == pytest.approx(optimum, rel=1e-6, abs=1e-9)
        assert found.value - optimum <= found.gap + 1e-9


def test_the_optimum_uses_its_bounds():
    """The bounds of the problems above bind, so that the comparison with cvxpy is one of constrained optima."""
    for name, bound in (("kmm, small max_weight", 1.3), ("wasserstein, small max_weight", 1.3)):
        objective, solvers, features = OPTIMA[name]
        samples = samples_of(objective, features, 0)
        coef = solvers[0].solve(objective.problem(*samples)).coef
        assert coef.max() == pytest.approx(bound, abs=1e-6)
    sparse = OPTIMA["lsif, l1"][0]
    samples = samples_of(sparse, None, 0)
    assert np.sum(GRADIENT.solve(sparse.problem(*samples)).coef == 0.0) >= 5


def test_the_gap_closes_at_the_optimum():
    for name in ("kmm", "kmm, mean_tol", "kliep", "lsif, l2", "ulsif, l1"):
        objective, solvers, features = OPTIMA[name]
        samples = samples_of(objective, features, 0)
        found = solvers[0].solve(objective.problem(*samples))
        if name != "ulsif, l1":  # L1 alone has no certificate
            assert found.gap <= 1e-6 * max(1.0, abs(found.value))


# ---------------------------------------------------------------- Wasserstein against scipy and autograd


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 15]), st.integers(0, 2**16))
def test_the_wasserstein_value_is_scipys(n, m, decimals, seed):
    rng = np.random.default_rng(seed)
    x, v = (np.round(rng.standard_normal((size, 1)), decimals) for size in (n, m))
    w = rng.exponential(size=n)
    w *= n / w.sum()
    value = Wasserstein1().problem(x, v).value_and_grad(w)[0]
    assert float(value) == pytest.approx(wasserstein_distance(x[:, 0], v[:, 0], w, None), rel=1e-9, abs=1e-12)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 2**16))
def test_the_wasserstein_slope_is_automatic_differentiations(n, m, seed):
    rng = np.random.default_rng(seed)
    x, v = rng.standard_normal((n, 1)), rng.standard_normal((m, 1))
    w = rng.exponential(size=n)
    w *= n / w.sum()
    tensor = torch.asarray(w, requires_grad=True)
    points = torch.concat([torch.asarray(x[:, 0]), torch.asarray(v[:, 0])])
    order = torch.argsort(points)
    mass = torch.concat([tensor / n, torch.full((m,), -1.0 / m, dtype=torch.float64)])[order]
    distance = (torch.cumsum(mass, 0)[:-1].abs() * torch.diff(points[order])).sum()
    (expected,) = torch.autograd.grad(distance, tensor)
    np.testing.assert_allclose(Wasserstein1().problem(x, v).value_and_grad(w)[1], expected.numpy(), atol=1e-10)


def test_the_wasserstein_distance_of_a_shift_is_the_shift():
    x = np.random.default_rng(0).standard_normal((50, 1))
    value, grad = Wasserstein1().problem(x, x + 2.0).value_and_grad(np.ones(50))
    assert float(value) == pytest.approx(2.0, rel=1e-12)
    # The source lies to the left throughout: mass moved right by one unit saves one unit, up to the constant that mean 1 leaves.
    np.testing.assert_allclose(np.diff(grad[np.argsort(x[:, 0])]), -np.diff(np.sort(x[:, 0])) / 50, atol=1e-12)


# ---------------------------------------------------------------- the exact kernel value of KMM


def test_kernel_mean_matchings_value_is_the_discrepancy():
    problem = gaussian_shift(30, 20, 2, seed=3)
    features = Gaussian(gamma=0.5).fit(problem.source, problem.target, anchors="source")
    w = np.random.default_rng(0).dirichlet(np.ones(30)) * 30
    value = MaximumMeanDiscrepancy().problem(features(problem.source), features(problem.target)).value_and_grad(w)[0]
    of_target = Gaussian(gamma=0.5).fit(problem.source, problem.target, anchors="target")(problem.target)
    pooled = np.concatenate([problem.source, problem.target])
    signed = np.concatenate([w / 30, np.full(20, -1 / 20)])
    kernel = np.exp(-0.5 * ((pooled[:, None] - pooled[None]) ** 2).sum(axis=2))
    assert 2.0 / 30 * float(value) + of_target.mean() == pytest.approx(signed @ kernel @ signed, abs=1e-12)


# ---------------------------------------------------------------- 8: a known ratio is recovered

RECOVERY = {
    "kmm": lambda: KMM(),
    "kliep": lambda: KLIEP(gamma=0.5, n_centers=50, random_state=0),
    "lsif": lambda: LSIF(gamma=0.5, regularization=0.01, tol=1e-4, random_state=0),
}
SEEDS = range(6)


def error(name, n, seed, shift=0.5):
    """Mean squared error of the ratio on new source rows, relative to the ratio's variance there."""
    problem = gaussian_shift(n, n, shift=shift, seed=seed)
    new = gaussian_shift(1000, 1, shift=shift, seed=1000 + seed).source
    ratio = RECOVERY[name]().fit(*stack_domains(problem.source, problem.target)).transform(new)
    exact = problem.ratio(new)
    return np.mean((ratio - exact) ** 2) / np.var(exact)


@pytest.mark.parametrize("name", RECOVERY)
def test_a_known_ratio_is_recovered_better_with_more_rows(name):
    few, more = (np.mean([error(name, n, seed) for seed in SEEDS]) for n in (40, 640))
    assert more < 0.12
    assert more < 0.5 * few


@pytest.mark.parametrize("make", [lambda: KMM(gamma=0.5), lambda: KLIEP(gamma=0.5), lambda: LSIF(gamma=0.5, tol=1e-4), Wasserstein])
def test_weighted_source_means_are_the_targets(make):
    problem = gaussian_shift(400, 400, shift=0.7, seed=1)
    weights = make().fit(*stack_domains(problem.source, problem.target)).weights_
    before = problem.source.mean() - problem.target.mean()
    after = weights @ problem.source[:, 0] / 400 - problem.target.mean()
    assert abs(after) < 0.15 * abs(before)


def test_the_reference_says_where_it_stopped_early():
    """Rows whose likelihoods differ by decades are more than conic solvers take: the gap stays true, and converged_ is False."""
    drawn = draw_problem("heavy_tails", 54, 62, 1, seed=512)
    X, y = stack_domains(drawn.source, drawn.target)
    with pytest.warns(ConvergenceWarning, match='use solver="auto"'):
        fitted = KLIEP(solver="reference").fit(X, y)
    best = KLIEP().fit(X, y)
    assert best.converged_ and not fitted.converged_
    assert best.objective_value_ < fitted.objective_value_ <= best.objective_value_ + fitted.gap_
    assert fitted.objective_value_ - best.objective_value_ < 0.01
