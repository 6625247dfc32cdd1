"""Texts and whole numbers that spell dates, times of a day or durations, and the form in which they do."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection

import numpy as np

__all__ = ["DAYS_AS_NUMBERS", "are_days_as_numbers", "forms_of_dates", "forms_of_times", "is_date", "is_duration", "is_week"]

DAYS_AS_NUMBERS = "%Y%m%d"
"""The form of dates such as 20240517."""
_FIRST, _LAST, _FEW = 19000101, 21001231, 5  # the range of such dates, and the most of them that may be numbers by chance
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d(:?\d\d(:?\d\d(\.\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
_WEEK = re.compile(r"\d{4}-W\d\d", re.ASCII)
_EIGHT = re.compile(r"\d{8}", re.ASCII)
_CLOCK = re.compile(r"\d{1,2}(:\d\d){1,2}( ?[AaPp][Mm])?", re.ASCII)  # 3:2 is a score
_DURATION = re.compile(
    r"-?\d+ days?(,? [+-]?\d{1,2}:\d\d:\d\d(\.\d+)?)?|-?\d+:\d\d:\d\d(\.\d+)?"
    r"|-?P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?",
    re.ASCII,
)
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y",
         "%d %B %Y", "%B %d, %Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%y")  # fmt: skip
_TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p")
_FORMS = [f"{day} {time}".rstrip() for time in ("", *_TIMES) for day in _DAYS] + ["%b %Y", "%B %Y"]


def is_date(text: str) -> bool:
    """Whether a text is a date in ISO format, such as 2024-05-17 or 2024-05-17T08:30:00Z."""
    try:
        datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return False
    # Python also takes weeks, dates without dashes and decimal commas, which the libraries of frames do not.
    return _ISO.fullmatch(text.strip()) is not None


def is_week(text: str) -> bool:
    """Whether a text is a week in ISO format, such as 2024-W20."""
    return _WEEK.fullmatch(text.strip()) is not None


def is_duration(text: str) -> bool:
    """Whether a text is a duration, such as 1 day 02:03:04, 5 days, 25:00:00 or PT2H30M."""
    return _DURATION.fullmatch(text.strip()) is not None


def forms_of_dates(texts: Collection[str]) -> list[str]:
    """The forms, as `datetime.strptime` takes them, in each of which all distinct texts are dates; that of ISO is none of them."""
    if texts and all(_EIGHT.fullmatch(text.strip()) for text in texts):
        return [DAYS_AS_NUMBERS] if are_days_as_numbers(np.array([int(text) for text in texts])) else []
    return _fitting(texts, _FORMS)


def forms_of_times(texts: Collection[str]) -> list[str]:
    """The forms, as `datetime.strptime` takes them, in each of which all distinct texts are times of a day."""
    return _fitting(texts, _TIMES) if all(_CLOCK.fullmatch(text.strip()) for text in texts) else []


def are_days_as_numbers(numbers: np.ndarray) -> bool:
    """Whether more than a few different numbers (n,) are all dates of 1900 to 2100 such as 20240517."""
    if not len(numbers) or numbers.min() < _FIRST or numbers.max() > _LAST:
        return False
    days = np.unique(numbers)
    is_whole = len(days) > _FEW and bool((days == np.floor(days)).all())
    return is_whole and all(map(_has(DAYS_AS_NUMBERS), map(str, days.astype(np.int64).tolist())))


def _fitting(texts: Collection[str], forms: Collection[str]) -> list[str]:
    found = [form for form in forms if texts and all(map(_has(form), texts))]
    # May is short and long.
    return [form for form in found if form.replace("%B", "%b") == form or form.replace("%B", "%b") not in found]


def _has(form: str) -> Callable[[str], bool]:
    def is_in_form(text: str) -> bool:
        try:
            datetime.datetime.strptime(text.strip(), form)
        except ValueError:
            return False
        return True

    return is_in_form
