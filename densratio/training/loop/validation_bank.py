"""The last known value of every validation row, so that a step need only refresh a few of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .late_errors import waits_for

__all__ = ["ValidationBank"]


class ValidationBank(nn.Module):
    """values (n_val, d): losses or features of the validation rows when they were last seen; age (n_val,) in steps, -1 = never;
    turn (): steps so far.

    Rows that were never seen, and with forget > 0 those not seen in the last 1 / forget steps, are stood in for by rows that
    were: their share of the target goes to what is known of it now. Where none was, those seen last stand in.
    """

    age: Tensor
    turn: Tensor
    values: Tensor | None

    def __init__(self, n_val: int, forget: float = 0.0):
        super().__init__()
        self.forget = forget
        # Whether the host has seen that every row has a value, which then stays so.
        self._is_full = False
        self.register_buffer("age", torch.full((n_val,), -1, dtype=torch.int64))
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))
        self.register_buffer("values", None)

    @property
    def n_rows(self) -> int:
        """Validation rows."""
        return len(self.age)

    def refresh(self, fresh: Tensor, positions: Tensor, is_usable: Tensor | bool = True) -> None:
        """A step on: take in the rows fresh (m, d), m >= 0, at positions (m,), unless the batch is not usable.

        Of equal positions one is taken.
        """
        if self.values is None:
            self.values = fresh.new_zeros((self.n_rows, fresh.shape[1]))
        if fresh.shape[1] != self.values.shape[1]:
            raise ValueError(f"The validation bank has {self.values.shape[1]} columns and this batch {fresh.shape[1]}.")
        fresh = fresh.to(self.values.dtype)
        if is_usable is True:
            self.age += 1 if self._is_full else self.age >= 0
            self._write(fresh, torch.zeros_like(positions), positions)
            self.turn += 1
            return
        keep = torch.as_tensor(is_usable, device=fresh.device)
        self.age += (self.age >= 0) & keep
        self._write(torch.where(keep, fresh, self.values[positions]), torch.where(keep, 0, self.age[positions]), positions)
        self.turn += keep

    def _write(self, values: Tensor, age: Tensor, positions: Tensor) -> None:
        assert self.values is not None
        self.values.index_copy_(0, positions, values)
        self.age.index_copy_(0, positions, age)

    def is_known(self) -> Tensor:
        """Which rows (n_val,) have a value, with forget > 0 one of the last 1 / forget steps, or else of the last one there is."""
        is_known = self.age >= 0
        if self.forget == 0.0:
            return is_known
        youngest = torch.where(is_known, self.age, self.age.amax()).amin()
        return is_known & (self.age <= (youngest * self.forget).clamp(min=1.0) / self.forget)

    def known(self) -> Tensor:
        """Values (n_val, d), with stand-ins where nothing or nothing recent is known."""
        assert self.values is not None
        if self._is_full and self.forget == 0.0:
            return self.values
        is_known = self.is_known()
        if not waits_for(self.age.device) and bool(is_known.all()):
            self._is_full = True
            return self.values
        # Ranks of the known rows come first, and the others take these in turn: no shape depends on how many there are.
        order = torch.argsort((~is_known).to(torch.int8), stable=True)
        place = torch.arange(self.n_rows, device=self.age.device)
        turn = order[torch.remainder(place, is_known.sum().clamp(min=1))]
        return self.values[torch.where(is_known, place, turn)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The width is known with the first batch, or here.
        self._is_full = False
        stored = state_dict.get(prefix + "values")
        if stored is not None and self.values is None:
            self.values = torch.zeros_like(stored, device=self.age.device)
        super()._load_from_state_dict(state_dict, prefix, *args)
