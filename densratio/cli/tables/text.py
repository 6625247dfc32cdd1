"""Tables in text files: CSV and TSV; the separator is found, and errors name the line."""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

from .base import Reading, Table
from .layout import HEAD, is_data, is_numeral, layout, spaced

__all__ = ["COMPRESSED", "TextTable", "is_numeral"]

_MAGIC = {
    b"PAR1": "it is a Parquet file: name it .parquet",
    b"PK\x03\x04": "it is an Excel workbook or a zip archive: name it .xlsx or .csv.zip",
    b"\xd0\xcf\x11\xe0": "it is an Excel workbook: save the table as CSV or Parquet",
    b"\xff\xfe": "it is UTF-16 text: read both files with --encoding utf-16, or save it as UTF-8",
    b"\xfe\xff": "it is UTF-16 text: read both files with --encoding utf-16, or save it as UTF-8",
    b"\x1f\x8b": "it is compressed with gzip: name it .csv.gz",
    b"BZh": "it is compressed with bzip2: name it .csv.bz2",
    b"\xfd7zX": "it is compressed with xz: name it .csv.xz",
}
COMPRESSED = {".gz": "a gzip", ".bz2": "a bzip2", ".xz": "an xz", ".zip": "a zip"}
"""Suffixes of compressed text, and the names of such files."""
_TEXTS = ".csv", ".tsv", ".txt", ".dat", ".data", ""  # suffixes of text in a zip archive
_MODULES = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}  # some builds of Python lack one
# A field may be as long as a document, beyond Python's default limit of 131,072 characters.
csv.field_size_limit(2**31 - 1)


class TextTable(Table):
    """A text table with a header line; the separator is the one of , ; tab and | that splits header and rows alike.

    Excel's line sep=; and lines with a title or remarks (#) above the header are skipped, and `notes` says so.
    Raises ValueError for a file that is not such a table.
    """

    has_types = False
    place = "line"

    def __init__(self, path: Path, reading: Reading):
        super().__init__(path, reading)
        name = path.name.lower()
        self._suffix = next((suffix for suffix in COMPRESSED if name.endswith(suffix)), None)
        with self._bytes() as file:
            start = file.read(4)
        for magic, words in _MAGIC.items():
            is_expected = reading.encoding if "UTF-16" in words else self._suffix and f".csv{self._suffix}" in words
            if start.startswith(magic) and not is_expected:
                raise ValueError(f"{path} is not a CSV file: {words}.")
        with self._faults():
            with self._open() as file:
                head = file.read(HEAD)
            if "\0" in head:
                raise ValueError(f"{path} is not a CSV file: it holds binary data.")
            tab = "\t" if ".tsv" in Path(name).suffixes[-2:] else None
            self.separator, self._header_line = layout(head, tab, reading.decimal)
            header = next(self._records(keeps_empty_lines=False), (0, []))[1]
        if not header:
            raise ValueError(f"{path} is empty: a table needs a header line with the column names and rows below it.")
        self.names = tuple(name.strip() for name in header)
        if is_data(self.names):
            raise ValueError(
                f"{path} has no header: its first line is data ({', '.join(self.names[:4])}{', ...' * (len(self.names) > 4)}). "
                "Put a line with the column names above it."
            )
        set_apart = spaced(head) if len(self.names) == 1 else "no"
        if set_apart == "yes":
            raise ValueError(
                f"{path} has columns that are set apart by spaces alone: write it with commas or tabs between them. If each line "
                "is one text, put it in quotes."
            )
        # These are pandas' names, by which a person can drop the columns.
        self.names = tuple(name or f"Unnamed: {i}" for i, name in enumerate(self.names))
        self._check_names()
        if set_apart == "perhaps":
            self.notes = (f"{path}: each line is read as one text; if spaces set its columns apart, write it with commas or tabs.",)
        above = [line for line in head.splitlines()[: self._header_line - 1] if line.strip() and line != f"sep={self.separator}"]
        if above:
            self.notes += (f"{path}: the column names are on line {self._header_line}; passed over {above[0][:40]!r} above them.",)

    def read(self, names: Sequence[str]) -> Any:
        """See `Table.read`. Raises ValueError for rows that do not fit the header, or none."""
        # With a thousands separator pandas would read 1,2,3 as 123: such numbers are read later, more strictly.
        return self._frame(self.names if self.reading.thousands else self.reading.text)[list(names)]

    def texts(self, names: Sequence[str]) -> dict[str, list[str]]:
        numbers = self._padded()
        names = [name for name in names if self.names.index(name) in numbers]
        frame = self._frame(names) if names else {}
        return {name: sorted(set(map(str.strip, frame[name].dropna().unique()))) for name in names}

    def _padded(self) -> set[int]:
        """The numbers of the columns with a value that begins with 0 and another digit."""
        with self._faults():
            return {
                number
                for _, record in self._records(keeps_empty_lines=False)
                for number, field in enumerate(record)
                if (text := field.lstrip())[:1] == "0" and text[1:2].isdigit()
            }

    def _frame(self, as_text: Sequence[str]) -> Any:
        """All columns as a pandas frame, some as texts."""
        import pandas as pd
        from pandas.errors import ParserError, ParserWarning

        keeps_empty_lines = len(self.names) == 1
        texts = [i for i, name in enumerate(self.names) if name in as_text]
        with self._faults(), self._open() as file, warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            try:
                frame = pd.read_csv(
                    file, sep=self.separator, decimal=self.reading.decimal, index_col=False, keep_default_na=False,
                    na_values=[""], skipinitialspace=True, low_memory=False, skip_blank_lines=not keeps_empty_lines,
                    skiprows=self._header_line - 1, dtype=dict.fromkeys(texts, str),
                )  # fmt: skip
            except (ParserError, ParserWarning) as error:
                raise ValueError(self._misfit(error)) from None
        frame.columns = list(self.names)
        # In a table of one column an empty line is a missing value, except at the end of the file.
        while keeps_empty_lines and len(frame) and frame.iloc[-1].isna().all():
            frame = frame.iloc[:-1]
        return frame

    def places(self, rows: Sequence[int]) -> list[int]:
        wanted, found = set(rows), []
        records = self._records(keeps_empty_lines=len(self.names) == 1)
        for row, (line, _) in enumerate(records, start=-1):
            if row in wanted:
                found.append(line)
            if len(found) == len(wanted):
                break
        return found

    def _open(self) -> TextIO:
        binary: Any = self._bytes()
        if self._suffix == ".zip":
            binary = self._member(binary)
        elif self._suffix is not None:
            try:
                binary = importlib.import_module(_MODULES[self._suffix]).open(binary)
            except ImportError as error:
                raise ImportError(f"{self.path}: this Python was built without {error.name}: unpack the file.") from None
        encoding = self.reading.encoding or "utf-8"
        # Excel's byte order mark is not part of a name.
        encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        return io.TextIOWrapper(binary, encoding=encoding, newline="")

    def _member(self, archive: IO[bytes]) -> IO[bytes]:
        """The only file of a zip archive. Raises ValueError for several, a password, or a table of another kind."""
        packed = zipfile.ZipFile(archive)
        # A Mac adds files of its own.
        held = [one for one in packed.infolist() if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
        if len(held) != 1:
            raise ValueError(f"{self.path} holds {len(held)} files: give an archive of one table alone.")
        if held[0].flag_bits & 1:
            raise ValueError(f"{self.path} has a password: unpack it.")
        if Path(held[0].filename).suffix.lower() not in _TEXTS:
            raise ValueError(f"{self.path} holds {held[0].filename!r}, which is not named .csv or .tsv: unpack it.")
        return packed.open(held[0])

    def _records(self, *, keeps_empty_lines: bool) -> Iterator[tuple[int, list[str]]]:
        """The line on which each record begins and its fields, the header first, counted as pandas counts rows."""
        with self._open() as file:
            reader = csv.reader(file, delimiter=self.separator, skipinitialspace=True)
            line, is_below_header = 1, False
            for record in reader:
                is_empty = not record or (len(record) == 1 and not record[0].strip())
                if line >= self._header_line and (not is_empty or (keeps_empty_lines and is_below_header)):
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
            return f"{self.path} is not a CSV file: a quotation mark is opened and never closed."
        detail = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        return f"{self.path} is not a CSV file: {detail}."

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError:
            advice = f"in {self.reading.encoding}" if self.reading.encoding else "UTF-8"
            raise ValueError(
                f"{self.path} is not {advice} text: name its encoding, such as --encoding cp1252 (Windows) or --encoding utf-16."
            ) from None
        except LookupError:
            raise ValueError(f"--encoding {self.reading.encoding} is not known: use utf-8, cp1252, latin-1, utf-16, ...") from None
        except _faults_of_compression() as error:
            # The errors of the system have a number, those of gzip and bzip2 have none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            kind = COMPRESSED[self._suffix or ".gz"]
            raise ValueError(f"{self.path} is not {kind} file, or it is damaged or cut short.") from None
        except csv.Error as error:
            raise ValueError(f"{self.path} is not a CSV file: {error}.") from None


def _faults_of_compression() -> tuple[type[Exception], ...]:
    """The errors of damaged compressed files; that of xz only if something of the kind was read."""
    of_xz = [sys.modules["lzma"].LZMAError] if sys.modules.get("lzma") else []
    return (EOFError, zlib.error, zipfile.BadZipFile, OSError, *of_xz)
