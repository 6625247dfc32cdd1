"""What a table of a file is: its column names, and readers of its columns and of the places of its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..console import quoted

__all__ = ["Table"]


class Table(ABC):
    """The table of a file: `names`, its columns in their order; `place`, what a person counts in it; and two readers.

    has_types : whether the file itself says what is number and what is text; in a CSV the values do.
    """

    has_types: ClassVar[bool]
    place: ClassVar[str]
    path: Path
    names: tuple[str, ...]

    @abstractmethod
    def read(self, names: Sequence[str]) -> Any:
        """The columns `names` as a pandas frame, rows in the file's order."""

    @abstractmethod
    def places(self, rows: Sequence[int]) -> list[int]:
        """Numbers by which a person finds rows (counted from 0) in the file."""

    def _check_names(self) -> None:
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"{self.path}: more than one column is named {quoted(repeated)}; give each column its own name.")
