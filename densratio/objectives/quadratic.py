"""The form that kernel mean matching and least-squares fitting share: a quadratic over bounds and at most one sum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

from .._arrays import Array, full_like_row, namespace, widest_here
from .._blocks import gram, times, transposed_times
from .base import Problem

__all__ = ["Dense", "Quadratic", "QuadraticProblem", "Root"]


@dataclass(frozen=True, eq=False)
class Dense:
    """A symmetric positive semidefinite matrix A (p, p) as it is."""

    matrix: Array
    is_nonnegative: bool = False
    """Whether no entry is negative, as in a kernel matrix: absolute values, which would copy it, are not taken then."""

    def times(self, x: Array) -> Array:
        """A x (p,)."""
        return self.matrix @ x

    def bound(self, weight: Array | None) -> Array:
        """Upper bound () on the eigenvalues of W^(1/2) A W^(1/2), W = diag(weight) (p,), the identity where None."""
        xp = namespace(self.matrix)
        magnitude = self.matrix if self.is_nonnegative else xp.abs(self.matrix)
        return xp.max(xp.sum(magnitude, axis=1) if weight is None else magnitude @ weight)

    def dense(self) -> Array:
        """A (p, p) in float64, where the device has that."""
        return widest_here(self.matrix)

    def wide(self) -> Dense:
        """A in float64, where the device has that."""
        return replace(self, matrix=widest_here(self.matrix))


@dataclass(frozen=True, eq=False)
class Root:
    """A = R R' by its root R (p, r). A tall root may be in single precision: products widen it block by block."""

    root: Array

    def times(self, x: Array) -> Array:
        """A x (p,) in the dtype of x."""
        return times(self.root, transposed_times(self.root, x))

    def bound(self, weight: Array | None) -> Array:
        """As `Dense.bound`: R'WR has the eigenvalues of W^(1/2) A W^(1/2), and is the smaller matrix where R is tall."""
        xp, (p, r) = namespace(self.root), self.root.shape
        if r < p:
            weight = full_like_row(self.root, 1.0) if weight is None else weight
            return xp.max(xp.sum(xp.abs(gram(self.root, weight)), axis=1))
        magnitude = xp.abs(self.root)
        inner = xp.sum(magnitude, axis=0) if weight is None else xp.matrix_transpose(magnitude) @ weight
        return xp.max(magnitude @ inner)

    def dense(self) -> Array:
        """A (p, p) in float64, where the device has that."""
        wide = widest_here(self.root)
        return wide @ namespace(wide).matrix_transpose(wide)

    def wide(self) -> Root:
        """R as it is: its products are in the dtype of what they multiply."""
        return self


class Quadratic(NamedTuple):
    """minimize x'Ax/2 - b'x + ridge sum_i unit_i coef_i^2 / 2  over  0 <= coef <= upper  and  total[0] <= sum x <= total[1].

    x = unit * coef: the mass of each row, where coef is its weight and unit the number of times that it counts.
    """

    matrix: Dense | Root
    linear: Array
    """b (p,)"""
    ridge: float
    """>= 0"""
    unit: Array | None = None
    """(p,), > 0; None: ones"""
    upper: Array | None = None
    """(p,), > 0; None: no upper bound"""
    total: tuple[float, float] | None = None
    """Range of the sum; None: any"""

    @property
    def is_bounded(self) -> bool:
        """Whether the feasible set is."""
        return self.upper is not None


@dataclass(frozen=True, eq=False)
class QuadraticProblem(Problem):
    """scale (x'Ax/2 - b'x + regularization sum_i unit_i coef_i^2 / 2)  in  x = unit * coef."""

    matrix: Dense | Root
    linear: Array
    regularization: float
    scale: float
    unit: Array | None

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
