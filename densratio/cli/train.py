"""Train a classifier on rows or images with wrong labels, and measure its accuracy on right ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from .console import check_installed, plain_errors, quoted, say
from .labels import told
from .options import Clean, Columns, Decimal, Device, Drop, Encoding, Label, LabeledData, Size, Text, Thousands, reading

__all__ = ["train"]


def train(
    data: LabeledData,
    test: Annotated[Path, typer.Option(help="A table or folder with right labels, to measure the accuracy.", readable=False)],
    label: Label = None,
    method: Annotated[str, typer.Option(help="auto, or a reweighting method: mw_net, ...; a wrong name lists all.")] = "auto",
    clean: Clean = None,
    epochs: Annotated[int, typer.Option(help="Passes over the rows in the final training.")] = 60,
    size: Size = None,
    columns: Columns = None,
    drop: Drop = None,
    text: Text = None,
    decimal: Decimal = ".",
    thousands: Thousands = None,
    encoding: Encoding = None,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Device = "cpu",
) -> None:
    """Train a classifier in spite of wrong labels, and print its accuracy on rows with right labels."""
    with plain_errors():
        check_installed({"torch": "torch,cli"}, "This trains networks with")
        from ..labels import NoisyLabelClassifier
        from ..training.registry import key_of
        from .labeled import labeled

        if method != "auto":
            key_of(method)
        paths = [data, test] if clean is None else [data, test, clean]
        how = reading(decimal, thousands, encoding, text)
        (table, right, *known), notes = labeled(paths, label, columns, drop, how, size=size)
        if unknown := sorted({str(name) for name in right.labels} - {str(name) for name in table.labels}):
            notes.append(f"{data} has no label {quoted(unknown)}, which {test} has: such test rows count as wrong.")
        for sentence in notes:
            say("note", sentence)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = NoisyLabelClassifier(method, max_iter=epochs, random_state=seed, device=device, verbose=True)
            model.fit(table.rows, table.labels, clean=(known[0].rows, known[0].labels) if known else None)
        for sentence in told(caught):
            say("note", sentence)
        say("accuracy", f"{model.score(right.rows, right.labels):.2%} of {len(right.labels):,} test rows", width=18)
        say("doubted labels", f"{int(model.label_issues_['is_issue'].sum()):,} of {len(table.labels):,} rows", width=18)
