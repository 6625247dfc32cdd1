"""List the rows of a table, or the images of a folder, by how likely their labels are wrong, and write a page of the worst."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import plain_errors, say
from .options import Checked, Clean, Columns, Decimal, Device, Drop, Encoding, Label, LabeledData, Size, Text, Thousands, reading

__all__ = ["labels", "told"]

_FAR = 1.5  # times the listed labels, from which on it is told how many are not predicted
_COUNTS = {"cv": "--folds", "n_repeats": "--repeats"}
# Names of the options in the library's messages.
_OPTIONS = {"checked=(rows, right_labels)": "--checked right.csv", "n_jobs=2": "--jobs 2", "kind must be": "--kind must be"}
_OPTIONS |= {'device="cuda"': "--device cuda", " or a quicker model=": ""}
_OPTIONS |= {"checked is for classes": "--checked is for classes", "pass row numbers or a mask": "leave it out"}
_OPTIONS |= {"clean with rows of its own": "--clean"}
_OPTIONS |= {', as by [" ".join(unicodedata.normalize("NFKC", label).split()).lower() for label in labels]': " in the file"}
_OPTIONS |= {f"{name} must be an int": f"{option} must be a whole number" for name, option in _COUNTS.items()}


def labels(
    data: LabeledData,
    label: Label = None,
    clean: Clean = None,
    checked: Checked = None,
    out: Annotated[Path, typer.Option(help="File for the rows and their scores, .csv.", readable=False)] = Path("issues.csv"),
    report: Annotated[Path | None, typer.Option(help="HTML page of the most doubtful rows.", readable=False)] = None,
    size: Size = None,
    columns: Columns = None,
    drop: Drop = None,
    text: Text = None,
    decimal: Decimal = ".",
    thousands: Thousands = None,
    encoding: Encoding = None,
    kind: Annotated[str, typer.Option(help="Labels are classes, numbers, or auto: decided from their values.")] = "auto",
    groups: Annotated[
        str | None, typer.Option(help="Column that names groups of rows, such as a patient: a group is held out as a whole.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds; a model trained on the other folds predicts each of them.")] = 5,
    repeats: Annotated[
        int | None, typer.Option(help="Number of random splits into folds. Default: 4 up to 5,000 rows, fewer for more rows.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Folds to train in parallel. Default: 1.")] = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the training.")] = 0,
) -> None:
    """List the rows of DATA whose labels are likely wrong.

    Writes all rows, the most likely wrong labels first: the number from 0, the given and the suggested label, score and is_issue.

    The score is the probability that the given label is wrong; is_issue marks as many rows as labels are estimated to be
    wrong, except those with a score below .1.

    For images, in a folder for each class, it also writes the file.
    """
    with plain_errors():
        from .files import check_outputs, write_all
        from .label_page import page
        from .labeled import checked_labels, labeled

        outputs = {"--out": (out, (".csv",)), "--report": (report, (".html", ".htm"))}
        paths = [data] if clean is None else [data, clean]
        inputs = paths if checked is None else [*paths, checked]
        check_outputs({name: (path, kinds) for name, (path, kinds) in outputs.items() if path}, tuple(inputs))
        how = reading(decimal, thousands, encoding, text)
        (given, *right), notes = labeled(paths, label, columns, drop, how, size=size, groups=groups)
        known = (right[0].rows, right[0].labels) if right else None
        seen, more = (None, ()) if checked is None else checked_labels(checked, label or "label", how, given)
        settings = {"kind": kind, "cv": folds, "n_repeats": repeats, "n_jobs": jobs, "random_state": seed, "verbose": 1}
        settings["device"] = device
        issues, said = _issues(given, known, seen, settings)
        if given.files:
            issues.insert(1, "file", [str(given.files[row]) for row in issues["row"]])
        made = {out: issues.to_csv(index=False).encode()}
        if report is not None:
            made[report] = page(issues, given, f"Labels of {data.name}").encode()
        write_all(made)
        for sentence in [*notes, *more, *said]:
            say("note", sentence)
        say("likely wrong", f"{int(issues['is_issue'].sum()):,} of {len(given.labels):,} labels", width=14)
        if "n_issues_interval" in issues.attrs:
            say("can be wrong", "{:,} to {:,}".format(*issues.attrs["n_issues_interval"]), width=14)
        if seen is None and (unexpected := issues.attrs.get("n_disagreements", 0)) > _FAR * issues["is_issue"].sum():
            say("or up to", f"{unexpected:,} if hard rows are mislabeled, as people do: --checked tells", width=14)
        say("", f"Wrote {', '.join(map(str, made))}.")


def _issues(given: Any, known: Any, seen: Any, settings: dict[str, Any]) -> tuple[Any, list[str]]:
    """The list of issues, and the library's warnings in the words of this command."""
    from ..labels import find_label_issues

    samples = {"clean": known, "checked": seen, "groups": given.groups}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            issues = find_label_issues(given.rows, given.labels, **samples, **settings)
        except ValueError as error:
            raise ValueError(_in_words(str(error))) from None
    return issues, told(caught)


def told(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """The library's warnings, in the words of the command line."""
    # Imported here, so that --help does not need numpy.
    from .advice import without_code

    return [_in_words(without_code(warning.message, "the file")) for warning in caught if warning.category is UserWarning]


def _in_words(sentence: str) -> str:
    """A message of the library, in the words of the command line."""
    for name, option in _OPTIONS.items():
        sentence = sentence.replace(name, option)
    return re.sub(r" If it measures something, encoder=.*", "", sentence)
