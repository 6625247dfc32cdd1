"""Read the columns of any table as numpy arrays of one of six kinds, with gaps, for all later steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import is_sparse, to_host
from .._columns import (
    DAY,
    TIMES,
    check_container,
    check_table,
    is_frame,
    is_missing,
    is_real,
    library_of,
    number_of,
    shown,
)  # fmt: skip
from .spelling import conversion, numbers_spelled, spells_number

__all__ = ["KINDS", "Column", "column_names", "loose_values", "objects", "pairs_of", "read_column", "table_of"]

KINDS = {
    "numbers": "numbers",
    "booleans": "true and false",
    "categories": "text or categories",
    "dates": "dates without a time zone",
    "zoned dates": "dates with a time zone",
    "durations": "durations",
    "times": "times of the day",
    "empty": "no value",
}
"""The kinds of columns, and their names in messages."""


class Column(NamedTuple):
    """kind: a name in KINDS. values (n,): str or None for categories; else float64 with NaN for a gap, in days for dates and times.

    counts (n,): how often each row counts; None for once.
    """

    kind: str
    values: np.ndarray
    counts: np.ndarray | None = None

    @property
    def n_times(self) -> np.ndarray:
        """How often (n,) each row counts."""
        return np.ones(len(self.values)) if self.counts is None else self.counts

    def counted(self, counts: np.ndarray) -> Column:
        """The rows with positive counts (n,), and these counts."""
        return Column(self.kind, self.values[counts > 0], counts[counts > 0])

    @property
    def is_gap(self) -> np.ndarray:
        """Where (n,) the column has no value."""
        if self.kind == "categories":
            return np.array([value is None for value in self.values], dtype=bool)
        return np.isnan(self.values)

    def of_kind(self, kind: str) -> Column:
        """The column converted to another kind if it can be: an empty column to any kind, true and false to 1 and 0."""
        if kind == "categories" and self.kind != kind:
            return Column(kind, np.full(len(self.values), None, dtype=object))
        return Column(kind, self.values)

    def followed_by(self, other: Column) -> Column:
        """The values of this column and then those of another of its kind."""
        both = (np.concatenate(pair) for pair in ((self.values, other.values), (self.n_times, other.n_times)))
        return Column(self.kind, *both)


def table_of(X: Any, name: str) -> Any:
    """X as a table for `read_column`, or an array (n, d). Raises ValueError for anything that is not a table in memory."""
    if is_sparse(X):
        raise ValueError(
            f"{name} is a sparse matrix: pass {name}.toarray(), or fit a density ratio itself, which takes sparse rows: "
            "LSIF().fit(*stack_domains(source, target))."
        )
    if library_of(X) == "pyarrow" and hasattr(X, "column_names"):
        return _with_rows(X, name)
    if isinstance(X, np.ma.MaskedArray):
        X = np.ma.filled(X.astype(np.float64), np.nan)
    X = check_container(X, name)
    check_table(X, name)
    if not is_frame(X):
        given, kind, X = X, type(X).__name__, np.asarray(to_host(X))
        if X.ndim == 0:
            raise ValueError(
                f"{name} must be a table of rows and columns (n, d): a pandas or polars frame, an Arrow table or an array. Got "
                f"{shown(given)}."
            )
        if X.ndim != 2:
            raise ValueError(
                f"{name} must be a table of rows and columns (n, d): a pandas or polars frame, an Arrow table or an array. Got a "
                f"{kind} of shape {X.shape}; {name}.reshape(-1, 1) makes one column of an array."
            )
    return _with_rows(X, name)


def _with_rows(X: Any, name: str) -> Any:
    if X.shape[0] == 0:
        raise ValueError(f"{name} is empty: it needs at least one row, better hundreds.")
    if X.shape[1] == 0:
        raise ValueError(f"{name} has no columns: it needs at least one that tells rows apart.")
    return X


def column_names(X: Any) -> list[Any]:
    """Names of the columns; x0, x1, ... for an array. Raises ValueError if two are equal."""
    if not is_frame(X):
        return [f"x{j}" for j in range(X.shape[1])]
    names = list(getattr(X, "column_names", X.columns))
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise ValueError(f"Several columns are called {twice[0]!r}: give each a name of its own.")
    return names


def read_column(X: Any, name: Any, sample: str) -> Column:
    """The column with this name. sample: the name of the table in messages. Raises ValueError for values of no known kind."""
    # One table is not compared with another, and its reader may have no such parameter.
    values, is_category, has_zone = _as_array(X[name]) if is_frame(X) else (X[:, int(name[1:])], False, False)
    # An array can't declare the type of a column.
    numbers = None if is_frame(X) else _numbers_in_texts(values)
    column = _of_values(values, is_category, has_zone) if numbers is None else Column("numbers", numbers)
    if isinstance(column, str):
        raise ValueError(
            f"Column {name!r} of the {sample} holds {column}: turn it into numbers, text or dates, or leave it "
            f"out{_by_drop(name, sample)}."
        )
    if column.kind != "categories" and np.isinf(column.values).any():
        row = int(np.argmax(np.isinf(column.values)))
        raise ValueError(
            f"Column {name!r} of the {sample} is infinite in row {row}: put a number there, NaN if it is not known, or leave the "
            f"column out{_by_drop(name, sample)}."
        )
    return column


def _by_drop(name: Any, sample: str) -> str:
    """How a call on this sample leaves the column out, if it can."""
    return f" with drop=[{name!r}]" if sample in ("source", "target", "reference") else ""


def loose_values(X: Any, name: Any) -> list[Any]:
    """The non-missing values of a column of texts or Python objects; none for other columns and for declared categories."""
    values, is_category = _as_array(X[name])[:2] if is_frame(X) else (X[:, int(name[1:])], False)
    if is_category or values.dtype.kind not in tuple("OUST"):
        return []
    return [value for value in values if not is_missing(value)]


def pairs_of(
    source: Any, target: Any, names: Sequence[Any], called: tuple[str, str] = ("source", "target")
) -> dict[Any, tuple[Column, Column]]:
    """The columns of both tables by name, each pair of one kind. Raises ValueError if a pair holds different things.

    called: the names of the tables in messages.
    If both tables are the same object, it is read once, and is "table X" in messages.
    """
    if source is target:
        return {name: (column, column) for name in names for column in [read_column(source, name, "table X")]}
    return {name: _pair(name, source, target, called) for name in names}


def _pair(name: Any, source: Any, target: Any, called: tuple[str, str]) -> tuple[Column, Column]:
    mine, theirs = read_column(source, name, called[0]), read_column(target, name, called[1])
    kinds = {mine.kind, theirs.kind} - {"empty"}
    if kinds == {"numbers", "booleans"}:
        kinds = {"numbers"}
    if len(kinds) > 1:
        texts = [text for c in (mine, theirs) if c.kind == "categories" for text in c.values if text is not None]
        stray = next((f", such as {text!r}" for text in texts if not spells_number(text)), "")
        held = f"{KINDS[mine.kind]} in the {called[0]} and {KINDS[theirs.kind]} in the {called[1]}{stray}"
        mine_called, theirs_called = (sample.removeprefix("table ") for sample in called)
        remedy = _remedy(name, {mine.kind: (mine_called, source), theirs.kind: (theirs_called, target)})
        raise ValueError(f"Column {name!r} holds {held}. {remedy}, or leave it out{_by_drop(name, called[0])}.")
    kind = kinds.pop() if kinds else "empty"
    return mine.of_kind(kind), theirs.of_kind(kind)


def _remedy(name: Any, tables: dict[str, tuple[str, Any]]) -> str:
    """What makes two columns alike. tables: the name of the table with each kind of column, and the table."""

    def to(kind: str, held: str) -> str:
        called, table = tables[held]
        return conversion(kind, table, name, called)

    if tables.keys() == {"dates", "zoned dates"}:
        return f"Give both a zone, {to('zoned dates', 'dates')}"
    if tables.keys() == {"categories", "numbers"}:
        return f"Make both numbers, {to('numbers and gaps', 'categories')}, or both text, {to('texts', 'numbers')}"
    if "categories" in tables and tables.keys() & {"dates", "zoned dates"}:
        return f"Make both dates, {to('dates' if 'zoned dates' in tables else 'dates of any form', 'categories')}"
    return "Store the same kind of value in both"


# ---------------------------------------------------------------- arrays


def _numbers_in_texts(values: np.ndarray) -> np.ndarray | None:
    """The numbers (n,) that the texts of a column (n,) spell, with NaN for gaps; None for a column of another kind."""
    if values.dtype.kind != "O":
        return numbers_spelled(values) if values.dtype.kind in "US" else None
    types = {type(value): value for value in values if not is_missing(value)}
    if str not in types or not all(kind is str or is_real(value) for kind, value in types.items()):
        return None
    return numbers_spelled(np.array([np.nan if is_missing(value) else value for value in values], dtype=object))


def _as_array(column: Any) -> tuple[np.ndarray, bool, bool]:
    """A frame's column as an array (n,), whether it is declared categorical, and whether it has a time zone."""
    kind = getattr(column, "type", getattr(column, "dtype", None))
    has_zone = any(getattr(kind, name, None) is not None for name in ("tz", "time_zone"))
    if hasattr(column, "to_pylist"):
        is_category = "dictionary" in str(kind)
        # The nulls of dictionary columns get lost in to_numpy.
        return objects(column.to_pylist()) if is_category else np.asarray(column), is_category, has_zone
    is_category = type(kind).__name__ in ("CategoricalDtype", "Categorical", "Enum")
    if is_category and hasattr(column, "astype"):
        column = column.astype(object)
    if has_zone and hasattr(column, "dt") and library_of(column) == "pandas":
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return column.to_numpy(), is_category, has_zone


def objects(values: Sequence[Any]) -> np.ndarray:
    """An array (n,) of any values, sequences included."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _of_values(values: np.ndarray, is_category: bool, has_zone: bool) -> Column | str:
    """The column from an array (n,), or words for its content if it is no column."""
    if values.ndim > 1:
        return "several values in each row"
    kind = values.dtype.kind
    if kind == "c":
        return "complex numbers"
    if not is_category and kind in "fiub":
        numbers = values.astype(np.float64)
        return Column("booleans" if kind == "b" else "empty" if np.isnan(numbers).all() else "numbers", numbers)
    if kind in "mM":
        name = "durations" if kind == "m" else "zoned dates" if has_zone else "dates"
        return Column("empty" if np.isnat(values).all() else name, _days(values))
    return _of_objects(values.astype(object), is_category)


def _of_objects(values: np.ndarray, is_category: bool) -> Column | str:
    gap = np.array([is_missing(value) for value in values], dtype=bool)
    present = values[~gap]
    if not len(present):
        return Column("empty", np.full(len(values), np.nan))
    types = list({type(value): value for value in present}.values())
    for kind, is_one, number in () if is_category else _READERS:
        if all(map(is_one, types)):
            values = np.full(len(gap), np.nan)
            values[~gap] = [number(value) for value in present]
            zones = {getattr(value, "tzinfo", None) is not None for value in present} if kind == "dates" else {False}
            if len(zones) > 1:
                return "dates with and without a time zone"
            return Column("zoned dates" if True in zones else kind, values)
    if not all(isinstance(value, str | bytes) or is_real(value) or type(value).__name__ == "Interval" for value in types):
        return f"values of type{'s' * (len(types) > 1)} {' and '.join(sorted(type(value).__name__ for value in types))}"
    texts = np.full(len(values), None, dtype=object)
    texts[~gap] = [str(value) for value in present]
    return Column("categories", texts)


def _days(values: np.ndarray) -> np.ndarray:
    unit = "timedelta64[us]" if values.dtype.kind == "m" else "datetime64[us]"
    whole = values.astype(unit)
    return np.where(np.isnat(whole), np.nan, whole.astype(np.int64) / DAY)


_READERS: list[tuple[str, Callable[[Any], bool], Callable[[Any], float]]] = [
    ("booleans", lambda value: isinstance(value, bool | np.bool_), float),
    ("numbers", is_real, number_of),
    *((kind, is_one, number) for kind, (is_one, number) in TIMES.items()),
]
"""Kinds of columns of Python objects: the test for one value of each type, and the conversion of a value to a number."""
