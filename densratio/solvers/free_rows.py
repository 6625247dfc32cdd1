"""Linear systems over the free rows of an active-set method: dense, or through a root of the matrix with few columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .._arrays import Array, cholesky_solver, device_of, namespace, shifted_block, take_rows
from .._blocks import gram, over_blocks, row_slices, times, transposed_times
from ..objectives.quadratic import Dense, Quadratic, Root

__all__ = ["FreeRows"]

_WIDE = 4  # an explicit map with more than a quarter as many columns as rows saves nothing
_REFINEMENTS = 4
_EXACT = 1e-13  # residual of a solve, relative to its right-hand side, that asks for no refinement
_CHANGED = 0.3  # share of the rows up to which a change of the free ones is an update of their outer products


@dataclass(frozen=True, eq=False)
class FreeRows:
    """Solves (A_FF + diag(ridge)) x = r over free rows F, for one F after another.

    A root R (p, r) of few columns costs p r^2 by the Woodbury identity: that of an explicit map, or a pivoted Cholesky
    root of a kernel matrix, whose solves are refined against the matrix itself. The outer products of R's free rows follow
    the changes of F. Without such a root the free block is factorized as it is.
    """

    matrix: Dense | Root
    root: Array | None
    size: float
    """Mean diagonal entry of A"""
    free: Array | None = None
    ridge: Array | None = None
    weight: Array | None = None
    """(p,) 1 / ridge at free rows, 0 elsewhere"""
    outer: Array | None = None
    """(r, r) sum of the outer products of R's rows, each counted `weight` times"""
    inverse: Callable[[Array], Array] | None = None

    @classmethod
    def of(cls, form: Quadratic) -> FreeRows:
        """For the matrix of a quadratic problem in float64."""
        matrix = form.matrix
        if isinstance(matrix, Root):
            p, r = matrix.root.shape
            total = _squares(matrix.root)
            if r * _WIDE > p:
                matrix = Dense(matrix.dense())
                return cls(matrix, None, total / p)
            return cls(matrix, matrix.root, total / p)
        diagonal = namespace(matrix.matrix).linalg.diagonal(matrix.matrix)
        return cls(matrix, matrix.root, float(namespace(diagonal).mean(diagonal)))

    def at(self, free: Array, strength: float, unit: Array | None) -> FreeRows:
        """Ready to solve with these rows free (p,) and the ridge strength / unit (p,), unit ones where None."""
        xp = namespace(free)
        ridge = xp.full(free.shape, strength, dtype=xp.float64, device=device_of(free)) if unit is None else strength / unit
        if self.root is None:
            return replace(self, free=free, ridge=ridge, inverse=_dense_inverse(self.matrix.dense(), free, ridge))
        weight = xp.where(free, 1.0 / ridge, xp.zeros_like(ridge))
        outer = self._outer(weight)
        capacitance = cholesky_solver(outer + xp.eye(outer.shape[0], dtype=outer.dtype, device=device_of(outer)))

        def inverse(r: Array) -> Array:
            scaled = weight * r
            return scaled - weight * times(self.root, capacitance(transposed_times(self.root, scaled)))

        return replace(self, free=free, ridge=ridge, weight=weight, outer=outer, inverse=inverse)

    def solve(self, right: Array) -> Array:
        """x (p,), 0 at the rows that are not free, with (A x + ridge x) = `right` (p,) at those that are."""
        assert self.inverse is not None
        x = self.inverse(right)
        if self.root is None:
            return x
        # A small ridge costs the identity digits, and a pivoted root leaves some out: both are regained from the matrix itself.
        xp, zero = namespace(x), namespace(x).zeros_like(x)
        enough = _EXACT * float(xp.max(xp.abs(right)))
        for _ in range(_REFINEMENTS):
            rest = xp.where(self.free, right - self.matrix.times(x) - self.ridge * x, zero)
            if not float(xp.max(xp.abs(rest))) > enough:
                break
            x = x + self.inverse(rest)
        return x

    def _outer(self, weight: Array) -> Array:
        if self.outer is None or self.weight is None:
            return gram(self.root, weight)
        xp, change = namespace(weight), weight - self.weight
        more, less = (xp.nonzero(side)[0] for side in (change > 0.0, change < 0.0))
        if more.shape[0] + less.shape[0] > _CHANGED * weight.shape[0]:
            return gram(self.root, weight)
        outer = self.outer
        for sign, rows in ((1.0, more), (-1.0, less)):
            if rows.shape[0]:
                outer = outer + sign * gram(take_rows(self.root, rows), sign * xp.take(change, rows))
        return outer


def _dense_inverse(matrix: Array, free: Array, ridge: Array) -> Callable[[Array], Array]:
    """Solves with the free block as it is."""
    xp = namespace(matrix)
    rows = xp.nonzero(free)[0]
    if rows.shape[0] == 0:
        return xp.zeros_like
    solve = cholesky_solver(shifted_block(matrix, rows, xp.take(ridge, rows)), overwrites=True)
    place = xp.clip(xp.cumulative_sum(xp.astype(free, xp.int64)) - 1, min=0)
    return lambda r: xp.where(free, xp.take(solve(xp.take(r, rows)), place), xp.zeros_like(r))


def _squares(root: Array) -> float:
    """Trace of RR', of R (p, r)."""
    xp = namespace(root)
    parts = over_blocks(lambda rows: xp.sum(root[rows, :] * root[rows, :]), row_slices(*root.shape), root)
    return float(sum(float(part) for part in parts))
