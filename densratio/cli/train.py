"""A classifier from rows or images with wrong labels, and how well it predicts right ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import plain_errors, say
from .learning import check_torch, epochs_shown, labeled

__all__ = ["train"]


def train(
    data: Annotated[Path, typer.Argument(help="CSV, TSV (also .gz), Parquet, or a folder of images by class.", readable=False)],
    test: Annotated[Path, typer.Option(help="A table or folder with right labels, to measure the accuracy on.", readable=False)],
    label: Annotated[str | None, typer.Option(help="The column of the label; of a folder, none.")] = None,
    method: Annotated[str, typer.Option(help="auto, or a reweighting method: mw_net, ...; a wrong name lists all.")] = "auto",
    clean: Annotated[Path | None, typer.Option(help="A table or folder of rows known to be right.", readable=False)] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of a side that all images are brought to.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the rows in the final training.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
) -> None:
    """Train a classifier in spite of wrong labels, and print its accuracy on rows with right ones."""
    with plain_errors():
        check_torch()
        from ..labels import NoisyLabelClassifier

        X, y, files = labeled(data, label, size)
        X_test, y_test, _ = labeled(test, label, size)
        right = None if clean is None else labeled(clean, label, size)[:2]
        # Three cross-fitted networks in two rounds, and the final one.
        with epochs_shown("Training", 7 * epochs) as tick:
            model = NoisyLabelClassifier(method, max_iter=epochs, random_state=seed, device=device, verbose=tick)
            model.fit(X, y, clean=right)
        say("accuracy", f"{model.score(X_test if files else X_test[X.columns], y_test):.2%} of {len(y_test):,} test rows", width=18)
        say("doubted labels", f"{model.label_issues_.attrs['n_issues']:,} of {len(y):,} rows", width=18)
