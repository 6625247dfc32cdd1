"""Products with a tall matrix, in blocks of its rows, so that one held in single precision is never copied whole."""

from __future__ import annotations

from collections.abc import Iterator

from .._arrays import Array, namespace

__all__ = ["gram", "row_slices", "times", "transposed_times"]

_BLOCK = 2**20  # entries of a block: it stays in the cache while it is converted and used


def row_slices(n: int, n_columns: int, entries: int = _BLOCK) -> Iterator[slice]:
    """Consecutive slices of n rows, of at most `entries` entries each and one row at least."""
    step = max(1, entries // max(1, n_columns))
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def times(matrix: Array, vector: Array) -> Array:
    """matrix (n, k) times vector (k,), in the dtype of the vector."""
    if matrix.dtype == vector.dtype:
        return matrix @ vector
    xp = namespace(matrix)
    return xp.concat([xp.astype(matrix[rows, :], vector.dtype) @ vector for rows in row_slices(*matrix.shape)])


def transposed_times(matrix: Array, vector: Array) -> Array:
    """Transpose of matrix (n, k) times vector (n,), in the dtype of the vector."""
    xp = namespace(matrix)
    if matrix.dtype == vector.dtype:
        return xp.matrix_transpose(matrix) @ vector
    parts = [xp.matrix_transpose(xp.astype(matrix[rows, :], vector.dtype)) @ vector[rows] for rows in row_slices(*matrix.shape)]
    return xp.sum(xp.stack(parts), axis=0)


def gram(matrix: Array, weight: Array) -> Array:
    """Sum (k, k) of the outer products of the rows of matrix (n, k), each counted weight (n,) >= 0 times, in its dtype."""
    xp = namespace(matrix)
    root, total = xp.sqrt(weight), None
    for rows in row_slices(*matrix.shape):
        scaled = xp.astype(matrix[rows, :], weight.dtype, copy=False) * root[rows, None]
        part = xp.matrix_transpose(scaled) @ scaled
        total = part if total is None else total + part
    return total
