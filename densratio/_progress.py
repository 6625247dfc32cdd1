"""The progress of long calls: a bar on a terminal, log lines elsewhere; silent by default."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, TypeVar

from joblib import Parallel

__all__ = ["run_all", "show_progress", "ticked"]

_T = TypeVar("_T")
_LOG = logging.getLogger("densratio")
_EVERY = 2.0  # seconds between two lines


class _Display:
    """What `show_progress` shows: one count at a time."""

    is_busy = False


_display: ContextVar[_Display | None] = ContextVar("densratio_progress", default=None)


@contextmanager
def show_progress(verbose: bool = True) -> Iterator[None]:
    """Show the progress of long calls in the block, including those without `verbose`, such as a search by gamma="cv".

        with show_progress():
            KMM(gamma="cv", regularization="cv").fit(X, y)

    On a terminal it is a bar on standard error, if rich is installed. Elsewhere the logger "densratio" gets a line of level INFO
    every two seconds, which goes to standard error if no handler is set up. verbose: False shows nothing.
    """
    before = _display.get()
    _display.set(_Display() if before is None and verbose else before)
    try:
        yield
    finally:
        _display.set(before)


def ticked(results: Iterable[_T], total: int, label: str) -> Iterator[_T]:
    """Yield the results, which are computed lazily, and count each on the display if progress is shown.

    For nested calls only the outer one is shown.
    """
    display = _display.get()
    if display is None or display.is_busy:
        yield from results
        return
    display.is_busy = True
    try:
        with (_bar if sys.stderr.isatty() and find_spec("rich") else _lines)(label, total) as advance:
            for result in results:
                advance()
                yield result
    finally:
        # That of the block in which the count began: after an error this may run much later.
        display.is_busy = False


def run_all(tasks: Iterable[Any], total: int, label: str, n_jobs: int | None) -> list[Any]:
    """The results of joblib's delayed tasks, in order, each counted as in `ticked`."""
    return list(ticked(Parallel(n_jobs=n_jobs, return_as="generator")(tasks), total, label))


@contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _lines(label: str, total: int) -> Iterator[Callable[[], None]]:
    done, start, last = 0, time.monotonic(), time.monotonic()

    def advance() -> None:
        nonlocal done, last
        done, now = done + 1, time.monotonic()
        if now - last >= _EVERY or done == total:
            last = now
            _LOG.info("%s: %d of %d, %.0f s", label, done, total, now - start)

    with _heard():
        yield advance


@contextmanager
def _heard() -> Iterator[None]:
    """Let lines of level INFO reach a handler: standard error if none is set up."""
    handler, level = None if _LOG.hasHandlers() else logging.StreamHandler(), _LOG.level
    if handler is not None:
        _LOG.addHandler(handler)
    if not _LOG.isEnabledFor(logging.INFO):
        _LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        _LOG.setLevel(level)
        if handler is not None:
            _LOG.removeHandler(handler)
