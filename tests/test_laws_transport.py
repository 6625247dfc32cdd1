"""The laws of optimal transport in several columns, its solver against cvxpy, and the line against the plane."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densratio.objectives import Wasserstein1
from densratio.objectives.planned_transport import PlannedTransport
from densratio.solvers import ClosedForm, PrimalDual, Reference
from densratio.testing import KINDS, check_objective, check_solver, gaussian_shift, problems

VARIANTS = {
    "regularized": Wasserstein1(regularization=0.3),
    "regularized, bounded": Wasserstein1(max_weight=1.5, regularization=0.3),
    "regularized, unbounded": Wasserstein1(max_weight=None, regularization=0.3),
    "plain": Wasserstein1(),
}
several = problems(n_rows=(1, 40), n_columns=(2, 4))
# cvxpy's own rounding is all there is where the optimum is 0.
positive = problems([kind for kind in KINDS if kind not in ("equal", "one_value")], n_rows=(1, 40), n_columns=(2, 4))
few = settings(max_examples=8)
# Bounds are data of the regularized problem.
N_PROBLEMS = {"regularized": 6, "regularized, bounded": 3, "regularized, unbounded": 3, "plain": 6}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_objective_obeys_the_laws_in_several_columns(name):
    check_objective(VARIANTS[name], on=several, max_examples=N_PROBLEMS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_the_primal_dual_solver_obeys_the_laws(name):
    on = positive if name == "plain" else several
    check_solver(PrimalDual(), VARIANTS[name], on=on, steps_on_device=False, max_examples=N_PROBLEMS[name])


def counted(seed, n, m, d=2, shift=0.7):
    """Rows of both samples with drawn counts."""
    problem, rng = gaussian_shift(n, m, d, shift=shift, seed=seed), np.random.default_rng(seed)
    return problem.source, problem.target, rng.integers(1, 5, n).astype(float), rng.integers(1, 5, m).astype(float)


@few
@given(seed=st.integers(0, 2**16), name=st.sampled_from(sorted(VARIANTS)), n=st.integers(2, 40), m=st.integers(2, 40))
def test_the_gap_is_the_distance_to_the_optimum_of_cvxpy(seed, name, n, m):
    problem = VARIANTS[name].problem(*counted(seed, n, m))
    found, best = PrimalDual().solve(problem), Reference().solve(problem).coef
    optimum, value = (float(problem.value_and_grad(coef)[0]) for coef in (best, found.coef))
    assert found.converged and 0.0 <= found.gap <= 1e-9 * found.value
    assert found.value == pytest.approx(value, rel=1e-9)
    assert value <= optimum + 1e-9 and optimum == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("max_iter", [1, 3, 6, 10])
def test_a_run_that_stops_early_is_feasible_no_worse_than_even_weights_and_knows_how_far_it_is(max_iter):
    problem = VARIANTS["regularized"].problem(*counted(0, 40, 30))
    optimum = PrimalDual().solve(problem).value
    found = PrimalDual(max_iter=max_iter).solve(problem)
    even, value = (float(problem.value_and_grad(coef)[0]) for coef in (problem.init(), found.coef))
    assert not found.converged and found.coef.min() >= 0.0
    assert optimum - 1e-9 <= value <= min(even, found.value) + 1e-9
    assert found.value - optimum <= found.gap + 1e-9


@pytest.mark.parametrize("shape", [(60, 7), (7, 60)], ids=["more source rows", "more target rows"])
def test_either_sample_may_be_the_longer_one(shape):
    problem = VARIANTS["regularized"].problem(*counted(1, *shape))
    assert PrimalDual().solve(problem).gap <= 1e-10


@few
@given(
    problem=problems(n_rows=(1, 40), n_columns=(1, 1)),
    bound=st.sampled_from([None, 1000.0, 1.5]),
    ridge=st.sampled_from([0.01, 0.3, 3.0]),
)
def test_one_column_is_solved_as_several_columns_are(problem, bound, ridge):
    """The dynamic program on the line and the transport plan of the same rows with a constant second column."""
    scale = max(np.ptp(np.concatenate([problem.source, problem.target])), 1e-6)
    objective = Wasserstein1(max_weight=bound, regularization=ridge * scale)
    line = ClosedForm().solve(objective.problem(problem.source, problem.target))
    flat = [np.concatenate([rows, np.zeros_like(rows)], axis=1) for rows in (problem.source, problem.target)]
    plan = PrimalDual().solve(objective.problem(*flat))
    assert line.value == pytest.approx(plan.value, rel=1e-9, abs=1e-9 * scale)
    assert 0.0 <= line.gap <= 1e-11 * (scale + abs(line.value))
    np.testing.assert_allclose(line.coef, plan.coef, atol=1e-3)


def test_unregularized_weights_are_counts_of_nearest_neighbors():
    source, target, _, drawn = counted(3, 25, 40)
    found = PrimalDual().solve(Wasserstein1().problem(source, target, None, drawn))
    nearest = np.linalg.norm(source[:, None] - target[None], axis=2).argmin(axis=0)
    expected = np.bincount(nearest, drawn / drawn.sum(), 25) * 25
    np.testing.assert_allclose(found.coef, expected, atol=1e-6)


def test_a_row_far_from_all_others_costs_no_digits():
    source, target, *_ = counted(4, 30, 20)
    objective = Wasserstein1(regularization=0.3)
    far = PrimalDual().solve(objective.problem(np.concatenate([source, [[1e10, 0.0]]]), target))
    # The far row gets nothing, and the penalty of the others is that of 31 rows.
    assert far.coef[-1] == pytest.approx(0.0, abs=1e-9) and far.converged
    same = PrimalDual().solve(Wasserstein1(regularization=0.3 * 31 / 30).problem(source, target))
    np.testing.assert_allclose(far.coef[:-1] * 30 / 31, same.coef, atol=1e-6)


@few
@given(
    seed=st.integers(0, 2**16),
    is_source=st.booleans(),
    side=st.sampled_from([-1.0, 1.0]),
    bound=st.sampled_from([None, 1.5]),
    has_other_side=st.booleans(),
)
def test_on_a_line_no_weight_depends_on_how_far_a_far_row_is(seed, is_source, side, bound, has_other_side):
    """Once its distance outweighs all other distances and the penalty, the mass that crosses it is the least that can."""
    source, target, *_ = counted(seed, 20, 15, d=1)
    objective, found = Wasserstein1(max_weight=bound, regularization=0.3), []
    for distance in (1e4, 1e10):
        (source if is_source else target)[3] = side * distance
        if has_other_side:
            source[4] = -3.0 * side * distance
        found.append(ClosedForm().solve(objective.problem(source, target)))
        assert found[-1].gap <= 1e-9 * found[-1].value + 1e-17 * distance
    np.testing.assert_allclose(found[1].coef, found[0].coef, atol=1e-5)


def test_too_many_pairs_of_rows_name_what_takes_them():
    rows = np.random.default_rng(0).standard_normal((5000, 2))
    with pytest.raises(ValueError, match=r"5000 x 5000 distinct rows.*potential=\"critic\""):
        PrimalDual().solve(Wasserstein1(regularization=0.3).problem(rows, rows + 0.1))
    # Few distinct rows are no more than they are.
    codes = np.arange(20000)[:, None] % 4 * np.ones(2)
    assert PrimalDual().solve(Wasserstein1(regularization=0.3).problem(codes, codes[:5000])).gap <= 1e-9


def test_several_columns_make_a_transport_plan():
    assert isinstance(Wasserstein1().problem(np.zeros((2, 2)), np.ones((3, 2))), PlannedTransport)
