"""Semismooth Newton for quadratic problems over bounds and a sum: the optimum to rounding in a handful of solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .._arrays import Array, has_float64, namespace, tiny, widest
from ..objectives.base import Problem
from ..objectives.quadratic import Quadratic
from ..objectives.quadratic_problem import QuadraticProblem
from .base import Solver, State, residual_scale, unknown_residual
from .free_rows import FreeRows

__all__ = ["ActiveSet"]

_PLAIN_RIDGE = 1e-3  # relative to the matrix's mean diagonal: with less, proximal rounds lead to the optimum
_LEAST_RIDGE = 1e-7  # relative to the same: with less, the proximal term never goes, and never gets weaker than this
_FIRST_PULL = 0.001  # strength of the first proximal term, relative to the same
_WEAKER = 0.1  # of each later one, relative to the last
_GAP = 0.1  # share of tol, relative to the value, that the certified gap of a proximal answer may be
_LONG = 100  # solves of one round after which rounding is what keeps the sets from settling
_ENOUGH = 0.25  # share of the first slope that a line search leaves
_BISECTIONS = 30


class _Point(NamedTuple):
    """A trial answer: masses x (p,), their image A x (p,), and the feasible coef (p,) that the slope at x asks for."""

    mass: Array
    image: Array
    coef: Array


class _Memory(NamedTuple):
    point: _Point
    answer: Array | None
    """(p,) coef whose sets the first solve of a round keeps: the last round's, or the start; None after that solve"""
    center: Array
    """(p,) coef that the proximal term of this round pulls towards"""
    n_solves: int
    """Solves of this round"""
    pull: float
    """Strength of that term; 0 where the ridge makes the problem strictly convex by itself"""
    is_settled: bool
    value: Array
    grad: Array
    scale: Array
    free_rows: FreeRows
    problem: QuadraticProblem
    """The problem in float64"""


@dataclass(frozen=True)
class ActiveSet(Solver):
    """Solve for all rows between the bounds at once, see which rows the answer sends to or from a bound, and repeat.

    At trial masses x = unit * coef the optimality conditions ask for w(x) = P((b - A x) / ridge), P the projection on the
    feasible set, and the optimum is where x = unit * w(x). With the rows at a bound of w(x) held there, that is a linear
    system in the free ones: Newton's step, or a primal-dual active set. Where the sets of the new point are those of the
    last, it is the optimum to rounding. A line search on the dual, convex and as cheap as a projection, keeps the sets
    from cycling. Without a ridge each round adds rho |w - w_k|^2 / 2 about the last answer w_k, with rho falling tenfold
    (proximal point). A solve costs the cube of the free rows, or n r^2 where the matrix has a root with r columns, see
    `FreeRows`. Works in float64 whatever the dtype of the samples, and waits for the device, whose sets decide what is solved.
    Source: Hintermueller, Ito & Kunisch (2003); the line search after Li, Sun & Toh (2018) on semismooth Newton methods.
    """

    serves: ClassVar[str] = "with a quadratic over bounds (KMM, LSIF with coefficients >= 0 and an L2 penalty), in double precision"

    def suits(self, problem: Problem) -> bool:
        form = problem.quadratic
        # Without a ridge only an upper bound keeps the value from falling forever.
        return form is not None and has_float64(form.linear) and (form.is_bounded or form.ridge > 0.0)

    def _first(self, problem: Problem, start: Array) -> State:
        wide, coef = problem.wide(), widest(start)
        assert isinstance(wide, QuadraticProblem) and wide.quadratic is not None
        value, grad = wide.value_and_grad(coef)
        free_rows = FreeRows.of(wide.quadratic)
        size = free_rows.size / wide.mean_count
        mass = wide.counted(coef)
        memory = _Memory(
            point=_Point(mass, wide.matrix.times(mass), coef),
            answer=coef,
            center=coef,
            n_solves=0,
            pull=0.0 if wide.regularization >= _PLAIN_RIDGE * size else _FIRST_PULL * size,
            is_settled=False,
            value=value,
            grad=grad,
            scale=residual_scale(wide.count_curvature()),
            free_rows=free_rows,
            problem=wide,
        )
        memory = memory._replace(point=_asked(memory, memory.point))
        return State(start, namespace(value).ones_like(value), unknown_residual(value), 0, memory)

    def has_converged(self, state: State) -> bool:
        """Whether the sets have settled: the answer is exact, or as near as the proximal rounds are to bring it."""
        return state.memory.is_settled

    def step(self, problem: Problem, state: State) -> State:
        memory, xp = state.memory, namespace(state.coef)
        low, up = _sets(memory.problem, memory.point.coef if memory.answer is None else memory.answer)
        free_rows, mass = _solve(memory, low, up)
        memory = memory._replace(free_rows=free_rows)
        there = _asked(memory, _Point(mass, memory.problem.matrix.times(mass), mass))
        low_there, up_there = _sets(memory.problem, there.coef)
        if bool(xp.all((low == low_there) & (up == up_there))):
            return self._settled(state, memory._replace(point=there))
        if memory.n_solves >= _LONG:
            state = _improved(state, memory, memory.point.coef)
            state = state._replace(memory=state.memory._replace(is_settled=self._is_near(state)))
            return state._replace(step_size=0.0 * state.step_size)
        point, length = _searched(memory, there)
        memory = memory._replace(point=point, answer=None, n_solves=memory.n_solves + 1)
        return state._replace(step_size=length, n_iter=state.n_iter + 1, memory=memory)

    def _settled(self, state: State, memory: _Memory) -> State:
        """The sets repeat: the answer, and the next proximal round where there is one."""
        before, answer = float(memory.value), memory.point.coef
        state = _improved(state, memory, answer)
        memory = state.memory._replace(center=answer, answer=answer, n_solves=0)
        least = _LEAST_RIDGE * memory.free_rows.size / memory.problem.mean_count
        is_last = memory.pull == 0.0 or (memory.pull <= least and not float(memory.value) < before)
        if is_last or self._is_near(state):
            return state._replace(memory=memory._replace(is_settled=True))
        memory = memory._replace(pull=_weaker(memory.pull, memory.problem.regularization, least))
        return state._replace(memory=memory._replace(point=_asked(memory, memory.point)))

    def _is_near(self, state: State) -> bool:
        """Whether the residual is within tol and the certified gap far below it."""
        memory = state.memory
        gap = float(memory.problem.gap(widest(state.coef), memory.grad))
        return float(state.residual) <= self.tol and gap <= _GAP * self.tol * max(abs(float(memory.value)), tiny(memory.value))


def _form(problem: QuadraticProblem) -> Quadratic:
    form = problem.quadratic
    assert form is not None
    return form


def _asked(memory: _Memory, at: _Point) -> _Point:
    """The point with the coef that the slope at its masses asks for."""
    problem, ridge = memory.problem, memory.problem.regularization + memory.pull
    slope = problem.linear - at.image
    slope = slope + memory.pull * memory.center if memory.pull else slope
    return at._replace(coef=problem.project_counted(slope / ridge))


def _sets(problem: QuadraticProblem, coef: Array) -> tuple[Array, Array]:
    """Which rows of a feasible coef (p,) are at 0, and which at their upper bound, (p,) each."""
    upper = _form(problem).upper
    low = coef <= 0.0
    return low, namespace(coef).zeros_like(low) if upper is None else coef >= upper


def _solve(memory: _Memory, low: Array, up: Array) -> tuple[FreeRows, Array]:
    """Masses (p,) that are optimal where the rows in these sets, (p,) each, are held at their bounds and the others are free."""
    problem, form = memory.problem, _form(memory.problem)
    xp, free = namespace(low), ~(low | up)
    fixed = xp.zeros_like(form.linear) if form.upper is None else problem.counted(xp.where(up, form.upper, 0.0))
    ridge = problem.regularization + memory.pull
    free_rows = memory.free_rows.at(free, ridge, problem.unit)
    slope = form.linear - form.matrix.times(fixed) if bool(xp.any(up)) else form.linear
    slope = slope + memory.pull * memory.center if memory.pull else slope
    mass = free_rows.solve(slope)
    if form.total is not None:
        along_sum = free_rows.solve(xp.ones_like(slope))
        total, gain = xp.sum(fixed) + xp.sum(mass), xp.sum(along_sum)
        missing = xp.clip(total, min=form.total[0], max=form.total[1]) - total
        mass = mass + along_sum * xp.where(gain > 0.0, missing / xp.where(gain > 0.0, gain, xp.ones_like(gain)), 0.0)
    return free_rows, xp.where(free, mass, fixed)


def _searched(memory: _Memory, there: _Point) -> tuple[_Point, Array]:
    """The point on the way to `there` where the dual has all but stopped to fall, and the share of the way."""
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
        # The sets of another round may lead astray: those of this point do not.
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
    """The state one step on, at a feasible candidate (p,) in float64 where it is no worse than what the state has."""
    xp, wide = namespace(candidate), memory.problem
    value, grad = wide.value_and_grad(candidate)
    better = value <= memory.value
    coef = xp.where(better, candidate, widest(state.coef))
    value, grad = xp.where(better, value, memory.value), xp.where(better, grad, memory.grad)
    along = grad if wide.unit is None else grad / wide.unit
    residual = xp.max(xp.abs(wide.project_counted(coef - memory.scale * along) - coef))
    memory = memory._replace(value=value, grad=grad)
    return State(xp.astype(coef, state.coef.dtype, copy=False), state.step_size, residual, state.n_iter + 1, memory)


def _weaker(pull: float, ridge: float, least: float) -> float:
    """The strength of the next round's proximal term: none where the ridge has taken over."""
    if _WEAKER * pull <= ridge and ridge >= least:
        return 0.0
    return max(_WEAKER * pull, least)
