"""Texts that spell numbers or dates: what a column of them holds, and how to convert it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from .._columns import is_real

__all__ = ["advice_on_texts", "instead_of_texts", "is_date", "numbers_spelled", "spells_number"]

_CODE = re.compile(r"[+-]?0\d")  # 01234 is a code
_MARKED = re.compile(r"[+-]?[$€£]?\s?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?\s?[%$€£]?")
_CURES = {
    "numbers": "pandas.to_numeric(X[{name!r}])",
    "dates": "pandas.to_datetime(X[{name!r}])",
    "numbers with signs": 'pandas.to_numeric(X[{name!r}].str.replace(r"[^0-9.+-]", "", regex=True))',
}


def spells_number(text: Any) -> bool:
    """Whether a text is a finite number, or "nan"."""
    try:
        return bool(np.isfinite(float(text))) or str(text).lower() == "nan"
    except ValueError:
        return False


def numbers_spelled(texts: np.ndarray) -> np.ndarray | None:
    """The numbers that all texts of an array spell, as `spells_number` decides for one; None if any spells no number."""
    try:
        numbers = texts.astype(np.float64)
    except ValueError:
        return None
    return numbers if all(map(spells_number, texts[~np.isfinite(numbers)].tolist())) else None


def is_date(text: str) -> bool:
    """Whether a text is a date in ISO format, such as 2024-05-17 or 2024-05-17T08:30:00Z."""
    try:
        datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    return "-" in text.strip()[4:]


def instead_of_texts(name: Any, texts: Collection[str]) -> str | None:
    """What a column with these distinct texts holds and how to convert it, or None if some text is neither number nor date.

    Numbers that begin with 0, such as 01234, are codes.
    """
    kind = _spelled(texts)
    return None if kind is None else f"{kind}: {_CURES[kind].format(name=name)}"


def _spelled(texts: Collection[str]) -> str | None:
    if any(map(_CODE.match, texts)):
        return None
    tests: dict[str, Callable[[str], Any]] = {"numbers": spells_number, "dates": is_date, "numbers with signs": _MARKED.fullmatch}
    return next((kind for kind, is_one in tests.items() if all(map(is_one, texts))), None)


def advice_on_texts(name: Any, samples: Sequence[Sequence[Any]]) -> str | None:
    """Advice for a column that counts as categories, if its values in both samples look like numbers or dates."""
    for values in samples:
        strays = [value for value in values if not is_real(value) and not spells_number(value)]
        if 0 < 2 * len(strays) < len(values):
            return (
                f"Column {name!r} holds mostly numbers, and {str(strays[0])!r}: it is taken for categories. For "
                f'numbers, repair it or make a gap of it, pandas.to_numeric(X[{name!r}], errors="coerce"); for categories, declare '
                f'them, X[{name!r}].astype("category").'
            )
    texts = {str(value) for values in samples for value in values}
    if twins := _twins(texts):
        return (
            f"Column {name!r} has the levels {', '.join(map(repr, twins))}, which differ only in case or spaces. If they are one "
            f"level, make them equal in both tables: X[{name!r}].str.strip().str.lower()."
        )
    if not texts or (instead := instead_of_texts(name, texts)) is None:
        return None
    return (
        f"Column {name!r} holds text, such as {min(texts)!r}, and is taken for categories. All of it reads as {instead}, in both "
        f'tables; or declare categories, X[{name!r}].astype("category").'
    )


def _twins(texts: Collection[str]) -> list[str]:
    """The first texts that differ only in case and surrounding spaces, or none."""
    spellings: dict[str, list[str]] = {}
    for text in sorted(texts):
        spellings.setdefault(text.strip().lower(), []).append(text)
    return next((same for same in spellings.values() if len(same) > 1), [])
