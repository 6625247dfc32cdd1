"""The page of label issues: the most doubtful rows as pictures, texts or columns, and counts of confused classes."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

from .._columns import is_missing
from ..labels.encoding import free_text
from .labeled import Labeled

__all__ = ["page"]

_MOST_SHOWN, _COLUMNS_SHOWN, _NUMBERS_SHOWN, _LONGEST = 50, 3, 12, 300
_LEAST = 0.1  # deviations from which a column speaks against a label
_STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}td,th{padding:.3em .8em;"
    "border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right}img{height:6em;image-rendering:pixelated}"
)


def page(issues: Any, given: Labeled, title: str) -> str:
    """HTML of the most doubtful rows and of the counts by class."""
    found, are_classes = issues[issues["is_issue"]], "transition" in issues.attrs
    pairs = found.groupby(["given_label", "suggested_label"]).size().sort_values(ascending=False).head(_MOST_SHOWN)
    counts = [[_text(label), _text(suggested), f"{n:,}"] for (label, suggested), n in pairs.items()]
    worded = _worded(given, are_classes)
    worst = [
        [*map(_text, (row.row, row.given_label, row.suggested_label, f"{row.score:.1%}")), _shown(given, row, worded, are_classes)]
        for row in found.head(_MOST_SHOWN).itertuples()
    ]
    facts = f"{len(found):,} of {len(given.labels):,} labels are likely wrong; {issues['score'].sum():,.0f} are expected."
    last = "image" if given.files else "text, and columns that speak against the given label" if are_classes else "columns"
    heads = ["row", "given", "suggested" if are_classes else "predicted", "probability of being wrong", last]
    parts = [f"<h1>{escape(title)}</h1><p>{facts}</p>", "<h2>The most doubtful rows</h2>", _table(heads, worst)]
    parts += ["<h2>By classes</h2>", _table(["given", "suggested", "rows"], counts)] * are_classes
    return f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}\n"


def _number(value: float) -> str:
    """Six digits, or all before the point: a price of 1250000 is no 1.25e+06."""
    return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:g}"


def _text(value: Any) -> str:
    return escape(_number(value) if isinstance(value, float) else str(value))


def _worded(given: Labeled, are_classes: bool) -> list[Any]:
    """The columns whose texts are shown of each row: sentences, and beside a predicted number all that are no numbers."""
    if given.files:
        return []
    others = given.rows.drop(columns=given.rows.select_dtypes("number").columns)
    return [name for name in others if not are_classes or free_text(others[name]) is not None]


def _shown(given: Labeled, row: Any, worded: list[Any], are_classes: bool) -> str:
    """The picture of an image; for a table row the texts of some columns, and what speaks against its class, or its numbers."""
    if given.files:
        return _picture(given.rows[row.row], given.files[row.row])
    words = [f"{name}: {shorten(str(text), _LONGEST)}" for name, text in given.rows[worded].iloc[row.row].dropna().items()]
    if are_classes:
        return _text("; ".join([*words, *_against(given.rows, given.labels, row)]))
    return _text("; ".join([*words, *_beside(given.rows.select_dtypes("number").iloc[row.row])]))


def _picture(image: Any, file: Path) -> str:
    """An img element that contains the pixels (c, h, w)."""
    from PIL import Image

    pixels = (255.0 * image).round().astype("uint8")
    content = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{_text(file)}' title='{_text(file)}'>"


def _against(X: Any, y: Any, row: Any) -> list[str]:
    """The columns in which the row is farther from the rows of its label than from those of the suggested one, in deviations."""
    labels = row.given_label, row.suggested_label
    found = (_column_against(X[name], [y == label for label in labels], labels, row.row) for name in X)
    largest = sorted((one for one in found if one[0] > _LEAST), key=lambda one: -one[0])[:_COLUMNS_SHOWN]
    return [words for _, words in largest]


def _column_against(column: Any, samples: list[Any], labels: tuple[Any, Any], row: int) -> tuple[float, str]:
    """By how many deviations a value is farther from its label's rows, and that in words; samples: which rows have each label."""
    value = column.iloc[row]
    if is_missing(value):
        return 0.0, ""
    if column.dtype.kind in "iufM":
        # Medians, since some labels of either class are wrong.
        own, other = (column[of].median() for of in samples)
        excess, spread = abs(value - own) - abs(value - other), column.std()
        if not spread or is_missing(spread) or is_missing(excess):
            return 0.0, ""
        shown = [f"{x.date()}" if column.dtype.kind == "M" else _number(x) for x in (value, own, other)]
        words = f"{column.name} = {shown[0]}, median of {labels[0]} {shown[1]}, of {labels[1]} {shown[2]}"
        return float(excess / spread), words
    has_it = (column == value).to_numpy(dtype=bool, na_value=False)
    own, other = (float(has_it[of].mean()) for of in samples)
    words = f"{column.name} = {shorten(str(value), _LONGEST)}, as {own:.0%} of {labels[0]} and {other:.0%} of {labels[1]}"
    # In a column of one text both shares are 1.
    return float((other - own) / (has_it.std() or 1.0)), words


def _beside(values: Any) -> list[str]:
    """The first numbers of a row, as name = value."""
    return [f"{name} = {_number(value)}" for name, value in values[:_NUMBERS_SHOWN].items()]


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
