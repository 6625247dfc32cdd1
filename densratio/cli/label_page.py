"""The page of label issues: the most doubtful rows as pictures, texts or columns, and counts of confused classes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from .._columns import is_missing
from ..labels.encoding import free_text
from ..tables.reading import read_column
from ..tables.use import numbers_rows
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
    shown = _picture_of(given) if given.files else _words_of(given, are_classes)
    worst = [
        [*map(_text, (row.row, row.given_label, row.suggested_label, f"{100.0 * row.score:.1f} %")), shown(row)]
        for row in found.head(_MOST_SHOWN).itertuples()
    ]
    facts = f"{len(found):,} of {len(given.labels):,} labels are likely wrong; {issues['score'].sum():,.0f} are expected."
    heads = ["row, from 0", "given", "suggested" if are_classes else "predicted", "probability of being wrong"]
    heads.append(_last_head(given, are_classes))
    parts = [f"<h1>{escape(title)}</h1><p>{facts}</p>", "<h2>The most doubtful rows</h2>", _table(heads, worst)]
    parts += ["<h2>By classes</h2>", _table(["given", "suggested", "rows"], counts)] * are_classes
    return f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}\n"


def _last_head(given: Labeled, are_classes: bool) -> str:
    if given.files:
        return "image"
    if not are_classes:
        return "columns"
    return f"{'text, and ' if _worded(given.rows, are_classes) else ''}columns that speak against the given label"


def _number(value: float) -> str:
    """Six digits, or all before the point: a price of 1250000 is no 1.25e+06."""
    return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:g}"


def _text(value: Any) -> str:
    return escape(_number(value) if isinstance(value, float) else str(value))


def _worded(rows: Any, are_classes: bool) -> list[Any]:
    """The columns of sentences; beside a predicted number all that are no numbers."""
    others = rows.columns.difference(rows.select_dtypes("number").columns, sort=False)
    return [name for name in others if not are_classes or free_text(rows[name]) is not None]


def _words_of(given: Labeled, are_classes: bool) -> Callable[[Any], str]:
    """A function of a row of the list: the texts of its `_worded` columns, and what speaks against its class, or its numbers."""
    numbers, worded = given.rows.select_dtypes("number").columns, _worded(given.rows, are_classes)
    rivals = _Rivals(given.rows, given.labels)

    def words(row: Any) -> str:
        values = given.rows.iloc[row.row]
        texts = [
            f"{name}: {shorten(str(text).removesuffix(' 00:00:00'), _LONGEST)}" for name, text in values[worded].dropna().items()
        ]
        return _text("; ".join([*texts, *(rivals.against(row) if are_classes else _beside(values[numbers]))]))

    return words


def _picture_of(given: Labeled) -> Callable[[Any], str]:
    return lambda row: _picture(given.rows[row.row], given.files[row.row])


def _picture(image: Any, file: Path) -> str:
    """An img element that contains the pixels (c, h, w)."""
    from PIL import Image

    pixels = (255.0 * image).round().astype("uint8")
    content = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{_text(file)}' title='{_text(file)}'>"


class _Rivals:
    """What the rows of each label have in each column, computed once, to compare a row with two labels.

    X, y: the rows, a pandas frame, and their labels (n,).
    """

    def __init__(self, X: Any, y: Any):
        # Row numbers, from which nothing was learned, say nothing.
        self.X = X.drop(columns=[name for name in X if _counts_rows(X, name)])
        self.rows = X.groupby(y).indices
        self._median, self._shares = cache(self._median_of), cache(self._shares_of)
        self._spread = cache(lambda name: self.X[name].std())

    def against(self, row: Any) -> list[str]:
        """The columns in which a row is farther from the rows of its label than from those of the suggested one, in deviations."""
        labels = row.given_label, row.suggested_label
        found = (self._column_against(name, labels, row.row) for name in self.X)
        largest = sorted((one for one in found if one[0] > _LEAST), key=lambda one: -one[0])[:_COLUMNS_SHOWN]
        return [words for _, words in largest]

    def _column_against(self, name: Any, labels: tuple[Any, Any], row: int) -> tuple[float, str]:
        """By how many deviations a value is farther from its label's rows, and that in words."""
        column = self.X[name]
        value = column.iloc[row]
        if is_missing(value):
            return 0.0, ""
        if column.dtype.kind in "iufM":
            own, other = (self._median(name, label) for label in labels)
            excess, spread = abs(value - own) - abs(value - other), self._spread(name)
            if not spread or is_missing(spread) or is_missing(excess):
                return 0.0, ""
            shown = [f"{x.date()}" if column.dtype.kind == "M" else _number(x) for x in (value, own, other)]
            words = f"{name} = {shown[0]}, median of {labels[0]} {shown[1]}, of {labels[1]} {shown[2]}"
            return float(excess / spread), words
        own, other = (self._shares(name, label).get(value, 0.0) for label in labels)
        shares = f"{100.0 * own:.0f} % of {labels[0]} and {100.0 * other:.0f} % of {labels[1]}"
        words = f"{name} = {shorten(str(value), _LONGEST)}, as {shares}"
        share = self._shares(name).get(value, 0.0)
        # In a column of one text both shares are 1.
        return float((other - own) / (np.sqrt(share * (1.0 - share)) or 1.0)), words

    def _median_of(self, name: Any, label: Any) -> Any:
        # Medians, since some labels of either class are wrong.
        return self.X[name].iloc[self.rows[label]].median()

    def _shares_of(self, name: Any, label: Any = None) -> dict[Any, float]:
        """The share of the rows of a label, or of all rows, that have each value."""
        column = self.X[name] if label is None else self.X[name].iloc[self.rows[label]]
        return (column.value_counts() / len(column)).to_dict()


def _counts_rows(X: Any, name: Any) -> bool:
    if X[name].dtype.kind not in "iuf":
        return False
    column = read_column(X, name, "table X")
    return numbers_rows(column, column)


def _beside(values: Any) -> list[str]:
    """The first numbers of a row, as name = value."""
    return [f"{name} = {_number(value)}" for name, value in values[:_NUMBERS_SHOWN].items()]


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
