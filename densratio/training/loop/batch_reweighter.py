"""BatchReweighter: what methods share that give the rows of a batch their weights from one pass of it."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._validation import check_index
from .late_errors import waits_for
from .losses import Loss, cross_entropy
from .ranks import n_ranks, of_all_ranks
from .reweighter import Reweighter, mean_of_all_ranks
from .row_batch import check_finite, positions_of, store
from .row_losses import RowLosses
from .training_pass import BatchPass
from .validation_pass import device_of_model, warn_unless_training

__all__ = ["BatchReweighter"]

_log = logging.getLogger("densratio")


class Places(NamedTuple):
    """Row numbers of a batch as they were told: own (n,) of this rank, of_all (N,) of all; on a device some may be out of range."""

    own: Tensor
    of_all: Tensor


class BatchReweighter(Reweighter):
    """A method by one function: `batch_weights(rows, positions, val)` -> weights (n,) of a batch from its pass `rows`.

    warmup_epochs: first passes over the data with all weights 1, counted in rows seen / n_train.
    vanished_: batches whose weights were all 0 or not finite; they trained unweighted, and the logger "densratio" told so.
    row_losses: mean loss of each row, which `suspicious_rows` ranks by.
    is_usable (): whether the last batch could be used, True where the host looked: on a device that it does not wait for, a batch
    with losses that are no numbers, or an index out of range, stores nothing for its rows, and a later one raises its error.
    A method that looks at val says with `needs_validation` when.
    """

    vanished: Tensor

    def __init__(self, n_train: int, loss: Loss = cross_entropy, *, warmup_epochs: float = 0.0):
        super().__init__(n_train, loss)
        if not warmup_epochs >= 0:
            raise ValueError(f"warmup_epochs must be >= 0; got {warmup_epochs!r}.")
        self.warmup_epochs = warmup_epochs
        self.rows_seen = 0
        self.steps_seen = 0
        self.is_usable: Tensor | bool = True
        self.row_losses = RowLosses(n_train)
        self.register_buffer("vanished", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        """Weights (n,) of the rows `positions` (n,); a graph to the parameters of the model is followed by backward."""

    @property
    def is_warming_up(self) -> bool:
        """Whether the weights are still held at 1."""
        return self.rows_seen < self.warmup_epochs * len(self.weights_)

    @property
    def epoch(self) -> float:
        """Passes over the training rows so far."""
        return self.rows_seen / len(self.weights_)

    @property
    def vanished_(self) -> int:
        """Batches that trained unweighted because their weights vanished; waits for the device."""
        return int(self.vanished)

    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        x, y, index = self._given(model, train, val)
        self.begin(model)
        rows = self.rows(model, x, y)
        losses = rows.losses
        told = self.told(index, len(losses))
        self.is_usable = self.usable(losses.detach()[:, None], told)
        positions, is_held = self.within(told.own), self.is_warming_up
        weights = torch.ones_like(losses.detach()) if is_held else self._or_even(self.batch_weights(rows, positions, val))
        self._record(losses.detach(), weights.detach(), told)
        return mean_of_all_ranks(weights.to(losses.device, torch.promote_types(losses.dtype, weights.dtype)) * losses)

    @property
    def needs_validation(self) -> bool:
        return False

    def begin(self, model: nn.Module) -> None:
        """Look, before anything changes, at what can be wrong: a model elsewhere, an earlier batch that a device could not use."""
        self.watch.raise_if_seen()
        device = device_of_model(model)
        if device.type != self.weights_.device.type:
            raise ValueError(f"The model is on {device} and the reweighter on {self.weights_.device}: call reweighter.to(device).")
        if self.steps_seen == 0:
            warn_unless_training(model)

    def rows(self, model: nn.Module, x: Any, y: Any) -> BatchPass:
        """The pass of a training batch."""
        return BatchPass.of(model, x, y, self.losses)

    def told(self, index: Any, n_rows: int) -> Places:
        """Row numbers as they are told. Raises ValueError, on every rank, where the host sees one out of range."""
        n_train, device = len(self.weights_), self.weights_.device
        positions = positions_of(index, n_rows, "index", device, n_train if n_ranks() == 1 else None)
        of_all = of_all_ranks(positions)
        if n_ranks() > 1 and not waits_for(device):
            check_index(of_all, len(of_all), n_train, "index")
        return Places(positions, of_all)

    def usable(self, losses: Tensor, told: Places) -> Tensor | bool:
        """Whether the batch of all ranks can be used: losses (n, k) finite, and row numbers (n,) in range.

        Raises ValueError, on every rank, where the host sees losses that are not; on a device the watch remembers them.
        """
        of_all, none = of_all_ranks(losses), told.of_all[:0]
        if waits_for(losses.device):
            return self.watch.usable(of_all, of_all[:0], told.of_all, none, (len(self.weights_), 1))
        check_finite(of_all, told.of_all, "training")
        return True

    def get_extra_state(self) -> dict[str, Any]:
        """Counts, for state_dict."""
        return {"rows_seen": self.rows_seen, "steps_seen": self.steps_seen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up the counts of a state_dict."""
        self.rows_seen, self.steps_seen = state["rows_seen"], state["steps_seen"]

    def _or_even(self, weights: Tensor) -> Tensor:
        """The weights, or ones where all of them vanished."""
        of_all = of_all_ranks(weights.detach())
        is_usable = (of_all > 0).any() & torch.isfinite(of_all).all()
        self.vanished += (~is_usable).to(self.vanished.device)
        if not waits_for(weights.device) and not bool(is_usable):
            name, batch, so_far = type(self).__name__, self.steps_seen, int(self.vanished)
            _log.warning("%s: the weights of batch %d vanished, and it trains unweighted (%d so far).", name, batch, so_far)
        return torch.where(is_usable, weights, 1.0)

    def _record(self, losses: Tensor, weights: Tensor, told: Places) -> None:
        positions = self.within(told.of_all)
        losses, weights = (of_all_ranks(part.to(self.weights_.device)) for part in (losses, weights))
        store(self.weights_, positions, weights.to(self.weights_.dtype), self.is_usable)
        self.row_losses.record(losses, positions, 1.0 + self.epoch, torch.isfinite(losses) & self.is_usable)
        self.rows_seen += len(positions)
        self.steps_seen += 1
        self._monitored(positions)
