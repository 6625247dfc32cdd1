"""Warnings of numbers that stand for a missing value, such as -999: a model that learns from them as numbers is misled."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .._arrays import is_sparse, to_host
from .._columns import is_frame, is_polars, library_of
from ..tables.reading import column_names

__all__ = ["sentinels_in", "warn_of_sentinels"]

_ROWS, _SHARE, _APART = 3, 0.5, 5.0  # fewest rows and largest share of a sentinel; its distance in ranges of the other values
_VALUES, _NINES = 6, {"9"}  # with fewer other values only a number of these digits is a sentinel
_NAMED = 3


def warn_of_sentinels(X: Any, stacklevel: int) -> None:
    """Warn of each number that several rows of a column of X (n, d) share, far from all others; sparse rows are left out."""
    found: dict[float, list[Any]] = {}
    for name, values in _number_columns(X):
        for sentinel in sentinels_in(values):
            found.setdefault(sentinel, []).append(name)
    for sentinel, names in found.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        warnings.warn(
            f"Rows of X share the number {sentinel:.15g}, far beyond all others, in column{'s' * (len(names) > 1)} "
            f"{', '.join(map(repr, names[:_NAMED]))}{more}. If it stands for a missing value, make it one: {_repair(X, sentinel)}.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def _repair(X: Any, sentinel: float) -> str:
    number = f"{sentinel:.15g}"
    if is_polars(X):
        return f"X.with_columns(polars.selectors.numeric().replace({number}, None))"
    if not is_frame(X):
        return f"numpy.where(X == {number}, numpy.nan, X)"
    frame = "X" if library_of(X) == "pandas" else "X.to_pandas()"
    return f"{frame}.replace({number}, numpy.nan)"


def _number_columns(X: Any) -> Iterator[tuple[Any, np.ndarray]]:
    """The numeric columns of a frame or of rows (n, d), without missing values."""
    columns: Iterable[tuple[Any, np.ndarray]]
    if is_frame(X):
        columns = ((name, np.asarray(X[name])) for name in column_names(X))
    elif is_sparse(X) or isinstance(X, list | tuple) or len(getattr(X, "shape", ())) != 2:
        return
    else:
        columns = enumerate(np.asarray(to_host(X)).T)
    for name, values in columns:
        if values.dtype.kind in "iuf":
            yield name, values[np.isfinite(values)]


def sentinels_in(values: np.ndarray) -> Iterator[float]:
    """The smallest and the largest value, each if several rows share it and all other values are far from it.

    If the other values are few, only a number of nines counts.
    """
    if len(values) == 0:
        return
    for end in (values.min(), values.max()):
        is_end = values == end
        if not _ROWS <= is_end.sum() <= _SHARE * len(values):
            continue
        others = values[~is_end].astype(np.float64)
        least, most = others.min(), others.max()
        is_far = min(abs(end - least), abs(end - most)) > _APART * (most - least) > 0.0
        # Few values may be codes or doses: 0, 1, 10.
        if is_far and (set(f"{abs(end):.15g}") == _NINES or len(np.unique(others)) >= _VALUES):
            yield float(end)
