"""Rows in blocks: the block size, the loop over blocks, and products with a tall matrix, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from typing import Any, TypeVar

from ._arrays import Array, device_of, is_numpy_array, is_sparse, namespace
from ._threads import blas, one_thread

__all__ = ["BLOCK", "gram", "over_blocks", "over_rows", "row_slices", "times", "transposed_times"]

T = TypeVar("T")
BLOCK = 2**20
"""Entries of a block: it stays in the cache while it is made, converted and used."""
_PIECE = 2**16  # entries of a block that a product converts at a time: they stay in the cache of one core


def row_slices(n: int, n_columns: int, most: int | None = None) -> list[slice]:
    """Consecutive slices of n rows with n_columns entries each: at most `most` entries (`BLOCK`) per slice, at least one row."""
    step = max(1, (most or BLOCK) // max(1, n_columns))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def over_blocks(function: Callable[[slice], T], blocks: Sequence[slice], like: Array) -> list[T]:
    """function of each block, in order; for numpy arrays in as many threads as BLAS would use.

    Each thread takes whole blocks with a single-threaded BLAS: this also parallelizes the work outside BLAS, and no thread waits
    at a barrier for a core that another process uses.
    """
    is_shared = len(blocks) > 1 and _is_on_host(like)
    n_threads = max((library["num_threads"] for library in blas().info()), default=1) if is_shared else 1
    if n_threads == 1:
        return [function(block) for block in blocks]
    # numpy's handling of overflow is part of the context, which threads do not inherit.
    contexts = [copy_context() for _ in blocks]
    with one_thread(), ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda context, block: context.run(function, block), contexts, blocks))


def _is_on_host(x: Array) -> bool:
    return is_numpy_array(x) or is_sparse(x)


def over_rows(function: Callable[[Array], Array], rows: Array, n_columns: int) -> Array:
    """function (b, d) -> (b, ...) of all rows (n, d), block by block; each row takes n_columns entries of memory."""
    blocks = row_slices(rows.shape[0], n_columns)
    if len(blocks) <= 1:
        return function(rows)
    with one_thread() if _is_on_host(rows) else nullcontext():
        first = function(rows[blocks[0], :])
    xp = namespace(first)
    out = xp.empty((rows.shape[0], *first.shape[1:]), dtype=first.dtype, device=device_of(first))
    out[blocks[0], ...] = first

    def fill(block: slice) -> None:
        out[block, ...] = function(rows[block, :])

    over_blocks(fill, blocks[1:], rows)
    return out


def times(matrix: Array, vector: Array) -> Array:
    """matrix (n, k) times vector (k,) or (k, c), in the dtype of the vector."""

    def of_block(block: Array) -> Array:
        products = [part @ vector for _, part in _in_dtype(block, vector.dtype)]
        return products[0] if len(products) == 1 else namespace(block).concat(products)

    return over_rows(of_block, matrix, matrix.shape[1])


def transposed_times(matrix: Array, vector: Array) -> Array:
    """Transpose of matrix (n, k) times vector (n,) or (n, c), in the dtype of the vector."""
    xp = namespace(matrix)

    def of_block(rows: slice) -> Array:
        here = vector[rows, ...]
        return sum(xp.matrix_transpose(part) @ here[at, ...] for at, part in _in_dtype(matrix[rows, :], vector.dtype))

    return sum(over_blocks(of_block, row_slices(*matrix.shape), matrix))


def _in_dtype(block: Array, dtype: Any) -> Iterator[tuple[slice, Array]]:
    """The rows of a block (n, k) in this dtype, with their positions: piece by piece if the host has to convert them."""
    (n, k), is_in_pieces = block.shape, is_numpy_array(block) and block.dtype != dtype
    for at in row_slices(n, k, _PIECE) if is_in_pieces and n else [slice(0, n)]:
        yield at, namespace(block).astype(block[at, :], dtype, copy=False)


def gram(matrix: Array, weight: Array) -> Array:
    """Sum (k, k) of the outer products of the rows of matrix (n, k), each counted weight (n,) >= 0 times, in its dtype."""
    xp = namespace(matrix)
    root = xp.sqrt(weight)

    def part(rows: slice) -> Array:
        scaled = xp.astype(matrix[rows, :], weight.dtype, copy=False) * root[rows, None]
        return xp.matrix_transpose(scaled) @ scaled

    return sum(over_blocks(part, row_slices(*matrix.shape), matrix))
