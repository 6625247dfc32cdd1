"""BatchReweighter: the loop of the methods that weight the rows of a batch after one pass through the model."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..._arrays import waits_for
from ..losses import OUTSIDE, Loss, cross_entropy, known_labels, takes_classes
from .model import compile_anew, device_of_model, eager
from .ranks import errors_of_all_ranks, on_all_ranks
from .reweighter import Reweighter
from .row_batch import RowBatch, positions_of
from .training_pass import TrainingPass

__all__ = ["BatchReweighter"]

_log = logging.getLogger("densratio")


def _any(prediction: Tensor, label: Any) -> Any:
    """Every target that the loss takes is one that most methods can weigh."""
    return label


def _nothing(batch: TrainingPass, rows: RowBatch) -> None:
    """Most methods need nothing of a batch before its weights."""


class BatchReweighter(Reweighter):
    """A method that is one function, `batch_weights(batch, rows, val)`: the weights (n,) of a batch from its pass.

    gradient: the `MetaGradient` that the weights follow, stored as `meta`; None for rules.
    vanished_: number of batches whose weights were all 0 or not finite. They trained unweighted, and the logger "densratio" warned.
    On a device that the host does not wait for, a batch with a loss that is NaN or infinite, or with an index out of range, stores
    nothing, and a later batch raises its error.
    """

    uses_validation: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ()
    """What `batch_weights` needs from the training pass besides losses and predictions, as in `TrainingPass.of`."""
    learns: bool = True
    """Whether the method still takes meta-gradients."""

    _is_heard: bool = False
    """Whether a pass without a meta-gradient, which runs compiled, has listened to a model."""

    check_targets: Callable[[Tensor, Any], Any] = staticmethod(_any)
    """A check that raises ValueError for predictions and labels that the method can't weight, also in a warm-up.

    It returns the labels. Where a device holds them, those that a method can't look up come back as others.
    """

    observe: Callable[[TrainingPass, RowBatch], None] = staticmethod(_nothing)
    """What a method stores or computes for each batch, before the weights and also in a warm-up; an error reverts its writes."""

    vanished: Tensor
    meta: Any

    def __init__(self, n_train: int, loss: Loss = cross_entropy, *, warmup_epochs: float = 0.0, gradient: nn.Module | None = None):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        self.meta = gradient
        self.register_buffer("vanished", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        """Weights (n,) of a batch; backward follows their graph to the model's parameters, if they have one.

        batch: its pass through the model. rows: its rows among all training rows, for sums over them and for what is stored.
        A method may put a loss into `batch.found`: one (n,) or () named "added" is added to the weighted losses, and one (n,) named
        "weighted" takes the place of the rows' own losses; "plain_losses" (n,) are recorded in place of those of mixed rows.
        """

    @property
    def vanished_(self) -> int:
        """Batches that trained unweighted because their weights vanished; waits for the device."""
        return int(self.vanished)

    @property
    def every(self) -> int:
        """Batches from one meta-gradient to the next; 1 without one."""
        return 1 if self.meta is None else self.meta.every

    @every.setter
    def every(self, every: int) -> None:
        self.meta.every = every

    @property
    def is_due(self) -> bool:
        """Whether the method learns in this batch."""
        return self.learns and self.steps_seen % self.every == 0

    @property
    def needs_validation(self) -> bool:
        return self.uses_validation and self.is_due and not self.is_warming_up

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The classifier's optimizer, which the meta-gradient follows. Raises AttributeError where the method has none."""
        if self.meta is None:
            raise AttributeError(f"{type(self).__name__} follows no optimizer.")
        return self.meta.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer | None) -> None:
        self.meta.optimizer = optimizer

    @eager
    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        with errors_of_all_ranks():
            x, y, index = self._given(model, train, val)
            self._check_model(model)
            batch, rows = self._passed(model, x, y, index)
        if waits_for(batch.losses.device):
            # The batch stores nothing; weights from infinity would train the model on NaN.
            batch = replace(batch, losses=batch.losses.masked_fill(batch.losses == OUTSIDE, 0.0))
        weights = torch.ones_like(batch.losses.detach())
        base = None if self.base_weights is None else self._times_base(weights.new_ones(()), index)
        try:
            if self.needs_validation:
                self._check_validation_labels(batch.prediction, *val)
            self.observe(batch, rows)
            if not self.is_warming_up:
                weights = self.batch_weights(batch, rows, val)
                # Rows without a weight train on the added loss.
                weights = weights if "added" in batch.found else self._or_even(weights, rows)
        except Exception:
            rows.take_back()
            raise
        if base is not None:
            # A method may train on several copies of each row.
            base = base.repeat(len(weights) // len(base))
        counted = weights if base is None else weights * base
        self._store(batch, weights.detach(), rows)
        losses = batch.found.get("weighted", batch.losses)
        losses = counted.to(losses.device, torch.promote_types(losses.dtype, counted.dtype)) * losses
        if (added := batch.found.get("added")) is not None:
            losses = losses + (added if base is None else added * base)
        return rows.mean(losses)

    # ------------------------------------------------------------ the loop

    def _check_model(self, model: nn.Module) -> None:
        """Raise, before anything changes, for a model on another device, and the error of an earlier batch."""
        self.late_errors.raise_if_seen()
        device = device_of_model(model)
        if device.type != self.weights_.device.type:
            raise ValueError(f"The model is on {device} and the reweighter on {self.weights_.device}: call reweighter.to(device).")
        if self.steps_seen == 0 and self.meta is not None and self.is_due:
            self.meta.check(model)

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        """The pass of a training batch, and its rows. Raises ValueError where the host sees that the batch can't be used."""
        follows = self.meta is not None and (self.is_due or self.keeps)
        if self.keeps and not follows and not self._is_heard:
            compile_anew(model)
            self._is_heard = True
        batch = (self.meta.rows if follows else TrainingPass.of)(model, x, y, self.losses, keeps=self.keeps)
        labels = self.check_targets(batch.prediction, batch.y)
        if labels is not batch.y:
            batch = replace(batch, y=labels, losses=self._marked(batch.losses, batch.y, labels))
        return batch, self._checked(index, batch.losses.detach())

    @staticmethod
    def _marked(losses: Tensor, y: Tensor, labels: Tensor) -> Tensor:
        """Losses (n,), those of rows whose labels y (n,) came back as others marked by minus infinity."""
        return losses.masked_fill(labels != y, OUTSIDE) if waits_for(y.device) else losses

    def _check_validation_labels(self, prediction: Tensor, x: Any, y: Any, index: Any) -> None:
        """Raise ValueError, on every rank, for validation labels (m,) of no class; on a device note their rows for later."""
        if not (takes_classes(self.loss) and isinstance(y, Tensor) and y.ndim == 1 and not y.is_floating_point()):
            return
        is_outside = on_all_ranks(lambda: known_labels(y, prediction.shape[1])[1])
        if is_outside is not None:
            places = range(len(y)) if index is None else index
            self.late_errors.note_labels(is_outside, positions_of(places, len(y), "val_index", y.device))

    def _checked(self, index: Any, losses: Tensor) -> RowBatch:
        """The rows of a batch with these losses (n,), checked: by a graph, if the device has one for such a batch."""

        def check(losses: Tensor, index: Any) -> RowBatch:
            rows = self._rows(index, len(losses))
            rows.check(losses[:, None], self.n_train, self.late_errors)
            return rows

        if not self._may_capture or losses.device != self.weights_.device:
            return check(losses, index)
        positions = positions_of(index, len(losses), "index", losses.device)
        return self._captured("check", check, (losses, positions)).copy()

    def _rows(self, index: Any, n_rows: int) -> RowBatch:
        return RowBatch.of(index, n_rows, self.n_train, self.weights_.device)

    def _or_even(self, weights: Tensor, rows: RowBatch) -> Tensor:
        """The weights, or ones where all of them vanished."""
        total = rows.total(weights.detach().sum(dtype=torch.float32))
        is_sound = (total > 0.0) & (total < float("inf"))
        self.vanished += (~is_sound).to(self.vanished.device)
        if not waits_for(weights.device) and not bool(is_sound):
            name, number, so_far = type(self).__name__, self.steps_seen, int(self.vanished)
            _log.warning("%s: the weights of batch %d vanished, and it trains unweighted (%d so far).", name, number, so_far)
        return torch.where(is_sound, weights, 1.0)

    def _write(self, weights: Tensor, losses: Tensor, epoch: float | Tensor, rows: RowBatch) -> None:
        """Keep the weights and losses (n,) of the rows."""
        rows.write(self.weights_, weights)
        self.row_losses.record(losses, rows, epoch)

    def _store(self, batch: TrainingPass, weights: Tensor, rows: RowBatch) -> None:
        """Keep the weights and losses of the rows: the first n, where a pass has more losses than rows."""
        n = rows.n_rows
        losses = batch.found.get("plain_losses", batch.losses).detach()[:n]
        weights, epoch = weights[:n] * batch.weight_scale, 1.0 + self.epoch
        if self._may_capture and losses.device == self.weights_.device:

            def write(weights: Tensor, losses: Tensor, epoch: Tensor, positions: Tensor, is_usable: Tensor) -> None:
                self._write(weights, losses, epoch, RowBatch.held(positions, is_usable))

            now = torch.full((), epoch, device=losses.device)
            self._captured(self._recorded, write, (weights, losses, now, rows.positions, rows.is_usable))
        else:
            self._write(weights, losses, epoch, rows)
        self.rows_seen += len(rows.all_positions)
        self.steps_seen += 1
        if self.monitor is not None:
            self.monitor.step(self, rows.all_positions)
