"""Tables with a column of labels, as frames with the same columns and labels; errors name the values that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .codes import declare_codes, give_zeros_back
from .column import Column, column_of
from .columns import as_argument, choose, hint_of, listed
from .console import quoted
from .tables import Reading, Table, open_table
from .values import Treatment, check_columns, strays, trimmed

__all__ = ["Labeled", "checked_labels", "labeled"]


class Labeled(NamedTuple):
    """Rows, a pandas frame with missing values for gaps or images (n, c, h, w), and their labels (n,).

    files: of the images. column: of the labels in a table. groups (n,): the name of each row's group, or None.
    """

    rows: Any
    labels: np.ndarray
    files: Sequence[Path] = ()
    column: Column | None = None
    groups: np.ndarray | None = None


def labeled(
    paths: Sequence[Path],
    label: str | None,
    columns: Sequence[str] | None,
    drop: Sequence[str] | None,
    reading: Reading,
    *,
    size: int | None = None,
    groups: str | None = None,
) -> tuple[list[Labeled], list[str]]:
    """The tables of several files with the same columns, or the images of several folders; and notes on what was done.

    groups: the column of the first table that names groups of rows; it is not used as a feature.
    Raises ValueError for a file that is not a table, columns that differ, a row without a label, and for texts in a column of
    mostly numbers.
    """
    folders = [path for path in paths if path.is_dir()]
    if folders:
        if other := next((path for path in paths if path not in folders), None):
            raise ValueError(f"{folders[0]} is a folder of images and {other} is none: give folders alone, or tables alone.")
        return [_images(path, label, columns or drop or groups, size) for path in paths], []
    if size is not None:
        raise ValueError(f"--size is for images, and {paths[0]} is a table.")
    tables = [open_table(path, reading) for path in paths]
    if label is None:
        raise ValueError(f"--label must name the column of the label in {paths[0]}. {hint_of('label', tables[0].names)}")
    _check_names(tables, label, columns, reading)
    # Each is compared with the first, which raises if columns differ.
    beside = (label,) if groups is None else (label, groups)
    choice, *_ = [choose(tables[0], other, columns, drop, beside) for other in tables]
    names = [*choice.names, label]
    codes = declare_codes(tables, names)
    by_table = [_columns(table, names) for table in tables]
    for of_table in by_table[1:]:
        of_table[-1] = _spelled_as(by_table[0][-1], of_table[-1])
    by_name = list(zip(*by_table, strict=True))
    check_columns(by_name, choice, Treatment(encode=True, text=(*codes, label), missing="indicate"))
    notes = [note for table in tables for note in table.notes]
    values = [trimmed(of_name, notes) for of_name in by_name]
    found = [_labeled([of_name[i] for of_name in values], of_table[-1]) for i, of_table in enumerate(by_table)]
    return [found[0]._replace(groups=_group_names(tables[0], groups)), *found[1:]], notes


def checked_labels(path: Path, label: str, reading: Reading, given: Labeled) -> tuple[tuple[np.ndarray, np.ndarray], Sequence[str]]:
    """Row numbers and right labels (m,) of a table with the columns row and `label`, read like the given ones; notes.

    Raises ValueError for another table.
    """
    is_code = given.column is not None and label in given.column.table.reading.text
    table = open_table(path, replace(reading, text=(label,) if is_code else ()))
    if missing := [name for name in ("row", label) if name not in table.names]:
        raise ValueError(
            f"{path} has no column {quoted(missing)}: it needs 'row', the number of a row from 0, and '{label}', its right label."
        )
    if given.column is not None and is_code:
        give_zeros_back([given.column.table, table], [label])
    number, right = _columns(table, ["row", label])
    right = right if given.column is None else _spelled_as(given.column, right)
    if number.is_text or not number.is_present.all():
        raise ValueError(f"{number.where} must hold a row number from 0 in each row.")
    return (_whole(number.values.to_numpy()), _whole(_label_values(right, trimmed([right], [])[0]))), table.notes


def _images(path: Path, label: str | None, chosen: object, size: int | None) -> Labeled:
    from ..datasets import load_image_folder

    if label is not None:
        raise ValueError(f"{path} is a folder, in which the names of the folders are the labels: leave --label out.")
    if chosen is not None:
        raise ValueError(f"--columns, --drop and --groups are for tables, and {path} is a folder.")
    images = load_image_folder(path, size)
    return Labeled(images.inputs, images.labels, images.files)


def _check_names(tables: Sequence[Table], label: str, columns: Sequence[str] | None, reading: Reading) -> None:
    for table in tables:
        if label not in table.names:
            raise ValueError(f"{table.path} has no column '{label}', the label. {hint_of(label, table.names)}")
    if missing := [name for name in reading.text if not any(name in table.names for table in tables)]:
        raise ValueError(f"--text: no file has a column {quoted(missing)}.")
    if columns is not None and label in listed(columns):
        raise ValueError(f"--columns says what to learn from, and '{label}' is what is learned: leave it out.")


def _columns(table: Table, names: list[str]) -> list[Column]:
    frame = table.read(names)
    if not len(frame):
        raise ValueError(f"{table.path} has column names but no rows.")
    # The name of a class may be a text that otherwise stands for a missing value, such as NA.
    codes = table.reading.text
    return [
        column_of(table, frame[name], is_code=name in codes, fills_gaps=name != names[-1], is_label=name == names[-1])
        for name in names
    ]


def _labeled(values: list[Any], label: Column) -> Labeled:
    from pandas import concat

    labels = _whole(_label_values(label, values.pop()))
    codes = dict.fromkeys(set(label.table.reading.text) & {column.name for column in values}, "category")
    return Labeled(concat(values, axis=1).astype(codes), labels, column=label)


def _spelled_as(first: Column, other: Column) -> Column:
    """The labels of another file, as texts if those of the first file are texts that include numbers: 7 and A7."""
    has_numbers = first.is_text and bool((first.is_present & ~first.is_stray).any())
    if not has_numbers or other.kind != "numbers":
        return other
    other.table.reading = replace(other.table.reading, text=(*other.table.reading.text, other.name))
    return column_of(other.table, other.values, is_code=True, fills_gaps=False)


def _group_names(table: Table, name: str | None) -> np.ndarray | None:
    if name is None:
        return None
    if name not in table.names:
        raise ValueError(f"--groups: {table.path} has no column '{name}'. {hint_of(name, table.names)}")
    groups = column_of(table, table.read([name])[name], is_code=True, fills_gaps=False)
    if not groups.is_present.all():
        raise ValueError(f"{groups.where} names no group on {groups.places(~groups.is_present)}.")
    return groups.values.to_numpy()


def _label_values(label: Column, values: Any) -> np.ndarray:
    """The labels (n,). Raises ValueError for gaps, and for texts among numbers."""
    if not label.is_present.all():
        raise ValueError(f"{label.where} has no label on {label.places(~label.is_present)}: give one, or leave these rows out.")
    if label.is_text and label.name not in label.table.reading.text and (found := list(strays(label))):
        raise ValueError(f"{found[0].text} Repair the label, or declare it text with --text {as_argument([label.name])}.")
    return values.to_numpy()


def _whole(values: np.ndarray) -> np.ndarray:
    """Whole numbers as integers, others unchanged."""
    is_whole = values.dtype.kind == "f" and bool((values == np.round(values)).all())
    return values.astype(np.int64) if is_whole else values
