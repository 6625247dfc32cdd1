"""A data set under a shift: any map-style data set with other labels, or with inputs of another one, its transforms kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from ...._arrays import is_tensor, to_host
from .indexed import Indexed, map_style

__all__ = ["ShiftedDataset", "labels_of"]


class ShiftedDataset(Dataset):
    """Items (x, y, ...) of `dataset` with y from `labels`, and with x from `outside` in the rows that `outside_rows` selects.

    labels (n,) or (n, ...), an array or tensor; None: its own. They replace y as the data set returns it, after a
    target_transform. A bare x becomes (x, y). y stays a number if the data set returns a number, and a tensor if it returns a
    tensor.
    outside : a map-style data set of (x, ...) or x, already transformed. outside_rows (n,): the row of `outside` whose x is used,
    -1 for a row that keeps its own, as `densratio.datasets.open_set_rows` draws them.

    For fewer rows put torch.utils.data.Subset around this data set or around `dataset`. Raises ValueError for lengths or rows that
    don't fit, TypeError for items that are not tuples or lists.
    """

    def __init__(self, dataset: Any, *, labels: Any = None, outside: Any = None, outside_rows: Any = None):
        if (outside is None) != (outside_rows is None):
            raise ValueError("Give both outside, a data set, and outside_rows, which of its rows come in where.")
        self.dataset, self.outside = map_style(dataset, "dataset"), outside
        # A copy: later changes by the caller, or in one worker, must not change some of the items.
        self.labels = None if labels is None else torch.tensor(np.asarray(to_host(labels)))
        self.outside_rows = None if outside_rows is None else np.array(to_host(outside_rows))
        for name, values in (("labels", self.labels), ("outside_rows", self.outside_rows)):
            if values is not None and (values.ndim == 0 or len(values) != len(dataset)):
                raise ValueError(f"{name} must have an entry for each of the {len(dataset)} rows; got shape {tuple(values.shape)}.")
        if self.outside_rows is not None:
            rows, n_outside = self.outside_rows, len(outside)
            if rows.ndim != 1 or rows.dtype.kind not in "iu":
                raise ValueError(f"outside_rows must be (n,) integers; got shape {rows.shape} and dtype {rows.dtype}.")
            if len(rows) and not -1 <= rows.min() <= rows.max() < n_outside:
                got = f"{rows.min()} to {rows.max()}"
                raise ValueError(f"outside_rows must be -1 or a row of outside, 0 to {n_outside - 1}; got {got}.")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, dict):
            raise TypeError("ShiftedDataset changes items (x, y, ...); got a dict. Change its columns in the data set itself.")
        is_bare = not isinstance(item, tuple | list)
        parts: list[Any] = [item] if is_bare else list(item)
        if self.outside_rows is not None and self.outside_rows[index] >= 0:
            other = self.outside[int(self.outside_rows[index])]
            parts[0] = other[0] if isinstance(other, tuple | list) else other
        if self.labels is not None:
            label = self.labels[index]
            is_number = len(parts) > 1 and not isinstance(parts[1], Tensor) and label.ndim == 0
            parts[1:2] = [label.item() if is_number else label]
        return parts[0] if is_bare and len(parts) == 1 else tuple(parts)


def labels_of(dataset: Any) -> np.ndarray:
    """Labels (n,) or (n, ...) of a map-style data set of (x, y, ...), if possible without loading its inputs.

    They are its `targets`, `labels` or `tensors[1]`, under its target_transform, and are found through Subset, ConcatDataset,
    `Indexed` and `ShiftedDataset`; a data set with none of these is read item by item.
    """
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[np.asarray(dataset.indices, dtype=np.int64)]
    if isinstance(dataset, ConcatDataset):
        return np.concatenate([labels_of(part) for part in dataset.datasets])
    if (isinstance(dataset, Indexed) and dataset.y_key is None) or (isinstance(dataset, ShiftedDataset) and dataset.labels is None):
        return labels_of(dataset.dataset)
    for labels in _stored_labels(dataset):
        # A list of class names or paths may have one of these names too.
        if labels.ndim and len(labels) == len(dataset) and labels.dtype.kind in "biuf":
            transform = getattr(dataset, "target_transform", None)
            return labels if transform is None else np.array([to_host(transform(label)) for label in labels.tolist()])
    return np.array([_label_of(dataset[i]) for i in range(len(dataset))])


def _stored_labels(dataset: Any) -> Iterator[np.ndarray]:
    for labels in (getattr(dataset, "targets", None), getattr(dataset, "labels", None), *getattr(dataset, "tensors", ())[1:2]):
        if isinstance(labels, list | tuple | range | np.ndarray) or is_tensor(labels):
            try:
                yield np.array(to_host(labels))
            except ValueError:  # from lists of unequal lengths, such as the boxes of a detection data set
                continue


def _label_of(item: Any) -> Any:
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise TypeError(f"Labels are read from items (x, y, ...); got {type(item).__name__}. Take its column of labels itself.")
    return to_host(item[1])
