"""The last known value of every validation row, so that a step refreshes only a few of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..._arrays import waits_for
from ..._validation import check_count
from .row_batch import RowBatch
from .state import as_stored, before_loading

__all__ = ["ValidationBank", "check_refresh"]


class ValidationBank(nn.Module):
    """values (n_val, d): last losses or features of the validation rows; age (n_val,) in steps, -1: never seen; turn (): steps.

    Rows that were never seen are represented by rows that were, and so are, with forget > 0, rows not seen in the last 1 / forget
    steps: their share of the target goes to the rows with a current value. If no row is current, the most recent ones represent
    all.
    """

    age: Tensor
    turn: Tensor
    values: Tensor | None

    def __init__(self, n_val: int, forget: float = 0.0):
        super().__init__()
        self.forget = forget
        # Whether the host has seen that every row has a value; this remains true.
        self._is_full = False
        self.register_buffer("age", torch.full((n_val,), -1, dtype=torch.int64))
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("values", None)
        before_loading(self, _make_values)

    @property
    def n_rows(self) -> int:
        """Validation rows."""
        return len(self.age)

    def refresh(self, fresh: Tensor, rows: RowBatch) -> None:
        """Count a step and store the values fresh (m, d), m >= 0, of the rows. Raises ValueError for another number of columns."""
        if self.values is None:
            self.values = fresh.new_zeros((self.n_rows, fresh.shape[1]))
        if fresh.shape[1] != self.values.shape[1]:
            raise ValueError(f"The validation bank has {self.values.shape[1]} columns and this batch {fresh.shape[1]}.")
        rows.remember(self.age)
        rows.remember(self.turn)
        older = self.age + 1 if self._is_full else self.age + (self.age >= 0).to(self.age.dtype)
        self.age.copy_(rows.accept(older, self.age))
        self.turn.copy_(rows.accept(self.turn + 1, self.turn))
        rows.write(self.values, fresh)
        rows.write(self.age, torch.zeros_like(rows.positions))

    def look_again(self) -> None:
        """Check again whether every row has a value: ages have changed."""
        self._is_full = False

    def is_known(self) -> Tensor:
        """Which rows (n_val,) have a value; with forget > 0 one of the last 1 / forget steps, or else the most recent."""
        is_known = self.age >= 0
        if self.forget == 0.0:
            return is_known
        youngest = torch.where(is_known, self.age, self.age.amax()).amin()
        return is_known & (self.age <= (youngest * self.forget).clamp(min=1.0) / self.forget)

    def known(self) -> Tensor:
        """Values (n_val, d); a row without a (recent) value has that of another row."""
        assert self.values is not None
        if self._is_full and self.forget == 0.0:
            return self.values
        is_known = self.is_known()
        if not waits_for(self.age.device) and bool(is_known.all()):
            self._is_full = True
            return self.values
        # Known rows come first, and the others take their values in turn: no shape depends on their number.
        order = torch.argsort((~is_known).to(torch.int8), stable=True)
        place = torch.arange(self.n_rows, device=self.age.device)
        turn = order[torch.remainder(place, is_known.sum().clamp(min=1))]
        return self.values[torch.where(is_known, place, turn)]


def _make_values(bank: ValidationBank, stored: dict[str, Tensor]) -> None:
    # The width is known with the first batch, or here.
    bank.look_again()
    as_stored(bank, "values", stored, lambda: torch.zeros_like(stored["values"], device=bank.age.device))


def check_refresh(val_refresh: int | None, val_every: int, n_val: int) -> None:
    """Raise ValueError for parameters of a bank that are out of range, or do not go together."""
    check_count("val_every", val_every, more=", batches from look to look")
    if val_refresh is not None and check_count("val_refresh", val_refresh, more=", rows renewed in a step, or None") > n_val:
        raise ValueError(f"val_refresh={val_refresh} is more than the n_val={n_val} validation rows: give at most as many.")
    if val_every > 1 and val_refresh is None:
        raise ValueError(f"val_every={val_every} needs val_refresh, which keeps validation rows for the batches in between.")
