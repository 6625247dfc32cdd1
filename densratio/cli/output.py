"""The contents of output files, as bytes: the weights as a table, the report as a page, and the pictures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tables import suffix_of

if TYPE_CHECKING:
    from .estimation import Result

__all__ = ["contents", "drawn"]


def contents(
    result: Result,
    names: Any,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    out: Path,
    report: Path | None,
    plot: Path | None,
) -> dict[Path, bytes]:
    """The bytes of each output file: path -> bytes. names: a frame with the column of row names, or None."""
    has_pictures = find_spec("matplotlib") is not None
    figure = _figure(result) if plot is not None or (report is not None and has_pictures) else None
    made = {out: _table(result.weights, names, suffix_of(out) or "")}
    if plot is not None:
        made[plot] = drawn(figure, plot.suffix[1:].lower())
    if report is not None:
        facts = {**facts, **({"notes": " ".join(notes)} if notes else {})}
        if not has_pictures:
            facts["pictures"] = 'none, since matplotlib is not installed: pip install "densratio-toolkit[plot]"'
        pictures = {"The weights, and the balance of the columns": drawn(figure, "png")} if has_pictures else {}
        made[report] = result.report.to_html(title=title, facts=facts, pictures=pictures).encode()
    return made


def _table(weights: Any, names: Any, suffix: str) -> bytes:
    from pandas import DataFrame

    frame, buffer = DataFrame() if names is None else names.reset_index(drop=True), io.BytesIO()
    frame = frame.assign(weight=weights)
    if suffix == ".parquet":
        frame.to_parquet(buffer, index=False)
    else:
        # No date in the compressed file: the same tables give the same bytes.
        compression: Any = {"method": "gzip", "mtime": 0} if suffix.endswith(".gz") else None
        frame.to_csv(buffer, index=False, sep="\t" if suffix.startswith(".tsv") else ",", compression=compression)
    return buffer.getvalue()


def drawn(figure: Any, kind: str) -> bytes:
    """A figure as a file of a kind: png, svg or pdf."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # If the font lacks a character of a name, a box is drawn.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(buffer, format=kind, dpi=120)
    return buffer.getvalue()


def _figure(result: Result) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from ..plotting import BalanceDisplay, WeightsDisplay

    # A gap between the panels, so that their texts do not run together.
    figure = Figure(figsize=(11.0, 5.0), layout=ConstrainedLayoutEngine(wspace=0.08))
    left, right = figure.subplots(1, 2)
    WeightsDisplay.from_predictions(result.weights, ax=left)
    BalanceDisplay.from_report(result.report, ax=right)
    return figure
