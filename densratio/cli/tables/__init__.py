"""Tables on disk, read by their suffix; one module per kind of file."""

from __future__ import annotations

from pathlib import Path

from .base import Reading, Table
from .parquet import ParquetTable
from .text import COMPRESSED, TextTable, is_numeral
from .typed import ArrowTable, ExcelTable, JsonLinesTable, JsonTable

__all__ = ["SUFFIXES", "Reading", "Table", "is_numeral", "open_table", "suffix_of"]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Suffixes of tables that are written."""
_KINDS: dict[str, type[Table]] = {f"{text}{ending}": TextTable for text in (".csv", ".tsv") for ending in ("", *COMPRESSED)}
_KINDS |= {".zip": TextTable, ".parquet": ParquetTable, ".feather": ArrowTable, ".arrow": ArrowTable}
_KINDS |= {".json": JsonTable, ".jsonl": JsonLinesTable, ".ndjson": JsonLinesTable, ".xlsx": ExcelTable}
_READ = f".csv or .tsv (also with {', '.join(COMPRESSED)}), .parquet, .feather, .arrow, .json, .jsonl, .xlsx"


def open_table(path: Path, reading: Reading | None = None) -> Table:
    """The table in a file, by its suffix; a pipe without a suffix holds CSV.

    Raises ValueError for a folder, another suffix or a file that is not a table; OSError.
    """
    suffix = suffix_of(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file ({_READ}).")
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if suffix is None and path.is_file():
        raise ValueError(f"{path} has none of the suffixes by which a table is read: {_READ}.")
    return _KINDS[suffix or ".csv"](path, reading or Reading())


def suffix_of(path: Path) -> str | None:
    """The longest suffix of a table that a path ends with, in lower or upper case."""
    return max((suffix for suffix in _KINDS if path.name.lower().endswith(suffix)), key=len, default=None)
