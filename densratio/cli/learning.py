"""What the commands that train share: the check for torch, and a bar on standard error while they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

__all__ = ["check_torch", "epochs_shown", "waiting"]


def check_torch() -> None:
    """Raise ImportError where torch is missing."""
    if find_spec("torch") is None:
        raise ImportError('This trains networks with torch: pip install "densratio-toolkit[torch,cli]"')


@contextmanager
def epochs_shown(title: str, total: int) -> Iterator[Any]:
    """A progress bar of at most `total` epochs on standard error; what is given is called after each."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("epoch {task.completed}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
        bar.update(task, total=max(1.0, bar.tasks[0].completed))


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """A moving bar and the time so far on standard error, for work whose length is not known."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)) as bar:
        bar.add_task(title, total=None)
        yield
