"""What the commands that train share: a table with its labels, a classifier with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Given", "check_torch", "epochs_shown", "labeled", "waiting"]


def check_torch() -> None:
    """Raise ImportError where torch is missing."""
    if find_spec("torch") is None:
        raise ImportError('This trains networks with torch: pip install "densratio-toolkit[torch,cli]"')


class Given(NamedTuple):
    """A frame, or images (n, c, h, w), with labels (n,); files: those of the images."""

    X: Any
    y: Any
    files: list[Path]


def labeled(path: Path, label: str | None, size: int | None = None) -> Given:
    """Rows and labels of a CSV, TSV (also .gz) or Parquet file, or the images of a folder with a folder for each class.

    Raises ValueError for a file or a label that is not there.
    """
    if not path.is_dir():
        return Given(*_table(path, label), [])
    from ..datasets import load_image_folder

    if label is not None:
        raise ValueError(f"{path} is a folder, in which the names of the folders are the labels: leave --label out.")
    images = load_image_folder(path, size)
    return Given(images.inputs, images.labels, images.files)


def _table(path: Path, label: str | None) -> tuple[Any, Any]:
    import pandas

    from .tables import SUFFIXES, suffix_of

    suffix = suffix_of(path)
    if suffix is None:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}, or be a folder of images.")
    if not path.is_file():
        raise ValueError(f"There is no file {path}; the current folder is {Path.cwd()}.")
    if suffix == ".parquet":
        frame = pandas.read_parquet(path)
    else:
        frame = pandas.read_csv(path, sep="\t" if suffix.startswith(".tsv") else ",", skipinitialspace=True)
    frame.columns = [str(name) for name in frame.columns]
    columns = ", ".join(frame.columns[:20])
    if label is None:
        raise ValueError(f"--label must name the column of the label in {path}; its columns are {columns}.")
    if label not in frame.columns:
        raise ValueError(f"{path} has no column '{label}', the label; its columns are {columns}.")
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
