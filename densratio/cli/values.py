"""From two tables to two frames of numbers with the same columns; a value that cannot be one is named, with its lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .columns import Choice, as_argument
from .console import enumerated, quoted
from .frames import Frames, finish
from .numerals import disguise, is_gap, numbers_in
from .tables import Table

__all__ = ["Treatment", "numbers"]

_MOST_VALUES = 100  # of an encoded column; more name the rows instead of describing them
_MOST_FAULTS = 4  # that one message names
_ON_MISSING = "--missing drop, --missing impute or --missing indicate says what to do with missing values."
_KINDS = {
    "datetime64": "dates", "datetime": "dates", "date": "dates", "period": "periods", "time": "times of day", "interval": "intervals",
    "timedelta64": "durations", "timedelta": "durations", "bytes": "bytes", "mixed": "lists or mixed values", "complex": "complex numbers",
}  # fmt: skip


class _Fault(NamedTuple):
    text: str
    hint: str = ""


class Treatment(NamedTuple):
    """What is done with texts and gaps: `encode` text columns; those named by `text` always; missing: drop, impute, indicate."""

    encode: bool = False
    text: tuple[str, ...] = ()
    missing: str | None = None


class _Column(NamedTuple):
    """One column of one table; kind: "numbers", "text" or the name of another type."""

    table: Table
    values: Any
    kind: str

    @property
    def where(self) -> str:
        return f"{self.table.path}: column '{self.values.name}'"

    @property
    def is_stray(self) -> np.ndarray:
        """The texts (n,) of this column that are no numbers."""
        return self.values.notna().to_numpy(dtype=bool) & np.isnan(numbers_in(self.values, self.table.reading))

    def texts(self, is_there: np.ndarray) -> list[str]:
        return [str(value) for value in self.values[is_there].unique()]

    def places(self, is_there: np.ndarray, shown: int = 5) -> str:
        """The rows of a mask (n,), as "line 17" or "lines 3, 8 and 12 more"."""
        rows = np.flatnonzero(is_there)
        found: list[object] = list(self.table.places([int(row) for row in rows[:shown]]))
        found += [f"{len(rows) - shown} more"] * (len(rows) > shown)
        return f"{self.table.place}{'s' * (len(rows) > 1)} {enumerated(found, shown + 1)}"

    def example(self, is_there: np.ndarray) -> str:
        return f"{_shown(self.texts(is_there)[0])} on {self.places(is_there)}"


def numbers(source: Table, target: Table, choice: Choice, treatment: Treatment) -> Frames:
    """Both tables as float64 frames with the same columns, and what became of texts and gaps.

    True and False are 1 and 0. An encoded text column becomes one column of 0 and 1 for each value in either file. Raises
    ValueError for fewer than two rows, values that are infinite or missing (unless `treatment` says what to do with these), and
    columns that are no numbers; a column of which most values are numbers is never encoded, save one that is declared text.
    """
    tables, names = (source, target), list(choice.names)
    frames = [table.read(names) for table in tables]
    for table, frame in zip(tables, frames, strict=True):
        if len(frame) < 2:
            count = "only one row" if len(frame) else "column names but no rows"
            raise ValueError(f"{table.path} has {count}: a density ratio needs at least two rows of each file, better hundreds.")
    pairs = [[_column(t, f[name], treatment) for t, f in zip(tables, frames, strict=True)] for name in names]
    _check_values(pairs, choice, treatment)
    encoded = [str(pair[0].values.name) for pair in pairs if pair[0].kind == "text"]
    return finish([(pair[0].values, pair[1].values) for pair in pairs], encoded, treatment.missing)


def _column(table: Table, values: Any, treatment: Treatment) -> _Column:
    if values.name in treatment.text:
        return _Column(table, values.astype(object).map(_code, na_action="ignore"), "text")
    column = _Column(table, values, _kind(values))
    return _spelled(column, treatment) if column.kind == "text" and not table.has_types else column


def _spelled(column: _Column, treatment: Treatment) -> _Column:
    """A column of texts as one of numbers, where all of them spell one, or all but the gaps that may be there."""
    from pandas import Series

    found, is_stray = numbers_in(column.values, column.table.reading), column.is_stray
    is_logical = column.values.isin(["True", "TRUE", "true", "False", "FALSE", "false"]).to_numpy(dtype=bool)
    if (is_logical == is_stray).all() and is_stray.any():
        found, is_stray = column.values.isin(["True", "TRUE", "true"]).where(column.values.notna()).astype(float), ~is_logical & is_stray
    if is_stray.any() and not (treatment.missing and np.isfinite(found).any() and all(map(is_gap, column.texts(is_stray)))):
        return column
    return _Column(column.table, Series(np.asarray(found), name=column.values.name), "numbers")


def _code(value: Any) -> Any:
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


def _check_values(pairs: list[list[_Column]], choice: Choice, treatment: Treatment) -> None:
    faulty, faults, wordy = [], [], []
    kinds_of = {str(pair[0].values.name): pair for pair in pairs}
    for pair in pairs:
        found = list(_faults(pair, treatment))
        faults += found
        name = str(pair[0].values.name)
        is_encoded = pair[0].kind == "text" and (treatment.encode or name in treatment.text)
        if found:
            faulty.append(name)
        elif pair[0].kind != "numbers" and not is_encoded:
            wordy.append((name, pair[0]))
    if faults:
        hints = "".join(f"{hint} " for hint in dict.fromkeys(fault.hint for fault in faults) if hint)
        more = f" And {len(faults) - _MOST_FAULTS} more." if len(faults) > _MOST_FAULTS else ""
        codes = [name for name in faulty if treatment.encode and any(c.kind == "text" for c in kinds_of[name])]
        declared = f", or, if it holds codes, declare it with --text {as_argument(codes)}" if codes else ""
        raise ValueError(
            f"{' '.join(fault.text for fault in faults[:_MOST_FAULTS])}{more} {hints}Repair these values or leave the column{'s' * (len(faulty) > 1)} out "
            f"{choice.without(faulty)}{declared}."
        )
    if wordy:
        described = enumerated([f"'{name}' ({_described(column)})" for name, column in wordy])
        remedy = f"Leave out {choice.without([name for name, _ in wordy])}"
        if any(column.kind == "text" for _, column in wordy):
            remedy += ", or turn text into columns of 0 and 1 with --encode"
        raise ValueError(f"Not numbers, in {wordy[0][1].table.path}: {described}. {remedy}.")


def _faults(pair: list[_Column], treatment: Treatment) -> Iterator[_Fault]:
    """What is wrong with the values of one column; nothing about a column that is no numbers throughout."""
    kinds = [column.kind for column in pair]
    is_declared = str(pair[0].values.name) in treatment.text
    if kinds[0] != kinds[1]:
        yield _mixed(*(pair if kinds[0] != "text" else reversed(pair)))
    elif kinds[0] == "text" and not is_declared and (strays := [stray for column in pair for stray in _strays(column)]):
        yield from strays
    elif kinds[0] in ("numbers", "text"):
        for column in pair:
            yield from _gaps(column, treatment, shows_gaps=kinds[0] == "numbers" or treatment.encode or is_declared)
        if kinds[0] == "text" and (treatment.encode or is_declared):
            yield from _many_values(pair)


def _strays(column: _Column) -> Iterator[_Fault]:
    """A fault where most values of a column of texts are numbers, in digits or as people write them."""
    if column.table.has_types:
        return
    is_stray, is_there = column.is_stray, column.values.notna().to_numpy(dtype=bool)
    if 2 * is_stray.sum() < is_there.sum():
        yield _Fault(f"{column.where} has {column.example(is_stray)} where a number belongs.", _hint(column, is_stray))
    elif words := disguise(column.texts(is_there), column.table.reading):
        yield _Fault(f"{column.where} holds numbers such as {column.example(is_stray)}.", f"{words}.")


def _hint(column: _Column, is_stray: np.ndarray) -> str:
    texts = column.texts(is_stray)
    if all(map(is_gap, texts)):
        return _ON_MISSING
    words = disguise(texts, column.table.reading)
    return f"{words}." if words else ""


def _mixed(numeric: _Column, other: _Column) -> _Fault:
    is_stray = other.is_stray if other.kind == "text" else np.zeros(0)
    if numeric.kind == "numbers" and is_stray.any():
        return _Fault(
            f"{other.where} has {other.example(is_stray)} where a number belongs; in {numeric.table.path} the column holds numbers.",
            _hint(other, is_stray),
        )
    return _Fault(f"{numeric.where} holds {numeric.kind}, and in {other.table.path} the column holds {other.kind}.")


def _gaps(column: _Column, treatment: Treatment, *, shows_gaps: bool) -> Iterator[_Fault]:
    is_missing = column.values.isna().to_numpy(dtype=bool)
    if is_missing.all() and treatment.missing != "drop":
        yield _Fault(f"{column.where} has no value at all.")
    elif is_missing.any() and shows_gaps and not treatment.missing:
        yield _Fault(f"{column.where} has no value on {column.places(is_missing)}.", _ON_MISSING)
    if column.kind == "numbers":
        is_infinite = np.isinf(column.values.to_numpy(dtype=np.float64, na_value=np.nan))
        if is_infinite.any():
            yield _Fault(f"{column.where} is infinite on {column.places(is_infinite)}.")


def _many_values(pair: list[_Column]) -> Iterator[_Fault]:
    n_values = len(set().union(*(column.values.dropna().astype(str).str.strip().unique() for column in pair)))
    if n_values > _MOST_VALUES:
        yield _Fault(
            f"Column '{pair[0].values.name}' has {n_values} different texts; --encode takes up to {_MOST_VALUES}, since more name "
            "the rows instead of describing them."
        )


def _described(column: _Column) -> str:
    present = column.values.dropna()
    return f"text such as {_shown(present.iloc[0])}" if column.kind == "text" and len(present) else column.kind


def _shown(value: Any) -> str:
    text = str(value)
    return f"'{text if len(text) <= 30 else text[:27] + '...'}'"
