"""What one step takes of a training loop, on every rank the same: rows of both samples, their places, and their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._validation import check_index
from .labels import batch_labels
from .late_errors import Watch, not_finite, waits_for
from .ranks import n_ranks, of_all_ranks

__all__ = ["Batch", "check_finite", "collect", "positions_of", "store"]


@dataclass(frozen=True)
class Batch:
    """source (n, d), target (m, d): losses or features of all ranks; positions (n,), val_positions (m,): their rows. m = 0 where
    the step looks at no validation rows.

    y (n,), y_val (m,): classes, where the estimate is class by class. is_usable (): whether everything is finite and in range,
    on a device that the host doesn't wait for; True where the host looked.
    """

    source: Tensor
    target: Tensor
    positions: Tensor
    val_positions: Tensor
    y: Tensor | None
    y_val: Tensor | None
    is_usable: Tensor | bool = True


def collect(
    train: Tensor,
    val: Tensor | None,
    index: Any,
    val_index: Any,
    labels: tuple[Any, Any],
    sizes: tuple[int, int],
    watch: Watch,
) -> Batch:
    """The batch of all ranks. sizes: rows declared of both samples. Raises ValueError, where the host can look, for bad input."""
    device = watch.seen.device
    source = _rows(train, "training", device)
    target = source[:0] if val is None else _rows(val, "validation", device)
    if val is None:
        val_index, labels = range(0), (labels[0], None if labels[0] is None else source[:0, 0].long())
    if source.shape[1] != target.shape[1]:
        raise ValueError(f"train has {source.shape[1]} columns and val has {target.shape[1]}: give the same quantity of both.")
    target = target.to(source.dtype)
    # Of one rank the places are checked here, once and for all.
    declared = sizes if n_ranks() == 1 else (None, None)
    positions = positions_of(index, len(source), "index", device, declared[0])
    val_positions = positions_of(val_index, len(target), "val_index", device, declared[1])
    y, y_val = (
        None if label is None else of_all_ranks(batch_labels(label, len(x), name, device))
        for label, x, name in zip(labels, (source, target), ("y", "y_val"), strict=True)
    )
    # What is wrong with one rank's rows is told after the exchange, on every rank: none is left waiting for another.
    source, target, positions, val_positions = (of_all_ranks(part) for part in (source, target, positions, val_positions))
    if not waits_for(device):
        if n_ranks() > 1:
            check_index(positions, len(source), sizes[0], "index")
            check_index(val_positions, len(target), sizes[1], "val_index")
        check_finite(source, positions, "training")
        check_finite(target, val_positions, "validation")
        return Batch(source, target, positions, val_positions, y, y_val)
    is_usable = watch.usable(source, target, positions, val_positions, sizes)
    positions, val_positions = (i.clamp(0, size - 1) for i, size in zip((positions, val_positions), sizes, strict=True))
    return Batch(source, target, positions, val_positions, y, y_val, is_usable)


def positions_of(index: Any, n_rows: int, name: str, device: torch.device, n_declared: int | None = None) -> Tensor:
    """Row numbers (n,) on `device`, one for each row; below n_declared where that is given and the host holds them."""
    if isinstance(index, range):
        index = np.arange(index.start, index.stop, index.step)
    if isinstance(index, Tensor) and waits_for(index.device):
        if index.shape != (n_rows,) or index.is_floating_point() or index.dtype == torch.bool:
            got = f"shape {tuple(index.shape)} and dtype {index.dtype}"
            raise ValueError(f"{name} must be ({n_rows},) integers, one for each row of its batch; got {got}.")
        return index.to(device, torch.int64)
    # Without non_blocking the host would wait for the copy.
    return torch.as_tensor(check_index(index, n_rows, n_declared, name), dtype=torch.int64).to(device, non_blocking=True)


def store(stored: Tensor, positions: Tensor, values: Tensor, is_usable: Tensor | bool) -> None:
    """stored[positions] = values, and their mean where a position stands more than once; no wait for the device."""
    if is_usable is not True:
        values = torch.where(torch.as_tensor(is_usable, device=stored.device), values.to(stored.dtype), stored[positions])
    counts = stored.index_fill_(0, positions, 0.0).index_add_(0, positions, torch.ones_like(stored[positions]))[positions]
    stored.index_fill_(0, positions, 0.0).index_add_(0, positions, values.to(stored.dtype) / counts)


def _rows(values: Tensor, name: str, device: torch.device) -> Tensor:
    """(n, d) in at least float32 on `device`, detached."""
    values = torch.as_tensor(values).detach()
    if values.ndim not in (1, 2) or len(values) == 0:
        raise ValueError(f"The {name} losses or features must be (n,) or (n, d) with n >= 1; got shape {tuple(values.shape)}.")
    dtype = torch.promote_types(values.dtype, torch.float32)
    return values.reshape(len(values), -1).to(device, dtype, non_blocking=True)


def check_finite(rows: Tensor, positions: Tensor, name: str) -> None:
    """Raise ValueError that names the rows (n, d) at `positions` (n,) with NaN or infinity; on a host."""
    is_finite = torch.isfinite(rows).all(dim=1)
    if not is_finite.all():
        raise not_finite(name, positions[~is_finite].tolist(), len(rows))
