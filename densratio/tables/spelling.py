"""Texts that spell numbers or dates: what a column of them holds, and how to convert it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from .._columns import is_frame, is_polars, is_real, library_of
from .dates import DAYS_AS_NUMBERS, are_days_as_numbers, forms_of_dates, forms_of_times, is_date, is_duration, is_week

__all__ = [
    "Advice",
    "advice_on_numbers",
    "advice_on_texts",
    "conversion",
    "kind_of_texts",
    "numbers_spelled",
    "spells_number",
    "told_apart",
    "twins",
]

_CODE = re.compile(r"[+-]?0\d")  # 01234 is a code, in which 01 and 1 differ
_MARKED = re.compile(r"[+-]?[$€£]?\s?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?\s?[%$€£]?")
_IN_FORM = re.compile("(dates|times) in the form (.*)")
_IN_BOTH = ", in both tables"
_IN_PANDAS = {
    "numbers": "{at}.astype(float)",
    "dates": 'pandas.to_datetime({at}.str.strip(), format="ISO8601", utc=True)',
    "dates of any form": "pandas.to_datetime({at})",
    "dates as numbers": 'pandas.to_datetime(pandas.to_numeric({at}).astype("Int64").astype("string"), format="%Y%m%d")',
    "dates in a form": 'pandas.to_datetime({at}.str.strip(), format="{form}")',
    "times in a form": 'pandas.to_datetime({at}.str.strip(), format="{form}").dt.time',
    "durations": "pandas.to_timedelta({at}.str.strip())",
    "weeks": 'pandas.to_datetime({at}.str.strip() + "-1", format="%G-W%V-%u")',
    "numbers with signs": 'pandas.to_numeric({at}.str.replace(r"[^0-9.+-]", "", regex=True))',
    "numbers and gaps": 'pandas.to_numeric({at}, errors="coerce")',
    "categories": '{at}.astype("category")',
    "plain texts": "{at}.str.strip().str.lower()",
    "composed texts": '{at}.str.normalize("NFKC").str.split().str.join(" ").str.lower()',
    "texts": "{at}.astype(str)",
    "zoned dates": '{at}.dt.tz_localize("UTC")',
}
_IN_POLARS = {
    "numbers": "{at}.str.strip_chars().cast(polars.Float64)",
    "dates": '{at}.str.strip_chars().str.to_datetime(time_zone="UTC")',
    "dates of any form": "{at}.cast(polars.String).str.strip_chars().str.to_datetime()",
    "dates as numbers": '{at}.cast(polars.Int64).cast(polars.String).str.to_datetime("%Y%m%d")',
    "dates in a form": '{at}.str.strip_chars().str.to_datetime("{form}")',
    "times in a form": '{at}.str.strip_chars().str.to_time("{form}")',
    "durations": "polars.from_pandas(pandas.to_timedelta({at}.to_pandas().str.strip()))",
    "weeks": '({at}.str.strip_chars() + "-1").str.to_date("%G-W%V-%u")',
    "numbers with signs": '{at}.str.replace_all(r"[^0-9.+-]", "").cast(polars.Float64)',
    "numbers and gaps": "{at}.cast(polars.String).str.strip_chars().cast(polars.Float64, strict=False)",
    "categories": "{at}.cast(polars.Categorical)",
    "plain texts": "{at}.str.strip_chars().str.to_lowercase()",
    "composed texts": r'{at}.str.normalize("NFKC").str.strip_chars().str.replace_all(r"\s+", " ").str.to_lowercase()',
    "texts": "{at}.cast(polars.String)",
    "zoned dates": '{at}.dt.replace_time_zone("UTC")',
}


def spells_number(text: Any) -> bool:
    """Whether a text is a finite number, or "nan"; 10_2, which Python reads as 102, is none."""
    try:
        return (bool(np.isfinite(float(text))) or str(text).lower() == "nan") and "_" not in str(text)
    except ValueError:
        return False


def numbers_spelled(values: np.ndarray) -> np.ndarray | None:
    """The numbers, as float64, of an array of texts and numbers that all spell one; None if any spells no number, or a code."""
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        return None
    cells = (values.astype(str) if values.dtype.kind == "S" else values).ravel().tolist()
    if any(_CODE.match(cell) or "_" in cell for cell in cells if isinstance(cell, str)):
        return None
    return numbers if all(map(spells_number, values[~np.isfinite(numbers)].tolist())) else None


def _code(kind: str, X: Any, name: Any) -> str:
    """Code that makes of a column of X, in words of its library, what a kind of `_IN_PANDAS` says; a form is in the kind."""
    in_form = _IN_FORM.fullmatch(kind)
    kind, form = (f"{in_form[1]} in a form", in_form[2]) if in_form else (kind, "")
    if is_polars(X):
        return _IN_POLARS[kind].format(at=f"X[{name!r}]", form=form)
    frame = "X" if library_of(X) == "pandas" else "X.to_pandas()" if is_frame(X) else "pandas.DataFrame(X)"
    return _IN_PANDAS[kind].format(at=f"{frame}[{name if is_frame(X) else int(name[1:])!r}]", form=form)


def conversion(kind: str, X: Any, name: Any, table: str) -> str:
    """Code that puts in place of a column of X, called `table`, what a kind of `_IN_PANDAS` says, in words of its library."""
    at = f"{table}[{name!r}]"
    if is_polars(X):
        return f"{table} = {table}.with_columns({_IN_POLARS[kind].format(at=at)})"
    if not is_frame(X):
        return f"{table}[:, {name[1:]}] = {_IN_PANDAS[kind].format(at=f'pandas.Series({table}[:, {name[1:]}])')}"
    arrow = f"{table} = {table}.to_pandas(); " * (library_of(X) != "pandas")
    return f"{arrow}{at} = {_IN_PANDAS[kind].format(at=at)}"


def kind_of_texts(texts: Collection[str]) -> str | None:
    """What all of these distinct texts spell, a kind for `_code`, or None if some text is neither number nor date.

    Numbers that begin with 0, such as 01234, are codes. Dates that fit two forms, as 03/04/2024 does, have the month first.
    """
    return next(iter(_kinds_of_texts(texts)), None)


def _kinds_of_texts(texts: Collection[str]) -> list[str]:
    """The kind of `kind_of_texts`, and after it the other forms of dates that fit; empty for none."""
    if forms := forms_of_dates(texts):
        return [f"dates in the form {form}" for form in forms]
    if forms := forms_of_times(texts):
        return [f"times in the form {form}" for form in forms]
    tests: dict[str, Callable[[str], Any]] = {
        "dates": is_date,
        "weeks": is_week,
        "durations": is_duration,
        "numbers": spells_number,
        "numbers with signs": _MARKED.fullmatch,
    }
    found = [kind for kind, is_one in tests.items() if all(map(is_one, texts))][:1]
    return [kind for kind in found if "numbers" not in kind or not any(map(_CODE.match, texts))]


class Advice(str):
    """What is wrong with a column, `fact`, a sentence without its period; then code that mends it."""

    fact: str

    def __new__(cls, fact: str, cure: str) -> Advice:
        """The whole text."""
        advice = super().__new__(cls, fact + cure)
        advice.fact = fact
        return advice


def advice_on_texts(X: Any, name: Any, samples: Sequence[Sequence[Any]]) -> Advice | None:
    """Advice for a column of X that counts as categories, if its values in one or two samples look like numbers or dates."""
    code, there = partial(_code, X=X, name=name), _IN_BOTH * (len(samples) > 1)
    for values in samples:
        strays = [value for value in values if not is_real(value) and not spells_number(value)]
        if 0 < 2 * len(strays) < len(values):
            return Advice(
                f"Column {name!r} holds mostly numbers, and {str(strays[0])!r}: it is taken for categories",
                f". For numbers, repair it or make a gap of it, {code('numbers and gaps')}; for categories, declare them, "
                f"{code('categories')}.",
            )
    texts = {str(value) for values in samples for value in values}
    if same := twins(texts):
        how = "plain texts" if len(set(map(_plain, same))) == 1 else "composed texts"
        return Advice(
            f"Column {name!r} has the levels {told_apart(same)}",
            f". If they are one level, make them equal{there[1:]}: {code(how)}.",
        )
    if not texts or not (kinds := _kinds_of_texts(texts)):
        return None
    kind, others = kinds[0], "".join(f", and also in {form[2]}" for form in map(_IN_FORM.fullmatch, kinds[1:]) if form)
    return Advice(
        f"Column {name!r} holds text, such as {min(texts)!r}, and is taken for categories. All of it reads as {kind}{others}",
        f": {code(kind)}{there}; or declare categories, {code('categories')}.",
    )


def advice_on_numbers(X: Any, name: Any, samples: Sequence[np.ndarray]) -> Advice | None:
    """Advice for a column of X that counts as numbers, NaN for gaps, if all in one or two samples are dates such as 20240517."""
    numbers = np.concatenate([values[~np.isnan(values)] for values in samples])
    if not are_days_as_numbers(numbers):
        return None
    return Advice(
        f"Column {name!r} holds numbers, such as {numbers.min():.0f}, and is taken for such. All of it reads as dates in the form "
        f"{DAYS_AS_NUMBERS}",
        f": {_code('dates as numbers', X, name)}{_IN_BOTH * (len(samples) > 1)}.",
    )


def twins(texts: Collection[str]) -> list[str]:
    """The first texts that differ only in case, spaces and the form of Unicode, such as e and an accent for one letter, or none."""
    spellings: dict[str, list[str]] = {}
    for text in sorted(texts):
        spellings.setdefault(" ".join(unicodedata.normalize("NFKC", text).split()).lower(), []).append(text)
    return next((same for same in spellings.values() if len(same) > 1), [])


def told_apart(same: Sequence[str]) -> str:
    """Some `twins` in quotes and what they differ in; the codes of characters that look alike are spelled out."""
    if len(set(map(_plain, same))) == 1:
        return f"{', '.join(map(repr, same))}, which differ only in case or spaces"
    return f"{', '.join(map(ascii, same))}, which differ only in case, spaces or the form of Unicode (NFC, NFD)"


def _plain(text: str) -> str:
    return text.strip().lower()
