"""Rows of any values as numbers that a kernel can compare, for the test of label shift."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..._columns import is_missing, is_real

__all__ = ["comparable"]

_MOST_LEVELS = 30


def comparable(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Source (n, k) and target rows (m, k) as numbers; rows of numbers without gaps stay as they are.

    A gap in numbers becomes their median and is marked in a column of its own; other values get a 0/1 column for each frequent one.
    """
    if source.dtype.kind == "f" and not (np.isnan(source).any() or np.isnan(target).any()):
        return source, target
    rows = np.concatenate([source, target])
    columns = np.column_stack([column for values in rows.T for column in _numbers(values)])
    return columns[: len(source)], columns[len(source) :]


def _numbers(values: np.ndarray) -> Iterator[np.ndarray]:
    gap = np.array([is_missing(value) for value in values.tolist()], dtype=bool)
    present: list[Any] = values[~gap].tolist()
    if all(map(is_real, present)):
        numbers = np.zeros(len(values))
        numbers[~gap] = present
        numbers[gap] = np.median(numbers[~gap]) if present else 0.0
        yield numbers
    else:
        levels, counts = np.unique(values[~gap].astype(str), return_counts=True)
        for level in levels[np.argsort(-counts, kind="stable")[:_MOST_LEVELS]]:
            yield np.where(gap, False, values.astype(str) == level).astype(np.float64)
    if gap.any():
        yield gap.astype(np.float64)
