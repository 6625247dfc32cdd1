"""Squared Euclidean and Manhattan distances between rows, accurate to rounding even if some rows are far from the others."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from ._arrays import Array, clipped_at_zero, dense, is_numpy_array, is_sparse, is_tensor, namespace, take_rows, to_host
from ._blocks import over_rows

__all__ = ["manhattan", "squared_euclidean"]

_MIDDLE_ROWS = 64  # rows whose medians approximate the middle of all rows
_FEW_COLUMNS = 5  # up to which sums of squared differences take no longer than a matrix product
_ERROR = {4: 1e-4, 8: 1e-10}  # harmless rounding error of a squared distance, per unit of resolution, by bytes of a number


def squared_euclidean(x: Array, y: Array, resolution: float = 0.0) -> Array:
    """Squared distances (n, m) between the rows of `x` (n, d) and `y` (m, d), dense or CSR.

    resolution: a squared distance that is small for the caller. |x|^2 + |y|^2 - 2 x'y, the fastest form in many columns, is used
    for pairs of rows for which its rounding error is far smaller than that, and sums of squared differences for all others.
    """
    if is_sparse(x) or is_sparse(y):
        return _in_two_ways(x, y, resolution)
    xp = namespace(x, y)
    if x.shape[1] == 1:
        difference = x - xp.matrix_transpose(y)
        # In place for numpy: a second large array costs more than the arithmetic.
        return np.multiply(difference, difference, out=difference) if is_numpy_array(difference) else difference * difference
    # In few columns differences are as fast, and only a host can see which rows are far without waiting for a device.
    is_on_host = is_numpy_array(x) or (is_tensor(x) and x.device.type == "cpu")
    is_worth_it = resolution > 0.0 and x.shape[1] > _FEW_COLUMNS and is_on_host
    return _in_two_ways(x, y, resolution) if is_worth_it else _from_differences(x, y)


def _in_two_ways(x: Array, y: Array, resolution: float) -> Array:
    """Products for pairs of rows near the middle, differences for all other pairs."""
    origin = _rough_middle(y)
    x_near, y_near = (_is_near(rows, origin, resolution) for rows in (x, y))
    if not (x_near.any() or y_near.any()):
        return _from_differences(x, y)
    out = _from_products(x, y, origin)
    if not x_near.all():
        far = np.flatnonzero(~x_near)
        out[far, ...] = _from_differences(take_rows(x, far), y)
    if not y_near.all():
        far = np.flatnonzero(~y_near)
        out[:, far] = _from_differences(x, take_rows(y, far))
    return out


def _is_near(rows: Array, origin: Array | None, resolution: float) -> np.ndarray:
    if is_sparse(rows):
        squares = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
    else:
        moved = rows if origin is None else rows - origin
        squares = to_host(namespace(rows).sum(moved * moved, axis=1))
    return squares <= resolution * _ERROR[squares.dtype.itemsize] / (8.0 * np.finfo(squares.dtype).eps)


def _rough_middle(rows: Array) -> Array | None:
    """Medians (1, d) of the columns of a few rows; None for CSR rows, which are not centered."""
    if is_sparse(rows):
        return None
    some = rows[:: max(1, rows.shape[0] // _MIDDLE_ROWS), :]
    xp = namespace(rows)
    return xp.sort(some, axis=0)[some.shape[0] // 2, :][None, :]


def _from_products(x: Array, y: Array, origin: Array | None) -> Array:
    if origin is None:
        product = x @ y.T
        squares = [np.asarray(z.multiply(z).sum(axis=1)).ravel() if is_sparse(z) else np.sum(z * z, axis=1) for z in (x, y)]
        return np.clip(squares[0][:, None] + squares[1][None, :] - 2.0 * np.asarray(dense(product)), 0.0, None)
    xp = namespace(x, y)
    x, y = x - origin, y - origin
    # Append the squares to the rows: one matrix product saves three passes over the n x m matrix.
    left = xp.concat([-2.0 * x, xp.sum(x * x, axis=1, keepdims=True), xp.ones_like(x[:, :1])], axis=1)
    right = xp.concat([y, xp.ones_like(y[:, :1]), xp.sum(y * y, axis=1, keepdims=True)], axis=1)
    return clipped_at_zero(left @ xp.matrix_transpose(right))


def _from_differences(x: Array, y: Array) -> Array:
    """Sums of squared differences: exact to rounding wherever the rows are."""
    if is_sparse(x) or is_sparse(y):
        return _dense_by_blocks(x, y)
    xp = namespace(x, y)
    if is_numpy_array(x):
        return cdist(x, y, "sqeuclidean").astype(x.dtype, copy=False)
    if is_tensor(x):
        return xp.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    columns = (x[:, j][:, None] - y[:, j][None, :] for j in range(x.shape[1]))
    return sum(difference * difference for difference in columns)


def _dense_by_blocks(x: Any, y: Any) -> np.ndarray:
    """`_from_differences` for CSR rows in either sample, made dense block by block."""
    width = x.shape[1]

    def to_all(part: Any) -> np.ndarray:
        part = dense(part)
        return over_rows(lambda other: cdist(dense(other), part, "sqeuclidean"), x, width).T

    return over_rows(to_all, y, max(width, x.shape[0])).T


def manhattan(x: Array, y: Array, resolution: float = 0.0) -> Array:
    """Sums of absolute differences (n, m) between the rows of `x` (n, d) and `y` (m, d)."""
    xp = namespace(x, y)
    return reduce(operator.add, (xp.abs(x[:, j][:, None] - y[:, j][None, :]) for j in range(x.shape[1])))
