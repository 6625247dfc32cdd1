"""Tables on disk, read by their suffix; one module per kind of file."""

from __future__ import annotations

from pathlib import Path

from .base import Reading, Table
from .parquet import ParquetTable
from .text import TextTable, is_numeral

__all__ = ["SUFFIXES", "Reading", "Table", "is_numeral", "open_table", "suffix_of"]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


def open_table(path: Path, reading: Reading | None = None) -> Table:
    """The table in a file, by its suffix; a pipe without a suffix holds CSV.

    Raises ValueError for a folder, another suffix or a file that is not a table; OSError.
    """
    suffix = suffix_of(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file ({', '.join(SUFFIXES)}).")
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if suffix is None and path.is_file():
        raise ValueError(f"{path} has none of the suffixes {', '.join(SUFFIXES)}, by which a table is read.")
    return (ParquetTable if suffix == ".parquet" else TextTable)(path, reading or Reading())


def suffix_of(path: Path) -> str | None:
    """The suffix of SUFFIXES that a path ends with, in lower or upper case."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
