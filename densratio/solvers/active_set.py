"""Active sets for quadratic problems with bounds and a sum: semismooth Newton, exact to rounding in a handful of solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._arrays import Array, eps, has_float64, namespace, tiny, widest
from ..objectives.base import Problem
from ..objectives.quadratic import Quadratic
from ..objectives.quadratic_problem import QuadraticProblem
from .base import Kind, Solver, State, residual_scale, unknown_residual
from .free_rows import FreeRows
from .projected_gradient import ProjectedGradient

__all__ = ["ActiveSet"]

_PLAIN_RIDGE = 1e-3  # relative to the mean diagonal of the matrix: a smaller ridge needs proximal rounds
_LEAST_RIDGE = 1e-7  # relative to the same: a smaller ridge keeps a proximal term of at least this strength
_FIRST_PULL = 0.001  # strength of the first proximal term, relative to the mean diagonal
_WEAKER = 0.1  # strength of each later proximal term, relative to the one before
_GAP = 0.1  # largest certified gap of a proximal solution, as a share of tol times the value
_DIGITS = 1e-6  # largest certified gap, relative to the terms, at which repeating active sets count as the optimum
_FIRST_ORDER = 200  # projected-gradient steps if the active sets do not settle
_ROUNDS = 20  # rounds at the least proximal term after which the value counts as unbounded below
_LONG = 100  # solves of one round after which rounding alone keeps the active sets from settling
_ENOUGH = 0.25  # share of the initial slope at which the line search stops
_BISECTIONS = 30


class _Point(NamedTuple):
    """A trial point: masses x (p,), their image A x (p,), and the feasible coef w(x) (p,), see `ActiveSet`."""

    mass: Array
    image: Array
    coef: Array


class _Memory(NamedTuple):
    point: _Point
    answer: Array | None
    """(p,) coef whose active sets the first solve of a round uses: the last solution, or the start; None after that solve"""
    center: Array
    """(p,) center of the proximal term of this round"""
    n_solves: int
    """Solves of this round"""
    n_rounds: int
    """Rounds at the least proximal term"""
    pull: float
    """Strength of that term; 0 if the ridge makes the problem strictly convex by itself"""
    value: Array
    grad: Array
    scale: Array
    free_rows: FreeRows
    problem: QuadraticProblem
    """The problem in float64"""
    form: Quadratic
    """Its quadratic"""


@dataclass(frozen=True)
class ActiveSet(Solver):
    """Solve a linear system for the rows between the bounds, update the sets of rows at the bounds, and repeat.

    At trial masses x = unit * coef the optimality conditions give w(x) = P((b - A x) / ridge), where P is the projection onto
    the feasible set; x is optimal if x = unit * w(x). With the rows at the bounds of w(x) fixed, this is a linear system in the
    free rows: a semismooth Newton step, or a primal-dual active set. If the active sets repeat, the point is the optimum to
    rounding. A line search on the dual, which is convex and costs a projection per trial, keeps the sets from cycling. With
    little or no ridge each round adds a proximal term rho |w - w_k|^2 / 2 around the last solution w_k, and rho falls tenfold
    from round to round. A solve costs the cube of the number of free rows, or n r^2 if the matrix has a root with r columns,
    see `FreeRows`. Computes in float64 whatever the dtype of the samples, and waits for the device, because the active sets
    decide which system is solved.
    Source: Hintermueller, Ito & Kunisch (2003); the line search after Li, Sun & Toh (2018) on semismooth Newton methods.
    """

    solves: ClassVar[Kind] = Kind(
        "with a quadratic and bounds (KMM, LSIF with coefficients >= 0 or an L1 penalty), in double precision",
        lambda problem: problem.quadratic is not None and has_float64(problem.quadratic.linear),
    )

    def first(self, problem: Problem, start: Array) -> State:
        wide, coef = problem.wide(), widest(start)
        form = wide.quadratic
        assert isinstance(wide, QuadraticProblem) and form is not None
        value, grad = wide.value_and_grad(coef)
        free_rows = FreeRows.of(form)
        size = free_rows.size / wide.mean_count
        mass = wide.counted(coef)
        memory = _Memory(
            point=_Point(mass, wide.matrix.times(mass), coef),
            answer=coef,
            center=coef,
            n_solves=0,
            n_rounds=0,
            pull=0.0 if wide.regularization >= _PLAIN_RIDGE * size else _FIRST_PULL * size,
            value=value,
            grad=grad,
            scale=residual_scale(wide.count_curvature()),
            free_rows=free_rows,
            problem=wide,
            form=form,
        )
        memory = memory._replace(point=_asked(memory, memory.point))
        # The state is final when the active sets have settled: then it is exact, or as near as the proximal rounds allow.
        return State(start, namespace(value).ones_like(value), unknown_residual(value), 0, memory, is_final=False)

    def step(self, problem: Problem, state: State) -> State:
        memory, xp, state = state.memory, namespace(state.coef), state._replace(n_iter=state.n_iter + 1)
        low, up = _sets(memory.form, memory.point.coef if memory.answer is None else memory.answer)
        free_rows, mass = _solve(memory, low, up)
        memory = memory._replace(free_rows=free_rows)
        there = _asked(memory, _Point(mass, memory.problem.matrix.times(mass), mass))
        low_there, up_there = _sets(memory.form, there.coef)
        if bool(xp.all((low == low_there) & (up == up_there))):
            return self._settled(state, memory._replace(point=there))
        if memory.n_solves >= _LONG:
            return self._ended(_improved(state, memory, memory.point.coef))
        point, length = _searched(memory, there)
        memory = memory._replace(point=point, answer=None, n_solves=memory.n_solves + 1)
        return state._replace(step_size=length, memory=memory)

    def _settled(self, state: State, memory: _Memory) -> State:
        """The state when the active sets repeat: the solution, and the next proximal round if one is needed."""
        before, answer = float(memory.value), memory.point.coef
        state = _improved(state, memory, answer)
        memory = state.memory._replace(center=answer, answer=answer, n_solves=0)
        least = _LEAST_RIDGE * memory.free_rows.size / memory.problem.mean_count
        is_least = memory.pull <= least
        is_last = memory.pull == 0.0 or (is_least and (not float(memory.value) < before or memory.n_rounds >= _ROUNDS))
        if is_last or self._is_near(state):
            return self._ended(state._replace(memory=memory))
        ridge, weaker = memory.problem.regularization, _WEAKER * memory.pull
        pull = 0.0 if weaker <= ridge and ridge >= least else max(weaker, least)
        memory = memory._replace(n_rounds=memory.n_rounds + is_least, pull=pull)
        return state._replace(memory=memory._replace(point=_asked(memory, memory.point)))

    def _ended(self, state: State) -> State:
        """The last state, improved by first-order steps if rounding kept the active sets from the optimum."""
        memory = state.memory
        if memory.n_rounds < _ROUNDS and not self._is_optimal(state):
            first_order = ProjectedGradient(tol=self.tol, max_iter=_FIRST_ORDER)
            state = _improved(state, memory, first_order.solve(memory.problem, widest(state.coef)).coef)
        is_settled = self._is_optimal(state)
        return state._replace(step_size=state.step_size if is_settled else 0.0 * state.step_size, is_final=is_settled)

    def _is_optimal(self, state: State) -> bool:
        """Whether it is near, or the certified gap is at most the rounding of a problem with widely different numbers."""
        if self._is_near(state):
            return True
        memory, coef = state.memory, widest(state.coef)
        size = abs(float(memory.value)) + float(namespace(coef).sum(namespace(coef).abs(memory.grad * coef)))
        return float(memory.problem.gap(coef, memory.grad)) <= _DIGITS * size

    def _is_near(self, state: State) -> bool:
        """Whether the residual is at most tol and the certified gap is far below tol."""
        memory = state.memory
        gap = float(memory.problem.gap(widest(state.coef), memory.grad))
        return float(state.residual) <= self.tol and gap <= _GAP * self.tol * max(abs(float(memory.value)), tiny(memory.value))


def _asked(memory: _Memory, at: _Point) -> _Point:
    """The point with its coef set to w(x) for its masses x, see `ActiveSet`."""
    problem, ridge = memory.problem, memory.problem.regularization + memory.pull
    slope = problem.linear - at.image
    slope = slope + memory.pull * memory.center if memory.pull else slope
    return at._replace(coef=problem.project_counted(slope / ridge))


def _sets(form: Quadratic, coef: Array) -> tuple[Array, Array]:
    """The active sets of a feasible coef (p,): the rows at 0 and the rows at their upper bound, (p,) each."""
    upper, low = form.upper, coef <= 0.0
    return low, namespace(coef).zeros_like(low) if upper is None else coef >= upper * (1.0 - 8.0 * eps(coef))


def _solve(memory: _Memory, low: Array, up: Array) -> tuple[FreeRows, Array]:
    """Optimal masses (p,) with the rows in `low` and `up`, (p,) each, fixed at their bounds and the others free."""
    problem, form = memory.problem, memory.form
    xp, free = namespace(low), ~(low | up)
    fixed = xp.zeros_like(form.linear) if form.upper is None else problem.counted(xp.where(up, form.upper, 0.0))
    ridge = problem.regularization + memory.pull
    free_rows = memory.free_rows.at(free, ridge, problem.unit)
    slope = form.linear - form.matrix.times(fixed) if bool(xp.any(up)) else form.linear
    slope = slope + memory.pull * memory.center if memory.pull else slope
    at_bounds = xp.sum(fixed)
    total = None if form.total is None else (form.total[0] - at_bounds, form.total[1] - at_bounds)
    mass = free_rows.solve(slope, total)
    return free_rows, xp.where(free, mass, fixed)


def _searched(memory: _Memory, there: _Point) -> tuple[_Point, Array]:
    """The point on the segment to `there` near the minimum of the dual, and its position on the segment in [0, 1]."""
    here, problem = memory.point, memory.problem
    xp = namespace(here.mass)
    change = there.image - here.image

    def slope(at: _Point) -> float:
        return float(xp.sum(change * (at.mass - problem.counted(at.coef))))

    def between(share: float) -> _Point:
        mass, image = (start + share * (end - start) for start, end in ((here.mass, there.mass), (here.image, there.image)))
        return _asked(memory, _Point(mass, image, here.coef))

    first = slope(here)
    if not first < 0.0:
        # The active sets of an earlier round may give no descent direction; those of this point do.
        return here, xp.ones_like(here.mass[0])
    enough = -_ENOUGH * first
    short, long, at, share = 0.0, 1.0, there, 1.0
    for _ in range(_BISECTIONS):
        steepness = slope(at)
        if abs(steepness) <= enough or (share == 1.0 and steepness < 0.0):
            break
        short, long = (share, long) if steepness < 0.0 else (short, share)
        share = 0.5 * (short + long)
        at = between(share)
    return at, xp.full_like(here.mass[0], share)


def _improved(state: State, memory: _Memory, candidate: Array) -> State:
    """The state at a feasible candidate (p,) in float64 if it is no worse than the current coef."""
    xp, wide = namespace(candidate), memory.problem
    value, grad = wide.value_and_grad(candidate)
    better = value <= memory.value
    coef = xp.where(better, candidate, widest(state.coef))
    value, grad = xp.where(better, value, memory.value), xp.where(better, grad, memory.grad)
    along = grad if wide.unit is None else grad / wide.unit
    residual = xp.max(xp.abs(wide.project_counted(coef - memory.scale * along) - coef))
    memory = memory._replace(value=value, grad=grad)
    return state._replace(coef=xp.astype(coef, state.coef.dtype, copy=False), residual=residual, memory=memory)
