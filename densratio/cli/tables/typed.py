"""Tables in files that say which values are numbers and which are texts: Feather, Arrow, JSON and Excel."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .base import Reading, Table

__all__ = ["ArrowTable", "ExcelTable", "FrameTable", "JsonLinesTable", "JsonTable", "TypedTable", "pyarrow_faults"]


class TypedTable(Table):
    """A table whose file has the types of its columns."""

    has_types = True
    place = "row"

    def texts(self, names: Sequence[str]) -> dict[str, list[str]]:
        from pandas.api.types import is_object_dtype, is_string_dtype

        frame = self.read(names)
        worded = [name for name in names if is_object_dtype(frame[name]) or is_string_dtype(frame[name])]
        return {name: sorted({text for text in frame[name] if isinstance(text, str)}) for name in worded}


class FrameTable(TypedTable):
    """A table that is read as a whole. Raises ValueError for a file that is not such a table."""

    def __init__(self, path: Path, reading: Reading):
        super().__init__(path, reading)
        frame = self._loaded()
        self._numbers, self._frame = list(frame.index), frame.reset_index(drop=True)
        self._frame.columns = [str(name).strip() for name in self._frame.columns]
        self.names = tuple(self._frame.columns)
        self._check_names()
        if not self.names:
            raise ValueError(f"{path} is empty: a table needs columns with names, and rows.")

    def read(self, names: Sequence[str]) -> Any:
        return self._frame[list(names)]

    def places(self, rows: Sequence[int]) -> list[int]:
        return [self._numbers[row] for row in sorted(rows)]

    @abstractmethod
    def _loaded(self) -> Any:
        """All columns as a pandas frame, with the numbers by which a person finds the rows as its index."""

    def _counted(self, frame: Any, first: int = 1) -> Any:
        """The frame with rows that are counted from `first`."""
        return frame.set_axis(range(first, first + len(frame)))

    def _text(self) -> str:
        """The content of a text file."""
        try:
            with self._bytes() as file:
                return file.read().decode(self.reading.encoding or "utf-8-sig")
        except UnicodeError:
            raise ValueError(f"{self.path} is not {self.reading.encoding or 'UTF-8'} text: name its encoding.") from None
        except LookupError:
            raise ValueError(f"--encoding {self.reading.encoding} is not known: use utf-8, cp1252, latin-1, ...") from None


class ArrowTable(FrameTable):
    """A Feather file, or an Arrow file or stream, read with pyarrow; a row index stored by pandas is not a column."""

    def _loaded(self) -> Any:
        faults = pyarrow_faults("Feather and Arrow")
        from pyarrow import ArrowInvalid, feather, ipc

        try:
            with self._bytes() as file:
                try:
                    table = feather.read_table(file)
                except ArrowInvalid:
                    file.seek(0)
                    table = ipc.open_stream(file).read_all()
            index = (table.schema.pandas_metadata or {}).get("index_columns", [])
            table = table.drop_columns([name for name in index if isinstance(name, str)])
            return self._counted(table.to_pandas(ignore_metadata=True))
        except PermissionError:
            raise
        except faults:
            raise ValueError(f"{self.path} is not a Feather or Arrow file, or it is damaged or cut short.") from None


class JsonTable(FrameTable):
    """A JSON file: a list of objects, one for each row, or an object of columns or of "columns" and "data", as pandas writes it."""

    has_dates = False

    def _loaded(self) -> Any:
        text, within = self._text(), None
        try:
            found = json.loads(text)
            within = _rows_within(found)
            frame = self._counted(_frame_of(found))
        except (ValueError, TypeError, AttributeError, RecursionError):
            frame = None
        if within is not None:
            raise ValueError(f"{self.path} has its rows within {within!r}: save that list of objects alone.")
        if frame is None:
            raise ValueError(
                f'{self.path} is not a JSON table: it needs a list of objects, such as [{{"age": 31}}, {{"age": 45}}].'
            )
        return frame


def _frame_of(found: Any) -> Any:
    """The pandas frame of rows, of columns, or of "columns" and "data". Raises ValueError or TypeError for anything else."""
    from pandas import DataFrame

    names, rows = (found.get("columns"), found.get("data")) if isinstance(found, dict) else (None, None)
    # Two columns can have these names too.
    if isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
        if any(len(row) != len(names) for row in rows):
            raise ValueError
        return DataFrame(rows, columns=names)
    if not all(isinstance(one, list | dict) for one in (found.values() if isinstance(found, dict) else found)):
        raise ValueError
    return DataFrame(found)


def _rows_within(found: Any) -> str | None:
    """The name of a list of objects in an object, which are rows and no column."""
    lists = [name for name, part in found.items() if part and isinstance(part, list)] if isinstance(found, dict) else []
    return next((name for name in lists if all(isinstance(row, dict) for row in found[name])), None)


class JsonLinesTable(FrameTable):
    """A file with a JSON object on each line, one for each row."""

    has_dates = False
    place = "line"

    def _loaded(self) -> Any:
        from pandas import DataFrame

        # JSON strings may hold other ends of lines.
        lines = {number: line for number, line in enumerate(self._text().split("\n"), start=1) if line.strip()}
        return DataFrame([self._row(number, line) for number, line in lines.items()], index=list(lines))

    def _row(self, number: int, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f'{self.path} is not a table of JSON lines: line {number} is no object, such as {{"age": 31}}.')
        return row


class ExcelTable(FrameTable):
    """The first sheet of an Excel workbook, with the column names in its first row."""

    def _loaded(self) -> Any:
        from pandas import read_excel

        try:
            with self._bytes() as file:
                sheets = read_excel(file, sheet_name=None, keep_default_na=False, na_values=[""])
        except ImportError:
            raise ImportError("Excel workbooks need openpyxl: pip install openpyxl; or save the table as CSV.") from None
        except (ValueError, KeyError, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            raise ValueError(f"{self.path} is not an Excel workbook (.xlsx), or it is damaged or cut short.") from None
        name, frame = next(iter(sheets.items()))
        if len(sheets) > 1:
            self.notes = (f"{self.path}: of its {len(sheets)} sheets the first is read, '{name}'.",)
        # The column names are in the first row.
        return self._counted(frame, first=2)


def pyarrow_faults(kinds: str) -> tuple[type[Exception], ...]:
    """The errors of pyarrow for bytes that are not a file of its kinds. Raises ImportError without pyarrow."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError(f'{kinds} files need pyarrow: pip install "densratio-toolkit[cli]"') from None
    return (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError)
