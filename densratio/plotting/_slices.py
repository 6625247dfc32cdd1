"""Slices through a table: rows of the same type that vary in one or two columns and are constant in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from .._arrays import is_tensor, namespace, to_host

__all__ = ["column_names", "column_values", "positions", "slice_rows"]


def column_names(X: Any) -> tuple[str, ...]:
    """Column names of a frame; x0, x1, ... for an array."""
    return tuple(str(name) for name in X.columns) if hasattr(X, "columns") else tuple(f"x{j}" for j in range(X.shape[1]))


def positions(X: Any, columns: int | str | Sequence[int | str]) -> tuple[int, ...]:
    """Positions of one column or two, given by position or name."""
    names = column_names(X)
    wanted = [columns] if isinstance(columns, int | np.integer | str) else list(columns)
    found = []
    for column in wanted:
        if isinstance(column, str) and column in names:
            found.append(names.index(column))
        elif not isinstance(column, str) and 0 <= column < len(names):
            found.append(int(column))
        else:
            raise ValueError(
                f"Column {column!r} does not exist; use a position below {len(names)} or one of {', '.join(names[:10])}."
            )
    if len(found) not in (1, 2) or len(set(found)) != len(found):
        raise ValueError(f"columns must be one column or two different ones; got {columns!r}.")
    return tuple(found)


def column_values(X: Any, position: int) -> np.ndarray:
    """One column (n,) of a table as numbers. Raises ValueError if it is not numeric."""
    values = _column(X, position)
    if not _is_numeric(values):
        raise ValueError(f"Column {column_names(X)[position]!r} is not numeric; draw the ratio along a numeric column.")
    return values.astype(np.float64)


def slice_rows(X: Any, varying: Mapping[int, np.ndarray]) -> Any:
    """Rows of the same type as X: `varying` (position -> (n,) values), and the median or most frequent value elsewhere."""
    n = len(next(iter(varying.values())))
    if hasattr(X, "iloc"):
        rows = X.iloc[np.zeros(n, dtype=np.int64)].reset_index(drop=True)
        for j in range(X.shape[1]):
            rows.isetitem(j, varying[j] if j in varying else _constant_series(X.iloc[:, j], n))
        return rows
    if hasattr(X, "columns"):
        constant = {name: _constant_series(X[:, j], n) for j, name in enumerate(X.columns) if j not in varying}
        return type(X)({name: varying[j] if j in varying else constant[name] for j, name in enumerate(X.columns)})
    rows = np.stack([varying[j] if j in varying else np.full(n, np.median(_column(X, j))) for j in range(X.shape[1])], axis=1)
    if is_tensor(X):
        return namespace(X).asarray(rows, dtype=X.dtype if X.is_floating_point() else None, device=X.device)
    return rows


def _column(X: Any, position: int) -> np.ndarray:
    if hasattr(X, "iloc"):
        return np.asarray(X.iloc[:, position])
    if scipy.sparse.issparse(X):
        return X.tocsc()[:, [position]].toarray()[:, 0]
    return np.asarray(to_host(X[:, position]))


def _constant_series(series: Any, n: int) -> Any:
    """The median of a frame's column, or the most frequent value of a text column, n times in the column's own type."""
    values = np.asarray(series)
    if _is_numeric(values):
        return np.full(n, np.median(values))
    _, first, counts = np.unique(values.astype(str), return_index=True, return_counts=True)
    repeated = np.full(n, first[np.argmax(counts)])
    return series.iloc[repeated].array if hasattr(series, "iloc") else series.gather(repeated)


def _is_numeric(values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf"
