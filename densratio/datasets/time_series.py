"""Labeled time series of the UCR archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .labelled import Labelled

__all__ = ["load_time_series"]


def load_time_series(path: str | Path) -> Labelled:
    """Series (n, length) and their classes from a .ts file of one variable and one length.

    Beside NAME_TRAIN.ts, NAME_TEST.ts becomes the test split if it is there. Raises ValueError where a line is no series with a
    label, or the files differ in length or classes. Source of such files: timeseriesclassification.com.
    """
    names, inputs, labels = _read(Path(path))
    beside = Path(path).with_name(Path(path).name.replace("_TRAIN", "_TEST"))
    if beside == Path(path) or not beside.exists():
        return Labelled(inputs, labels, names)
    test_names, *test = _read(beside)
    if test_names != names or test[0].shape[1] != inputs.shape[1]:
        raise ValueError(f"{beside} has other classes than {path}, or series of another length.")
    return Labelled(inputs, labels, names, (test[0], test[1]))


def _read(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Class names (K,), series (n, length) and labels (n,)."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    series = [line.rpartition(":") for line in lines if line and not line.startswith(("#", "@"))]
    try:
        values = np.array([list(map(float, row.split(","))) for row, _, _ in series], dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold in each line as many numbers, separated by commas, then a colon and the class: {error}"
        ) from None
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{path} must hold finite numbers; it holds {'gaps or infinite ones' if values.size else 'no series'}.")
    names, labels = np.unique([label for _, _, label in series], return_inverse=True)
    return names.tolist(), values, labels.astype(np.int64)
