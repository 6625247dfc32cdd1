"""Primal-dual interior point for transport plans: exact Wasserstein weights in several columns, with a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import scipy.linalg

from .._arrays import Array, host_numbers, put
from .._threads import threads_to_factor
from ..objectives.planned_transport import PlannedTransport
from .base import Kind, Solver, State

__all__ = ["PrimalDual"]

_SHORT = 0.995  # share of the step to the boundary
_DIGITS = 1e-6  # certified gap at which the steps stop, relative to tol and to the regularization
_NO_PROGRESS = 30  # steps without lower products after which the solver stops
_ROUNDING = 1e-11  # relative difference of two values that counts as rounding
_LEAST_MASS = 1e-7  # least mass of a row, relative to the mean
_EMPTY = 1e-15  # sum of the products at which only rounding is left
_RIDGES = (1e-14, 1e-12, 1e-10, 1e-8)  # relative additions to the diagonal until its factor exists
_ONE_POINT = 1e-9  # a largest weight this near to 1 allows only equal weights


_Solve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class _Point(NamedTuple):
    """An interior point, or a step: the plan T (n, m) and its slack S = |x - v| + f - g, the potentials f (n,) and g (m,), the
    masses r (n,) of the rows with the multiplier p of r >= 0, and the room z = upper - r with its multiplier y."""

    plan: np.ndarray
    slack: np.ndarray
    height: np.ndarray
    potential: np.ndarray
    mass: np.ndarray
    low: np.ndarray
    room: np.ndarray
    high: np.ndarray

    @property
    def products(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """The pairs whose products are 0 at the optimum."""
        return (self.plan, self.slack), (self.mass, self.low), (self.room, self.high)

    @property
    def gap(self) -> float:
        """The sum of all products."""
        return float(sum(np.vdot(first, second) for first, second in self.products))

    def moved(self, step: _Point, length: float) -> _Point:
        """This point plus length times a step."""
        return _Point(*(x + length * dx for x, dx in zip(self, step, strict=True)))

    def longest(self, step: _Point) -> float:
        """The share of a step, at most 1, that leads to the boundary."""
        pairs = zip(self.products, step.products, strict=True)
        moves = [(x, dx) for here, there in pairs for x, dx in zip(here, there, strict=True)]
        # The multiplier of an absent bound is 0, and stays 0.
        lowest = min(float((dx / np.maximum(x, np.finfo(float).tiny)).min()) for x, dx in moves)
        return 1.0 if lowest >= -1.0 else -1.0 / lowest


class _Program(NamedTuple):
    """The problem in the unit of its largest cost: costs (n, m), masses, and regularization."""

    costs: np.ndarray
    supply: np.ndarray
    demand: np.ndarray
    upper: np.ndarray
    ridge: float
    unit: float

    @property
    def is_bounded(self) -> np.ndarray:
        """(n,) whether a row can be at its largest weight: for other rows this would take more than all the mass."""
        return self.upper < 1.0

    @property
    def size(self) -> float:
        """The cost of a plan that sends each row's mass everywhere, or the rounding of one, for tolerances."""
        return max(self.unit * float(self.supply @ self.costs @ self.demand), np.finfo(float).tiny)


class _Memory(NamedTuple):
    program: _Program
    point: _Point
    value: float = float("inf")
    """Upper bound on the avoidable value at coef; infinite while coef is the start"""
    least: float = -float("inf")
    """Lower bound on the avoidable part of the optimum"""
    potentials: np.ndarray | None = None
    """(m,) potentials of the target rows from which coef was found"""
    least_gap: float = float("inf")
    """The least sum of products so far"""
    n_stalled: int = 0


class _Found(NamedTuple):
    """The result at a point: weights (n,) of the distinct source rows, bounds on their value and on the optimum, and g (m,)."""

    weights: np.ndarray
    value: float
    least: float
    potentials: np.ndarray


@dataclass(frozen=True)
class PrimalDual(Solver):
    """Newton steps on the optimality conditions of the plan and its dual, whose products go to 0 together.

    A step factors one matrix of the size of the smaller sample, in time n m min(n, m) and in memory for ten matrices (n, m);
    about 20 steps suffice. The weights are clip(f / regularization, 0, max_weight), from the potentials. A plan rounded to their
    masses bounds their value from above, the dual bounds the optimum from below, and the difference is the gap. Runs in float64 on
    the host, and accepts new weights only if they are certainly no worse.
    Source: Mehrotra (1992), the predictor and corrector.
    """

    solves: ClassVar[Kind] = Kind("of optimal transport in several columns", lambda problem: isinstance(problem, PlannedTransport))

    def value_and_gap(self, problem: PlannedTransport, state: State) -> tuple[float, float]:  # type: ignore[override]
        """The certified value and gap of the weights."""
        memory = state.memory
        if memory.potentials is None:
            return super().value_and_gap(problem, state)
        return problem.unavoidable + memory.value, max(memory.value - memory.least, 0.0)

    def first(self, problem: PlannedTransport, start: Array) -> State:  # type: ignore[override]
        program = _program_of(problem)
        # The state is final when the certified gap is as small as rounding allows, and at most tol relative to the value.
        return State.at(start, _Memory(program, _start(program)))._replace(is_final=False)

    def step(self, problem: PlannedTransport, state: State) -> State:  # type: ignore[override]
        state = state._replace(n_iter=state.n_iter + 1)
        if problem.weights.max_weight is not None and problem.weights.max_weight <= 1.0 + _ONE_POINT:
            return self._ended(state._replace(coef=problem.init(), residual=0.0 * state.step_size))
        point = _advanced(state.memory.program, state.memory.point)
        if point is None:
            return self._ended(state)
        return self._judged(problem, state, point, _found(problem, state.memory.program, point))

    def _judged(self, problem: PlannedTransport, state: State, point: _Point, found: _Found) -> State:
        """The state at the next point, with its weights if these are certainly no worse."""
        memory, gap = state.memory, found.value - found.least
        size = max(abs(found.value), memory.program.size)
        n_stalled = 0 if point.gap <= 0.9 * memory.least_gap else memory.n_stalled + 1
        is_small = gap <= _DIGITS * self.tol * (problem.regularization or size) or point.gap <= _EMPTY
        is_last = is_small or n_stalled >= _NO_PROGRESS
        memory = memory._replace(
            point=point, least=max(memory.least, found.least), least_gap=min(point.gap, memory.least_gap), n_stalled=n_stalled
        )
        is_no_worse = found.value <= _least_at(problem, state.coef, found) + _ROUNDING * size
        if found.value < memory.value and (is_no_worse or is_last):
            memory = memory._replace(value=found.value, potentials=found.potentials[problem.marginals.of_target])
            coef = problem.weights.project_counted(put(found.weights[problem.marginals.of_source], state.coef))
            state = state._replace(coef=coef)
        state = state._replace(residual=put(max(memory.value - memory.least, 0.0) / size, state.residual), memory=memory)
        return self._ended(state) if is_last else state

    def _ended(self, state: State) -> State:
        return state._replace(step_size=0.0 * state.step_size, is_final=float(state.residual) <= self.tol)


def _program_of(problem: PlannedTransport) -> _Program:
    given, costs = problem.marginals, problem.costs
    room = given.upper * given.supply
    if problem.regularization > 0.0:
        # Costs that no optimal plan pays are arbitrary, so a source row far from all others costs no digits either.
        costs = np.minimum(costs, 2.0 * _dearest(costs, problem.regularization * given.upper, room))
    unit = max(float(costs.max()), problem.regularization) or 1.0
    supply, demand = (_raised(mass) for mass in (given.supply, given.demand))
    return _Program(costs / unit, supply, demand, given.upper * supply, problem.regularization / unit, unit)


def _raised(mass: np.ndarray) -> np.ndarray:
    """Masses (k,) of sum 1, none so small that its products vanish next to those of others."""
    raised = np.maximum(mass, _LEAST_MASS / len(mass))
    return raised / raised.sum()


def _dearest(costs: np.ndarray, highest: np.ndarray, room: np.ndarray) -> np.ndarray:
    """An upper bound (m,) on the cost of pairs that an optimal plan uses, for each target row.

    A row below its largest weight has a potential of at most highest (n,), which bounds g_j by highest_i + costs_ij. At most k
    rows can be at their largest weights together, so one of the k + 1 smallest bounds is from a row below its largest weight.
    """
    k = int(np.searchsorted(np.cumsum(np.sort(room)), 1.0 - 1e-9))
    return np.partition(costs + highest[:, None], min(k, len(costs) - 1), axis=0)[min(k, len(costs) - 1)]


def _start(program: _Program) -> _Point:
    """Equal weights, each row's mass spread like the target's, and potentials and multipliers that satisfy all equations."""
    supply, apart = program.supply, 1.0 + float(program.costs.mean())
    # The products have similar sizes: a row's mass is spread over m pairs.
    low = 1.0 / len(program.demand)
    height = np.full(len(supply), program.ridge - low)
    return _Point(
        plan=supply[:, None] * program.demand,
        slack=program.costs + apart,
        height=height,
        potential=np.full(len(program.demand), program.ridge - low - apart),
        mass=supply,
        low=low * (1.0 + program.is_bounded),
        room=np.where(program.is_bounded, program.upper - supply, 1.0),
        high=low * program.is_bounded,
    )


def _advanced(program: _Program, at: _Point) -> _Point | None:
    """The point after a predictor and a corrector; None if rounding leaves no direction."""
    newton_step = _linearized(program, at)
    if newton_step is None:
        return None
    ahead = newton_step(*(-first * second for first, second in at.products))
    length, gap = at.longest(ahead), at.gap
    # The less the predictor leaves of the gap, the nearer to the boundary the corrector may aim.
    left = at.moved(ahead, length).gap / gap
    center = left**3 * gap / (at.plan.size + len(at.mass) + np.count_nonzero(program.is_bounded))
    corrected = zip(at.products, ahead.products, strict=True)
    step = newton_step(*(center - first * second - moves[0] * moves[1] for (first, second), moves in corrected))
    length = min(1.0, _SHORT * at.longest(step))
    return at.moved(step, length) if np.isfinite(step.potential).all() and length > 0.0 else None


def _linearized(program: _Program, at: _Point) -> Callable[[np.ndarray, np.ndarray, np.ndarray], _Point] | None:
    """The map from the first-order changes of plan * slack, mass * low and room * high to the step; None without a factor."""
    share = at.plan / at.slack
    # How the mass of a row changes with its potential, (n,).
    yielding = 1.0 / (program.ridge / program.supply + at.low / at.mass + at.high / at.room)
    solve = _laplacian(share, yielding)
    if solve is None:
        return None

    def step(of_plan: np.ndarray, of_mass: np.ndarray, of_room: np.ndarray) -> _Point:
        # Each step also removes the residual of the equations left by rounding.
        slack_off = program.costs + at.height[:, None] - at.potential - at.slack
        room_off = program.is_bounded * (program.upper - at.mass - at.room)
        weight_off = at.height + at.low - at.high - program.ridge * at.mass / program.supply
        push = weight_off + of_mass / at.mass - program.is_bounded * (of_room - at.high * room_off) / at.room
        flow = of_plan / at.slack - share * slack_off
        row_off, column_off = at.mass - at.plan.sum(axis=1), program.demand - at.plan.sum(axis=0)
        height, potential = solve(flow.sum(axis=1) - yielding * push - row_off, column_off - flow.sum(axis=0))
        mass = yielding * (height + push)
        slope = height[:, None] - potential
        room = room_off - program.is_bounded * mass
        return _Point(
            plan=flow - share * slope,
            slack=slope + slack_off,
            height=height,
            potential=potential,
            mass=mass,
            low=(of_mass - at.low * mass) / at.mass,
            room=room,
            high=program.is_bounded * (of_room - at.high * room) / at.room,
        )

    return step


def _laplacian(share: np.ndarray, yielding: np.ndarray) -> _Solve | None:
    """The solution (f, g) of (row + yielding) f - share g = a and column g - share' f = b, from (a, b); None without a factor.

    row, column: the sums of share (n, m). The longer of f and g is eliminated.
    """
    rows, columns = share.sum(axis=1) + yielding, share.sum(axis=0)
    is_wide = len(rows) < len(columns)
    inner = _reduced(share.T, columns, yielding) if is_wide else _reduced(share, rows, (yielding / rows) @ share)
    if inner is None:
        return None

    def for_height(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height = inner(a + share @ (b / columns))
        return height, (b + height @ share) / columns

    def for_potential(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        potential = inner(b + (a / rows) @ share)
        return (a + share @ potential) / rows, potential

    return for_height if is_wide else for_potential


def _reduced(share: np.ndarray, total: np.ndarray, excess: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """The solver of diag(sums) - share' diag(1 / total) share (k, k), whose rows sum to excess (k,) >= 0.

    The diagonal is computed from the off-diagonal sums: the difference of two large sums would lose digits.
    """
    scaled = share / np.sqrt(total)[:, None]
    matrix = -(scaled.T @ scaled)
    np.fill_diagonal(matrix, 0.0)
    diagonal = excess - matrix.sum(axis=0)
    for ridge in _RIDGES:
        np.fill_diagonal(matrix, diagonal * (1.0 + ridge))
        try:
            with threads_to_factor(len(matrix)):
                factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            continue
        return lambda right: scipy.linalg.cho_solve(factor, right, check_finite=False)
    return None


def _found(problem: PlannedTransport, program: _Program, point: _Point) -> _Found:
    """The weights of a plan near that of the point, its cost, and the dual value of the potentials."""
    potentials, given, smallest = program.unit * point.potential, problem.marginals, np.finfo(float).tiny
    plan = point.plan * (problem.costs <= program.unit * program.costs * (1.0 + 1e-9))
    # The column sums have rounding errors: scaled, the plan is feasible, and its row sums give the weights.
    plan *= program.demand / plan.sum(axis=0)
    weights = problem.distinct.project_counted(plan.sum(axis=1) / program.supply)
    # If a bound or a raised mass has changed a sum, the missing mass is spread over all pairs in proportion.
    mass = weights * given.supply
    plan *= np.minimum(1.0, given.demand / program.demand)
    plan *= np.minimum(1.0, mass / np.maximum(plan.sum(axis=1), smallest))[:, None]
    more, missing = (np.maximum(x, 0.0) for x in (mass - plan.sum(axis=1), given.demand - plan.sum(axis=0)))
    rest = float(more @ problem.costs @ missing) / max(float(missing.sum()), smallest)
    cost = program.unit * float(np.vdot(plan, program.costs)) + rest
    value = cost + 0.5 * problem.regularization * float(mass @ weights)
    return _Found(weights, value, problem.dual_value(potentials), potentials)


def _least_at(problem: PlannedTransport, coef: Array, found: _Found) -> float:
    """A lower bound on the value at coef: the cost of its masses under the potentials of `found`."""
    weights, counts = map(host_numbers, (coef, problem.weights.counted(problem.init())))
    height = problem.heights(found.potentials)[problem.marginals.of_source]
    inner = np.mean(counts * weights * (0.5 * problem.regularization * weights - height))
    return float(problem.marginals.demand @ found.potentials + inner)
