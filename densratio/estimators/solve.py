"""From an estimator's parameters to a solution: assemble objective and features, make the problem, choose a solver, solve.

Estimators, streams, clusters and training loops call these functions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import starmap, zip_longest
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .._arrays import Array
from .._blocks import row_slices
from .._validation import check_count, check_number, from_registry
from ..features import FEATURES, Features
from ..objectives import OBJECTIVES, Objective, Problem
from ..solvers import PER_STEP, SOLVERS, TO_CONVERGENCE, Solution, Solver, solver_class
from .explicit_map import map_instead, mapped, mean_mapped
from .samples import Samples, mean_one, row_counts
from .search import is_search

__all__ = [
    "Assembly", "Weighting", "assemble", "assemble_batch", "choose_solver", "make_features", "objective_of", "problem_of", "solve",
    "takes_batches", "warn_unless_converged", "weigh",
]  # fmt: skip


_FEW_KINDS = 60  # distinct rows of both samples up to which these may be discrete
_COPIES = 10  # mean number of copies from which they are


class Assembly(NamedTuple):
    """An objective and the fitted features that map the rows for it; an objective may also take the rows themselves."""

    objective: Objective
    features: Any
    """Fitted `Features`; None in a loop if the objective takes the rows"""

    def inputs(self, source: Array, target: Array) -> tuple[Array, Array]:
        """The input of the objective for two samples: their features, or the rows."""
        return (source, target) if self.objective.takes == "rows" else (self.features(source), self.features(target))


class Weighting(NamedTuple):
    """The result of a batch: its solution, the source weights (n_s,) of mean 1, and the features."""

    solution: Solution
    weights: Array
    features: Features | None
    normalization: Array
    """() mean of the raw ratio over the source rows"""

    @property
    def coef(self) -> Array:
        """(p,) coefficients, from which the next batch starts"""
        return self.solution.coef


# ---------------------------------------------------------------- objects from parameters


def objective_of(ratio: Any, candidate: Mapping[str, Any] | None = None) -> Objective:
    """The objective given by an estimator's parameters, or those of a candidate. Raises ValueError for an unknown name."""
    if isinstance(ratio.objective, Objective):
        return ratio.objective
    given = candidate or {}
    parameters = {name: given[name] if name in given else ratio._chosen(name) for name in ratio._of_objective}
    return from_registry("objective", ratio.objective, OBJECTIVES)(**parameters)


def make_features(ratio: Any, objective: Objective, n_source: int, n_centers: int | None, gamma: Any = None) -> Features:
    """The unfitted features given by an estimator's parameters. gamma: replaces the value of the parameter.

    Raises ValueError for unknown names, numbers out of range, and features < 0 if the objective needs features >= 0.
    """
    if n_centers is not None:
        check_count("n_centers", n_centers, more=" or None")
    gamma = ratio.gamma if gamma is None else gamma
    kind = map_instead(ratio.kernel, n_source, **{name: getattr(ratio, name) for name in ratio._of_map})
    if kind is None and isinstance(ratio.kernel, Features):
        features = ratio.kernel if gamma == "median" else replace(ratio.kernel, gamma=gamma)
    else:
        kind = kind or from_registry("kernel", ratio.kernel, FEATURES)
        if objective.anchors == "source" and not kind.is_map:
            n_centers = None
        draws = kind.is_map or n_centers is not None
        if isinstance(ratio.kernel, Features) and gamma == "median":
            gamma = ratio.kernel.gamma
        features = kind(gamma=gamma, n_centers=n_centers, random_state=ratio._drawn_seed() if draws else 0)
    if objective.needs_nonnegative_features and not features.is_nonnegative:
        fits = sorted(name for name, kind in FEATURES.items() if kind.is_nonnegative)
        instead = ", or nonnegative=False" if "nonnegative" in ratio._of_objective else ""
        raise ValueError(
            f"{type(ratio).__name__} needs features >= 0, as its coefficients are, which kernel={ratio.kernel!r} does not give; "
            f"use one of {fits}{instead}."
        )
    return features


def choose_solver(ratio: Any, problem: Problem, *, to_convergence: bool) -> Solver:
    """The solver given by an estimator's parameters; for "auto" the first that suits the problem."""
    if isinstance(ratio.solver, Solver):
        return ratio.solver
    check_number("tol", ratio.tol, "(0, inf]")
    check_count("max_iter", ratio.max_iter)
    check_count("n_steps", ratio.n_steps)
    if ratio.solver != "auto":
        solver = solver_class(ratio.solver)(tol=ratio.tol, max_iter=ratio.max_iter)
        if not solver.suits(problem):
            raise ValueError(
                f"solver={ratio.solver!r} cannot fit {type(ratio).__name__} with these parameters: it solves problems "
                f'{solver.solves.phrase}. Use solver="auto".'
            )
        return solver
    candidates = (
        SOLVERS[name](tol=ratio.tol, max_iter=ratio.max_iter) for name in (TO_CONVERGENCE if to_convergence else PER_STEP)
    )
    return next(solver for solver in candidates if solver.suits(problem))


# ---------------------------------------------------------------- a table


def assemble(ratio: Any, samples: Samples, gamma: Any = None, objective: Objective | None = None) -> Assembly:
    """The objective, and features fitted on samples of distinct rows.

    gamma, objective: those of a candidate, instead of the chosen ones.
    """
    objective = objective_of(ratio) if objective is None else objective
    gamma = ratio._chosen("gamma") if gamma is None else gamma
    features = make_features(ratio, objective, samples.sizes[0], ratio.n_centers, gamma)
    width = float(features.bandwidth(*samples.weighted_rows, origin=samples.origin))
    if gamma == "median" and objective.anchors == "target":
        if objective.needs_nonnegative_features:
            width *= features.narrowed(samples.source, samples.target)
        # Few distinct rows, with enough copies to determine their frequencies.
        kinds, n_rows = sum(samples.sizes), sum(count.sum() for count in row_counts(samples))
        if not features.is_map and kinds <= _FEW_KINDS and n_rows >= _COPIES * kinds:
            width = max(width, features.bandwidth_apart(samples.source, samples.target))
    fitted = replace(features, gamma=width).fit(samples.source, samples.target, anchors=objective.anchors)
    return Assembly(objective.for_features(features.is_map), replace(fitted, gamma=features.gamma))


def problem_of(assembly: Assembly, samples: Samples) -> Problem:
    """The problem on samples; if it is made of sums, it is added up over blocks of rows to bound the memory."""
    objective, features = assembly
    weights = samples.source_weight, samples.target_weight
    if objective.is_sum:
        return _added_up(
            objective.problem(features(part.source), features(part.target), part.source_weight, part.target_weight)
            for part in _blocks(samples, features.n_columns)
        )
    if objective.anchors == "source" and features.is_map and objective.takes == "features":
        return objective.problem(
            mapped(features, samples.source), mean_mapped(features, samples.target, samples.target_weight), weights[0], None
        )
    return objective.problem(*assembly.inputs(samples.source, samples.target), *weights)


def solve(ratio: Any, problem: Problem) -> Solution:
    """The solution of the problem, to convergence, by the estimator's solver."""
    return choose_solver(ratio, problem, to_convergence=True).solve(problem)


def warn_unless_converged(ratio: Any, solution: Solution) -> None:
    """Issue a ConvergenceWarning if the solver stopped early."""
    if not solution.converged:
        stronger = "max_iter, tol or the regularization" if hasattr(ratio, "regularization") else "max_iter or tol"
        advice = 'use solver="auto"' if solution.solver.is_one_step else f"raise {stronger}"
        warnings.warn(
            f"{type(ratio).__name__} stopped after {solution.n_iter} steps with optimality residual {solution.residual:.1e} "
            f"(tol={ratio.tol:.1e}), at most {solution.gap:.1e} above the optimal value. The weights are usable; {advice}.",
            ConvergenceWarning,
            stacklevel=4,
        )


def _blocks(samples: Samples, n_columns: int) -> Iterable[Samples]:
    """The samples in blocks of rows, in order; once the shorter sample is used up, its side of a block is empty."""
    nothing = np.arange(0)
    sides = [[np.arange(at.start, at.stop) for at in row_slices(n, n_columns)] or [nothing] for n in samples.sizes]
    return starmap(samples.taking, zip_longest(*sides, fillvalue=nothing))


def _added_up(parts: Iterable[Any]) -> Any:
    """The sum of problems, added in pairs of similar size, so that arrays that grow with the rows are copied only a few times."""
    tower: list[tuple[int, Any]] = []
    for part in parts:
        height, total = 0, part
        while tower and tower[-1][0] == height:
            total, height = tower.pop()[1].plus(total), height + 1
        tower.append((height, total))
    total = tower.pop()[1]
    while tower:
        total = tower.pop()[1].plus(total)
    return total


# ---------------------------------------------------------------- a batch in a loop


def takes_batches(ratio: Any) -> bool:
    """Raises ValueError for a parameter that batches do not support, and returns True otherwise."""
    for name, refusal in ratio._for_tables.items():
        if (value := getattr(ratio, name)) is not None:
            raise ValueError(refusal.format(value))
    return True


def assemble_batch(
    ratio: Any, source: Array, target: Array, *, is_warm: bool, features: Features | None, centers: Array | None
) -> Assembly:
    """Objective and features for one batch; features are None if the objective takes the rows.

    features: fitted features to use; None fits them to the batch, and if `is_warm` all anchor rows become centers. centers
    (p, d): the centers, instead of the target rows.
    """
    takes_batches(ratio)
    for name in ratio._search.grids:
        value = ratio._chosen(name)
        if is_search(value):
            raise ValueError(
                f"{name}={value!r} asks for cross-validation, which needs a table: in a training loop, give a number or a "
                "rule, or call fit on a table first."
            )
    objective = objective_of(ratio)
    if features is None and objective.takes == "features":
        n_centers = ratio.n_centers if not is_warm or objective.anchors == "source" else None
        features = make_features(ratio, objective, source.shape[0], n_centers, ratio._chosen("gamma"))
        features = features.fit(source, target, anchors=objective.anchors)
        if centers is not None and objective.anchors == "target" and not features.is_map:
            features = replace(features, parameters_=(centers,))
    return Assembly(objective if features is None else objective.for_features(features.is_map), features)


def weigh(
    ratio: Any,
    assembly: Assembly,
    source: Array,
    target: Array,
    coef: Array | None,
    *,
    to_convergence: bool = False,
    is_measured: bool = True,
) -> Weighting:
    """The source weights of a batch after `n_steps` steps from `coef` (p,), or at convergence.

    A pure function of its arguments. It never waits for the device, except with `to_convergence`. is_measured: whether the
    solution's residual and gap are wanted, which a single step can do without.
    """
    inputs = assembly.inputs(source, target)
    problem = assembly.objective.problem(*inputs)
    solver = choose_solver(ratio, problem, to_convergence=to_convergence)
    if to_convergence:
        state = solver.run(problem, solver.init(problem, coef))
    elif ratio.n_steps == 1 and not is_measured:
        state = solver.single_step(problem, coef)
    else:
        state = solver.init(problem, coef)
        for _ in range(ratio.n_steps):
            state = solver.step(problem, state)
    raw = state.coef if assembly.objective.anchors == "source" else problem.ratio(state.coef, inputs[0])
    weights, normalization = mean_one(raw)
    return Weighting(Solution(problem, state, solver), weights, assembly.features, normalization)
