"""Numbers as people write them: read with the characters of the options, and recognized if these do not fit."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

from .tables import Reading

__all__ = ["disguise", "is_gap", "numbers_in"]

_QUOTED = {"'": '"\'"', " ": "' '"}
_GAPS = {"na", "n/a", "#n/a", "nan", "null", "none", "?", "-", "."}
_AFFIXED = re.compile(
    r"[+-]?(?P<before>[$€£¥₹]|(?:USD|EUR|GBP|CHF|JPY|CNY|INR)\b)?\s*[+-]?\d[\d.,' \u00a0\u202f]*"
    r"(?P<after>%|[$€£¥₹]|[^\W\d_]{1,10}[²³]?)?"
)


def numbers_in(values: Any, reading: Reading) -> np.ndarray:
    """The numbers (n,) that a pandas series of texts spells; NaN for a missing value and for any other text."""
    is_number, between = _pattern(reading).fullmatch, _marks(reading.thousands or "_")

    def number(value: Any) -> float:
        text = value.strip() if isinstance(value, str) else str(value)
        return float(re.sub(between, "", text).replace(reading.decimal, ".")) if is_number(text) else np.nan

    return np.fromiter(map(number, values), dtype=np.float64, count=len(values))


def is_gap(text: str) -> bool:
    """Whether a text in a column of numbers stands for a missing value: NA, nan, ?, ..."""
    return text.strip().lower() in _GAPS


def disguise(texts: list[str], reading: Reading) -> str | None:
    """Advice for texts that are mostly numbers as people write them; None if most are not numbers."""
    most = len(texts) / 2.0
    texts = [text.strip() for text in texts]
    for pattern, words in _written_otherwise(reading):
        if sum(bool(re.fullmatch(pattern, text)) for text in texts) > most:
            return words
    found = (match for text in texts if (match := _AFFIXED.fullmatch(text)))
    affixes = Counter(affix for match in found if (affix := match["before"] or match["after"]))
    affix, count = max(affixes.items(), key=lambda item: item[1], default=("", 0))
    return f"Write the numbers without '{affix}'" if count > most else None


def _pattern(reading: Reading) -> re.Pattern[str]:
    whole = r"\d+"
    if reading.thousands:
        whole = rf"(?:\d{{1,3}}(?:{_marks(reading.thousands)}\d{{3}})+|\d+)"
    decimal = re.escape(reading.decimal)
    number = rf"[+-]?(?:(?:{whole}(?:{decimal}\d*)?|{decimal}\d+)(?:e[+-]?\d+)?|inf|infinity)"
    return re.compile(number, re.ASCII | re.IGNORECASE)


def _marks(thousands: str) -> str:
    """The pattern of a thousands separator: spaces and apostrophes have several characters."""
    return {" ": "[ \u00a0\u2009\u202f]", "'": "['\u2019]"}.get(thousands, re.escape(thousands))


def _written_otherwise(reading: Reading) -> list[tuple[str, str]]:
    """Patterns of numbers with another decimal character, or with a thousands separator, and the options that read them."""
    sign = "," if reading.decimal == "." else "."
    decimal, other = re.escape(reading.decimal), re.escape(sign)
    found = []
    for mark in (sign, "'", " "):
        if mark == reading.thousands:
            continue
        words = f"--thousands {mark if mark == sign else _QUOTED[mark]} reads thousands set apart"
        if mark == sign:
            found.append((rf"[+-]?\d+{other}\d{{1,2}}|[+-]?\d*{other}\d{{4,}}", f"--decimal {mark} reads decimals"))
            words += f", --decimal {mark} decimals"
        found.append((rf"[+-]?\d{{1,3}}(?:{_marks(mark)}\d{{3}})+(?:{decimal}\d*)?|[+-]?\d{{1,3}}", words))
    return [*found, (rf"[+-]?\d*{other}\d+", f"--decimal {sign} reads decimals")]
