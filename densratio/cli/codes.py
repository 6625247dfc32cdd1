"""Columns of codes: digits with a zero before them, such as zip codes, which name something and count nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from .tables import Table, is_numeral

__all__ = ["declare_codes"]

_PADDED = re.compile(r"0\d+")


def declare_codes(tables: Sequence[Table], names: Sequence[str]) -> tuple[str, ...]:
    """Columns that are text in all tables: those that --text names, and those of `names` that hold codes in one of the tables.

    Read as numbers, 01 and 1 would be one value. The tables read these as texts from now on, and their notes say so.
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
                    "written without a zero before them.",
                )
    codes = (*declared, *found)
    for table in tables:
        table.reading = replace(table.reading, text=codes)
    return codes


def _code(texts: Sequence[str]) -> str | None:
    """A text of digits that begin with a zero, if no other text is a number of another form, such as 1.5 or -3."""
    if any(is_numeral(text) and any(map(str.isdigit, text)) and not text.isdecimal() for text in texts):
        return None
    return next(filter(_PADDED.fullmatch, texts), None)
