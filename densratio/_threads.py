"""The threads of BLAS and of OpenMP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["blas", "few_threads", "one_thread", "threads_for", "threads_to_factor"]

_SMALL = 1000
"""Rows of a square matrix up to which one thread takes half a second for its eigenvectors."""
_FACTORED = 3000
"""Rows of a square matrix up to which one thread takes 0.2 s for its Cholesky factor."""
_FEW_CENTERS = 2000
"""Rows up to which a fit takes one thread whatever the width of its matrices: kernel mean matching takes 0.1 s of it."""
_FEW_ROWS, _FEW_CELLS = 10_000, 500_000
"""Rows, and numbers in them, up to which boosting has little work to share between threads."""
_HELD: list[Any] = []
"""The limits that restore the number of BLAS threads, one for each Python thread that asked for one thread."""
_LOCK = Lock()


@cache
def _pools(library: str) -> ThreadpoolController:
    """The "blas" or "openmp" libraries of this process."""
    return ThreadpoolController().select(user_api=library)


def blas() -> ThreadpoolController:
    """The BLAS libraries of this process."""
    return _pools("blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one BLAS thread in the block. If Python threads overlap, the last to leave restores the number that the first found."""
    with _LOCK:
        _HELD.append(_HELD[0] if _HELD else blas().limit(limits=1))
    try:
        yield
    finally:
        with _LOCK:
            limit = _HELD.pop()
            if not _HELD:
                limit.restore_original_limits()


def few_threads(n: int, width: int | None = None) -> AbstractContextManager[None]:
    """Use one BLAS thread in the block if the matrix (n, width) or (n, n) is small, to decompose it or multiply it by itself."""
    return one_thread() if n * (n if width is None else width) ** 2 <= _SMALL**3 else nullcontext()


def threads_to_factor(n: int) -> AbstractContextManager[None]:
    """Use one BLAS thread in the block for the Cholesky factor of a matrix (n, n), unless it is large, and to solve with it.

    The threads wait for each other at every step. With other processes on two cores, the factor of 2,500 rows took 0.4 to 4 s with
    two threads, and 0.1 to 0.3 s with one.
    """
    return one_thread() if n <= _FACTORED else nullcontext()


@contextmanager
def threads_for(n_rows: int, width: int) -> Iterator[None]:
    """Use one thread of BLAS and of OpenMP in the block for a fit of few rows, whose matrices have `width` columns.

    With another process on one of two cores, boosting of 2,800 rows took a minute with two threads, and a second with one.
    """
    with ExitStack() as stack:
        stack.enter_context(one_thread() if max(n_rows, width) <= _FEW_CENTERS else few_threads(n_rows, width))
        if n_rows <= _FEW_ROWS and n_rows * width <= _FEW_CELLS:
            # OpenMP, unlike BLAS, has a number for each thread of Python.
            stack.enter_context(_pools("openmp").limit(limits=1))
        yield
