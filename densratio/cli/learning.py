"""What the commands that train share: a table with its labels, a classifier with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["check_torch", "epochs_shown", "labeled", "waiting"]


def check_torch() -> None:
    """Raise ImportError where torch is missing."""
    if find_spec("torch") is None:
        raise ImportError('This trains networks with torch: pip install "densratio-toolkit[torch,cli]"')


def labeled(path: Path, label: str) -> tuple[Any, Any]:
    """Frame and labels of a CSV, TSV (also .gz) or Parquet file. Raises ValueError for a file or a label that is not there."""
    import pandas

    from .tables import SUFFIXES, suffix_of

    suffix = suffix_of(path)
    if suffix is None:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ValueError(f"There is no file {path}; the current folder is {Path.cwd()}.")
    if suffix == ".parquet":
        frame = pandas.read_parquet(path)
    else:
        frame = pandas.read_csv(path, sep="\t" if suffix.startswith(".tsv") else ",", skipinitialspace=True)
    frame.columns = [str(name) for name in frame.columns]
    if label not in frame.columns:
        raise ValueError(f"{path} has no column '{label}', the label; its columns are {', '.join(frame.columns[:20])}.")
    return frame.drop(columns=label), frame[label].to_numpy()


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
