"""Warnings of numbers that stand for a missing value, such as -999: what learns from them as numbers is misled."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from ._arrays import is_sparse, to_host
from ._columns import is_frame, is_polars, library_of

__all__ = ["sentinels_in", "warn_of_sentinels"]

_ROWS, _SHARE, _APART = 3, 0.5, 5.0  # fewest rows and largest share of a sentinel; its distance in ranges of the other values
_VALUES, _NINES = 6, {"9"}  # with fewer other values only a number of these digits is a sentinel
_NAMED = 3


def warn_of_sentinels(
    tables: Mapping[str, Any], stacklevel: int, *, drop: Collection[Any] = (), is_source: np.ndarray | None = None
) -> None:
    """Warn of each number that several rows of a column share, far from all others; sparse rows are left out.

    tables: one sample (n, d) or two with the same columns, by their names in the call. drop: columns to leave out, x0, x1, ...
    in an array. is_source (n,): the rows of one of two samples in one table.
    """
    found: dict[float, list[Any]] = {}
    held: dict[float, list[str]] = {}
    known = {called: _names(X) for called, X in tables.items()}
    for name in dict.fromkeys(name for names in known.values() for name in names):
        if name in drop or (isinstance(name, int) and f"x{name}" in drop):
            continue
        columns = {called: _column(X, name) for called, X in tables.items() if name in known[called]}
        columns = {called: values for called, values in columns.items() if values.dtype.kind in "iuf"}
        for sentinel in sentinels_in(*(part for values in columns.values() for part in _samples(values, is_source))):
            found.setdefault(sentinel, []).append(name)
            of_these = [called for called, values in columns.items() if (values == sentinel).any()]
            held[sentinel] = list(dict.fromkeys([*held.get(sentinel, ()), *of_these]))
    for sentinel, names in found.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        cure = " and ".join(_repair(called, tables[called], sentinel) for called in held[sentinel])
        warnings.warn(
            f"Rows of {' and '.join(held[sentinel])} share the number {sentinel:.15g}, far beyond all others, in "
            f"column{'s' * (len(names) > 1)} {', '.join(map(repr, names[:_NAMED]))}{more}. If it stands for a missing value, make "
            f"it one: {cure}.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def _repair(called: str, X: Any, sentinel: float) -> str:
    number = f"{sentinel:.15g}"
    if is_polars(X):
        return f"{called}.with_columns(polars.selectors.numeric().replace({number}, None))"
    if not is_frame(X):
        return f"numpy.where({called} == {number}, numpy.nan, {called})"
    frame = called if library_of(X) == "pandas" else f"{called}.to_pandas()"
    return f"{frame}.replace({number}, numpy.nan)"


def _names(X: Any) -> dict[Any, int]:
    """Names of the columns of a frame, but not of several columns with one name; numbers of those of rows (n, d)."""
    if is_frame(X):
        return {name: n for name, n in Counter(getattr(X, "column_names", X.columns)).items() if n == 1}
    if is_sparse(X) or isinstance(X, list | tuple) or len(getattr(X, "shape", ())) != 2:
        return {}
    return dict.fromkeys(range(X.shape[1]), 1)


def _column(X: Any, name: Any) -> np.ndarray:
    """A column (n,); numbers are NaN where it has no value."""
    column = X[name] if is_frame(X) else to_host(X[:, name])
    kind: Any = getattr(column, "dtype", None)
    # NumPy would make objects of integers that may be missing.
    is_nullable = hasattr(kind, "na_value") and kind.kind in tuple("iuf")
    return column.to_numpy(np.float64, na_value=np.nan) if is_nullable else np.asarray(column)


def _samples(values: np.ndarray, is_source: np.ndarray | None) -> list[np.ndarray]:
    """The finite values, of each sample by itself."""
    parts = [values] if is_source is None else [values[is_source], values[~is_source]]
    return [part[np.isfinite(part)] for part in parts]


def sentinels_in(*samples: np.ndarray) -> Iterator[float]:
    """The smallest and the largest value, each if several rows share it and all other values are far from it.

    If the other values are few, only a number of nines counts. A number that most rows of one of the samples share is none.
    """
    values = np.concatenate(samples) if samples else np.empty(0)
    if len(values) == 0:
        return
    # The smallest integer of a kind has no absolute value of that kind.
    for end in (float(values.min()), float(values.max())):
        is_end = values == end
        if is_end.sum() < _ROWS or any((part == end).sum() > _SHARE * len(part) for part in samples):
            continue
        others = values[~is_end].astype(np.float64)
        least, most = others.min(), others.max()
        is_far = min(abs(end - least), abs(end - most)) > _APART * (most - least) > 0.0
        # Few values may be codes or doses: 0, 1, 10.
        if is_far and (set(f"{abs(end):.15g}") == _NINES or len(np.unique(others)) >= _VALUES):
            yield end
