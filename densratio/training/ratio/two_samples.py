"""What a step compares: losses or features of training and validation rows, checked, of all ranks, with their rows and classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loop.labels import batch_labels
from ..loop.late_errors import LateErrors
from ..loop.row_batch import RowBatch, held_by_all

__all__ = ["TwoSamples", "collect"]


class TwoSamples(NamedTuple):
    """source (n, d), target (m, d): losses or features; rows, val_rows: their places. m = 0 where the step looks at no validation
    rows. y (n,), y_val (m,): classes, where the estimate is class by class."""

    source: Tensor
    target: Tensor
    rows: RowBatch
    val_rows: RowBatch
    y: Tensor | None = None
    y_val: Tensor | None = None

    def of_class(self, at: Tensor, val_at: Tensor) -> TwoSamples:
        """The rows at the places `at` (k,) of the source and `val_at` (l,) of the target."""
        return TwoSamples(self.source[at], self.target[val_at], self.rows.take(at), self.val_rows.take(val_at))


def collect(
    train: Tensor,
    val: Tensor | None,
    index: Any,
    val_index: Any,
    labels: tuple[Any, Any],
    sizes: tuple[int, int],
    late: LateErrors,
) -> TwoSamples:
    """The samples of all ranks. sizes: rows declared of both. Raises ValueError, where the host can look, for bad input."""
    device = late.seen.device
    source = _matrix(train, "training", device)
    target = source[:0] if val is None else _matrix(val, "validation", device)
    if val is None:
        val_index, labels = range(0), (labels[0], None if labels[0] is None else source[:0, 0].long())
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"train has {source.shape[1]} columns and val has {target.shape[1]}: give the same quantity of both.")
    target = target if target.dtype == source.dtype else target.to(source.dtype)
    rows = RowBatch.of(index, len(source), sizes[0], device)
    val_rows = RowBatch.of(val_index, len(target), sizes[1], device, "val_index")
    y, y_val = _classes(labels[0], rows, "y", device), _classes(labels[1], val_rows, "y_val", device)
    # What is wrong with one rank's rows is raised after the exchange, on every rank: none is left waiting for another.
    source, target = rows.all(source), val_rows.all(target)
    rows, val_rows = held_by_all((rows, val_rows), (source, target), sizes, late)
    return TwoSamples(source, target, rows, val_rows, y, y_val)


def _classes(labels: Any, rows: RowBatch, name: str, device: torch.device) -> Tensor | None:
    """Classes (N,) of the rows of all ranks."""
    return None if labels is None else rows.all(batch_labels(labels, rows.n_rows, name, device))


def _matrix(values: Tensor, name: str, device: torch.device) -> Tensor:
    """(n, d) in at least float32 on `device`, detached."""
    values = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    if values.ndim not in (1, 2) or len(values) == 0:
        raise ValueError(f"The {name} losses or features must be (n,) or (n, d) with n >= 1; got shape {tuple(values.shape)}.")
    values = values.reshape(len(values), -1)
    if values.dtype in (torch.float32, torch.float64) and values.device == device:
        return values
    return values.to(device, torch.promote_types(values.dtype, torch.float32), non_blocking=True)
