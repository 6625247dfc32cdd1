"""Tables in Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .base import Reading
from .typed import TypedTable, pyarrow_faults

__all__ = ["ParquetTable"]


class ParquetTable(TypedTable):
    """A Parquet file, read with pyarrow; a row index stored by pandas is not a column.

    Raises ValueError for a file that is not a Parquet file, ImportError without pyarrow.
    """

    def __init__(self, path: Path, reading: Reading):
        parquet, faults = _pyarrow()
        super().__init__(path, reading)
        try:
            with self._bytes() as file:
                schema = parquet.read_schema(file)
            index = (schema.pandas_metadata or {}).get("index_columns", [])
        except PermissionError:
            raise
        except faults:
            raise ValueError(f"{path} is not a Parquet file, or it is damaged or cut short.") from None
        self.names = tuple(name for name in schema.names if name not in index)
        self._check_names()

    def read(self, names: Sequence[str]) -> Any:
        parquet, faults = _pyarrow()
        try:
            with self._bytes() as source, parquet.ParquetFile(source) as file:
                return file.read(columns=list(names)).to_pandas(ignore_metadata=True)[list(names)]
        except faults as error:
            raise ValueError(f"{self.path} is a damaged Parquet file: {error}.") from None

    def places(self, rows: Sequence[int]) -> list[int]:
        return [row + 1 for row in sorted(rows)]


def _pyarrow() -> tuple[Any, tuple[type[Exception], ...]]:
    """pyarrow.parquet, and its errors for bytes that are not a Parquet file."""
    faults = pyarrow_faults("Parquet")
    import pyarrow.parquet as parquet

    return parquet, faults
