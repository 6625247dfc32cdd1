"""Products with a tall matrix, in blocks of its rows, so that one held in single precision is never copied whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from .._arrays import Array, is_numpy_array, is_sparse, namespace

__all__ = ["gram", "over_blocks", "row_slices", "times", "transposed_times"]

T = TypeVar("T")
_BLOCK = 2**20  # entries of a block: it stays in the cache while it is converted and used


def row_slices(n: int, n_columns: int, entries: int = _BLOCK) -> list[slice]:
    """Consecutive slices of n rows, of at most `entries` entries each and one row at least."""
    step = max(1, entries // max(1, n_columns))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def over_blocks(function: Callable[[slice], T], blocks: Sequence[slice], like: Array) -> list[T]:
    """function of each block, in their order. For arrays of numpy in as many threads as its BLAS would use.

    A thread a block, each with a BLAS of one, also shares out what is not BLAS, and never waits at a barrier for a core that
    another process has.
    """
    n_threads = _blas_threads() if len(blocks) > 1 and (is_numpy_array(like) or is_sparse(like)) else 1
    if n_threads == 1:
        return [function(block) for block in blocks]
    with _blas().limit(limits=1), ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, blocks))


def times(matrix: Array, vector: Array) -> Array:
    """matrix (n, k) times vector (k,) or (k, c), in the dtype of the vector."""
    xp = namespace(matrix)

    def part(rows: slice) -> Array:
        return xp.astype(matrix[rows, :], vector.dtype, copy=False) @ vector

    return xp.concat(over_blocks(part, row_slices(*matrix.shape), matrix))


def transposed_times(matrix: Array, vector: Array) -> Array:
    """Transpose of matrix (n, k) times vector (n,) or (n, c), in the dtype of the vector."""
    xp = namespace(matrix)

    def part(rows: slice) -> Array:
        return xp.matrix_transpose(xp.astype(matrix[rows, :], vector.dtype, copy=False)) @ vector[rows, ...]

    return sum(over_blocks(part, row_slices(*matrix.shape), matrix))


def gram(matrix: Array, weight: Array) -> Array:
    """Sum (k, k) of the outer products of the rows of matrix (n, k), each counted weight (n,) >= 0 times, in its dtype."""
    xp = namespace(matrix)
    root = xp.sqrt(weight)

    def part(rows: slice) -> Array:
        scaled = xp.astype(matrix[rows, :], weight.dtype, copy=False) * root[rows, None]
        return xp.matrix_transpose(scaled) @ scaled

    return sum(over_blocks(part, row_slices(*matrix.shape), matrix))


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _blas_threads() -> int:
    return max((library["num_threads"] for library in _blas().info()), default=1)
