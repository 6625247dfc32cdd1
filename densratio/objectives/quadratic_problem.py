"""The problem that KMM and LSIF share: a quadratic with bounds and at most one constraint on a sum."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from .._arrays import Array, namespace
from .base import Problem
from .quadratic import Dense, Root

__all__ = ["QuadraticProblem"]


@dataclass(frozen=True, eq=False)
class QuadraticProblem(Problem):
    """scale (x'Ax/2 - b'x + regularization sum_i unit_i coef_i^2 / 2)  in  x = unit * coef."""

    matrix: Dense | Root
    linear: Array
    regularization: float
    scale: float
    unit: Array | None
    mean_count: float
    """Mean of the raw counts; `unit` is the counts divided by it, and `regularization` is divided by it too"""

    gradient_is_affine: ClassVar[bool] = True

    def counted(self, values: Array) -> Array:
        """values (p,), each times the count of its row."""
        return values if self.unit is None else values * self.unit

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        xp, mass, slope = namespace(coef), self.counted(coef), self.slope(coef)
        # x'(Ax + ridge x) / 2 - b'x equals (x'slope - b'x) / 2.
        value = 0.5 * (xp.sum(mass * slope) - xp.sum(mass * self.linear))
        return value * self.scale, self.counted(slope) * self.scale

    def grad(self, coef: Array) -> Array:
        return self.counted(self.slope(coef)) * self.scale

    @abstractmethod
    def project_counted(self, coef: Array) -> Array:
        """The feasible coef (p,) nearest to `coef` in the norm in which row i counts unit_i times, as its copies would."""

    def slope(self, coef: Array) -> Array:
        """A x - b + regularization coef (p,): the gradient in the masses x, divided by `scale`."""
        slope = self.matrix.times(self.counted(coef)) - self.linear
        return slope + self.regularization * coef if self.regularization else slope

    def curvature(self) -> Array:
        return self._curvature(None if self.unit is None else self.unit * self.unit, self.unit)

    def count_curvature(self) -> Array:
        """`curvature` in the norm in which row i counts unit_i times, as its copies would."""
        return self._curvature(self.unit, None)

    def _curvature(self, weight: Array | None, ridge_weight: Array | None) -> Array:
        # If the bound is 0 the value is linear, and any finite step size will do.
        ridge = self.regularization if ridge_weight is None else self.regularization * namespace(ridge_weight).max(ridge_weight)
        bound = self.matrix.bound(weight) + ridge
        xp = namespace(self.linear)
        return self.scale * xp.astype(xp.where(bound > 0.0, bound, xp.ones_like(bound)), self.linear.dtype, copy=False)
