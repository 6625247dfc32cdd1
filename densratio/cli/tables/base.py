"""Base of the tables on disk: column names, and readers of the columns and of the places of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from ..console import quoted

__all__ = ["Reading", "Table"]


@dataclass(frozen=True)
class Reading:
    """How the text of a file is read: the characters of its numbers, its encoding (None: UTF-8), and columns that are text."""

    decimal: str = "."
    thousands: str | None = None
    encoding: str | None = None
    text: tuple[str, ...] = ()


class Table(ABC):
    """The table in a file: `names`, its columns in order; `place`, the unit that a person counts, such as lines; and two readers.

    has_types : whether the file says which columns are numbers or text; in a CSV file the values show it.
    has_dates : whether a file with types also says which are dates; in JSON they are texts.
    notes : what was skipped in the file. respelled : by column, the spelling of codes that other files write differently.
    """

    has_types: ClassVar[bool]
    has_dates: ClassVar[bool] = True
    place: str
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, reading: Reading):
        self.path, self.reading = path, reading
        self.respelled: dict[str, dict[str, str]] = {}
        # A pipe can only be read once.
        self._content = None if path.is_file() else path.read_bytes()

    @abstractmethod
    def read(self, names: Sequence[str]) -> Any:
        """The columns `names` as a pandas frame, rows in the file's order."""

    @abstractmethod
    def texts(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The distinct texts, as written, of those columns `names` that may contain numbers with leading zeros."""

    @abstractmethod
    def places(self, rows: Sequence[int]) -> list[int]:
        """Numbers by which a person finds rows (counted from 0) in the file."""

    def _bytes(self) -> IO[bytes]:
        from io import BytesIO

        return self.path.open("rb") if self._content is None else BytesIO(self._content)

    def _check_names(self) -> None:
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"{self.path}: more than one column is named {quoted(repeated)}; give each column its own name.")
