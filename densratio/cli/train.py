"""A classifier from a table with wrong labels, and what it predicts for another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import plain_errors, quoted, say
from .learning import check_torch, epochs_shown
from .options import Columns, Decimal, Drop, Encoding, Text, Thousands, reading

__all__ = ["train"]


def train(
    data: Annotated[Path, typer.Argument(help="The table to learn from: CSV, TSV (also .gz) or Parquet.", readable=False)],
    label: Annotated[str, typer.Option(help="The column of the label.")],
    test: Annotated[Path, typer.Option(help="A table with right labels, to measure the accuracy on.", readable=False)],
    method: Annotated[str, typer.Option(help="auto, or a reweighting method: mw_net, ...; a wrong name lists all.")] = "auto",
    clean: Annotated[Path | None, typer.Option(help="A table of rows known to be right.", readable=False)] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the rows in the final training.")] = 60,
    columns: Columns = None,
    drop: Drop = None,
    text: Text = None,
    decimal: Decimal = ".",
    thousands: Thousands = None,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
) -> None:
    """Train a classifier in spite of wrong labels, and print its accuracy on rows with right ones."""
    with plain_errors():
        check_torch()
        from ..labels import NoisyLabelClassifier
        from .labeled import labeled

        paths = [data, test] if clean is None else [data, test, clean]
        (table, right, *known), notes = labeled(paths, label, columns, drop, reading(decimal, thousands, encoding, text))
        if unknown := sorted({str(name) for name in right.labels} - {str(name) for name in table.labels}):
            notes.append(f"{data} has no label {quoted(unknown)}, which {test} has: such test rows count as wrong.")
        for sentence in notes:
            say("note", sentence)
        # Three cross-fitted networks in two rounds, and the final one.
        with epochs_shown("Training", 7 * epochs) as tick:
            model = NoisyLabelClassifier(method, max_iter=epochs, random_state=seed, device=device, verbose=tick)
            model.fit(*table, clean=tuple(known[0]) if known else None)
        say("accuracy", f"{model.score(*right):.2%} of {len(right.labels):,} test rows", width=18)
        say("doubted labels", f"{model.label_issues_.attrs['n_issues']:,} of {len(table.labels):,} rows", width=18)
