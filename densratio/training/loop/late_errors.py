"""Errors of a batch that a device found unusable, raised with a later batch so that the host never waits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LateErrors", "waits_for"]

_NAMED = 10  # rows named in a message


def waits_for(device: torch.device) -> bool:
    """Whether the host would have to wait for a value there. On "meta" there are no values: a step that runs there never waits."""
    return device.type in ("cuda", "meta")


class LateErrors(nn.Module):
    """Remembers on the device which rows of the first unusable batch were at fault, until the host looks.

    `usable` decides whether anything of a batch is written; `raise_if_seen` reads a copy that arrived without a wait, so that
    an error on a GPU comes with the next batch or the one after it. seen (): 0, or the kind of error. Nothing here is in
    state_dict.
    """

    seen: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("rows", torch.full((2, _NAMED), -1, dtype=torch.int64), persistent=False)
        self._on_host: Tensor | None = None

    def usable(self, source: Tensor, target: Tensor, positions: Tensor, val_positions: Tensor, sizes: tuple[int, int]) -> Tensor:
        """Whether () all entries of source (n, d), target (m, d) are finite and all positions (n,), (m,) below `sizes`."""
        bad_rows = [_at_fault(~torch.isfinite(x).all(dim=1), i) for x, i in ((source, positions), (target, val_positions))]
        outside = torch.stack([((i < 0) | (i >= size)).any() for i, size in zip((positions, val_positions), sizes, strict=True)])
        is_finite = torch.stack([(rows < 0).all() for rows in bad_rows]).all()
        kind = torch.where(outside.any(), 2, torch.where(is_finite, 0, 1))
        is_first = (self.seen == 0) & (kind > 0)
        self.rows.copy_(torch.where(is_first, torch.stack(bad_rows), self.rows))
        self.seen.copy_(torch.where(is_first, kind, self.seen))
        if self.seen.device.type == "cuda":
            if self._on_host is None:
                self._on_host = torch.zeros((), dtype=torch.int64, pin_memory=True)
            self._on_host.copy_(self.seen, non_blocking=True)
        return kind == 0

    def raise_if_seen(self, *, wait: bool = False) -> None:
        """Raise ValueError for the first unusable batch. wait: look at the device itself, and wait for it."""
        if self.seen.device.type == "meta" or (not wait and self._on_host is None):
            return
        kind = int(self.seen if wait or self._on_host is None else self._on_host)
        if kind == 0:
            return
        named = [[int(row) for row in rows if row >= 0] for rows in self.rows.tolist()]
        self.seen.zero_()
        if self._on_host is not None:
            self._on_host.zero_()
        if kind == 2:
            raise ValueError("An index of an earlier batch was out of range; the stored weights are those before that batch.")
        raise not_finite("training", named[0]) if named[0] else not_finite("validation", named[1])


def not_finite(name: str, rows: list[int], n_rows: int | None = None) -> ValueError:
    """The error for NaN or infinity at `rows`, of n_rows where they were counted."""
    more = " ..." if len(rows) > _NAMED or (n_rows is None and len(rows) == _NAMED) else ""
    shown = f"{rows[:_NAMED]}{more}" + ("" if n_rows is None else f" ({len(rows)} of {n_rows})")
    return ValueError(
        f"NaN or infinity in {name} rows {shown}; the stored weights are unchanged. Lower the learning rate, clip gradients, or "
        "skip the batch."
    )


def _at_fault(is_bad: Tensor, positions: Tensor) -> Tensor:
    """The first positions (10,) whose row is bad, and -1 where there are no more."""
    # As many entries as are named, whatever the batch: no shape depends on a value.
    marked = torch.where(is_bad, positions.clamp(min=0), -1)
    padded = torch.cat([marked, marked.new_full((_NAMED,), -1)])
    order = torch.argsort((padded < 0).to(torch.int8), stable=True)
    return padded[order[:_NAMED]]
