"""Errors of a batch that a device found unusable, raised with a later batch so that the host never waits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..losses import OUTSIDE

__all__ = ["LateErrors", "copied_soon"]

_NAMED = 10  # rows named in a message
_NONE = 2**62  # no row


def copied_soon(values: Tensor) -> Tensor:
    """A copy of whole numbers >= 0 on the host, which holds -1 until they arrive; the host does not wait for a GPU."""
    if values.device.type != "cuda":
        return values.cpu()
    return torch.full(values.shape, -1, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


class LateErrors(nn.Module):
    """Keeps on the device which rows of the first unusable batch were at fault, until the host looks.

    `usable` decides whether anything of a batch is written; `raise_if_seen` reads a copy that arrives without a wait, so that
    an error on a GPU comes with the next batch or the one after it. rows (2, 10): places of the training and of the validation rows
    at fault, -1 for an index out of range, -2 - place for a label of no class, and `_NONE` for no more. It has no entries in
    state_dict.
    """

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.full((2, _NAMED), _NONE), persistent=False)
        self._on_host: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy of pinned memory would not be pinned, and the host would wait for each write to it.
        return {**self.__dict__, "_on_host": None}

    def usable(self, *samples: tuple[Tensor, Tensor, int]) -> Tensor:
        """Whether () all values (n, d) of each sample are finite and all its positions (n,) are at least 0 and below its size."""
        found = [_at_fault(*sample) for sample in samples]
        rows = torch.stack(found) if len(found) > 1 else found[0][None]
        self._keep(rows, slice(len(found)))
        return rows.amin() == _NONE

    def note_labels(self, is_outside: Tensor, places: Tensor) -> None:
        """Keep the places (m,) of the validation rows whose labels are of no class (m,)."""
        self._keep(_first(torch.where(is_outside, -2 - places, _NONE))[None], slice(1, 2))

    def note_losses(self, is_wrong: Tensor, places: Tensor) -> None:
        """Keep the places (m,) of the validation rows whose losses are NaN or infinite (m,)."""
        self._keep(_first(torch.where(is_wrong, places, _NONE))[None], slice(1, 2))

    def _keep(self, rows: Tensor, own: slice) -> None:
        """Keep what was found in a batch, unless an earlier one was unusable."""
        held = self.rows[own]
        torch.where(self.rows.amin() == _NONE, rows, held, out=held)
        if self.rows.device.type == "cuda":
            if self._on_host is None:
                self._on_host = torch.full((2, _NAMED), _NONE, pin_memory=True)
            self._on_host.copy_(self.rows, non_blocking=True)

    def raise_if_seen(self, *, wait: bool = False) -> None:
        """Raise ValueError for the first unusable batch. wait: read the device itself, and wait for it."""
        if self.rows.device.type == "meta" or (not wait and self._on_host is None):
            return
        if int((self.rows if wait or self._on_host is None else self._on_host).min()) == _NONE:
            return
        named = [[row for row in rows if row != _NONE] for rows in self.rows.tolist()]
        self.forget()
        if any(-1 in rows for rows in named):
            raise ValueError("An index of an earlier batch was out of range; the stored weights are those before that batch.")
        name, rows = ("training", named[0]) if named[0] else ("validation", named[1])
        strange = sorted(-2 - row for row in rows if row < -1)
        raise _of_no_class(name, strange) if strange else not_finite(name, rows)

    def forget(self) -> None:
        """Reset: as if all batches had been usable."""
        for rows in (self.rows, self._on_host):
            if rows is not None:
                rows.fill_(_NONE)


def not_finite(name: str, rows: list[int], n_rows: int | None = None) -> ValueError:
    """The error for NaN or infinity at `rows`, out of n_rows if these were counted."""
    shown = _shown(rows, n_rows is None) + ("" if n_rows is None else f" ({len(rows)} of {n_rows})")
    return ValueError(
        f"NaN or infinity in {name} rows {shown}; the stored weights are unchanged. Lower the learning rate, clip gradients, or "
        "skip the batch."
    )


def _of_no_class(name: str, rows: list[int]) -> ValueError:
    return ValueError(
        f"The loss of {name} rows {_shown(rows, True)} of an earlier batch is minus infinity, which stands for a label of no "
        "class; the stored weights are unchanged. Number the classes from 0 to one less than the model has, and leave rows "
        "without a label out: -100 stands for them only where a method looks up no classes."
    )


def _shown(rows: list[int], may_be_more: bool) -> str:
    return f"{rows[:_NAMED]}" + (" ..." if len(rows) > _NAMED or (may_be_more and len(rows) == _NAMED) else "")


def _at_fault(values: Tensor, positions: Tensor, size: int) -> Tensor:
    """The first positions (10,) whose row of values (n, d) is not finite, or -1 where one is out of range; then `_NONE`.

    Where a value is minus infinity, -2 - position comes in place of the position.
    """
    # NaN and infinity times 0 are NaN. On a GPU each operation counts, and no shape may depend on a value.
    is_bad, is_outside = values * 0.0 != 0.0, values == OUTSIDE
    is_bad, is_outside = (of[:, 0] if values.shape[1] == 1 else of.any(dim=1) for of in (is_bad, is_outside))
    marked = torch.where(is_bad, torch.where(is_outside, -2 - positions, positions), _NONE)
    return _first(torch.where(positions == positions.clamp(0, size - 1), marked, -1))


def _first(marked: Tensor) -> Tensor:
    """The ten smallest of the marks (n,); `_NONE` for those that are missing."""
    least = marked.topk(min(_NAMED, len(marked)), largest=False).values
    return functional.pad(least, (0, _NAMED - len(least)), value=_NONE)
