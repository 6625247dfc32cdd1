"""Class labels in a loop: integers >= 0, one for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import to_host, waits_for
from ..losses import check_tensor

__all__ = ["advice_on_labels", "check_classes", "checked_labels", "labels_to_look_up", "training_labels"]


def checked_labels(y: Any, n: int, what: str) -> Tensor:
    """Labels (n,) as int64. Raises ValueError, which starts with `what`, for anything but one integer >= 0 for each row."""
    if not isinstance(y, Tensor) and np.asarray(y).dtype.kind in "OSU":
        raise ValueError(f"{what}, integers ({n},); got texts or other objects. Number the classes from 0 on.")
    labels = torch.as_tensor(y)
    if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{what}, integers ({n},); got shape {tuple(labels.shape)} and dtype {labels.dtype}.")
    if n and int(labels.min()) < 0:
        raise ValueError(f"{what}, integers >= 0; got {int(labels.min())}.")
    return labels.to(torch.int64)


def check_classes(name: str, prediction: Tensor, y: Any, n_classes: int | None = None) -> Any:
    """The labels. Raises ValueError for anything but integers (n,), and logits (n, C), C >= 2, or C = n_classes if that is given.

    name: what the message says needs them.
    """
    check_tensor(prediction)
    is_of_classes = prediction.ndim == 2 and (prediction.shape[1] >= 2 if n_classes is None else prediction.shape[1] == n_classes)
    are_labels = isinstance(y, Tensor) and y.shape == prediction.shape[:1] and not y.is_floating_point()
    if not is_of_classes or not are_labels:
        got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        columns = "C" if n_classes is None else n_classes
        raise ValueError(
            f"{name} needs logits (n, {columns}) and class labels (n,), integers; got {tuple(prediction.shape)} and {got}. "
            f"{_advice(prediction, y, n_classes)}"
        )
    return y


def _advice(prediction: Tensor, y: Any, n_classes: int | None) -> str:
    """What to type for predictions and labels that are not logits and classes."""
    if not isinstance(y, Tensor):
        return advice_on_labels(y)
    if prediction.ndim == 2 and prediction.shape[1] >= 2:
        if y.shape == prediction.shape[:1] and not y.is_floating_point():
            return f"The model gives {prediction.shape[1]} logits a row: make the method with n_classes={prediction.shape[1]}."
        if y.shape in (prediction.shape, prediction.shape[:1], (len(prediction), 1)):
            return advice_on_labels(y)
    if prediction.ndim == 1 or (prediction.ndim == 2 and prediction.shape[1] == 1):
        return (
            "For two classes give the model an output for each, such as nn.Linear(..., 2), and labels y.long(); with one output a "
            "row, or numbers to predict, use DynamicReweighter, MWNet or L2R."
        )
    return "For other targets use DynamicReweighter, MWNet or L2R."


def advice_on_labels(y: Any) -> str:
    """What to type for labels that are no integers (n,), in any case or where the model gives several logits a row."""
    if not isinstance(y, Tensor):
        return "Make the labels a tensor, torch.as_tensor(y)."
    if y.ndim == 1:
        return "Make the labels integers, y.long()."
    if y.ndim == 2 and y.shape[1] == 1:
        return "Take the one column of the labels: y[:, 0]" + (".long()." if y.is_floating_point() else ".")
    return "One-hot labels become y.argmax(dim=1); for probabilities of classes use DynamicReweighter, MWNet or L2R."


def labels_to_look_up(name: str, prediction: Tensor, y: Any, n_classes: int | None = None) -> Tensor:
    """Labels (n,) as int64 of rows whose column of the logits (n, C) is looked up, after `check_classes`.

    Raises ValueError for labels outside 0 to C - 1, such as torch's -100 for no label, where the losses would skip the row. On a
    device, which the host doesn't wait for, those become other classes: no kernel may see them, which would end the process.
    """
    check_classes(name, prediction, y, n_classes)
    y, n_classes = y.long(), prediction.shape[1]
    if waits_for(y.device):
        return y.clamp(0, n_classes - 1)
    strange = ((y < 0) | (y >= n_classes)).nonzero()[:, 0]
    if len(strange):
        row = int(strange[0])
        others = f" ({len(strange)} rows have such labels)" if len(strange) > 1 else ""
        advice = "leave rows without a label out" if int(y[row]) < 0 else f"number the classes from 0 to {n_classes - 1}"
        raise ValueError(
            f"{name} looks up the class of each row, 0 to {n_classes - 1}, and row {row} of the batch has {int(y[row])}{others}: "
            f"{advice}."
        )
    return y


def training_labels(labels: Any, n_train: int, name: str = "y_train", *, each_has_rows: bool = True) -> np.ndarray:
    """Classes (n_train,) of the training rows. Raises ValueError for other labels, and with `each_has_rows` for an empty class."""
    values = np.asarray(to_host(labels))
    if values.shape != (n_train,) or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        has_least = values.shape == (n_train,) and values.dtype.kind in "biuf"
        got = f"shape {values.shape} and dtype {values.dtype}" + (f", from {values.min()} on" if has_least else "")
        got += _advice_for_classes(values, n_train, name)
        raise ValueError(f"{name} must be ({n_train},) integers >= 0, the class of each training row; got {got}.")
    if each_has_rows and (missing := np.flatnonzero(np.bincount(values) == 0).tolist()):
        raise ValueError(f"Every class needs training rows; the classes {missing} have none. Number the classes from 0 on.")
    return values


def _advice_for_classes(values: np.ndarray, n_train: int, name: str) -> str:
    """What to type for labels that are no classes (n_train,)."""
    if values.ndim == 2 and len(values) == n_train:
        return f": of one-hot labels type {name}.argmax(1)" if values.shape[1] > 1 else f": type {name}[:, 0]"
    if values.shape != (n_train,):
        return ""
    if values.dtype.kind in "fb":
        return f": type {name}.astype(int), or {name}.long() of a tensor"
    return ": leave rows without a label out" if values.dtype.kind == "i" else ": number the classes from 0 on"
