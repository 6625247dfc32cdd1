"""The quantities that a step compares: from a pass through the model, and from the rows of all ranks, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..loop.labels import checked_labels
from ..loop.late_errors import LateErrors
from ..loop.model import Listener, compile_anew
from ..loop.ranks import on_all_ranks
from ..loop.row_batch import RowBatch, held_by_all
from ..loop.training_pass import LastLayer, last_layer
from ..losses import Loss

__all__ = ["Compared", "Comparison", "Given", "Transformation", "TwoSamples", "collect"]

Transformation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, label, losses (n,)) -> what is compared, (n,) or (n, d)."""


class Compared(NamedTuple):
    """From one pass: losses (n,), values (n,) or (n, d) to compare, and, if requested, gradients in the last layer."""

    losses: Tensor
    values: Tensor
    last: LastLayer | None


class Comparison:
    """A pass through the model that keeps what is compared: the output of `layer`, or `transformation`, or the losses."""

    def __init__(self, layer: str | None, transformation: Transformation | None, *, keeps_last_layer: bool):
        self.transformation = transformation
        self._listener = Listener(layer, keeps_last_layer=keeps_last_layer)
        self._is_heard = layer is None and not keeps_last_layer

    def of(self, model: nn.Module, x: Any, y: Any, loss: Loss, *, wants_last: bool) -> Compared:
        """The rows (x, y) passed through `model`, in the mode it is in."""
        if not self._is_heard:
            compile_anew(model)
        self._is_heard = True
        with self._listener.of(model):
            prediction = model(x)
        losses = loss(prediction, y)
        last = last_layer(prediction, y, loss, self._listener.last()[0]) if wants_last else None
        if self._listener.layer is not None:
            return Compared(losses, self._listener.output(len(losses)), last)
        return Compared(losses, losses if self.transformation is None else self.transformation(prediction, y, losses), last)


class TwoSamples(NamedTuple):
    """source (n, d), target (m, d): losses or features; rows, val_rows: their places.

    m = 0 if the step uses no validation rows. y (n,), y_val (m,): classes, if the estimate is class by class. losses (n,): losses
    to record, if they are known.
    """

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


class Given(NamedTuple):
    """The same for the rows of one rank, as they were given: index and val_index name their places."""

    train: Tensor
    val: Tensor | None
    index: Any
    val_index: Any
    y: Any
    y_val: Any
    losses: Tensor | None


def collect(given: Given, check: Callable[[Given], Any], sizes: tuple[int, int], late: LateErrors) -> TwoSamples:
    """The samples of all ranks. Raises ValueError for bad input, on every rank if the host can look.

    check: further checks of one rank's rows, which return the index of the validation rows. sizes: declared rows of both.
    """
    device = late.rows.device
    source, target, y, y_val, val_index = on_all_ranks(lambda: _checked(given, check, device))
    rows, val_rows = (
        RowBatch.of(index, part.shape[0], size, device, name)
        for index, part, size, name in zip((given.index, val_index), (source, target), sizes, ("index", "val_index"), strict=True)
    )
    # Errors in the values of one rank's rows are raised after the exchange, on every rank.
    y, y_val = None if y is None else rows.all(y), None if y_val is None else val_rows.all(y_val)
    losses = None if given.losses is None else rows.all(given.losses.detach().to(device, non_blocking=True))
    source, target = rows.all(source), val_rows.all(target)
    if losses is None and source.shape[1] == 1:
        losses = source[:, 0]
    rows, val_rows = held_by_all((rows, val_rows), (source, target), sizes, late)
    return TwoSamples(source, target, rows, val_rows, y, y_val, losses)


def _checked(given: Given, check: Callable[[Given], Any], device: torch.device) -> tuple[Tensor, Tensor, Any, Any, Any]:
    """source, target, y, y_val and val_index of the rows of this rank."""
    source = _matrix(given.train, "training", device)
    target = None if given.val is None else _matrix(given.val, "validation", device)
    val_index = check(given)
    if target is None:
        none = source[:0]
        return source, none, _classes(given.y, source, "y", device), None if given.y is None else none[:, 0].long(), range(0)
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"train has {source.shape[1]} columns and val has {target.shape[1]}: give the same quantity of both.")
    if given.losses is not None and given.losses.shape != source.shape[:1]:
        raise ValueError(f"losses must be ({len(source)},), one for each row of train; got shape {tuple(given.losses.shape)}.")
    target = target if target.dtype == source.dtype else target.to(source.dtype)
    return source, target, _classes(given.y, source, "y", device), _classes(given.y_val, target, "y_val", device), val_index


def _classes(labels: Any, values: Tensor, name: str, device: torch.device) -> Tensor | None:
    """Classes (n,) of the rows of this rank."""
    if labels is None:
        return None
    return checked_labels(labels, len(values), f"{name} must hold the class of each row of the batch").to(device)


def _matrix(values: Tensor, name: str, device: torch.device) -> Tensor:
    """(n, d) in at least float32 on `device`, detached."""
    values = values.detach() if isinstance(values, Tensor) else torch.as_tensor(values)
    if values.is_complex():
        raise ValueError(f"The {name} losses or features must be real; got {values.dtype}: compare values.real, or values.abs().")
    if values.ndim and len(values) == 0:
        raise ValueError(f"The {name} batch has no rows: leave it out.")
    if values.ndim not in (1, 2):
        raise ValueError(f"The {name} losses or features must be (n,) or (n, d); got shape {tuple(values.shape)}.")
    values = values.reshape(values.shape[0], -1)
    if values.dtype in (torch.float32, torch.float64) and values.device == device:
        return values
    return values.to(device, torch.promote_types(values.dtype, torch.float32), non_blocking=True)
