"""One column of one table: its values, their kind, and the places of values of another kind."""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import numpy as np

from ..tables.dates import is_date
from ..tables.reading import read_column
from .console import enumerated
from .numerals import is_gap, numbers_in
from .tables import Table

__all__ = ["LISTS", "Column", "code_texts", "column_of", "shown"]

LISTS = "lists or mixed values"
_TRUE, _FALSE = ("True", "TRUE", "true"), ("False", "FALSE", "false")


class Column(NamedTuple):
    """One column of one table, a pandas series; kind: as in `densratio.tables`, or `LISTS`."""

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
    def is_text(self) -> bool:
        return self.kind == "categories"

    @property
    def is_present(self) -> np.ndarray:
        return self.values.notna().to_numpy(dtype=bool)

    @property
    def is_stray(self) -> np.ndarray:
        """The texts (n,) of this column that are not numbers."""
        return self.is_present & np.isnan(numbers_in(self.values, self.table.reading))

    @property
    def is_date(self) -> np.ndarray:
        """The texts (n,) of this column that are dates in ISO format."""
        known = {text: is_date(str(text)) for text in self.values.unique()}
        return self.is_present & self.values.map(known).to_numpy(dtype=bool)

    @property
    def is_truth(self) -> np.ndarray:
        """The values (n,) of this column that say true or false, as texts or not."""
        return self.is_present & np.array([str(value).strip() in (*_TRUE, *_FALSE) for value in self.values], dtype=bool)

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


def column_of(table: Table, values: Any, *, is_code: bool, fills_gaps: bool, is_label: bool = False) -> Column:
    """A column of a table. is_code: it is always text; fills_gaps: NA, ? and the like are gaps; is_label: dates stay text."""
    if is_code:
        codes, other = code_texts(values), table.respelled.get(values.name, {})
        return Column(table, codes.map(lambda text: other.get(text.strip(), text), na_action="ignore"), "categories")
    column = Column(table, values, _kind(values))
    if column.is_text and (spelled := _spelled(column, fills_gaps, is_label)) is not None:
        column = Column(table, spelled, _kind(spelled))
    if column.kind == "numbers":
        floats = column.values.to_numpy(dtype=np.float64, na_value=np.nan)
        return column._replace(values=type(values)(floats, name=values.name))
    return column


def code_texts(values: Any) -> Any:
    """Codes (n,) as texts: 7 and not 7.0, even if a missing value made the column floating point."""
    return values.astype(object).map(lambda x: str(int(x) if isinstance(x, float) and x.is_integer() else x), na_action="ignore")


def shown(value: Any) -> str:
    """A value in quotes, shortened if it is long."""
    text = str(value)
    return f"'{text if len(text) <= 30 else text[:27] + '...'}'"


def _spelled(column: Column, fills_gaps: bool, is_label: bool) -> Any:
    """The numbers, dates or booleans that all texts of a column spell, or all but the gaps; None if some text spells none."""
    if column.table.has_types:
        return None if is_label or column.table.has_dates else _dates(column, fills_gaps)
    values, is_stray = column.values, column.is_stray
    is_truth = column.is_truth
    if is_truth.any() and all(fills_gaps and is_gap(text) for text in column.texts(column.is_present & ~is_truth)):
        return values.astype(object).where(is_truth, None).map(lambda text: text.strip() in _TRUE, na_action="ignore")
    if not is_label and (dates := _dates(column, fills_gaps)) is not None:
        return dates
    numbers = numbers_in(values, column.table.reading)
    has_gaps_alone = fills_gaps and np.isfinite(numbers).any() and all(map(is_gap, column.texts(is_stray)))
    return type(values)(numbers, name=values.name) if has_gaps_alone or not is_stray.any() else None


def _dates(column: Column, fills_gaps: bool) -> Any:
    """The dates that all texts of a column spell in ISO format, or all but the gaps; None if some text spells none."""
    from pandas import to_datetime

    is_there = column.is_present & ~(column.values.map(lambda text: fills_gaps and is_gap(str(text))).to_numpy(dtype=bool))
    if not is_there.any() or not column.is_date[is_there].all():
        return None
    texts = column.values.astype(object).where(is_there, None).map(str.strip, na_action="ignore")
    has_zone = {datetime.datetime.fromisoformat(text).tzinfo is not None for text in texts[is_there].unique()}
    # Dates with and without a time zone can't be compared.
    return None if len(has_zone) > 1 else to_datetime(texts, format="ISO8601", utc=has_zone == {True})


def _kind(values: Any) -> str:
    if values.dtype.kind in "iuf":
        return "numbers"
    try:
        return read_column(values.to_frame(), values.name, "file").kind
    except ValueError:
        return LISTS
