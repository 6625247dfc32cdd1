"""Accelerated projected gradient with step size 1 / curvature, restarts, and monotone acceptance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._arrays import Array, eps, namespace
from ..objectives.base import Problem
from .base import Solver, State, residual_scale, unknown_residual

__all__ = ["ProjectedGradient"]


class _Memory(NamedTuple):
    value: Array
    grad: Array
    last_coef: Array
    last_grad: Array
    momentum: Array
    scale: Array
    least_size: Array


@dataclass(frozen=True)
class ProjectedGradient(Solver):
    """One step: extrapolate, move by -step_size times the gradient, project, and accept the point if it is no worse.

    The first step has no momentum, so a single warm-started step is a plain projected-gradient step. A rejected or
    overshooting step restarts the momentum. A rejected plain step, or one along which the gradient changes faster than
    1 / step_size, halves the step size; a step that could have been longer increases it by a tenth.
    Source: Beck & Teboulle (2009); restart after O'Donoghue & Candes (2015).
    """

    def first(self, problem: Problem, start: Array) -> State:
        value, grad = problem.value_and_grad(start)
        curvature = problem.curvature()
        one = namespace(start).ones_like(value)
        # If the curvature is a bound, no shorter step is ever needed; otherwise the floor keeps the step size from vanishing.
        least = (1.0 if problem.gradient_is_affine else eps(value)) / curvature
        memory = _Memory(value, grad, start, grad, one, residual_scale(curvature), least)
        return State.at(start, memory)._replace(step_size=1.0 / curvature)

    def single_step(self, problem: Problem, coef: Array | None = None) -> State:
        if not problem.gradient_is_affine:
            return super().single_step(problem, coef)
        # A plain step of 1 / curvature: it cannot raise the value, so no value is compared.
        x = self._start(problem, coef)
        size = 1.0 / problem.curvature()
        return State(problem.project(x - size * problem.grad(x)), size, unknown_residual(size), 1)

    def step(self, problem: Problem, state: State) -> State:
        xp = namespace(state.coef)
        x, size, memory = state.coef, state.step_size, state.memory
        momentum = 0.5 * (1.0 + xp.sqrt(1.0 + 4.0 * memory.momentum**2))
        pull = (memory.momentum - 1.0) / momentum
        y = x + pull * (x - memory.last_coef)
        if problem.gradient_is_affine:
            grad_y = memory.grad + pull * (memory.grad - memory.last_grad)
        elif memory.last_coef is x:
            # The first step, often the only one, starts where the gradient is known.
            grad_y = memory.grad
        else:
            # Outside of the feasible set the value may be undefined, as the logarithm of a negative ratio.
            y = xp.where(pull == 0.0, x, problem.project(y))
            grad_y = problem.value_and_grad(y)[1]
        z = problem.project(y - size * grad_y)
        value, grad = problem.value_and_grad(z)

        moved, change = z - y, grad - grad_y
        # By convexity value(z) <= value(x) + grad(z).(z - x); near the optimum this test is finer than the rounding of the values.
        is_descent = (xp.sum(grad * (z - x)) <= 0.0) | (value <= memory.value)
        if problem.gradient_is_affine:
            # A plain step of 1 / curvature cannot raise the value; an apparent rise is rounding.
            is_descent = is_descent | ((pull == 0.0) & (size <= memory.least_size))
        accept = is_descent & xp.isfinite(value)
        curved, allowed = xp.sum(change * moved), xp.sum(moved * moved) / size
        too_long = (curved > allowed * (1.0 + 1e3 * eps(x))) | (~accept & (pull == 0.0))
        overshoots = xp.sum((y - z) * (z - x)) > 0.0
        # Drop momentum that no longer lowers the value: it would keep the point from settling.
        keep = accept & ~overshoots & (value < memory.value)
        # Near the optimum rounding looks like curvature, hence the floor.
        size = xp.where(too_long, 0.5 * size, xp.where(curved < 0.5 * allowed, 1.1 * size, size))
        size = xp.maximum(size, memory.least_size)

        new_x, new_grad = xp.where(accept, z, x), xp.where(accept, grad, memory.grad)
        residual = problem.residual(new_x, new_grad, memory.scale)
        return State(
            new_x,
            size,
            residual,
            state.n_iter + 1,
            _Memory(
                xp.where(accept, value, memory.value),
                new_grad,
                xp.where(keep, x, new_x),
                xp.where(keep, memory.grad, new_grad),
                xp.where(keep, momentum, xp.ones_like(momentum)),
                memory.scale,
                memory.least_size,
            ),
        )
