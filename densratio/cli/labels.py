"""The rows of a table, or images of a folder, whose labels are likely wrong: all of them, the most likely first, and a page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import plain_errors, say
from .learning import Given, labeled, waiting

__all__ = ["labels"]


def labels(
    data: Annotated[Path, typer.Argument(help="CSV, TSV (also .gz), Parquet, or a folder of images by class.", readable=False)],
    label: Annotated[str | None, typer.Option(help="The column of the label; of a folder, none.")] = None,
    clean: Annotated[Path | None, typer.Option(help="A table or folder of rows known to be right.", readable=False)] = None,
    out: Annotated[Path, typer.Option(help="File for the rows and their scores, .csv.", readable=False)] = Path("issues.csv"),
    report: Annotated[Path | None, typer.Option(help="HTML page of the most doubtful rows.", readable=False)] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of a side that all images are brought to.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the training.")] = 0,
) -> None:
    """List the rows of DATA whose labels are likely wrong.

    Writes for each row its number from 0, the given label, the suggested one, the probability that the given one is wrong, and
    whether it is among as many as are estimated to be wrong; the most likely first. Of images
    FOLDER/CLASS/image.png the file too.
    """
    with plain_errors():
        from ..labels import find_label_issues
        from .files import check_outputs, write_all
        from .label_page import page

        outputs = {"--out": (out, (".csv",)), "--report": (report, (".html", ".htm"))}
        check_outputs({name: (path, kinds) for name, (path, kinds) in outputs.items() if path}, (data,))
        given = labeled(data, label, size)
        right = None if clean is None else labeled(clean, label, size)[:2]
        with waiting("Folds are learned and held out"):
            issues = find_label_issues(given.X, given.y, clean=right, model=_network(given), random_state=seed)
        if given.files:
            issues.insert(1, "file", [str(given.files[row]) for row in issues["row"]])
        made = {out: issues.to_csv(index=False).encode()}
        if report is not None:
            made[report] = page(issues, given, f"Labels of {data.name}").encode()
        write_all(made)
        say("likely wrong", f"{int(issues['is_issue'].sum()):,} of {len(given.y):,} labels", width=14)
        say("", f"Wrote {', '.join(map(str, made))}.")


def _network(given: Given) -> Any:
    """Convolutions for images, where torch is there; else what find_label_issues chooses."""
    if not given.files or find_spec("torch") is None:
        return None
    from ..labels.networks import small_network

    return small_network
