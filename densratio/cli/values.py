"""From two tables to two frames for the encoder; errors name the values that do not fit their column, with their lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..tables.reading import KINDS
from .column import LISTS, Column, column_of, shown
from .columns import Choice, as_argument
from .console import enumerated, quoted
from .numerals import disguise, is_gap
from .tables import Table

__all__ = ["Frames", "Treatment", "check_columns", "cleaned", "strays", "trimmed"]

_MOST_FAULTS = 4  # that one message names
_ON_MISSING = "--missing drop, --missing impute or --missing indicate says what to do with missing values."


class Treatment(NamedTuple):
    """What is done with texts and gaps: `encode` text columns; those named by `text` always; missing: drop, impute, indicate."""

    encode: bool = False
    text: tuple[str, ...] = ()
    missing: str | None = None

    def takes(self, column: Column) -> bool:
        """Whether a column can be used: texts only if they are to be encoded."""
        return self.encode or column.name in self.text if column.is_text else column.kind != LISTS


class _Fault(NamedTuple):
    text: str
    hint: str = ""
    is_gap: bool = False


class Frames(NamedTuple):
    """Two pandas frames with the same columns, which source rows they contain (n_source,), and what was done, in words."""

    source: Any
    target: Any
    is_kept: np.ndarray
    notes: tuple[str, ...]


def cleaned(source: Table, target: Table, choice: Choice, treatment: Treatment) -> Frames:
    """Both tables as frames for `TableEncoder`, with the same columns, and notes on texts and gaps.

    Raises ValueError for fewer than two rows, infinite values, missing values (unless `treatment` says what to do with them), texts
    that `treatment` does not encode, and lists. A column of mostly numbers is never text, unless it is declared so.
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
    check_columns(pairs, choice, treatment)
    found, codes = _framed(pairs, treatment.missing), dict.fromkeys(set(treatment.text) & set(names), "category")
    return found._replace(source=found.source.astype(codes), target=found.target.astype(codes))


def check_columns(pairs: Sequence[Sequence[Column]], choice: Choice, treatment: Treatment) -> None:
    """Raise ValueError for values of the columns that can't be used; each column is given for one table or several."""
    found = [(pair, list(_faults(pair, treatment))) for pair in pairs]
    wordy = [pair[0] for pair, faults in found if not faults and not treatment.takes(pair[0])]
    if faulty := [(pair, faults) for pair, faults in found if faults]:
        said = _of_faults(faulty, choice, treatment)
        texts = [column.name for column in wordy if column.is_text]
        raise ValueError(said + (f" Text, in {quoted(texts)}, needs --encode." if texts else ""))
    if wordy:
        held = [f"text such as {shown(c.values.dropna().iloc[0])}" if c.is_text else c.kind for c in wordy]
        described = enumerated([f"'{column.name}' ({words})" for column, words in zip(wordy, held, strict=True)])
        remedy = f"Leave out {choice.without([column.name for column in wordy])}"
        if any(column.is_text for column in wordy):
            remedy += ", or turn text into columns of 0 and 1 with --encode"
        raise ValueError(f"Not numbers, in {wordy[0].table.path}: {described}. {remedy}.")


def _of_faults(faulty: Sequence[tuple[Sequence[Column], list[_Fault]]], choice: Choice, treatment: Treatment) -> str:
    faults = [fault for _, of_pair in faulty for fault in of_pair]
    sentences = [fault.text for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        sentences.append(f"And {len(faults) - _MOST_FAULTS} more.")
    hints = [hint for hint in dict.fromkeys(fault.hint for fault in faults) if hint]
    # One column with decimals shows the meaning of the commas in the others.
    are_decimals = any(hint.startswith("--decimal") for hint in hints)
    sentences += [hint for hint in hints if not (are_decimals and hint.startswith("--thousands") and "--decimal" in hint)]
    names = [pair[0].name for pair, _ in faulty]
    out = f"Repair these values or leave the column{'s' * (len(names) > 1)} out {choice.without(names)}"
    # As text a gap is a gap still.
    odd = [pair for pair, of_pair in faulty if not all(fault.is_gap for fault in of_pair)]
    codes = [pair[0].name for pair in odd if treatment.encode and any(column.is_text for column in pair)]
    declared = f", or declare codes with --text {as_argument(codes)}" if codes else ""
    return " ".join([*sentences, f"{out}{declared}."])


def _faults(pair: Sequence[Column], treatment: Treatment) -> Iterator[_Fault]:
    """What is wrong with the values of one column; texts and lists that are not used are ignored."""
    present = [column for column in pair if column.is_present.any()]
    # True and false count as numbers.
    kinds = ["numbers" if column.kind == "booleans" else column.kind for column in present]
    other = next((column for column, kind in zip(present, kinds, strict=True) if kind != kinds[0]), None)
    if other is not None:
        yield _mixed(other, present[0]) if present[0].is_text else _mixed(present[0], other)
        return
    is_declared = pair[0].name in treatment.text
    found = [fault for column in pair if column.is_text and not is_declared for fault in strays(column)]
    yield from found
    if not found and all(map(treatment.takes, pair)):
        for column in pair:
            yield from _gaps(column, treatment)


def strays(column: Column) -> Iterator[_Fault]:
    """A fault if most values in a column of texts are dates, or numbers, in digits or as people write them."""
    if column.table.has_types:
        return
    is_stray, is_other = column.is_stray, column.is_present & ~column.is_date
    if 0 < 2 * is_other.sum() < column.is_present.sum():
        yield _misplaced(column, is_other, "date")
    elif 2 * is_stray.sum() < column.is_present.sum():
        yield _misplaced(column, is_stray, "number")
    elif words := disguise(column.texts(column.is_present), column.table.reading):
        yield _Fault(f"{column.where} holds numbers such as {column.example(is_stray)}.", f"{words}.")


def _misplaced(column: Column, is_stray: np.ndarray, kind: str, instead: Column | None = None) -> _Fault:
    """The texts of a mask (n,) are in a column of another kind, which the column has in the file of `instead`."""
    texts = column.texts(is_stray)
    words = disguise(texts, column.table.reading) if kind == "number" else None
    hint = _ON_MISSING if all(map(is_gap, texts)) else f"{words}." if words else ""
    article, ending = ("", "") if kind == "true or false" else ("a ", "s")
    there = "" if instead is None else f"; in {instead.table.path} the column holds {kind}{ending}"
    return _Fault(f"{column.where} has {column.example(is_stray)} where {article}{kind} belongs{there}.", hint)


def _mixed(typed: Column, other: Column) -> _Fault:
    kind = {"numbers": "number", "dates": "date", "zoned dates": "date", "booleans": "true or false"}.get(typed.kind)
    if kind is not None and other.is_text:
        is_known = {"date": other.is_date, "true or false": other.is_truth}.get(kind, ~other.is_stray)
        is_stray = other.is_present & ~is_known
        if is_stray.any():
            return _misplaced(other, is_stray, kind, typed)
    held = KINDS.get(typed.kind, LISTS), KINDS.get(other.kind, LISTS)
    return _Fault(f"{typed.where} holds {held[0]}, and in {other.table.path} the column holds {held[1]}.")


def _gaps(column: Column, treatment: Treatment) -> Iterator[_Fault]:
    is_missing = ~column.is_present
    # The encoder leaves out empty columns, or marks the gaps if only one file has no value.
    if is_missing.all() and treatment.missing != "indicate":
        yield _Fault(f"{column.where} has no value at all.", is_gap=True)
    elif is_missing.any() and not treatment.missing:
        yield _Fault(f"{column.where} has no value on {column.places(is_missing)}.", _ON_MISSING, is_gap=True)
    if column.kind == "numbers":
        is_infinite = np.isinf(column.values.to_numpy(dtype=np.float64, na_value=np.nan))
        if is_infinite.any():
            yield _Fault(f"{column.where} is infinite on {column.places(is_infinite)}.")


# ---------------------------------------------------------------- gaps


def _framed(pairs: Sequence[Sequence[Column]], missing: str | None) -> Frames:
    """Frames of pairs of columns, source and target; missing: "drop", "impute", or else the encoder marks gaps."""
    from pandas import concat

    notes: list[str] = []
    columns = [trimmed(pair, notes) for pair in pairs]
    source, target = (concat([pair[i] for pair in columns], axis=1) for i in (0, 1))
    is_full = [frame.notna().all(axis=1).to_numpy() for frame in (source, target)]
    gaps = source.isna().sum() + target.isna().sum()
    counts = {str(name): int(count) for name, count in gaps.items() if count}
    if counts and missing == "drop":
        notes.append(_dropped(is_full, counts))
        source, target = (frame[full].reset_index(drop=True) for frame, full in zip((source, target), is_full, strict=True))
    elif counts and missing == "impute":
        notes.append(f"Filled in the median of the column, or its most frequent value: {_counted(counts)}.")
        both = {name: concat([source[name], target[name]]) for name in source.columns if gaps[name]}
        fill = {name: of.median() if of.dtype.kind in "fmM" else of.mode().iloc[0] for name, of in both.items()}
        source, target = source.fillna(fill), target.fillna(fill)
    elif counts:
        notes.append(f"Marked in columns of 0 and 1: {_counted(counts)}.")
    is_kept = is_full[0] if missing == "drop" else np.ones(len(is_full[0]), dtype=bool)
    return Frames(source, target, is_kept, tuple(notes))


def trimmed(columns: Sequence[Column], notes: list[str]) -> list[Any]:
    """Values of one column of each table without the spaces around texts: 'clerk ' and 'clerk' are one value."""
    if not columns[0].is_text:
        return [column.values for column in columns]
    texts = [column.values.astype(object).map(str, na_action="ignore") for column in columns]
    stripped = [values.map(str.strip, na_action="ignore") for values in texts]
    odd = sorted({text for old, new in zip(texts, stripped, strict=True) for text in old[old.notna() & (old != new)]})
    if odd:
        notes.append(f"Column '{columns[0].name}': spaces around {quoted(odd, 3)} were left out.")
    return stripped


def _dropped(is_full: list[np.ndarray], counts: dict[str, int]) -> str:
    n_source, n_target = (int(np.sum(~full)) for full in is_full)
    if min(full.sum() for full in is_full) < 2:
        raise ValueError(
            f"--missing drop leaves {is_full[0].sum()} of {len(is_full[0])} rows of the source and {is_full[1].sum()} of "
            f"{len(is_full[1])} of the target; there are {_counted(counts)}. Take --missing impute, or leave columns out."
        )
    return f"Left out rows, {n_source} of the source, with weight 0, and {n_target} of the target: {_counted(counts)}."


def _counted(counts: dict[str, int]) -> str:
    columns = [f"'{name}' ({count})" for name, count in counts.items()]
    return f"missing values in {enumerated(columns)}"
