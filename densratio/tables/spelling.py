"""Texts that spell numbers or dates: what a column of them holds, and how to convert it."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from .._columns import is_frame, is_polars, is_real, library_of

__all__ = [
    "Advice",
    "advice_on_texts",
    "conversion",
    "is_date",
    "kind_of_texts",
    "numbers_spelled",
    "spells_number",
    "told_apart",
    "twins",
]

_CODE = re.compile(r"[+-]?0\d")  # 01234 is a code, in which 01 and 1 differ
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:?\d\d(:?\d\d(\.\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
_WEEK = re.compile(r"\d{4}-W\d\d")
_MARKED = re.compile(r"[+-]?[$€£]?\s?(\d{1,3}(,\d{3})+|\d+)(\.\d+)?\s?[%$€£]?")
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y",
         "%d %B %Y", "%B %d, %Y")  # fmt: skip
_FORMS = [day + time for time in ("", " %H:%M", " %H:%M:%S") for day in _DAYS]
_IN_FORM = "dates in the form "
_IN_PANDAS = {
    "numbers": "{at}.astype(float)",
    "dates": 'pandas.to_datetime({at}.str.strip(), format="ISO8601", utc=True)',
    "dates of any form": "pandas.to_datetime({at})",
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


def is_date(text: str) -> bool:
    """Whether a text is a date in ISO format, such as 2024-05-17 or 2024-05-17T08:30:00Z."""
    try:
        datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    # Python also takes weeks, dates without dashes and decimal commas, which the libraries of frames do not.
    return _DATE.fullmatch(text.strip()) is not None


def _code(kind: str, X: Any, name: Any) -> str:
    """Code that makes of a column of X, in words of its library, what a kind of `_IN_PANDAS` says."""
    if is_polars(X):
        return _template(_IN_POLARS, kind).format(at=f"X[{name!r}]")
    frame = "X" if library_of(X) == "pandas" else "X.to_pandas()" if is_frame(X) else "pandas.DataFrame(X)"
    return _template(_IN_PANDAS, kind).format(at=f"{frame}[{name if is_frame(X) else int(name[1:])!r}]")


def _template(codes: Mapping[str, str], kind: str) -> str:
    """The code for a kind; dates in a form that is not ISO's have their form in the kind."""
    if not kind.startswith(_IN_FORM):
        return codes[kind]
    form = kind.removeprefix(_IN_FORM)
    if codes is _IN_POLARS:
        return f'{{at}}.str.strip_chars().str.to_datetime("{form}")'
    return f'pandas.to_datetime({{at}}.str.strip(), format="{form}")'


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
    """What all of these distinct texts spell, a kind of `_IN_PANDAS`, or None if some text is neither number nor date.

    Numbers that begin with 0, such as 01234, are codes. Dates that fit two forms, as 03/04/2024 does, have the first of `_DAYS`.
    """
    return next(iter(_kinds_of_texts(texts)), None)


def _kinds_of_texts(texts: Collection[str]) -> list[str]:
    """The kind of `kind_of_texts`, and after it the other forms of dates that fit; empty for none."""
    if forms := _forms_of_dates(texts):
        return [_IN_FORM + form for form in forms]
    if any(map(_CODE.match, texts)):
        return []
    tests: dict[str, Callable[[str], Any]] = {
        "numbers": spells_number,
        "dates": is_date,
        "weeks": lambda text: _WEEK.fullmatch(text.strip()),
        "numbers with signs": _MARKED.fullmatch,
    }
    return [kind for kind, is_one in tests.items() if all(map(is_one, texts))][:1]


def _forms_of_dates(texts: Collection[str]) -> list[str]:
    """The forms, as `datetime.strptime` takes them, in each of which all of the texts are dates; that of ISO is none of them."""
    return [form for form in _FORMS if texts and all(_has_form(text.strip(), form) for text in texts)]


def _has_form(text: str, form: str) -> bool:
    try:
        datetime.datetime.strptime(text, form)
    except ValueError:
        return False
    return True


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
    code, there = partial(_code, X=X, name=name), ", in both tables" if len(samples) > 1 else ""
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
    kind, others = kinds[0], "".join(f", and also in {form.removeprefix(_IN_FORM)}" for form in kinds[1:])
    return Advice(
        f"Column {name!r} holds text, such as {min(texts)!r}, and is taken for categories. All of it reads as {kind}{others}",
        f": {code(kind)}{there}; or declare categories, {code('categories')}.",
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
