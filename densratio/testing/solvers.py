"""The laws of a solver on an objective."""

from __future__ import annotations

import importlib
import importlib.util
from copy import deepcopy
from dataclasses import replace

import numpy as np
from hypothesis.strategies import SearchStrategy

from .._arrays import map_arrays
from ..features import Features
from ..objectives import Objective, Problem
from ..solvers import Reference, Solver, State
from ..solvers.base import residual_scale
from . import problem as drawn
from .cases import Case, cases_of, is_its_own_projection, kind_of
from .laws import at_most, check_is_a, close, hold, largest

__all__ = ["check_solver"]


def check_solver(
    solver: Solver,
    objective: Objective,
    *,
    features: Features | None = None,
    on: SearchStrategy[drawn.Problem] | None = None,
    is_monotone: bool = True,
    is_exact: bool = True,
    steps_on_device: bool = True,
    max_examples: int | None = None,
) -> None:
    """Check, on one objective, the laws of a solver that estimators and training loops rely on.

    It starts and ends feasible, `run` equals repeated calls of `step`, and a solver that reports convergence is at the optimum.

    is_monotone: no step worsens the value. is_exact: `run` converges to the optimum of cvxpy, to 1e-6 relative (needs cvxpy
    and a program for the problem, see `densratio.solvers.reference.program`). steps_on_device: `step` runs on torch's meta
    tensors, so that it never waits for a GPU; set False for a solver whose step runs on the host (closed forms, cvxpy).
    The other arguments are those of `check_objective`.
    """
    check_is_a(Solver, solver, "solver", "check_solver(solver, objective)")
    check_is_a(Objective, objective, "objective", "check_solver(solver, objective)")
    cases = cases_of(objective, features, on, solver)
    laws = [_the_solver_starts_feasible, _a_run_is_calls_of_step, _the_solver_ends_feasible]
    if is_monotone:
        laws += [_no_step_worsens_the_value, _a_warm_start_at_the_answer_stays_as_good]
    if is_exact:
        laws.append(_a_run_converges)
        if kind_of(objective).is_smooth:
            laws.append(_a_converged_solver_has_a_residual_within_tol)
        laws.append(_the_value_is_the_reference_optimum)
    if steps_on_device and importlib.util.find_spec("torch"):
        laws.append(_a_step_never_waits_for_the_device)
    laws.append(_a_single_step_is_a_step)
    for law in laws:
        hold(law, cases, max_examples)


def _started(case: Case, coef: np.ndarray | None = None) -> tuple[Solver, State, Problem]:
    problem = deepcopy(case.built())  # A solver that changes it is judged by the true one.
    return case.solver, case.solver.init(problem, coef), problem


def _ran(case: Case, coef: np.ndarray | None = None, *, max_iter: int | None = None) -> State:
    solver, state, problem = _started(case, coef)
    if max_iter is not None:
        solver = replace(solver, max_iter=max_iter)
    if coef is not None:
        return solver.run(problem, state)
    if max_iter not in case.runs:
        case.runs[max_iter] = solver.run(problem, state)
    return case.runs[max_iter]


def _the_solver_starts_feasible(case: Case) -> None:
    for stored in (None, *case.points(2)):
        is_its_own_projection(case, _started(case, stored)[1].coef)


def _the_solver_ends_feasible(case: Case) -> None:
    is_its_own_projection(case, _ran(case, max_iter=30).coef)


def _a_run_is_calls_of_step(case: Case) -> None:
    end = _ran(case, max_iter=12)
    solver, state, problem = _started(case)
    for _ in range(end.n_iter):
        state = solver.step(problem, state)
    if state.n_iter != end.n_iter:
        raise AssertionError(f"{end.n_iter} steps counted by run and {state.n_iter} by step")
    close(state.coef, end.coef, 0.0, f"coef after {end.n_iter} calls of step, and after run")


def _a_single_step_is_a_step(case: Case) -> None:
    for stored in (None, case.points(1)[0]):
        solver, state, problem = _started(case, stored)
        expected = solver.step(problem, state).coef
        close(solver.single_step(problem, stored).coef, expected, 1e-12 * largest(expected), "coef of single_step, and of step")


def _no_step_worsens_the_value(case: Case) -> None:
    for stored in (None, case.points(1)[0]):
        solver, state, problem = _started(case, stored)
        value, grad = case.value_and_grad(state.coef)
        for _ in range(10):
            state = solver.step(problem, state)
            rounding = 1e-10 * (abs(value) + float(np.sum(np.abs(grad * state.coef))))
            after, grad = case.value_and_grad(state.coef)
            at_most(after, value + rounding + 1e-10 * abs(after), f"value after step {state.n_iter} and before it")
            value = after


def _a_warm_start_at_the_answer_stays_as_good(case: Case) -> None:
    answer = _ran(case, max_iter=30).coef
    # The warm start may change the solution, which is up to the problem; the solver must not worsen it.
    value, grad = case.value_and_grad(case.built().warm_start(answer))
    rounding = 1e-9 * (abs(value) + float(np.sum(np.abs(grad * answer))))
    after = case.value_and_grad(_ran(case, answer, max_iter=30).coef)[0]
    at_most(after, value + rounding, "value of a run from the answer, and there")


def _a_run_converges(case: Case) -> None:
    state = _ran(case)
    if not case.solver.has_converged(state):
        raise AssertionError(f"after {state.n_iter} steps the residual is {float(state.residual):.3g}")


def _a_converged_solver_has_a_residual_within_tol(case: Case) -> None:
    state, problem, solver = _ran(case), case.built(), case.solver
    if not solver.has_converged(state):
        return
    grad = problem.value_and_grad(state.coef)[1]
    residual = problem.residual(state.coef, grad, residual_scale(problem.curvature()))
    resolution = 100.0 * float(np.finfo(np.float64).eps) * max(1.0, largest(state.coef))
    at_most(float(residual), 1.01 * max(solver.tol, resolution), "optimality residual, computed afresh, and tol")


def _the_value_is_the_reference_optimum(case: Case) -> None:
    value, reference = case.value_and_grad(_ran(case).coef)[0], Reference().solve(case.built())
    optimum = case.value_and_grad(reference.coef)[0]
    tolerance = 1e-6 * max(abs(optimum), abs(case.value_and_grad(case.start())[0])) + 1e-12
    if reference.converged:
        close(value, optimum, tolerance, "the solver's value and cvxpy's")
    else:
        at_most(value, optimum + tolerance, "the solver's value, and cvxpy's where it stopped early,")


def _a_step_never_waits_for_the_device(case: Case) -> None:
    """A Python branch on a device value raises an error on meta tensors, which have shapes but no values."""
    torch = importlib.import_module("torch")
    solver, problem = case.solver, case.built(torch.asarray)
    state = solver.init(problem)
    after = solver.step(*(map_arrays(tree, lambda tensor: tensor.to("meta")) for tree in (problem, state)))
    if after.coef.shape != state.coef.shape or after.coef.device.type != "meta":
        raise AssertionError(f"a step on meta tensors gave coef {tuple(after.coef.shape)} on {after.coef.device}")
