"""The problem that kernel mean matching and least-squares fitting share: a quadratic over bounds and at most one sum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from .._arrays import Array, namespace, widest_here
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
    """Mean of the counts before they were divided by it, to give `unit`: strengths of penalties are divided by it too"""

    gradient_is_affine: ClassVar[bool] = True

    def wide(self) -> Self:
        unit = None if self.unit is None else widest_here(self.unit)
        return replace(self, matrix=self.matrix.wide(), linear=widest_here(self.linear), unit=unit)

    def counted(self, values: Array) -> Array:
        """values (p,), each times the number of times that its row counts."""
        return values if self.unit is None else values * self.unit

    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        xp, mass, slope = namespace(coef), self.counted(coef), self.slope(coef)
        # Half of x'(Ax + ridge x) - b'x is half of x'slope less half of b'x.
        value = 0.5 * (xp.sum(mass * slope) - xp.sum(mass * self.linear))
        return value * self.scale, self.counted(slope) * self.scale

    def project_counted(self, coef: Array) -> Array:
        """The feasible coef (p,) nearest to `coef` where row i counts unit_i times in the distance too, as copies of it do."""
        return self.project(coef)

    def slope(self, coef: Array) -> Array:
        """A x - b + regularization coef (p,): the gradient along one count of each row, over `scale`."""
        slope = self.matrix.times(self.counted(coef)) - self.linear
        return slope + self.regularization * coef if self.regularization else slope

    def curvature(self) -> Array:
        return self._curvature(None if self.unit is None else self.unit * self.unit, self.unit)

    def count_curvature(self) -> Array:
        """`curvature` in the norm in which row i counts unit_i times, as copies of it do."""
        return self._curvature(self.unit, None)

    def _curvature(self, weight: Array | None, ridge_weight: Array | None) -> Array:
        # A step of any finite size will do where the bound is 0: the value is linear.
        ridge = self.regularization if ridge_weight is None else self.regularization * namespace(ridge_weight).max(ridge_weight)
        bound = self.matrix.bound(weight) + ridge
        xp = namespace(self.linear)
        return self.scale * xp.astype(xp.where(bound > 0.0, bound, xp.ones_like(bound)), self.linear.dtype, copy=False)
