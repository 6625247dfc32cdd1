"""The page of label issues: the most doubtful rows as pictures, texts or columns, and counts of confused classes."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

from .labeled import Labeled

__all__ = ["page"]

_MOST_SHOWN, _COLUMNS_SHOWN, _NUMBERS_SHOWN, _LONGEST = 50, 3, 12, 300
_STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}td,th{padding:.3em .8em;"
    "border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right}img{height:6em;image-rendering:pixelated}"
)


def page(issues: Any, given: Labeled, title: str) -> str:
    """HTML of the most doubtful rows and of the counts by class."""
    found, are_classes = issues[issues["is_issue"]], "transition" in issues.attrs
    pairs = found.groupby(["given_label", "suggested_label"]).size().sort_values(ascending=False).head(_MOST_SHOWN)
    counts = [[_text(label), _text(suggested), f"{n:,}"] for (label, suggested), n in pairs.items()]
    worst = [
        [*map(_text, (row.row, row.given_label, row.suggested_label, f"{row.score:.1%}")), _shown(given, row, are_classes)]
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


def _shown(given: Labeled, row: Any, are_classes: bool) -> str:
    """The picture of an image; for a table row its texts, and the columns against its class or next to its number."""
    if given.files:
        return _picture(given.rows[row.row], given.files[row.row])
    texts = given.rows.iloc[row.row].drop(given.rows.select_dtypes("number").columns).dropna()
    words = [f"{name}: {shorten(str(text), _LONGEST)}" for name, text in texts.items()]
    numbers = _against(given.rows, given.labels, row) if are_classes else _beside(given.rows.select_dtypes("number").iloc[row.row])
    return _text("; ".join([*words, *filter(None, [numbers])]))


def _picture(image: Any, file: Path) -> str:
    """An img element that contains the pixels (c, h, w)."""
    from PIL import Image

    pixels = (255.0 * image).round().astype("uint8")
    content = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{_text(file)}' title='{_text(file)}'>"


def _against(X: Any, y: Any, row: Any) -> str:
    """The columns in which the row is farther from the rows of its label than from those of the suggested one, in deviations."""
    numbers = X.select_dtypes("number")
    own, other = numbers[y == row.given_label], numbers[y == row.suggested_label]
    spread = numbers.std().replace(0.0, 1.0)
    value = numbers.iloc[row.row]
    # Medians, since some labels of either class are wrong.
    excess = ((value - own.median()).abs() - (value - other.median()).abs()) / spread
    largest = excess[excess > 0].nlargest(_COLUMNS_SHOWN)
    medians = [(value[name], own[name].median(), other[name].median()) for name in largest.index]
    words = zip(largest.index, medians, strict=True)
    return "; ".join(
        f"{name} = {_number(x)}, median of {row.given_label} {_number(a)}, of {row.suggested_label} {_number(b)}"
        for name, (x, a, b) in words
    )


def _beside(values: Any) -> str:
    """The first numbers of a row, as name = value."""
    return "; ".join(f"{name} = {_number(value)}" for name, value in values[:_NUMBERS_SHOWN].items())


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
