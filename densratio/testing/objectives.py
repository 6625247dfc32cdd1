"""The laws of a divergence."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis.strategies import SearchStrategy

from .._arrays import Array
from ..features import Features, Gaussian
from ..objectives import Objective, Problem
from . import problem as drawn
from .cases import Case, cases_of, is_its_own_projection, kind_of
from .laws import array_libraries, at_most, check_is_a, close, hold, largest, length, numbers, short
from .projections import PROJECTION_LAWS

__all__ = ["check_objective"]


def check_objective(
    objective: Objective,
    *,
    features: Features | None = None,
    on: SearchStrategy[drawn.Problem] | None = None,
    max_examples: int | None = None,
) -> None:
    """Check the laws of a divergence that solvers and estimators rely on.

    For its problem on two samples: the gradient is the derivative of the value (if `is_smooth`), and agrees with automatic
    differentiation if torch is installed; the linear model lies below the value; `init`, `project` and `warm_start` are
    feasible, and `project` gives the nearest point; `curvature` bounds the slope of an affine gradient; problems made of sums
    add up; `gap` bounds value - optimum; `ratio` is finite and >= 0; numpy, array_api_strict and torch agree.

    features: the features of the rows, by default Gaussian(). on: the problems to draw, by default with up to 40 rows and 4
    columns, or one column for an objective that takes the rows themselves. max_examples: number of problems per law, by default
    that of the loaded hypothesis profile.
    """
    check_is_a(Objective, objective, "objective", "check_objective(objective)")
    cases = cases_of(objective, features, on)
    for law in _laws_of(objective):
        hold(law, cases, max_examples)


def _laws_of(objective: Objective) -> list[Callable[[Case], None]]:
    knows = kind_of(objective)
    laws: list[Callable[[Case], None]] = [
        _the_value_and_gradient_are_finite,
        _the_value_is_above_its_linear_models,
        _the_cold_and_the_warm_start_are_feasible,
        *PROJECTION_LAWS,
        _the_curvature_is_positive_and_finite,
        _the_gap_is_at_least_what_is_left_to_gain,
        _the_ratio_is_finite_and_nonnegative,
        _the_array_libraries_agree_on_the_objective,
    ]
    if objective.is_sum:
        laws.append(_problems_of_two_batches_add_up_to_that_of_all_rows)
    if knows.is_smooth:
        laws.insert(1, _the_gradient_is_the_slope_of_the_value)
        if importlib.util.find_spec("torch"):
            laws.insert(2, _the_gradient_is_that_of_automatic_differentiation)
    if knows.gradient_is_affine:
        laws += [_the_gradient_is_affine, _the_curvature_bounds_the_change_of_the_gradient]
    return laws


def _the_value_and_gradient_are_finite(case: Case) -> None:
    start = case.start()
    value, grad = case.value_and_grad(start)
    if grad.shape != start.shape or not np.isfinite(value) or not np.all(np.isfinite(grad)):
        raise AssertionError(f"at the start, value {value} and gradient {short(grad)} {grad.shape} for coef {start.shape}")


def _the_gradient_is_the_slope_of_the_value(case: Case) -> None:
    # A share of the start keeps the points where the value is smooth, and the direction q - p keeps them feasible.
    p, q = case.feasible(2)
    middle, along = (case.start() + p + q) / 3.0, q - p
    value, grad = case.value_and_grad(middle)

    def slope(h: float) -> float:
        return (case.value_and_grad(middle + h * along)[0] - case.value_and_grad(middle - h * along)[0]) / (2.0 * h)

    coarse, fine = slope(1e-4), slope(5e-5)
    size = float(np.sum(np.abs(grad * along)))
    rounding = 1e-10 * (abs(value) + float(np.sum(np.abs(grad * middle))))
    atol = 1e-6 * size + rounding + 2.0 * abs(coarse - fine)
    close(float(grad @ along), fine, atol, "gradient . direction and the finite difference")


def _the_gradient_is_that_of_automatic_differentiation(case: Case) -> None:
    torch = importlib.import_module("torch")
    coef = (case.start() + case.feasible(1)[0]) / 2.0
    tensor = torch.asarray(coef).requires_grad_(True)
    value = case.built(torch.asarray).value_and_grad(tensor)[0]
    expected = torch.autograd.grad(value, tensor, allow_unused=True)[0]
    expected = torch.zeros_like(tensor) if expected is None else expected
    close(case.value_and_grad(coef)[1], expected, 1e-8 * largest(numbers(expected)) + 1e-12, "gradient and torch.autograd")


def _the_value_is_above_its_linear_models(case: Case) -> None:
    """f(q) >= f(p) + g(p).(q - p): f is convex and g is a subgradient."""
    start = case.start()
    p, q = ((start + point) / 2.0 for point in case.feasible(2))
    value, grad = case.value_and_grad(p)
    elsewhere = case.value_and_grad(q)[0]
    rounding = 1e-10 * (abs(value) + abs(elsewhere) + float(np.sum(np.abs(grad) * (np.abs(p) + np.abs(q)))))
    at_most(value + float(grad @ (q - p)), elsewhere + rounding, "the linear model at p and the value, both at q")


def _the_cold_and_the_warm_start_are_feasible(case: Case) -> None:
    start = case.start()
    warm = [case.built().warm_start(stored) for stored in [*case.points(2), *case.feasible(1), np.zeros_like(start)]]
    for coef in [start, *warm]:
        is_its_own_projection(case, coef)


def _the_curvature_is_positive_and_finite(case: Case) -> None:
    curvature = float(case.built().curvature())
    if not 0.0 < curvature < float("inf"):
        raise AssertionError(f"curvature {curvature}: 1 / it is the first step size")


def _the_gradient_is_affine(case: Case) -> None:
    p, q = case.points(2)
    of_p, of_q, of_mix = (case.value_and_grad(x)[1] for x in (p, q, 0.3 * p + 0.7 * q))
    close(of_mix, 0.3 * of_p + 0.7 * of_q, 1e-9 * (largest(of_p) + largest(of_q)) + 1e-12, "gradient at 0.3 p + 0.7 q")


def _the_curvature_bounds_the_change_of_the_gradient(case: Case) -> None:
    curvature = float(case.built().curvature())
    p, q = case.points(2)
    distance, of_p = length(q - p), case.value_and_grad(p)[1]
    for _ in range(4):
        of_q = case.value_and_grad(q)[1]
        change, rounding = of_q - of_p, 1e-11 * (length(of_p) + length(of_q))
        at_most(length(change), curvature * length(q - p) * (1.0 + 1e-9) + rounding, "|change of gradient|")
        # Power iteration turns q - p towards the direction of the largest change; smaller changes would underflow.
        if largest(change) < 1e-100:
            return
        unit = change / largest(change)
        q = p + unit * (distance / length(unit))


def _problems_of_two_batches_add_up_to_that_of_all_rows(case: Case) -> None:
    objective: Any = case.objective
    whole: Any = case.built()
    halves = [(samples[::2], samples[1::2]) for samples in case.inputs()]
    first, second = (objective.problem(source, target) for source, target in zip(*halves, strict=True))
    added = first.plus(second)
    for point in case.points(2):
        close(added.project(point), whole.project(point), 1e-9 * (1e-3 + largest(point)), "projection")
        coef = (case.start() + case.project(point)) / 2.0
        value, grad = whole.value_and_grad(coef)
        same_value, same_grad = added.value_and_grad(coef)
        size = abs(float(value)) + largest(grad) + float(np.sum(np.abs(grad * coef)))
        close(same_value, value, 1e-9 * size, "value")
        close(same_grad, grad, 1e-9 * size, "gradient")
        close(added.source_mean(coef), whole.source_mean(coef), 1e-9 * (1.0 + largest(coef)), "mean ratio over the source")


def _the_gap_is_at_least_what_is_left_to_gain(case: Case) -> None:
    rivals = [case.start(), *case.feasible(4)]
    for coef in rivals:
        value, grad = case.value_and_grad(coef)
        gap = float(case.built().gap(coef, grad))
        best = min(case.value_and_grad(rival)[0] for rival in rivals)
        rounding = 1e-9 * (abs(value) + abs(best) + float(np.sum(np.abs(grad * coef))))
        at_most(value - best, gap + rounding, "gain by another feasible coef and the gap")


def _the_ratio_is_finite_and_nonnegative(case: Case) -> None:
    problem, anchors = case.problem, case.objective.anchors
    kernel = Gaussian() if anchors == "source" else case.features
    fitted = kernel.fit(problem.source, problem.target, anchors=anchors)
    for coef in [case.start(), *case.feasible(2)]:
        for rows in (problem.source, problem.target):
            ratio = case.built().ratio(coef, fitted(rows))
            if ratio.shape != (len(rows),) or not np.all(np.isfinite(ratio)) or ratio.min() < 0.0:
                raise AssertionError(f"ratio {short(ratio)} {ratio.shape} of {len(rows)} rows at coef {short(coef)}")


def _the_array_libraries_agree_on_the_objective(case: Case) -> None:
    point = case.points(1)[0]
    coef = (case.start() + case.project(point)) / 2.0
    expected = _everything(case.built(), np.asarray(point), np.asarray(coef))
    for name, convert in array_libraries().items():
        for what, value in _everything(case.built(convert), convert(point), convert(coef)).items():
            close(value, expected[what], 1e-8 * (1e-3 + largest(expected[what])), f"{what} in {name}")


def _everything(problem: Problem, point: Array, coef: Array) -> dict[str, np.ndarray]:
    value, grad = problem.value_and_grad(coef)
    found = {
        "init": problem.init(),
        "value": value,
        "gradient": grad,
        "curvature": problem.curvature(),
        "projection": problem.project(point),
        "warm start": problem.warm_start(point),
    }
    return {what: numbers(x) for what, x in found.items()}
