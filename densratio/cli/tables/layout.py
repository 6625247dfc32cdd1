"""Find the header of a table in a text file, and the separator of its columns."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence

__all__ = ["HEAD", "is_data", "is_numeral", "layout", "spaced"]

HEAD = 2**16  # characters from which the layout is determined
_SEPARATORS = ",;\t|"
_WORD = re.compile(r'"[^"]*"|\S+')
_GROUPS = re.compile(r"[+-]?\d{1,3}( \d{3})+")  # thousands set apart by spaces
_MOST_TITLES = 20  # lines of a title or remarks above the header


def layout(head: str, separator: str | None, decimal: str) -> tuple[str, int]:
    """The separator and the line of the header, counted from 1, of a text that begins with `head`.

    A separator that is not given is the one in Excel's first line (sep=;), or else, among those that split the header and most
    rows, the one with the most rows as wide as the header; of two such separators the one with more columns.
    """
    named = re.match(r"sep=(.)\r?\n", head)
    if named:
        return named[1], 1 + _first(_records(head[named.end() :], named[1]))[0]
    if separator:
        return separator, _first(_records(head, separator))[0]
    best, best_line, best_score = ";" if decimal == "," else ",", 1, (False, -1.0, 0)
    for separator in _SEPARATORS:
        records = _records(head, separator)
        line, header, rows = _first(records)
        first_line = records[0][0] if records else line
        n_rows = max(len(rows), 1)
        score = (line == first_line, sum(len(row) == len(header) for row in rows) / n_rows, len(header))
        if len(header) > 1 and 2 * sum(len(row) > 1 for row in rows) >= len(rows) and score > best_score:
            best, best_line, best_score = separator, line, score
    return best, best_line


def is_numeral(text: str) -> bool:
    """Whether a text spells a number, infinities and NaN included."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return "_" not in text


def is_data(names: Sequence[str]) -> bool:
    """Whether a header consists of numbers, and so is data; columns numbered from 0 or 1 are a header."""
    given = [name for name in names if name]
    numbered = [[str(i) for i in range(start, start + len(given))] for start in (0, 1)]
    return bool(given) and all(is_numeral(name) for name in given) and given not in numbered


def spaced(head: str) -> str:
    """ "yes", "perhaps" or "no": whether spaces alone set the columns of a text apart, so that all lines have as many words.

    Yes, if most columns are numbers, or if some are and texts are in quotes or padded with spaces. Perhaps, if a column is numbers:
    "John 3" may be two columns or a name. Dates, and thousands set apart by spaces, are one value.
    """
    from ...tables.spelling import kind_of_texts

    header, *lines = [line.strip() for line in head.splitlines() if line.strip()]
    # The head may cut the last line short.
    lines = lines[:-1] if len(head) == HEAD else lines
    names, rows = _WORD.findall(header), [_WORD.findall(line) for line in lines]
    if len(names) < 2 or not rows or any(len(row) != len(names) for row in rows):
        return "no"
    n_numbers = sum(2 * sum(map(is_numeral, column)) > len(column) for column in zip(*rows, strict=True))
    if not n_numbers or all(map(_GROUPS.fullmatch, lines)) or kind_of_texts(set(lines)) is not None:
        return "no"
    is_set_apart = 2 * sum("  " in line or '"' in line for line in lines) > len(lines)
    return "yes" if 2 * n_numbers > len(names) or is_set_apart else "perhaps"


def _records(head: str, separator: str) -> list[tuple[int, list[str]]]:
    """The line on which each record begins and its fields, without empty records and without one that the head cuts short."""
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator, skipinitialspace=True)
    line, records = 1, []
    for record in reader:
        if any(map(str.strip, record)):
            records.append((line, record))
        line = reader.line_num + 1
    return records[:-1] if len(head) == HEAD and len(records) > 1 else records


def _first(records: list[tuple[int, list[str]]]) -> tuple[int, list[str], list[list[str]]]:
    """The line of the header, the header, and the rows below it.

    Lines above it are a title or remarks: a single text, or a line that begins with #, if the table is wider.
    """
    widths = Counter(len(record) for _, record in records)
    width = max(widths, key=lambda w: (widths[w], w), default=0)
    for i, (line, record) in enumerate(records[:_MOST_TITLES]):
        is_remark = record[0].startswith("#") and (len(record) != width or width == 1)
        is_title = width > 1 and not any(map(str.strip, record[1:]))
        if not (is_remark or is_title):
            is_header = len(record) == width and not is_data(record)
            return (line, record, [row for _, row in records[i + 1 :]]) if i and is_header else _whole(records)
    return _whole(records)


def _whole(records: list[tuple[int, list[str]]]) -> tuple[int, list[str], list[list[str]]]:
    return (records[0][0], records[0][1], [row for _, row in records[1:]]) if records else (1, [], [])
