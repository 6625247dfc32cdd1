"""From two tables to two frames of numbers with the same columns; a value that cannot be one is named, with its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .columns import Choice
from .console import enumerated, quoted
from .tables import Table

__all__ = ["numbers"]

_MOST_VALUES = 100  # of an encoded column; more name the rows instead of describing them
_MOST_FAULTS = 4  # that one message names


class _Column(NamedTuple):
    """One column of one table; kind: "numbers", "text" or the name of another type."""

    table: Table
    values: Any
    kind: str

    @property
    def where(self) -> str:
        return f"{self.table.path}: column '{self.values.name}'"

    def places(self, is_there: np.ndarray, shown: int = 5) -> str:
        """The rows of a mask (n,), as "line 17" or "lines 3, 8 and 12 more"."""
        rows = np.flatnonzero(is_there)
        found: list[object] = list(self.table.places([int(row) for row in rows[:shown]]))
        found += [f"{len(rows) - shown} more"] * (len(rows) > shown)
        return f"{self.table.place}{'s' * (len(rows) > 1)} {enumerated(found, shown + 1)}"


def numbers(source: Table, target: Table, choice: Choice, *, encode: bool) -> tuple[Any, Any, list[str]]:
    """Both tables as float64 frames with the same columns, and the names of those that the files hold as numbers.

    True and False are 1 and 0. With `encode` a text column becomes one column of 0 and 1 for each value in either file, named
    column=value. Raises ValueError for fewer than two rows, missing or infinite values, and columns that are no numbers.
    """
    tables, names = (source, target), list(choice.names)
    frames = [table.read(names) for table in tables]
    for table, frame in zip(tables, frames, strict=True):
        if len(frame) < 2:
            count = "only one row" if len(frame) else "column names but no rows"
            raise ValueError(f"{table.path} has {count}: a density ratio needs at least two rows of each file, better hundreds.")
    pairs = [[_Column(t, f[name], _kind(f[name])) for t, f in zip(tables, frames, strict=True)] for name in names]
    _check_values(pairs, choice, encode)
    parts = [_encoded(*pair) if pair[0].kind == "text" else tuple(_plain(column) for column in pair) for pair in pairs]
    numeric = [str(pair[0].values.name) for pair in pairs if pair[0].kind == "numbers"]
    return _joined([part[0] for part in parts]), _joined([part[1] for part in parts]), numeric


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
    return "text" if inferred == "string" else {"datetime64": "dates", "datetime": "dates", "date": "dates"}.get(inferred, inferred)


def _check_values(pairs: list[list[_Column]], choice: Choice, encode: bool) -> None:
    faulty, faults, wordy = [], [], []
    for pair in pairs:
        found = list(_faults(pair, encode))
        faults += found
        name = str(pair[0].values.name)
        if found:
            faulty.append(name)
        elif pair[0].kind not in (("numbers", "text") if encode else ("numbers",)):
            wordy.append((name, pair[0]))
    if faults:
        more = f" And {len(faults) - _MOST_FAULTS} more." if len(faults) > _MOST_FAULTS else ""
        raise ValueError(
            f"{' '.join(faults[:_MOST_FAULTS])}{more} Repair these values or leave the column{'s' * (len(faulty) > 1)} out "
            f"{choice.without(faulty)}."
        )
    if wordy:
        described = enumerated([f"'{name}' ({_described(column)})" for name, column in wordy])
        remedy = f"Leave out {choice.without([name for name, _ in wordy])}"
        if not encode and any(column.kind == "text" for _, column in wordy):
            remedy += ", or turn text into columns of 0 and 1 with --encode"
        raise ValueError(f"Not numbers, in {wordy[0][1].table.path}: {described}. {remedy}.")


def _faults(pair: list[_Column], encode: bool) -> Iterator[str]:
    """What is wrong with the values of one column, a sentence each; nothing about a column that is no numbers throughout."""
    kinds = [column.kind for column in pair]
    if kinds[0] != kinds[1]:
        yield _mixed(*(pair if kinds[0] != "text" else reversed(pair)))
    elif kinds[0] == "text" and not encode:
        for column in pair:
            is_stray = _is_no_number(column)
            if not column.table.has_types and 2 * is_stray.sum() < len(is_stray):
                yield f"{column.where} has {_example(column, is_stray)} where a number belongs."
    elif kinds[0] in ("numbers", "text"):
        for column in pair:
            yield from _gaps(column)
        if kinds[0] == "text":
            yield from _many_values(pair)


def _mixed(numeric: _Column, other: _Column) -> str:
    is_stray = _is_no_number(other) if other.kind == "text" else np.zeros(0)
    if numeric.kind == "numbers" and is_stray.any():
        return (
            f"{other.where} has {_example(other, is_stray)} where a number belongs; in {numeric.table.path} the column "
            "holds numbers."
        )
    return f"{numeric.where} holds {numeric.kind}, and in {other.table.path} the column holds {other.kind}."


def _gaps(column: _Column) -> Iterator[str]:
    is_missing = column.values.isna().to_numpy(dtype=bool)
    if is_missing.any():
        yield f"{column.where} has no value on {column.places(is_missing)}."
    if column.kind == "numbers":
        is_infinite = np.isinf(_floats(column.values))
        if is_infinite.any():
            yield f"{column.where} is infinite on {column.places(is_infinite)}."


def _many_values(pair: list[_Column]) -> Iterator[str]:
    n_values = len(set().union(*(column.values.astype(str).unique() for column in pair)))
    if n_values > _MOST_VALUES:
        yield (
            f"Column '{pair[0].values.name}' has {n_values} different texts; --encode takes up to {_MOST_VALUES}, since more name "
            "the rows instead of describing them."
        )


def _is_no_number(column: _Column) -> np.ndarray:
    from pandas import to_numeric

    values = column.values.astype(object)
    return (to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy(dtype=bool)


def _example(column: _Column, is_there: np.ndarray) -> str:
    return f"{_shown(column.values[is_there].iloc[0])} on {column.places(is_there)}"


def _described(column: _Column) -> str:
    present = column.values.dropna()
    return f"text such as {_shown(present.iloc[0])}" if column.kind == "text" and len(present) else column.kind


def _shown(value: Any) -> str:
    text = str(value)
    hint = " (--decimal , reads decimal commas)" if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", text) else ""
    return f"'{text if len(text) <= 30 else text[:27] + '...'}'{hint}"


# ---------------------------------------------------------------- frames


def _floats(values: Any) -> np.ndarray:
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _plain(column: _Column) -> Any:
    from pandas import DataFrame

    return DataFrame({column.values.name: _floats(column.values)})


def _encoded(source: _Column, target: _Column) -> tuple[Any, Any]:
    from pandas import DataFrame
    from sklearn.preprocessing import OneHotEncoder

    texts = [column.values.astype(str).to_numpy(dtype=object)[:, None] for column in (source, target)]
    encoder = OneHotEncoder(sparse_output=False).fit(np.concatenate(texts))
    names = [f"{source.values.name}={value}" for value in encoder.categories_[0]]
    return DataFrame(encoder.transform(texts[0]), columns=names), DataFrame(encoder.transform(texts[1]), columns=names)


def _joined(parts: list[Any]) -> Any:
    from pandas import concat

    frame = concat(parts, axis=1)
    if not frame.columns.is_unique:
        twins = sorted(set(frame.columns[frame.columns.duplicated()]))
        raise ValueError(f"--encode gives two columns the name {quoted(twins)}: rename one of the columns in both files.")
    return frame
