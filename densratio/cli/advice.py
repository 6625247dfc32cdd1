"""Warnings of the library without code for tables, which the caller of a command does not have."""

from __future__ import annotations

import re

from ..tables.spelling import Advice

__all__ = ["without_code"]

_WRITTEN = {
    "reads as dates": "If they are dates, write them as 2024-05-17",
    "reads as weeks": "If they are weeks, write the days on which they begin, as 2024-05-13,",
    "reads as times": "If they are times, write them as hours, such as 8.5,",
    "reads as durations": "If they are durations, write them as numbers of hours",
}


def without_code(warning: Warning | str, files: str) -> str:
    """A warning of the library; advice on a column says what to change in the files, such as "both files"."""
    advice = warning.args[0] if isinstance(warning, Warning) else warning
    if not isinstance(advice, Advice):
        return re.sub(r"make it one: .*\)\.$", "leave these cells empty.", str(warning))
    words = (words for fact, words in _WRITTEN.items() if fact in advice.fact)
    return f"{advice.fact}. {next(words, 'If that is wrong, change the column')} in {files}, or leave it out."
