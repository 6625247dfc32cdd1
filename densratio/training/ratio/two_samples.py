"""What a step compares: losses or features of training and validation rows, checked, of all ranks, with their rows and classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loop.labels import checked_labels
from ..loop.late_errors import LateErrors
from ..loop.ranks import raised_on_all_ranks
from ..loop.row_batch import RowBatch, held_by_all

__all__ = ["TwoSamples", "collect"]


class TwoSamples(NamedTuple):
    """source (n, d), target (m, d): losses or features; rows, val_rows: their places. m = 0 where the step looks at no validation
    rows. y (n,), y_val (m,): classes, where the estimate is class by class. losses (n,): to be recorded, where they are known."""

    source: Tensor
    target: Tensor
    rows: RowBatch
    val_rows: RowBatch
    y: Tensor | None = None
    y_val: Tensor | None = None
    losses: Tensor | None = None

    def of_class(self, at: Tensor, val_at: Tensor) -> TwoSamples:
        """The rows at the places `at` (k,) of the source and `val_at` (l,) of the target."""
        return TwoSamples(self.source[at], self.target[val_at], self.rows.take(at), self.val_rows.take(val_at))


def collect(
    samples: tuple[Tensor, Tensor | None],
    places: tuple[Any, Callable[[], Any]],
    labels: tuple[Any, Any],
    losses: Tensor | None,
    sizes: tuple[int, int],
    late: LateErrors,
) -> TwoSamples:
    """The samples of all ranks. Raises ValueError, on every rank where the host can look, for bad input.

    places: the index, and what checks and gives that of the validation rows. sizes: rows declared of both.
    """
    device, val = late.seen.device, samples[1]
    with raised_on_all_ranks():
        source = _matrix(samples[0], "training", device)
        target = source[:0] if val is None else _matrix(val, "validation", device)
        val_index = places[1]()
        if source.shape[1] != target.shape[1]:
            raise ValueError(f"train has {source.shape[1]} columns and val has {target.shape[1]}: give the same quantity of both.")
        if losses is not None and losses.shape != (len(source),):
            raise ValueError(f"losses must be ({len(source)},), one for each row of train; got shape {tuple(losses.shape)}.")
        given = labels if val is not None else (labels[0], None if labels[0] is None else target[:, 0].long())
        y, y_val = (_classes(*part, device) for part in zip(given, (source, target), ("y", "y_val"), strict=True))
    target = target if target.dtype == source.dtype else target.to(source.dtype)
    rows = RowBatch.of(places[0], len(source), sizes[0], device)
    val_rows = RowBatch.of(range(0) if val is None else val_index, len(target), sizes[1], device, "val_index")
    y, y_val = None if y is None else rows.all(y), None if y_val is None else val_rows.all(y_val)
    # What is wrong with the values of one rank's rows is raised after the exchange, on every rank.
    source, target = rows.all(source), val_rows.all(target)
    if losses is not None:
        losses = rows.all(losses.detach().to(device, non_blocking=True))
    elif source.shape[1] == 1:
        losses = source[:, 0]
    rows, val_rows = held_by_all((rows, val_rows), (source, target), sizes, late)
    return TwoSamples(source, target, rows, val_rows, y, y_val, losses)


def _classes(labels: Any, values: Tensor, name: str, device: torch.device) -> Tensor | None:
    """Classes (n,) of the rows of this rank."""
    if labels is None:
        return None
    return checked_labels(labels, len(values), f"{name} must hold the class of each row of the batch").to(device)


def _matrix(values: Tensor, name: str, device: torch.device) -> Tensor:
    """(n, d) in at least float32 on `device`, detached."""
    values = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    if values.ndim not in (1, 2) or len(values) == 0:
        raise ValueError(f"The {name} losses or features must be (n,) or (n, d) with n >= 1; got shape {tuple(values.shape)}.")
    values = values.reshape(len(values), -1)
    if values.dtype in (torch.float32, torch.float64) and values.device == device:
        return values
    return values.to(device, torch.promote_types(values.dtype, torch.float32), non_blocking=True)
