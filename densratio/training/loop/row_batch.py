"""The training rows of a batch: where their values are stored, equally on every rank, and whether the batch is usable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import waits_for
from ..._validation import check_index
from .late_errors import LateErrors, not_finite
from .ranks import Rows, n_ranks, of_all_ranks, on_all_ranks

__all__ = ["RowBatch", "check_finite", "held_by_all", "positions_of"]

_NUMPY = {torch.float32, torch.float64, torch.int64}


class RowBatch(Rows):
    """Rows that a loop names by index, and the one way to write values computed for them into a vector of all rows.

    positions (n,): the rows here, each within the stored vectors; all_positions (N,): those of all ranks; named (N,): the index as
    the loop gave it, which on a device may be out of range.
    A batch that a device found unusable, with NaN or an index out of range, writes nothing; where the host checks the batch itself,
    it raises an error instead.
    """

    def __init__(self, positions: Tensor, of_all: Tensor, is_usable: Tensor | bool = True, *, holds_all: bool = False):
        super().__init__(len(positions), holds_all=holds_all)
        self.positions = positions
        self.all_positions = of_all
        self.named = of_all
        self._is_usable = is_usable
        self._written: list[tuple[Tensor, Tensor | None, Tensor]] = []
        self._undone: list[Callable[[], None]] = []

    @classmethod
    def of(cls, index: Any, n_rows: int, n_stored: int, device: torch.device, name: str = "index") -> RowBatch:
        """The rows that `index` (n_rows,) names among n_stored. Raises ValueError, on every rank, if a host finds it wrong."""
        host_looks = not waits_for(device)
        if n_ranks() == 1 and host_looks:
            positions = positions_of(index, n_rows, name, device, n_stored)
            return cls(positions, positions, holds_all=True)
        positions = on_all_ranks(lambda: positions_of(index, n_rows, name, device))
        of_all = of_all_ranks(positions)
        if host_looks:
            check_index(of_all, len(of_all), n_stored, name)
            return cls(positions, of_all)
        # No kernel may see an index out of range: on a GPU it would end the process.
        clamped = of_all.clamp(0, n_stored - 1)
        rows = cls(clamped if positions is of_all else positions.clamp(0, n_stored - 1), clamped)
        rows.named = of_all
        return rows

    @classmethod
    def held(cls, positions: Tensor, is_usable: Tensor | bool = True) -> RowBatch:
        """Rows of all ranks whose values every rank holds."""
        return cls(positions, positions, is_usable, holds_all=True)

    @classmethod
    def skipping(cls, index: Any, values: Tensor, n_stored: int, name: str) -> RowBatch:
        """The rows of `values` (n, d); if one of them is not finite, all are left out without an error."""
        rows = cls.of(index, len(values), n_stored, values.device, name)
        rows._is_usable = torch.isfinite(rows.all(values)).all() & (rows.named == rows.all_positions).all()
        return rows

    def check(self, losses: Tensor, n_stored: int, late: LateErrors) -> None:
        """Check that all losses (n, k) are finite. Raises ValueError, on every rank, if the host finds one that is not.

        On a device `late` raises the error with a later batch.
        """
        losses = self.all(losses)
        if len(losses) == 0:
            raise ValueError("The training batch has no rows: leave it out.")
        if waits_for(losses.device):
            is_usable = late.usable((losses, self.named, n_stored))
            # What an earlier check of the same rows found remains.
            self._is_usable = is_usable if self._is_usable is True else is_usable & self._is_usable
        else:
            check_finite(losses, self.all_positions, "training")

    @property
    def is_usable(self) -> Tensor:
        """Whether () a device found the batch usable; True where the host looked itself."""
        return torch.as_tensor(self._is_usable, device=self.positions.device)

    def copy(self) -> RowBatch:
        """The same rows of one process, after their check, in tensors that no later replay of a graph overwrites."""
        return RowBatch.held(self.positions.clone(), self.is_usable.clone())

    def beside(self, positions: Tensor) -> RowBatch:
        """Other rows of the same batch, which every rank holds; `take_back` serves both."""
        rows = RowBatch.held(positions, self._is_usable)
        rows._written, rows._undone = self._written, self._undone
        return rows

    def take(self, at: Tensor) -> RowBatch:
        """The rows at the places `at` (k,) of rows that every rank holds."""
        return self.beside(self.positions[at])

    def only_if(self, condition: Tensor) -> RowBatch:
        """The same rows, which every rank holds; on a device they are usable only if the condition () holds too."""
        rows = self.beside(self.positions)
        rows._is_usable = self._is_usable if self._is_usable is True else self._is_usable & condition
        return rows

    def accept(self, new: Any, old: Tensor) -> Tensor:
        """The next value of a state: `new`, or `old` if the batch is unusable."""
        return new if self._is_usable is True else torch.where(torch.as_tensor(self._is_usable, device=old.device), new, old)

    def write(self, stored: Tensor, values: Tensor) -> None:
        """stored[positions] = values (n, ...) of all rows; a row that occurs more than once gets the mean of its values.

        Values that are not finite are left out, and all are if the batch is unusable; it never waits for a device.
        """
        values, at = self.all(_like(stored, values)), self.all_positions
        is_simple = self._is_usable is True and stored.device.type == "cpu" and stored.dtype in _NUMPY
        old = torch.from_numpy(stored.numpy()[at.numpy()]) if is_simple else stored[at]
        self._written.append((stored, at, old))
        if is_simple and not waits_for(stored.device) and _write_distinct(stored.numpy(), at.numpy(), values.numpy()):
            return
        is_kept = torch.isfinite(values) if self._is_usable is True else torch.isfinite(values) & self._is_usable
        _write_means(stored, at, torch.where(is_kept, values, old))

    def remember(self, stored: Tensor) -> None:
        """Record `stored` for `take_back`, before something other than `write` changes it."""
        self._written.append((stored, None, stored.clone()))

    def undo(self, restore: Callable[[], None]) -> None:
        """Call `restore` in `take_back`, for state that is no tensor."""
        self._undone.append(restore)

    def take_back(self) -> None:
        """Restore everything that was written to its earlier values."""
        for restore in self._undone:
            restore()
        for stored, at, old in reversed(self._written):
            stored.copy_(old) if at is None else stored.index_copy_(0, at, old)

    def add(self, total: Tensor, mass: Tensor, values: Tensor, *, scale: float | Tensor) -> None:
        """total[positions] += scale * values and mass[positions] += scale, for the finite values (n,) of all rows.

        scale: a number, or () on the device. Nothing is added if the batch is unusable; it never waits for a device.
        """
        values = self.all(_like(total, values))
        if self._is_usable is True and _is_finite_on_host(values):
            counted = torch.ones_like(values)
        else:
            is_counted = torch.isfinite(values) & torch.as_tensor(self._is_usable, device=total.device)
            values, counted = torch.where(is_counted, values, 0.0), is_counted.to(values.dtype)
        if isinstance(scale, Tensor):
            values, counted, scale = values * scale, counted * scale, 1.0
        for sums, parts in ((total, values), (mass, counted)):
            sums.index_add_(0, self.all_positions, parts, alpha=scale)


def held_by_all(
    samples: tuple[RowBatch, RowBatch], values: tuple[Tensor, Tensor], sizes: tuple[int, int], late: LateErrors
) -> tuple[RowBatch, RowBatch]:
    """Training and validation rows of all ranks, after every rank holds their values (n, d), (m, d) and these were checked.

    Raises ValueError if the host finds NaN or infinity; on a device `late` raises it with a later batch. sizes: rows stored.
    """
    rows, val_rows = samples
    if waits_for(late.rows.device):
        is_usable: Tensor | bool = late.usable(*zip(values, (rows.named, val_rows.named), sizes, strict=True))
    else:
        is_usable = True
        check_finite(values[0], rows.all_positions, "training")
        check_finite(values[1], val_rows.all_positions, "validation")
    held = RowBatch.held(rows.all_positions, is_usable)
    return held, held.beside(val_rows.all_positions)


def positions_of(index: Any, n_rows: int, name: str, device: torch.device, n_declared: int | None = None) -> Tensor:
    """Row numbers (n,) on `device`, one for each row; checked to be below n_declared if that is given and the host holds them."""
    if isinstance(index, range):
        index = np.arange(index.start, index.stop, index.step)
    if isinstance(index, Tensor) and waits_for(index.device):
        if index.shape != (n_rows,) or index.is_floating_point() or index.dtype == torch.bool:
            got = f"shape {tuple(index.shape)} and dtype {index.dtype}"
            raise ValueError(f"{name} must be ({n_rows},) integers, one for each row of its batch; got {got}.")
        return index.to(device, torch.int64)
    if n_declared is not None and device.type == "cpu" and _names_rows(index, n_rows, n_declared):
        return index
    checked = torch.as_tensor(check_index(index, n_rows, n_declared, name), dtype=torch.int64)
    # Without non_blocking the host would wait for the copy.
    return checked if device.type == "cpu" else checked.to(device, non_blocking=True)


def _names_rows(index: Any, n_rows: int, n_declared: int) -> bool:
    """Whether `index` is a tensor on the CPU with n_rows numbers in range, the usual case in a loop; False decides nothing."""
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.shape != (n_rows,) or n_rows == 0:
        return False
    # As unsigned integers negative numbers are the largest.
    return index.device.type == "cpu" and int(index.numpy().view(np.uint64).max()) < n_declared


def check_finite(rows: Tensor, positions: Tensor, name: str) -> None:
    """Raise ValueError that names the rows (n, d) at `positions` (n,) with NaN or infinity; on a host."""
    if not _is_finite_on_host(rows):
        is_finite = torch.isfinite(rows).all(dim=1)
        raise not_finite(name, positions[~is_finite].tolist(), len(rows))


def _is_finite_on_host(values: Tensor) -> bool:
    if waits_for(values.device):
        return False
    if values.device.type == "cpu" and values.dtype in _NUMPY:
        # For a vector of a batch numpy costs a fifth as much.
        return _is_finite(values.numpy())
    return bool(torch.isfinite(values).all())


def _is_finite(values: np.ndarray) -> bool:
    # A sum reveals NaN and infinity in one pass without a second array; it overflows only for the largest numbers.
    return bool(np.isfinite(np.add.reduce(values, axis=None))) or bool(np.isfinite(values).all())


def _like(stored: Tensor, values: Tensor) -> Tensor:
    """Values in the precision and on the device of `stored`, detached."""
    values = values.detach() if values.requires_grad else values
    is_like = values.dtype == stored.dtype and values.device == stored.device
    return values if is_like else values.to(stored.device, stored.dtype)


def _write_distinct(stored: np.ndarray, positions: np.ndarray, values: np.ndarray) -> bool:
    """Write values of distinct rows; False if rows repeat or a value is NaN, and then the caller writes again."""
    stored[positions] = values
    return np.array_equal(stored[positions], values) and _is_finite(values)


def _write_means(stored: Tensor, positions: Tensor, values: Tensor) -> None:
    if not stored.is_floating_point():
        stored.index_copy_(0, positions, values)
        return
    counts = stored.index_fill_(0, positions, 0.0).index_add_(0, positions, torch.ones_like(values))[positions]
    stored.index_fill_(0, positions, 0.0).index_add_(0, positions, values / counts)
