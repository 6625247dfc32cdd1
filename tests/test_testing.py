"""The laws have teeth: a right divergence passes, and each wrong one is caught under the name of the law it breaks."""

import importlib
from dataclasses import dataclass, fields
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from array_api_compat import array_namespace
from hypothesis import given

from densratio import solvers
from densratio.features import Gaussian
from densratio.objectives import Objective, Problem, SquaredDistance
from densratio.objectives.lsif import LeastSquares
from densratio.projections import box_sum, nonnegative
from densratio.solvers import ProjectedGradient
from densratio.solvers.reference import program
from densratio.testing import (
    KINDS,
    check_features,
    check_objective,
    check_projection,
    check_solver,
    draw_problem,
    gaussian_shift,
    problems,
)

# ---------------------------------------------------------------- problems


@given(problems(n_rows=(1, 300)))
def test_the_repr_of_a_problem_draws_it_again(problem):
    again = eval(repr(problem), {"draw_problem": draw_problem})
    np.testing.assert_array_equal(again.source, problem.source)
    np.testing.assert_array_equal(again.target, problem.target)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_finite_rows_of_one_width(kind):
    for n_source, n_target in ((1, 1), (1, 50), (50, 1), (200, 100)):
        problem = draw_problem(kind, n_source, n_target, 3, seed=1)
        assert problem.source.shape[1] == problem.target.shape[1] == 3
        assert len(problem.source) >= 1 and len(problem.target) >= 1
        assert np.all(np.isfinite(problem.source)) and np.all(np.isfinite(problem.target))


def test_the_exact_ratio_turns_source_means_into_target_means():
    problem = gaussian_shift(200_000, 200_000, 2, shift=0.7, seed=0)
    ratio = problem.ratio(problem.source)
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(ratio @ problem.source / len(ratio), problem.target.mean(axis=0), atol=0.02)


@pytest.mark.parametrize("kinds", [["heavytails"], ["shift", "heavytails"], "shift", []])
def test_an_unknown_kind_is_refused_at_once_with_the_known_ones(kinds):
    with pytest.raises(ValueError, match=r"kinds must be a list of some of \['shift', .*'heavy_tails'.*\]; got"):
        problems(kinds)
    if kinds == ["heavytails"]:
        with pytest.raises(ValueError, match="kinds must be a list of some of"):
            draw_problem("heavytails", 3, 3)


@pytest.mark.parametrize(
    ("check", "given", "words"),
    [
        (check_objective, [SquaredDistance], r"objective is the class SquaredDistance; .*check_objective\(SquaredDistance\(\)\)"),
        (
            check_objective,
            [ProjectedGradient()],
            r"objective must be an instance of Objective; got ProjectedG.*objective\(objective",
        ),
        (check_solver, [ProjectedGradient, SquaredDistance()], r"solver is the class ProjectedGradient; .*check_solver\(Projected"),
        (check_solver, [ProjectedGradient(), SquaredDistance], r"check_solver\(solver, SquaredDistance\(\)\)"),
        (
            check_solver,
            [SquaredDistance(), ProjectedGradient()],
            r"solver must be an instance of Solver; got SquaredD.*\(solver, objective\)",
        ),
        (check_features, [Gaussian], r"check_features\(Gaussian\(\)\)"),
    ],
)
def test_a_class_and_swapped_arguments_are_told(check, given, words):
    with pytest.raises(TypeError, match=words):
        check(*given)


# ---------------------------------------------------------------- projections

RIGHT = {"project": nonnegative, "is_feasible": lambda p: p.min() >= 0.0, "member": lambda rng, n: rng.exponential(size=n)}
WRONG_PROJECTIONS = {
    "a projection is feasible": lambda v: v,
    "projecting twice changes nothing": lambda v: 0.5 * np.clip(v, 0.0, None),
    "projections come no further apart": lambda v: np.where(v < 0.0, -3.0 * v, v),
    "no feasible point is nearer than the projection": lambda v: np.zeros_like(v),
}


def test_the_right_projection_passes():
    check_projection(**RIGHT)


@pytest.mark.parametrize("law", WRONG_PROJECTIONS)
def test_a_wrong_projection_is_caught(law):
    with pytest.raises(AssertionError, match=f"law: {law}"):
        check_projection(**{**RIGHT, "project": WRONG_PROJECTIONS[law]})


def test_clipping_and_rescaling_is_no_projection():
    def rescaled(v):
        clipped = np.clip(v, 0.0, None)
        return clipped * len(v) / clipped.sum() if clipped.sum() > 0.0 else np.ones(len(v))

    with pytest.raises(AssertionError, match="law: projections come no further apart"):
        check_projection(rescaled, lambda p: abs(p.mean() - 1.0) < 1e-9)
    check_projection(lambda v: box_sum(v, float(len(v)), len(v)), lambda p: abs(p.mean() - 1.0) < 1e-9)


# ---------------------------------------------------------------- a divergence of one's own


@dataclass(frozen=True, eq=False)
class MeanMatchingProblem(Problem):
    """F(w) = |mean_i w_i phi(x_i) - mean_j phi(v_j)|^2 / 2 + ridge |w - 1|^2 / (2 n) over w >= 0 with mean 1."""

    source: Any
    target: Any
    ridge: float

    gradient_is_affine = True

    def init(self):
        return array_namespace(self.source).ones_like(self.source[:, 0])

    def value_and_grad(self, coef):
        xp, n = array_namespace(coef, self.source), self.source.shape[0]
        off = xp.matrix_transpose(self.source) @ coef / n - xp.mean(self.target, axis=0)
        value = 0.5 * xp.sum(off * off) + 0.5 * self.ridge * xp.sum((coef - 1.0) ** 2) / n
        return value, (self.source @ off + self.ridge * (coef - 1.0)) / n

    def curvature(self):
        n = self.source.shape[0]
        return (array_namespace(self.source).sum(self.source * self.source) / n + self.ridge) / n

    def project(self, coef):
        return box_sum(coef, float(coef.shape[0]), coef.shape[0])

    def ratio(self, coef, features):
        return nonnegative(features @ coef) / coef.shape[0]


@dataclass(frozen=True)
class MeanMatching(Objective):
    ridge: float = 0.1
    kind: type = MeanMatchingProblem

    anchors = "source"

    def problem(self, source, target, source_weight=None, target_weight=None):
        return self.kind(source, target, self.ridge)


@program.register
def _(problem: MeanMatchingProblem):
    n = len(problem.source)
    w = cp.Variable(n)
    off = problem.source.T @ w / n - problem.target.mean(axis=0)
    value = 0.5 * cp.sum_squares(off) + 0.5 * problem.ridge * cp.sum_squares(w - 1) / n
    return w, value, [w >= 0, cp.sum(w) == n]


def test_a_right_divergence_passes():
    check_objective(MeanMatching())


def test_a_right_divergence_is_solved():
    check_solver(ProjectedGradient(), MeanMatching(ridge=1.0), max_examples=8)


class WrongGradient(MeanMatchingProblem):
    def value_and_grad(self, coef):
        value, grad = super().value_and_grad(coef)
        return value, 1.001 * grad


class WrongOffThePlane(MeanMatchingProblem):
    """Wrong off the feasible plane, where no feasible difference reaches: automatic differentiation alone sees it."""

    def value_and_grad(self, coef):
        value, grad = super().value_and_grad(coef)
        return value, grad + 1.0


class InfeasibleStart(MeanMatchingProblem):
    def init(self):
        return 2.0 * super().init()


class InfeasibleWarmStart(MeanMatchingProblem):
    def warm_start(self, coef):
        return nonnegative(coef)


class ShrinkingProjection(MeanMatchingProblem):
    def project(self, coef):
        return 0.5 * super().project(coef) + 0.5


class RescalingProjection(MeanMatchingProblem):
    def project(self, coef):
        xp = array_namespace(coef)
        kept = nonnegative(coef) + 1e-12
        return kept / xp.mean(kept)


class SmallCurvature(MeanMatchingProblem):
    def curvature(self):
        return 0.05 * super().curvature()


class NoCurvature(MeanMatchingProblem):
    def curvature(self):
        return 0.0 * super().curvature()


class SmallGap(MeanMatchingProblem):
    def gap(self, coef, grad):
        return 0.0 * coef[0]


class NegativeRatio(MeanMatchingProblem):
    def ratio(self, coef, features):
        return -0.5 - features @ coef


class NotFinite(MeanMatchingProblem):
    def value_and_grad(self, coef):
        value, grad = super().value_and_grad(coef)
        return value * float("nan"), grad


class Concave(MeanMatchingProblem):
    gradient_is_affine = False

    def value_and_grad(self, coef):
        value, grad = super().value_and_grad(coef)
        return -value, -grad


class NotAffine(MeanMatchingProblem):
    def value_and_grad(self, coef):
        value, grad = super().value_and_grad(coef)
        return value + array_namespace(coef).sum(coef**4), grad + 4.0 * coef**3


class NumpyAlone(MeanMatchingProblem):
    def project(self, coef):
        return np.asarray(super().project(coef)) * (1.0 if isinstance(coef, np.ndarray) else 1.001)


WRONG_OBJECTIVES = [
    (WrongGradient, "the gradient is the slope of the value"),
    (WrongOffThePlane, "the gradient is that of automatic differentiation"),
    (InfeasibleStart, "the cold and the warm start are feasible"),
    (InfeasibleWarmStart, "the cold and the warm start are feasible"),
    (ShrinkingProjection, "(the cold and the warm start are feasible|projecting twice changes nothing)"),
    (RescalingProjection, "(projections come no further apart|no feasible point is nearer than the projection)"),
    (SmallCurvature, "the curvature bounds the change of the gradient"),
    (NoCurvature, "the curvature is positive and finite"),
    (SmallGap, "the gap is at least what is left to gain"),
    (NegativeRatio, "the ratio is finite and nonnegative"),
    (NotFinite, "the value and gradient are finite"),
    (Concave, "the value is above its linear models"),
    (NotAffine, "the gradient is affine"),
    (NumpyAlone, "the array libraries agree on the objective"),
]


@pytest.mark.parametrize(("wrong", "law"), WRONG_OBJECTIVES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_wrong_divergence_is_caught_by_the_law_it_breaks(wrong, law):
    with pytest.raises(AssertionError, match=rf"^law: {law}\nbroken by draw_problem\("):
        check_objective(MeanMatching(kind=wrong))


class AddsUpWrongly(LeastSquares):
    def plus(self, other):
        return self


@dataclass(frozen=True)
class OfAddsUpWrongly(SquaredDistance):
    def problem(self, source, target, source_weight=None, target_weight=None):
        right = super().problem(source, target, source_weight, target_weight)
        return AddsUpWrongly(**{field.name: getattr(right, field.name) for field in fields(right)})


def test_sums_that_do_not_add_up_are_caught():
    with pytest.raises(AssertionError, match=r"^law: problems of two batches add up to that of all rows\nbroken by draw_problem\("):
        check_objective(OfAddsUpWrongly())


def test_an_objective_in_the_form_of_earlier_versions_says_what_to_write():
    with pytest.raises(TypeError, match="belongs to a Problem"):

        class Old(Objective):
            def value_and_grad(self, coef, source, target):
                return 0.0, coef


def test_a_method_of_the_problem_that_is_sought_in_the_objective_is_named():
    with pytest.raises(AttributeError, match=r"objective\.problem\(source, target\)\.value_and_grad"):
        SquaredDistance().value_and_grad(np.ones(2), np.ones((2, 2)), np.ones((2, 2)))


def test_a_solver_that_is_given_an_objective_says_what_it_takes():
    with pytest.raises(TypeError, match=r"solver\.init\(objective\.problem\(source, target\)\); got MeanMatching"):
        ProjectedGradient().init(MeanMatching(), np.ones((2, 1)), np.ones((2, 1)))


@pytest.mark.parametrize(
    ("room", "name", "hint"),
    [
        ("objectives", "StatisticObjective", "SumProblem"),
        ("objectives", "Statistics", "SumProblem"),
        ("estimators", "Update", "Weighting"),
        ("solvers", "optimality_residual", r"problem\.residual"),
    ],
)
def test_a_name_of_version_0_2_that_is_gone_says_what_takes_its_place(room, name, hint):
    with pytest.raises(ImportError, match=hint):
        getattr(importlib.import_module(f"densratio.{room}"), name)


def test_the_solvers_of_version_0_2_stand_for_those_that_took_their_place():
    assert solvers.InteriorPoint is solvers.ActiveSet
    assert solvers.solver_class("interior_point") is solvers.ActiveSet
    assert solvers.solver_class("expectation_maximisation") is solvers.ExpectationMaximization


# ---------------------------------------------------------------- a solver of one's own


class EarlyStop(ProjectedGradient):
    """Calls itself converged after its first step."""

    def has_converged(self, state):
        return state.n_iter > 0


class NoProgress(ProjectedGradient):
    """Returns its start."""

    def step(self, problem, state):
        return state._replace(n_iter=state.n_iter + 1, residual=0.0 * state.step_size)


class OtherSingleStep(ProjectedGradient):
    def single_step(self, problem, coef=None):
        state = super().single_step(problem, coef)
        return state._replace(coef=problem.init())


class Unprojected(ProjectedGradient):
    def init(self, problem, coef=None):
        state = super().init(problem, coef)
        return state if coef is None else state._replace(coef=coef)


class Overshoot(ProjectedGradient):
    def step(self, problem, state):
        grad = problem.value_and_grad(state.coef)[1]
        coef = problem.project(state.coef - 50.0 * state.step_size * grad)
        return state._replace(coef=coef, n_iter=state.n_iter + 1)


class OtherRun(ProjectedGradient):
    """`run` takes a step that it does not count."""

    def run(self, problem, state):
        state = super().run(problem, state)
        return self.step(problem, state)._replace(n_iter=state.n_iter)


class LeavesTheSet(ProjectedGradient):
    def step(self, problem, state):
        state = super().step(problem, state)
        return state._replace(coef=1.001 * state.coef)


class ChangesTheProblem(ProjectedGradient):
    def init(self, problem, coef=None):
        problem.target[...] = 0.0
        return super().init(problem, coef)


class WaitsForTheHost(ProjectedGradient):
    def step(self, problem, state):
        if float(state.residual) < 0.0:
            return state
        return super().step(problem, state)


WRONG_SOLVERS = [
    (EarlyStop, "a converged solver has a residual within tol"),
    (NoProgress, "a converged solver has a residual within tol"),
    (Unprojected, "the solver starts feasible"),
    (Overshoot, "no step worsens the value"),
    (OtherRun, "a run is calls of step"),
    (OtherSingleStep, "a single step is a step"),
    (LeavesTheSet, "the solver ends feasible"),
    (ChangesTheProblem, "no step worsens the value"),
    (WaitsForTheHost, "a step never waits for the device"),
]


@pytest.mark.parametrize(("wrong", "law"), WRONG_SOLVERS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_wrong_solver_is_caught_by_the_law_it_breaks(wrong, law):
    with pytest.raises(AssertionError, match=rf"^law: {law}\nbroken by draw_problem\("):
        check_solver(wrong(), MeanMatching(ridge=1.0), is_monotone=wrong is not LeavesTheSet, max_examples=10)


def test_a_solver_without_time_to_converge_is_caught():
    with pytest.raises(AssertionError, match=r"^law: a run converges\n"):
        check_solver(ProjectedGradient(tol=1e-12, max_iter=2), MeanMatching(), max_examples=10)


def test_a_certificate_that_is_wrong_is_caught_by_the_reference():
    """A kinked problem has no residual law, so the optimum's own law must catch a solver that stays where it starts."""

    class Kinked(MeanMatchingProblem):
        is_smooth = False

    with pytest.raises(AssertionError, match=r"^law: the value is the reference optimum\n"):
        check_solver(NoProgress(), MeanMatching(kind=Kinked), max_examples=10)


# ---------------------------------------------------------------- features of one's own


@dataclass(frozen=True)
class Ranked(Gaussian):
    def __call__(self, x):
        return super().__call__(x - x.mean(0))


@dataclass(frozen=True)
class Signed(Gaussian):
    def __call__(self, x):
        return super().__call__(x) - 0.5


@dataclass(frozen=True)
class UnitBound(Gaussian):
    def bandwidth(self, source, target, source_weight=None, target_weight=None):
        return array_namespace(source).ones_like(source[0, 0])


@dataclass(frozen=True)
class Forgetful(Gaussian):
    def fit(self, source, target, *, anchors):
        fitted = super().fit(source, target, anchors=anchors)
        object.__setattr__(self, "gamma_", fitted.gamma_)
        return fitted


WRONG_FEATURES = [
    (Ranked, "the features of a row depend on that row alone"),
    (Signed, "the features are nonnegative"),
    (UnitBound, "the features with a bandwidth rule have no unit"),
    (Forgetful, "fitting returns a copy and repeats itself"),
]


@pytest.mark.parametrize(("wrong", "law"), WRONG_FEATURES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_wrong_feature_map_is_caught_by_the_law_it_breaks(wrong, law):
    with pytest.raises(AssertionError, match=rf"^law: {law}\nbroken by draw_problem\("):
        check_features(wrong())
