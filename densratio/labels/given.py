"""Given labels as class numbers, and which rows are known to be right."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from datetime import date
from typing import Any

import numpy as np

from .._arrays import to_host
from .._columns import check_container, check_no_fractions, check_none_missing, is_frame, is_missing, library_of, shown
from ..tables.reading import column_names, objects
from ..tables.spelling import told_apart, twins

__all__ = ["check_no_gaps", "check_one_each", "class_codes", "clean_rows", "label_array", "warn_of_labels", "warn_of_spellings"]


def label_array(labels: Any, name: str = "labels") -> np.ndarray:
    """Labels (n,) as an array. Raises ValueError for other shapes and for missing labels, with their rows."""
    if isinstance(labels, str):
        more = ", and X without that column" if "labels" in name else ""
        raise ValueError(f"{name} is the text {labels!r}: pass the {name} (n,) themselves, X[{labels!r}]{more}.")
    check_one_each(labels, name)
    values = np.asarray(to_host(check_container(labels, name)))
    if values.ndim != 1:
        raise ValueError(f"{name} must be (n,), one label for each row; got shape {values.shape}. {_one_each_of(labels, values)}")
    check_no_gaps(labels, values, name)
    return values


def _one_each_of(labels: Any, values: np.ndarray) -> str:
    """How to get one label for each row of labels (n, L). values: the same as an array."""
    if values.ndim == 2 and values.shape[1] > 1 and np.isin(values, [0, 1]).all() and (values.astype(float).sum(axis=1) == 1).all():
        return f"One-hot classes become labels by y.{'idxmax' if library_of(labels) == 'pandas' else 'argmax'}(axis=1)."
    return f"One column of them is {'y.iloc[:, 0]' if library_of(labels) == 'pandas' else 'y[:, 0]'}."


def check_no_gaps(labels: Any, values: np.ndarray, name: str) -> None:
    """Raise ValueError if labels (n,) are missing. values: the labels as an array; of a list of texts it has NaN as a text."""
    check_none_missing(objects(labels) if isinstance(labels, list | tuple) else values, name)


def check_one_each(labels: Any, name: str) -> None:
    """Raise ValueError for a set or a list of labels for each row. Rows of one label each, or of as many numbers, are a table."""
    is_column = getattr(getattr(labels, "dtype", None), "kind", "") == "O" and len(labels.shape) == 1
    values = labels.tolist() if is_column else labels
    if not isinstance(values, list | tuple):
        return
    several = [value for value in values if isinstance(value, set | frozenset | list | tuple)]
    widths = {len(value) for value in several}
    is_table = len(widths) == 1 and (widths == {1} or not any(isinstance(label, str) for label in several[0]))
    if several and not (is_table and isinstance(several[0], list | tuple)):
        raise ValueError(
            f"Rows of {name} have several labels, such as {several[0]!r}: give each label a column of 0 and 1, "
            "sklearn.preprocessing.MultiLabelBinarizer().fit_transform(labels)."
        )


def class_codes(labels: Any, classes: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """(classes (K,), class numbers (n,)) of labels. Raises ValueError for one class, mixed types, or a label outside `classes`."""
    values = label_array(labels)
    if not len(values):
        raise ValueError("labels are empty: they need at least two rows of each of two classes.")
    check_no_fractions(values)
    try:
        found = np.unique(values)
    except TypeError as error:
        raise ValueError("labels mix text and numbers: make them all text, [str(label) for label in labels].") from error
    if 2 * len(found) > len(values) and all(isinstance(label, date | np.datetime64) for label in found):
        raise ValueError(
            "labels are dates, most of which differ. Pass them as numbers of days, (labels - labels.min()).dt.days of pandas, for "
            "the target of a regression; or as texts of classes, such as their months."
        )
    names = found if classes is None else np.asarray(classes)
    if len(names) < 2:
        raise ValueError(f"labels hold one class alone, {found.tolist()}: finding wrong labels takes a second class.")
    number = {name: code for code, name in enumerate(names.tolist())}
    unknown = [name for name in found.tolist() if name not in number]
    if unknown:
        raise ValueError(f"labels hold {unknown[:5]}, which classes lack: they are {names.tolist()[:20]}.")
    return names, np.array([number[value] for value in values.tolist()])


def warn_of_spellings(classes: np.ndarray, stacklevel: int) -> None:
    """Warn of classes (K,) that differ in case, spaces or the form of Unicode alone."""
    if same := twins([name for name in classes.tolist() if isinstance(name, str)]):
        warnings.warn(
            f"Labels have the classes {told_apart(same)}. If they are one class, make them equal, as by "
            '[" ".join(unicodedata.normalize("NFKC", label).split()).lower() for label in labels].',
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_labels(X: Any, labels: np.ndarray, stacklevel: int) -> None:
    """Warn of a column of a frame X that holds the labels (n,), possibly renamed: a model would simply copy it."""
    for name in column_names(X) if is_frame(X) else []:
        if _tells_all(X[name], labels):
            warnings.warn(
                f"Column {name!r} of X tells every label, so none can be found wrong. If it holds the labels, leave it out of X.",
                UserWarning,
                stacklevel=stacklevel + 1,
            )


def _tells_all(column: Any, labels: np.ndarray) -> bool:
    """Whether the column determines the label and the label the column; if most labels differ, whether both are on a line."""
    # If most labels differ, so does any row number or measured column, which proves nothing.
    if 2 * len(np.unique(labels)) > len(labels):
        return _are_in_line(column, labels)
    label_of: dict[Any, Any] = {}
    value_of: dict[Any, Any] = {}
    values = column.to_pylist() if hasattr(column, "to_pylist") else column
    for value, label in zip(values, labels.tolist(), strict=False):
        if is_missing(value) or not isinstance(value, Hashable):
            return False
        if label_of.setdefault(value, label) != label or value_of.setdefault(label, value) != value:
            return False
    return len(value_of) > 1


def _are_in_line(column: Any, labels: np.ndarray) -> bool:
    """Whether the labels (n,) are a + b times the column, b not 0, up to the rounding of single precision."""
    try:
        x, y = np.asarray(column).astype(np.float64), labels.astype(np.float64)
    except (TypeError, ValueError):
        return False
    if x.shape != y.shape or not np.isfinite(x).all() or np.ptp(x) == 0.0:
        return False
    x, y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
    return bool(np.abs(y - (x @ y) / (x @ x) * x).max() < 1e-5)


def clean_rows(clean: Any, n_rows: int) -> np.ndarray:
    """Mask (n,) of the rows in `clean`: row numbers, a mask, or None."""
    mask = np.zeros(n_rows, dtype=bool)
    if clean is None:
        return mask
    rows = np.asarray(to_host(clean))
    if rows.dtype == bool and rows.shape == (n_rows,):
        return rows.copy()
    # More rows than two cannot all have the numbers 0 and 1.
    if rows.shape == (n_rows,) and n_rows > 2 and rows.dtype.kind in "iuf" and np.isin(rows, [0, 1]).all():
        raise ValueError(f"clean holds {n_rows} zeros and ones, one for each row: pass a mask, np.asarray(clean) == 1.")
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu") or ((rows < 0) | (rows >= n_rows)).any():
        raise ValueError(f"clean must be row numbers from 0 to {n_rows - 1}, or a mask ({n_rows},); got {shown(clean)}.")
    mask[rows.astype(int)] = True
    return mask
