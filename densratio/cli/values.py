"""From two tables to two frames of numbers with the same columns; a value that cannot be one is named, with its lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .column import Column, column_of, shown
from .columns import Choice, as_argument
from .console import enumerated
from .frames import Frames, finish
from .numerals import disguise, is_gap
from .tables import Table

__all__ = ["Treatment", "numbers"]

_MOST_VALUES = 100  # of an encoded column; more name the rows instead of describing them
_MOST_FAULTS = 4  # that one message names
_ON_MISSING = "--missing drop, --missing impute or --missing indicate says what to do with missing values."


class Treatment(NamedTuple):
    """What is done with texts and gaps: `encode` text columns; those named by `text` always; missing: drop, impute, indicate."""

    encode: bool = False
    text: tuple[str, ...] = ()
    missing: str | None = None

    def encodes(self, column: Column) -> bool:
        """Whether a column becomes columns of 0 and 1."""
        return column.kind == "text" and (self.encode or column.name in self.text)


class _Fault(NamedTuple):
    text: str
    hint: str = ""


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
    fills = treatment.missing is not None
    pairs = [
        [column_of(t, f[name], is_code=name in treatment.text, fills_gaps=fills) for t, f in zip(tables, frames, strict=True)]
        for name in names
    ]
    _check(pairs, choice, treatment)
    encoded = [pair[0].name for pair in pairs if pair[0].kind == "text"]
    return finish([(pair[0].values, pair[1].values) for pair in pairs], encoded, treatment.missing)


def _check(pairs: Sequence[Sequence[Column]], choice: Choice, treatment: Treatment) -> None:
    found = [(pair, list(_faults(pair, treatment))) for pair in pairs]
    if faulty := [pair for pair, faults in found if faults]:
        raise ValueError(_of_faults([fault for _, faults in found for fault in faults], faulty, choice, treatment))
    if wordy := [pair[0] for pair in pairs if pair[0].kind != "numbers" and not treatment.encodes(pair[0])]:
        described = enumerated([f"'{column.name}' ({_described(column)})" for column in wordy])
        remedy = f"Leave out {choice.without([column.name for column in wordy])}"
        if any(column.kind == "text" for column in wordy):
            remedy += ", or turn text into columns of 0 and 1 with --encode"
        raise ValueError(f"Not numbers, in {wordy[0].table.path}: {described}. {remedy}.")


def _of_faults(faults: list[_Fault], faulty: Sequence[Sequence[Column]], choice: Choice, treatment: Treatment) -> str:
    sentences = [fault.text for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        sentences.append(f"And {len(faults) - _MOST_FAULTS} more.")
    sentences += [hint for hint in dict.fromkeys(fault.hint for fault in faults) if hint]
    out = f"Repair these values or leave the column{'s' * (len(faulty) > 1)} out {choice.without([p[0].name for p in faulty])}"
    codes = [pair[0].name for pair in faulty if treatment.encode and any(column.kind == "text" for column in pair)]
    declared = f", or declare codes that are no numbers with --text {as_argument(codes)}" if codes else ""
    return " ".join([*sentences, f"{out}{declared}."])


def _faults(pair: Sequence[Column], treatment: Treatment) -> Iterator[_Fault]:
    """What is wrong with the values of one column; nothing about a column that is no numbers throughout."""
    first, second = pair
    if first.kind != second.kind:
        yield _mixed(first, second) if first.kind != "text" else _mixed(second, first)
        return
    is_declared = first.name in treatment.text
    strays = [fault for column in pair if first.kind == "text" and not is_declared for fault in _strays(column)]
    yield from strays
    if not strays and (first.kind == "numbers" or treatment.encodes(first)):
        for column in pair:
            yield from _gaps(column, treatment)
        if first.kind == "text":
            yield from _many_values(pair)


def _strays(column: Column) -> Iterator[_Fault]:
    """A fault where most values of a column of texts are numbers, in digits or as people write them."""
    if column.table.has_types:
        return
    is_stray = column.is_stray
    if 2 * is_stray.sum() < column.is_present.sum():
        yield _Fault(f"{column.where} has {column.example(is_stray)} where a number belongs.", _hint(column, is_stray))
    elif words := disguise(column.texts(column.is_present), column.table.reading):
        yield _Fault(f"{column.where} holds numbers such as {column.example(is_stray)}.", f"{words}.")


def _hint(column: Column, is_stray: np.ndarray) -> str:
    texts = column.texts(is_stray)
    words = disguise(texts, column.table.reading)
    return _ON_MISSING if all(map(is_gap, texts)) else f"{words}." if words else ""


def _mixed(numeric: Column, other: Column) -> _Fault:
    is_stray = other.is_stray if other.kind == "text" else np.zeros(0)
    if numeric.kind == "numbers" and is_stray.any():
        text = f"{other.where} has {other.example(is_stray)} where a number belongs"
        return _Fault(f"{text}; in {numeric.table.path} the column holds numbers.", _hint(other, is_stray))
    return _Fault(f"{numeric.where} holds {numeric.kind}, and in {other.table.path} the column holds {other.kind}.")


def _gaps(column: Column, treatment: Treatment) -> Iterator[_Fault]:
    is_missing = ~column.is_present
    if is_missing.all():
        yield _Fault(f"{column.where} has no value at all.")
    elif is_missing.any() and not treatment.missing:
        yield _Fault(f"{column.where} has no value on {column.places(is_missing)}.", _ON_MISSING)
    if column.kind == "numbers":
        is_infinite = np.isinf(column.values.to_numpy(dtype=np.float64, na_value=np.nan))
        if is_infinite.any():
            yield _Fault(f"{column.where} is infinite on {column.places(is_infinite)}.")


def _many_values(pair: Sequence[Column]) -> Iterator[_Fault]:
    n_values = len({text.strip() for column in pair for text in column.texts(column.is_present)})
    if n_values > _MOST_VALUES:
        yield _Fault(
            f"Column '{pair[0].name}' has {n_values} different texts; --encode takes up to {_MOST_VALUES}, since more name the "
            "rows instead of describing them."
        )


def _described(column: Column) -> str:
    present = column.values.dropna()
    return f"text such as {shown(present.iloc[0])}" if column.kind == "text" and len(present) else column.kind
