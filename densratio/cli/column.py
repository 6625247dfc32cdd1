"""One column of one table: its values, what kind they are, and where those stand that are of no kind."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .console import enumerated
from .numerals import is_gap, numbers_in
from .tables import Table

__all__ = ["Column", "column_of", "shown"]

_KINDS = {
    "datetime64": "dates", "datetime": "dates", "date": "dates", "period": "periods", "time": "times of day",
    "timedelta64": "durations", "timedelta": "durations", "mixed": "lists or mixed values",
}  # fmt: skip
_TRUE, _FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")


class Column(NamedTuple):
    """One column of one table; kind: "numbers", "text" or the name of another type."""

    table: Table
    values: Any
    kind: str

    @property
    def name(self) -> str:
        return str(self.values.name)

    @property
    def where(self) -> str:
        return f"{self.table.path}: column '{self.name}'"

    @property
    def is_present(self) -> np.ndarray:
        return self.values.notna().to_numpy(dtype=bool)

    @property
    def is_stray(self) -> np.ndarray:
        """The texts (n,) of this column that are no numbers."""
        return self.is_present & np.isnan(numbers_in(self.values, self.table.reading))

    def texts(self, is_there: np.ndarray) -> list[str]:
        return [str(value) for value in self.values[is_there].unique()]

    def places(self, is_there: np.ndarray, most: int = 5) -> str:
        """The rows of a mask (n,), as "line 17" or "lines 3, 8 and 12 more"."""
        rows = np.flatnonzero(is_there)
        found: list[object] = list(self.table.places([int(row) for row in rows[:most]]))
        found += [f"{len(rows) - most} more"] * (len(rows) > most)
        return f"{self.table.place}{'s' * (len(rows) > 1)} {enumerated(found, most + 1)}"

    def example(self, is_there: np.ndarray) -> str:
        return f"{shown(self.texts(is_there)[0])} on {self.places(is_there)}"


def column_of(table: Table, values: Any, *, is_code: bool, fills_gaps: bool) -> Column:
    """A column of a table, a pandas series. is_code: it is text whatever it holds; fills_gaps: NA, ? and such are no texts."""
    if is_code:
        return Column(table, values.astype(object).map(_code, na_action="ignore"), "text")
    column = Column(table, values, _kind(values))
    if column.kind != "text" or table.has_types:
        return column
    numbers = _spelled(column, fills_gaps)
    return column if numbers is None else Column(table, numbers, "numbers")


def shown(value: Any) -> str:
    """A value in quotes, cut where it is long."""
    text = str(value)
    return f"'{text if len(text) <= 30 else text[:27] + '...'}'"


def _spelled(column: Column, fills_gaps: bool) -> Any:
    """The numbers that all texts of a column spell, or all but the gaps; None where some spell none."""
    from pandas import Series

    values, is_stray = column.values, column.is_stray
    if is_stray.any() and values[is_stray].isin([*_TRUE, *_FALSE]).all() and (is_stray == column.is_present).all():
        return values.map(lambda text: float(text in _TRUE), na_action="ignore").astype(float)
    numbers = numbers_in(values, column.table.reading)
    has_gaps_alone = fills_gaps and np.isfinite(numbers).any() and all(map(is_gap, column.texts(is_stray)))
    return Series(numbers, name=values.name) if has_gaps_alone or not is_stray.any() else None


def _code(value: Any) -> str:
    """The text of a code: 7 and not 7.0, which numbers become beside a missing one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _kind(values: Any) -> str:
    from pandas import CategoricalDtype
    from pandas.api import types

    dtype = values.dtype
    if types.is_bool_dtype(dtype) or (types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)):
        return "numbers"
    if isinstance(dtype, CategoricalDtype):
        return "text"
    inferred = types.infer_dtype(values, skipna=True)
    if inferred in ("boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty"):
        return "numbers"
    return "text" if inferred == "string" else _KINDS.get(inferred, inferred)
