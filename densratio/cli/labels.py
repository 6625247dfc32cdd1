"""The rows of a table whose labels are likely wrong: a table of all rows, the most likely first, and a page to look at."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import plain_errors, say
from .learning import waiting
from .options import Columns, Decimal, Drop, Encoding, Text, Thousands, reading

__all__ = ["labels"]

_MOST_SHOWN, _COLUMNS_SHOWN = 50, 3
_STYLE = (
    "body{font-family:sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}td,th{padding:.3em .8em;"
    "border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right}"
)


def labels(
    data: Annotated[Path, typer.Argument(help="The table: CSV, TSV (also .gz) or Parquet.", readable=False)],
    label: Annotated[str, typer.Option(help="The column of the label.")],
    clean: Annotated[Path | None, typer.Option(help="A table of rows known to be right.", readable=False)] = None,
    out: Annotated[Path, typer.Option(help="File for the rows and their scores, .csv.", readable=False)] = Path("issues.csv"),
    report: Annotated[Path | None, typer.Option(help="HTML page of the most doubtful rows.", readable=False)] = None,
    columns: Columns = None,
    drop: Drop = None,
    text: Text = None,
    decimal: Decimal = ".",
    thousands: Thousands = None,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the training.")] = 0,
) -> None:
    """List the rows of DATA whose labels are likely wrong.

    Writes for each row its number from 0, the given label, the suggested one, the probability that the given one is wrong, and
    whether it is among as many as are estimated to be wrong; the most likely first.
    """
    with plain_errors():
        from ..labels import find_label_issues
        from .files import check_outputs, write_all
        from .labeled import labeled

        outputs = {"--out": (out, (".csv",)), "--report": (report, (".html", ".htm"))}
        paths = [data] if clean is None else [data, clean]
        check_outputs({name: (path, kinds) for name, (path, kinds) in outputs.items() if path}, tuple(paths))
        (table, *right), notes = labeled(paths, label, columns, drop, reading(decimal, thousands, encoding, text))
        X, y = table
        with waiting("Folds are learned and held out"):
            issues = find_label_issues(X, y, clean=tuple(right[0]) if right else None, random_state=seed)
        made = {out: issues.to_csv(index=False).encode()}
        if report is not None:
            made[report] = _page(issues, X, y, f"Labels of {data.name}").encode()
        write_all(made)
        for sentence in notes:
            say("note", sentence)
        say("likely wrong", f"{int(issues['is_issue'].sum()):,} of {len(y):,} labels", width=14)
        say("", f"Wrote {', '.join(map(str, made))}.")


def _page(issues: Any, X: Any, y: Any, title: str) -> str:
    found = issues[issues["is_issue"]]
    pairs = found.groupby(["given_label", "suggested_label"]).size().sort_values(ascending=False).head(_MOST_SHOWN)
    counts = [[given, suggested, f"{n:,}"] for (given, suggested), n in pairs.items()]
    worst = [
        [row.row, row.given_label, row.suggested_label, f"{row.score:.1%}", _against(X, y, row)]
        for row in found.head(_MOST_SHOWN).itertuples()
    ]
    facts = f"{len(found):,} of {len(y):,} labels are likely wrong; {issues['score'].sum():,.0f} are expected."
    heads = ["row", "given", "suggested", "probability of being wrong", "columns that speak against the given label"]
    parts = [f"<h1>{escape(title)}</h1><p>{facts}</p>", "<h2>The most doubtful rows</h2>", _table(heads, worst)]
    parts += ["<h2>By classes</h2>", _table(["given", "suggested", "rows"], counts)]
    return f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}\n"


def _against(X: Any, y: Any, row: Any) -> str:
    """The columns in which the row lies farther from the rows of its label than from those of the suggested one, in deviations."""
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
        f"{name} = {x:g}, median of {row.given_label} {a:g}, of {row.suggested_label} {b:g}" for name, (x, a, b) in words
    )


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
