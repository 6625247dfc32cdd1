"""Validation of class labels 0..K-1, shared by all shifts of labels."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["class_numbers"]


def class_numbers(labels: Any, n_classes: int | None = None) -> tuple[np.ndarray, int]:
    """labels (n,), integers 0..K-1, as an array, and K: `n_classes`, or max(labels) + 1 if that is None.

    Raises ValueError for labels that are not integers >= 0 or not below n_classes.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise ValueError(f"labels must be (n,) integers >= 0; got shape {labels.shape} and dtype {labels.dtype}.")
    if n_classes is None:
        return labels, int(labels.max(initial=0)) + 1
    if len(labels) and labels.max() >= n_classes:
        raise ValueError(f"Label {labels.max()} is out of range for n_classes={n_classes}.")
    return labels, n_classes
