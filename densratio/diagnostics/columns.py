"""Tables as named numeric columns, the input of all diagnostics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing

from .._arrays import is_numpy_array, is_sparse, is_tensor, take_rows, to_host
from .._blocks import row_slices
from .._columns import TIMES, is_missing, is_real, library_of, number_of
from .._validation import split_domains, stack_domains

__all__ = [
    "Columns", "column_blocks", "dense_rows", "level_name", "numeric_columns", "rows_at", "rows_where", "source_mask",
    "stacked", "two_samples",
]  # fmt: skip

_GAP = "(missing)"  # the level of the gaps of a text column, whether None, NaN or pandas.NA
_SHOW_STACK = "X, y = stack_domains(X_source, X_target)"  # the callers take other arguments before X and y
_MAX_LEVELS = 30  # levels of a text column with a column of their own; the rarer ones share one


class Columns(NamedTuple):
    """Names (d) and values (n, d): a float64 array, or a SciPy CSC matrix for sparse input."""

    names: tuple[str, ...]
    values: Any


def numeric_columns(X: Any, *, is_lenient: bool = False, has_gaps: bool = False) -> Columns:
    """Numeric columns of a table X (n, d): array, tensor, sparse matrix, pandas or polars frame, or `Columns`.

    A frame's text column, and a column declared categorical, becomes one 0/1 column for each of its 30 most frequent levels, named
    column=level, and one for the rest; gaps are the level (missing). Arrays get the names x0, x1, ...
    Dates become days since 1970, in UTC if they have a time zone, durations days, times of the day its elapsed share.
    is_lenient: NaN stays. has_gaps: in dense columns the median replaces NaN, and each column with NaN is followed by a 0/1 column
    named `column (missing)`.
    Raises ValueError for text in an array, for dates or times among other values, for infinity and, unless is_lenient, for NaN
    (naming the column).
    """
    columns = X if isinstance(X, Columns) else _frame_columns(X) if hasattr(X, "columns") else _array_columns(X)
    if has_gaps and not scipy.sparse.issparse(columns.values):
        columns = _filled(columns)
    values = columns.values.data if scipy.sparse.issparse(columns.values) else columns.values
    if not np.all(np.isfinite(values) | (is_lenient & np.isnan(values))):
        for j, name in enumerate(columns.names):
            column = dense_rows(columns.values[:, [j]], np.arange(columns.values.shape[0]))
            if not np.all(np.isfinite(column)):
                what = "NaN" if np.any(np.isnan(column)) else "infinity"
                raise ValueError(
                    f"Input X contains {what} in column {name!r}. Drop or impute these rows before diagnosing a ratio."
                )
    return columns


def _filled(columns: Columns) -> Columns:
    is_gap = np.isnan(columns.values)
    at, values = np.flatnonzero(is_gap.any(axis=0)), columns.values.copy()
    for j in at:
        present = values[~is_gap[:, j], j]
        values[is_gap[:, j], j] = np.median(present) if len(present) else 0.0
    names = [f"{columns.names[j]} (missing)" for j in at]
    return Columns((*columns.names, *names), np.concatenate([values, is_gap[:, at]], axis=1))


def level_name(column: str, level: Any) -> str:
    """The name of a text column's indicator: job=clerk, or years='> 7' if the level begins with another sign."""
    text = str(level)
    return f"{column}={repr(text) if text[:1] in tuple('<>=') else text}"


def two_samples(X_source: Any, X_target: Any, *, has_gaps: bool = False) -> tuple[Any, Any]:
    """Numeric columns of two tables, (n_s, d) and (n_t, d). Raises ValueError if their columns differ."""
    # Text must become the same 0/1 columns in both samples, so both are encoded together.
    X, y = stacked(X_source, X_target)
    values, domain = numeric_columns(X, has_gaps=has_gaps).values, to_host(y)
    return values[domain == 0], values[domain == 1]


def stacked(X_source: Any, X_target: Any) -> tuple[Any, Any]:
    """`stack_domains` of two tables; Arrow tables become pandas frames first."""
    return stack_domains(*(X.to_pandas() if library_of(X) == "pyarrow" else X for X in (X_source, X_target)))


def source_mask(y: Any, n_rows: int) -> np.ndarray:
    """Boolean mask (n,) of the source rows: those with the smaller of the two values of y. Raises as `split_domains`."""
    # split_domains also checks the rows, which may hold text here; zeros replace them.
    return np.asarray(split_domains(BaseEstimator(), np.zeros((n_rows, 1)), y, reset=True, stacked=_SHOW_STACK)[1])


def rows_where(X: Any, mask: np.ndarray) -> Any:
    """Rows of X where `mask` (n,) is true, as a table of the same type."""
    return rows_at(X, np.flatnonzero(mask))


def rows_at(X: Any, index: np.ndarray) -> Any:
    """Rows of X at the positions `index` (k,), as a table of the same type."""
    if is_tensor(X) or is_sparse(X) or is_numpy_array(X):
        return take_rows(X, index)
    return _safe_indexing(X, index)


def dense_rows(values: Any, rows: np.ndarray) -> np.ndarray:
    """Rows (k,) of a column table as a float64 array (k, d)."""
    if scipy.sparse.issparse(values):
        return values.tocsr()[rows].toarray()
    return values[rows]


def column_blocks(*tables: Any) -> Iterator[list[np.ndarray]]:
    """Dense blocks of a few columns at a time, taken from all `tables` (of d columns each) together."""
    n_rows = max(table.shape[0] for table in tables)
    for columns in row_slices(tables[0].shape[1], n_rows):
        blocks = [table[:, columns] for table in tables]
        # Sums down a column are several times faster if the column is contiguous in memory.
        yield [np.asfortranarray(block.toarray() if scipy.sparse.issparse(block) else block) for block in blocks]


def _array_columns(X: Any) -> Columns:
    if scipy.sparse.issparse(X):
        values = scipy.sparse.csc_array(X, dtype=np.float64)
    else:
        values = np.asanyarray(to_host(X))
        try:
            values = np.ma.filled(values.astype(np.float64, copy=False), np.nan)
        except (TypeError, ValueError):
            raise ValueError(
                "X must hold numbers; this array holds text. Pass a pandas or polars frame, whose text columns are compared level "
                "by level, or encode the text first."
            ) from None
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"X must be 2-D (n, d) with at least one row and one column; got shape {values.shape}.")
    return Columns(tuple(f"x{j}" for j in range(values.shape[1])), values)


def _frame_columns(X: Any) -> Columns:
    if 0 in X.shape:
        raise ValueError(f"X must have at least one row and one column; got shape {tuple(X.shape)}.")
    names: list[str] = []
    blocks: list[np.ndarray] = []
    for j, name in enumerate(X.columns):
        # By position: a pandas frame may have two columns of the same name.
        column = X.iloc[:, j] if hasattr(X, "iloc") else X[:, j]
        is_category = type(column.dtype).__name__ == "CategoricalDtype"
        # pandas would give the numbers of declared categories as numbers.
        values = np.asarray(column.astype(object) if is_category else column)
        added, block = _frame_column(str(name), _as_numbers(name, _of_values(name, values)), is_category)
        names += added
        blocks.append(block)
    return Columns(tuple(names), np.concatenate(blocks, axis=1))


def _of_values(name: Any, column: np.ndarray) -> np.ndarray:
    """The column (n,) itself. Raises ValueError if it holds complex numbers, or several values in a row."""
    many = complex, np.complexfloating, list, tuple, set, dict, np.ndarray
    others = column[:1] if column.ndim > 1 or column.dtype.kind == "c" else column if column.dtype.kind == "O" else ()
    odd = next((value for value in others if isinstance(value, many)), None)
    if odd is not None:
        raise ValueError(
            f"Column {name!r} holds values of type {type(odd).__name__}: turn it into numbers or text, or leave it out."
        )
    return column


def _as_numbers(name: Any, column: np.ndarray) -> np.ndarray:
    """Dates (n,) as days since 1970, durations as days, times as shares of the day, NaN for a gap; any other column unchanged."""
    if column.dtype.kind in "mM":
        zero = np.datetime64(0, "D") if column.dtype.kind == "M" else np.timedelta64(0, "D")
        return (column - zero) / np.timedelta64(1, "D")
    if column.dtype.kind != "O":
        return column
    is_gap = np.array([is_missing(value) for value in column], dtype=bool)
    types = {type(value): value for value in column[~is_gap]}
    for is_one, number in TIMES.values():
        found = [is_one(value) for value in types.values()]
        if any(found) and not all(found):
            names = " and ".join(sorted(kind.__name__ for kind in types))
            raise ValueError(f"Column {name!r} holds values of types {names}: make all of them dates, times, numbers or text.")
        if any(found):
            days = np.full(len(column), np.nan)
            days[~is_gap] = [number(value) for value in column[~is_gap]]
            return days
    return column


def _distinct(values: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """The distinct objects of a column (n,) in the order of their first rows, and which of them (n,) each row holds."""
    place: dict[Any, int] = {}
    codes = [place.setdefault(value, len(place)) for value in values.tolist()]
    return list(place), np.array(codes)


def _frame_column(name: str, values: np.ndarray, is_category: bool) -> tuple[list[str], np.ndarray]:
    if values.dtype.kind in "biuf":
        return [name], values.astype(np.float64)[:, None]
    distinct, codes = _distinct(values)
    present = [value for value in distinct if not is_missing(value)]
    if not is_category and all(map(is_real, present)):
        numbers = np.array([np.nan if is_missing(value) else number_of(value) for value in distinct])
        return [name], numbers[codes][:, None]
    # Few objects have many rows.
    levels, of_level = np.unique([_GAP if is_missing(value) else str(value) for value in distinct], return_inverse=True)
    codes = of_level[codes]
    counts = np.bincount(codes)
    kept = np.sort(np.argsort(-counts, kind="stable")[:_MAX_LEVELS])
    indicator = (codes[:, None] == kept[None, :]).astype(np.float64)
    names = [level_name(name, levels[k]) for k in kept]
    if len(levels) > len(kept):
        names.append(f"{name}=(other)")
        indicator = np.concatenate([indicator, 1.0 - indicator.sum(axis=1, keepdims=True)], axis=1)
    return names, indicator
