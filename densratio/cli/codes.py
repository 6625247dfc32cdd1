"""Columns of codes: digits with leading zeros, such as zip codes, which are names and not numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .column import code_texts
from .tables import Table, is_numeral

__all__ = ["declare_codes", "give_zeros_back"]

_PADDED = re.compile(r"0\d+")


def declare_codes(tables: Sequence[Table], names: Sequence[str]) -> tuple[str, ...]:
    """Columns to read as text in all tables: those of --text, and those of `names` that hold codes in one of the tables.

    As numbers, 01 and 1 would be one value. The tables read these columns as texts from now on, and their notes say so. A table
    that has lost the leading zeros of all codes of a column gets them back.
    """
    declared = tables[0].reading.text
    found: dict[str, str] = {}
    for table in tables:
        unknown = [name for name in names if name not in declared and name not in found]
        for name, texts in table.texts(unknown).items():
            if (code := _code(texts)) is not None:
                found[name] = code
                table.notes += (
                    f"{table.path}: column '{name}' holds codes, such as '{code}', and is read as text, as by --text; numbers are "
                    "written without leading zeros.",
                )
    codes = (*declared, *found)
    for table in tables:
        table.reading = replace(table.reading, text=codes)
    give_zeros_back(tables, codes)
    return codes


def give_zeros_back(tables: Sequence[Table], names: Sequence[str]) -> None:
    """Restore leading zeros that all or some codes of a table have lost, if the codes of another table have one length."""
    shared = [name for name in names if sum(name in table.names for table in tables) > 1]
    frames = [table.read([name for name in shared if name in table.names]) for table in tables] if shared else []
    for name in shared:
        _give_back([(table, _codes(frame[name])) for table, frame in zip(tables, frames, strict=True) if name in frame], name)


def _codes(values: Any) -> set[str]:
    texts = map(str.strip, code_texts(values.dropna().drop_duplicates()))
    return {text for text in texts if text.isdecimal()}


def _give_back(written: Sequence[tuple[Table, set[str]]], name: str) -> None:
    whole = [(table, own) for table, own in written if _has_zeros(own) and len(set(map(len, own))) == 1]
    known = set().union(*(own for _, own in whole))
    lengths = set(map(len, known))
    # Elsewhere 01 and 1 may be two codes.
    if len(lengths) != 1 or any(_has_zeros(own) and not _is_of(own, known, *lengths) for _, own in written):
        return
    for table, own in written:
        if changed := {code: full for code in sorted(own) if (full := code.zfill(*lengths)) != code}:
            table.respelled = {**table.respelled, name: changed}
            code, full = next(iter(changed.items()))
            lacks = "lacks the zeros before some of its codes" if _has_zeros(own) else "has no zeros before its codes"
            note = f"{table.path}: column '{name}' {lacks}: '{code}' is read as '{full}', as in {whole[0][0].path}."
            table.notes += (note,)


def _has_zeros(codes: set[str]) -> bool:
    return any(map(_PADDED.fullmatch, codes))


def _is_of(codes: set[str], known: set[str], length: int) -> bool:
    """Whether codes have the length of known ones if zeros are put before the short ones, most of which are known then."""
    short = {code.zfill(length) for code in codes if len(code) < length}
    return max(map(len, codes)) <= length and 2 * len(short & known) >= len(short)


def _code(texts: Sequence[str]) -> str | None:
    """A text of digits with a leading zero, if no other text is a number of another form, such as 1.5 or -3."""
    if any(is_numeral(text) and any(map(str.isdigit, text)) and not text.isdecimal() for text in texts):
        return None
    return next(filter(_PADDED.fullmatch, texts), None)
