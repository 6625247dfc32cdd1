"""Quadratic forms given by a matrix or its root, and the standard form of a quadratic problem that solvers read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import NamedTuple

from .._arrays import Array, device_of, full_like_row, namespace, widest_here
from .._blocks import gram, times, transposed_times

__all__ = ["Dense", "Quadratic", "Root"]


_ROOT_TOL = 1e-13  # trace that a root may leave out, relative to the trace of the matrix
_FEW = 256  # number of rows up to which a root saves nothing
_WIDE = 4  # a root with more than a quarter as many columns as rows saves nothing
_FIRST_LOOK = 32  # number of columns after which the rank is first predicted


@dataclass(frozen=True, eq=False)
class Dense:
    """A symmetric positive semidefinite matrix A (p, p), stored in full."""

    matrix: Array
    is_nonnegative: bool = False
    """Whether all entries are >= 0, as in a kernel matrix: then no copy of absolute values is needed."""

    def times(self, x: Array) -> Array:
        """A x (p,)."""
        return times(self.matrix, x)

    def bound(self, weight: Array | None) -> Array:
        """Upper bound () on the eigenvalues of W^(1/2) A W^(1/2), W = diag(weight), weight (p,); None: W = I."""
        xp = namespace(self.matrix)
        magnitude = self.matrix if self.is_nonnegative else xp.abs(self.matrix)
        return xp.max(xp.sum(magnitude, axis=1) if weight is None else magnitude @ weight)

    def dense(self) -> Array:
        """A (p, p) in float64, where the device has that."""
        return widest_here(self.matrix)

    @cached_property
    def root(self) -> Array | None:
        """R (p, r) with RR' = A to rounding and few columns; None if A has none. A must be in float64."""
        return pivoted_root(self.matrix, _ROOT_TOL)


@dataclass(frozen=True, eq=False)
class Root:
    """A = R R' given by the root R (p, r). R may be in single precision: products convert it to float64 block by block."""

    root: Array
    is_signed: bool = False
    """Whether entries of R may have either sign, so that their absolute values would give a loose bound on R R'"""

    def times(self, x: Array) -> Array:
        """A x (p,) in the dtype of x."""
        return times(self.root, transposed_times(self.root, x))

    def bound(self, weight: Array | None) -> Array:
        """As `Dense.bound`. R'WR has the eigenvalues of W^(1/2) A W^(1/2)."""
        xp = namespace(self.root)
        if self.is_signed:
            weight = full_like_row(self.root, 1.0) if weight is None else weight
            return xp.max(xp.sum(xp.abs(gram(self.root, weight)), axis=1))
        magnitude = xp.abs(self.root)
        inner = xp.sum(magnitude, axis=0) if weight is None else xp.matrix_transpose(magnitude) @ weight
        return xp.max(magnitude @ inner)

    def dense(self) -> Array:
        """A (p, p) in float64, where the device has that."""
        wide = widest_here(self.root)
        return wide @ namespace(wide).matrix_transpose(wide)


class Quadratic(NamedTuple):
    """minimize x'Ax/2 - b'x + ridge sum_i unit_i coef_i^2 / 2  over  0 <= coef <= upper  and  total[0] <= sum x <= total[1].

    x = unit * coef is the mass of each row: its weight times how often it counts.
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
    """Range of sum x; None: no constraint"""


def pivoted_root(matrix: Array, tol: float) -> Array | None:
    """R (n, r) with RR' = matrix up to a share `tol` of the trace; None if that takes more than n / 4 columns.

    Source: Fine & Scheinberg (2001), pivoted incomplete Cholesky.
    """
    xp, n = namespace(matrix), matrix.shape[0]
    if n <= _FEW:
        return None
    left = xp.linalg.diagonal(matrix) + 0.0
    whole = float(xp.sum(left))
    columns: list[Array] = []
    stacked = matrix[:0, :]
    while (rest := float(xp.sum(left))) > tol * whole:
        r = len(columns)
        if r >= n // _WIDE or (r >= _FIRST_LOOK and _foretold(r, rest / whole, tol) > n // _WIDE):
            return None
        pivot = int(xp.argmax(left))
        if r % 16 == 0 and r:
            stacked = xp.stack(columns)
        row = matrix[pivot, :] + 0.0
        known = stacked.shape[0]
        if known:
            row = row - xp.matrix_transpose(stacked) @ stacked[:, pivot]
        for column in columns[known:]:
            row = row - column * column[pivot]
        row = row / xp.sqrt(left[pivot])
        columns.append(row)
        left = xp.clip(left - row * row, min=0.0)
        left = xp.where(xp.arange(n, device=device_of(left)) == pivot, xp.zeros_like(left), left)
    return xp.matrix_transpose(xp.stack(columns)) + 0.0


def _foretold(r: int, rest: float, tol: float) -> float:
    """Number of columns at which the omitted trace is `tol`, if it is `rest` after r columns and decays geometrically."""
    return r * log(tol) / log(rest) if rest < 1.0 else float("inf")
