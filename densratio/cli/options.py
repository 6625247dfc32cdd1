"""Arguments of several commands: labeled rows, how the text of a file is read, and which columns are left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .columns import listed
from .tables import Reading

__all__ = [
    "Checked",
    "Clean",
    "Columns",
    "Decimal",
    "Device",
    "Drop",
    "Encoding",
    "Label",
    "LabeledData",
    "Size",
    "Text",
    "Thousands",
    "reading",
]

_THOUSANDS = (",", ".", "'", " ")

LabeledData = Annotated[
    Path, typer.Argument(help="CSV, TSV, Parquet, Feather, JSON or Excel, or a folder of images by class.", readable=False)
]
Label = Annotated[str | None, typer.Option(help="The column of the label; leave it out for a folder.")]
Clean = Annotated[Path | None, typer.Option(help="A table or folder of rows known to be right.", readable=False)]
Checked = Annotated[
    Path | None,
    typer.Option(
        help="A table of rows that were drawn at random and checked: row, the number from 0, and the right label, in a column "
        "named as --label or, for a folder, label.",
        readable=False,
    ),
]
Size = Annotated[int | None, typer.Option(help="Resize all images to this number of pixels per side.")]
Columns = Annotated[list[str] | None, typer.Option(help="Columns to use, separated by commas. Default: all.")]
Drop = Annotated[list[str] | None, typer.Option(help="Columns to leave out, separated by commas.")]
Text = Annotated[
    list[str] | None, typer.Option(help="Columns of codes, such as zip codes, separated by commas: encode them as text.")
]
Decimal = Annotated[str, typer.Option(help="Character before the decimals in CSV files: . or ,")]
Thousands = Annotated[str | None, typer.Option(help="Character between thousands in CSV files: , . ' or a space.")]
Device = Annotated[str, typer.Option(help="Where networks are trained: cpu, cuda or mps.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of CSV files: cp1252, utf-16, ... Default: UTF-8.")]


def reading(
    decimal: str, thousands: str | None, encoding: str | None, text: Sequence[str] | None, *, id: str | None = None
) -> Reading:
    """How files are read. id: one more column of text. Raises ValueError for characters that do not occur in numbers."""
    if decimal not in (".", ","):
        raise ValueError(f"--decimal is . or , and not '{decimal}'.")
    if thousands is not None and (thousands not in _THOUSANDS or thousands == decimal):
        raise ValueError(f"--thousands is one of , . ' or a space, and not the character of --decimal; got '{thousands}'.")
    return Reading(decimal, thousands, encoding, (*listed(text or ()), *([id] if id else [])))
