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
_EXACT = 1e-13  # residual of a solve, relative to its right-hand side, below which it is not refined
_CHANGED = 0.3  # share of the rows up to which a change of the free set updates the outer products


@dataclass(frozen=True, eq=False)
class FreeRows:
    """Solves (A_FF + diag(ridge)) x = r over the free rows F, for a sequence of sets F.

    With a root R (p, r) of few columns (an explicit map, or a pivoted Cholesky root of a kernel matrix) a solve costs p r^2 by
    the Woodbury identity, and is refined against the matrix itself. The outer products of the free rows of R are updated as F
    changes. Without such a root the free block is factorized directly.
    """

    matrix: Dense | Root
    root: Array | None
    size: float
    """Mean diagonal entry of A"""
    free: Array | None = None
    ridge: Array | None = None
    weight: Array | None = None
    """(p,) 1 / ridge at free rows, 0 at others"""
    outer: Array | None = None
    """(r, r) sum of the outer products of the rows of R, weighted by `weight`"""
    inverse: Callable[[Array], Array] | None = None

    @classmethod
    def of(cls, form: Quadratic) -> FreeRows:
        """Solves for the matrix of a quadratic problem in float64."""
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
        """A copy that solves with the free rows `free` (p,) and the ridge strength / unit (p,); unit None: ones."""
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

    def solve(self, right: Array, total: tuple[Array, Array] | None = None) -> Array:
        """x (p,) with A x + ridge x = `right` + c (p,) at the free rows, and 0 at the others.

        c is the number nearest to 0 with which sum x is in the range `total`; None: 0.
        """
        assert self.inverse is not None
        xp = namespace(right)
        along = None if total is None else self.inverse(xp.ones_like(right))
        x, shift = _summing(self.inverse(right), xp.zeros_like(right[0]), along, total)
        if self.root is None:
            return x
        # The Woodbury identity loses digits at a small ridge, and a pivoted root is truncated: refine against the matrix itself.
        for _ in range(_REFINEMENTS):
            wanted = right + shift
            rest = xp.where(self.free, wanted - self.matrix.times(x) - self.ridge * x, xp.zeros_like(x))
            if not float(xp.max(xp.abs(rest))) > _EXACT * float(xp.max(xp.abs(right)) + xp.abs(shift)):
                break
            x, shift = _summing(x + self.inverse(rest), shift, along, total)
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
    """The solver that factorizes the free block directly."""
    xp = namespace(matrix)
    rows = xp.nonzero(free)[0]
    if rows.shape[0] == 0:
        return xp.zeros_like
    solve = cholesky_solver(shifted_block(matrix, rows, xp.take(ridge, rows)), overwrites=True)
    place = xp.clip(xp.cumulative_sum(xp.astype(free, xp.int64)) - 1, min=0)
    return lambda r: xp.where(free, xp.take(solve(xp.take(r, rows)), place), xp.zeros_like(r))


def _summing(x: Array, shift: Array, along: Array | None, total: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """x (p,) with the right-hand side shifted by c instead of `shift`, and c; `along` (p,) is the change of x for a shift by 1."""
    if along is None or total is None:
        return x, shift
    xp, gain = namespace(x), namespace(x).sum(along)
    missing = xp.clip(xp.sum(x) - shift * gain, min=total[0], max=total[1]) - xp.sum(x)
    step = xp.where(gain > 0.0, missing / xp.where(gain > 0.0, gain, xp.ones_like(gain)), xp.zeros_like(gain))
    return x + step * along, shift + step


def _squares(root: Array) -> float:
    """Trace of RR' for R (p, r)."""
    xp = namespace(root)
    parts = over_blocks(lambda rows: xp.sum(root[rows, :] * root[rows, :]), row_slices(*root.shape), root)
    return float(sum(float(part) for part in parts))
