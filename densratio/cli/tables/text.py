"""Tables in text files: CSV and TSV, with the separator found and every fault named by its line."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from .base import Table

__all__ = ["TextTable", "is_numeral"]

_SEPARATORS = ",;\t|"
_HEAD = 2**16  # characters from which the separator is told
_MAGIC = {
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"PK\x03\x04": "it is an Excel workbook or a zip archive: save the table as CSV or Parquet",
    b"\xd0\xcf\x11\xe0": "it is an Excel workbook: save the table as CSV or Parquet",
    b"\xff\xfe": "it is UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16 text: save it as UTF-8",
    b"\x1f\x8b": "it is compressed with gzip: name it .csv.gz",
}


class TextTable(Table):
    """A text table with a header line; the separator is the one of , ; tab and | that cuts header and rows alike.

    path : a UTF-8 file, compressed where `is_compressed`. decimal : the character before the decimals.
    Raises ValueError for a file that is no such table.
    """

    has_types = False
    place = "line"

    def __init__(self, path: Path, *, separator: str | None, is_compressed: bool, decimal: str):
        self.path, self.decimal, self._is_compressed = path, decimal, is_compressed
        _check_magic(path, is_compressed)
        with self._faults():
            with self._open() as file:
                head = file.read(_HEAD)
            if "\0" in head:
                raise ValueError(f"{path} is no CSV file: it holds binary data.")
            self.separator = separator or _separator(head)
            self._header_line, header = next(self._records(keeps_empty_lines=False), (0, []))
        if not header:
            raise ValueError(f"{path} is empty: a table needs a header line with the column names and rows below it.")
        self.names = tuple(name.strip() for name in header)
        if _is_data(self.names):
            raise ValueError(
                f"{path} has no header: its first line is data ({', '.join(self.names[:4])}{', ...' * (len(self.names) > 4)}). "
                "Put a line with the column names above it."
            )
        # pandas names them so, and so a person can drop them.
        self.names = tuple(name or f"Unnamed: {i}" for i, name in enumerate(self.names))
        self._check_names()

    def read(self, names: Sequence[str]) -> Any:
        """See `Table.read`. Raises ValueError for rows that do not fit the header, or none."""
        import pandas as pd
        from pandas.errors import ParserError, ParserWarning

        keeps_empty_lines = len(self.names) == 1
        with self._faults(), self._open() as file, warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            try:
                frame = pd.read_csv(
                    file, sep=self.separator, decimal=self.decimal, index_col=False, keep_default_na=False, na_values=[""],
                    skipinitialspace=True, low_memory=False, skip_blank_lines=not keeps_empty_lines,
                    skiprows=self._header_line - 1,
                )  # fmt: skip
            except (ParserError, ParserWarning) as error:
                raise ValueError(self._misfit(error)) from None
        frame.columns = list(self.names)
        # An empty line is a missing value where a row has one value, save at the end of the file.
        while keeps_empty_lines and len(frame) and frame.iloc[-1].isna().all():
            frame = frame.iloc[:-1]
        return frame[list(names)]

    def places(self, rows: Sequence[int]) -> list[int]:
        """See `Table.places`: the line on which each row begins."""
        wanted, found = set(rows), []
        records = self._records(keeps_empty_lines=len(self.names) == 1)
        for row, (line, _) in enumerate(records, start=-1):
            if row in wanted:
                found.append(line)
            if len(found) == len(wanted):
                break
        return found

    def _open(self) -> TextIO:
        if self._is_compressed:
            return gzip.open(self.path, "rt", encoding="utf-8-sig", newline="")
        return self.path.open(encoding="utf-8-sig", newline="")

    def _records(self, *, keeps_empty_lines: bool) -> Iterator[tuple[int, list[str]]]:
        """The line on which each record begins and its fields, the header first, counted as pandas counts rows."""
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True)
            line, is_below_header = 1, False
            for record in reader:
                is_empty = not record or (len(record) == 1 and not record[0].strip())
                if not is_empty or (keeps_empty_lines and is_below_header):
                    yield line, record
                    is_below_header = True
                line = reader.line_num + 1

    def _misfit(self, error: Exception) -> str:
        width = len(self.names)
        for line, record in self._records(keeps_empty_lines=False):
            if len(record) > width:
                return (
                    f"{self.path}: line {line} has {len(record)} values and the header has {width} names. Put values that hold "
                    f"the separator {self.separator!r} in quotes."
                )
        if "EOF inside string" in str(error):
            return f"{self.path} is no CSV file: a quotation mark is opened and never closed."
        detail = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        return f"{self.path} is no CSV file: {detail}."

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            raise ValueError(f"{self.path} is not UTF-8 text: save it as CSV with UTF-8 encoding.") from None
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise ValueError(f"{self.path} is no gzip file, or it is damaged or cut short.") from None
        except csv.Error as error:
            raise ValueError(f"{self.path} is no CSV file: {error}.") from None


def is_numeral(text: str) -> bool:
    """Whether a text spells a number, infinities and NaN included."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _check_magic(path: Path, is_compressed: bool) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    for magic, words in _MAGIC.items():
        if start.startswith(magic) and not (is_compressed and magic == b"\x1f\x8b"):
            raise ValueError(f"{path} is no CSV file: {words}.")


def _separator(head: str) -> str:
    """The separator, among those that cut the header and most rows, that most often cuts a row as wide as the header.

    Where two do, the one that cuts more finely; a comma where none cuts.
    """
    is_cut_short = len(head) == _HEAD
    best, best_score = ",", (-1.0, 0)
    for separator in _SEPARATORS:
        records = csv.reader(io.StringIO(head, newline=""), delimiter=separator, skipinitialspace=True)
        header, *rows = [row for row in records if any(map(str.strip, row))] or [[]]
        rows = rows[:-1] if is_cut_short else rows
        n_rows = max(len(rows), 1)
        score = (sum(len(row) == len(header) for row in rows) / n_rows, len(header))
        if len(header) > 1 and 2 * sum(len(row) > 1 for row in rows) >= len(rows) and score > best_score:
            best, best_score = separator, score
    return best


def _is_data(names: tuple[str, ...]) -> bool:
    """Whether a header is all numbers; but columns that are numbered from 0 or from 1 have names."""
    given = [name for name in names if name]
    numbered = [[str(i) for i in range(start, start + len(given))] for start in (0, 1)]
    return bool(given) and all(is_numeral(name) for name in given) and given not in numbered
