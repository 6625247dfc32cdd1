"""The threads of BLAS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["blas", "few_threads", "one_thread"]

_SMALL = 1000
"""Rows of a square matrix up to which one thread takes a tenth of a second for its factor, half a second for eigenvectors."""
_HELD: list[Any] = []
"""What restores the number of threads, once for each thread of Python that wants one."""
_LOCK = Lock()


@cache
def blas() -> ThreadpoolController:
    """The BLAS libraries of this process."""
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it BLAS takes one thread. Of threads of Python that overlap, the last one to leave restores what the first found."""
    with _LOCK:
        _HELD.append(_HELD[0] if _HELD else blas().limit(limits=1))
    try:
        yield
    finally:
        with _LOCK:
            limit = _HELD.pop()
            if not _HELD:
                limit.restore_original_limits()


def few_threads(n: int) -> AbstractContextManager[None]:
    """Within it BLAS takes one thread for a matrix (n, n) that is small, to factor it.

    The threads of a factorization wait for each other at every step. Where another process has a core, Cholesky's factor of 200
    rows took 0.7 s with two threads on two cores, and 0.2 ms with one.
    """
    return one_thread() if n <= _SMALL else nullcontext()
