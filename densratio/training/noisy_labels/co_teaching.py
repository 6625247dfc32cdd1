"""Co-teaching: two networks, each of which trains on the rows with small losses under the other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..._validation import check_number
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from ..rules import top_share
from .peer import WithPeer

__all__ = ["CoTeaching"]


class CoTeaching(WithPeer):
    """w_i = 1 / s for the share s of the batch with the least losses under a peer, which trains on the model's easiest rows.

    The reweighter holds the peer, which takes its own step within `weighted_loss`, so the loop needs no change. Each network trains
    on s = 1 - forget_rate min(1, epoch^exponent / n_epochs) of the rows, chosen by the other.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    model : nn.Module
        The network that trains, alone or inside the module that `weighted_loss` gets; there the peer runs in its place. The peer is
        a copy whose parameters are drawn anew by each layer's own `reset_parameters`, from torch's global generator; with several
        ranks it is that of rank 0.
    optimizer : torch.optim.Optimizer
        The optimizer of the model. The peer has a copy, which follows its learning rates and other settings, schedules included.
    peer : nn.Module or None
        A network of the same form with the peer's initial parameters, for models that cannot start anew layer by layer or are
        pretrained; for example the same model with a new last layer.
    forget_rate : float in [0, 1)
        Share of the rows that is left out in the end; as published the share of wrong labels.
    n_epochs : float > 0
        Epochs until then; 10 as published.
    exponent : float > 0
        c of the schedule; 1 as published.
    loss : per-row loss.

    The weights have mean 1 in each batch. `peer` and its optimizer are in state_dict. The peer passes in full precision, because no
    GradScaler reaches its step; with gradient accumulation it steps in every batch. A peer gradient that is not finite counts as 0.
    Two passes and two steps cost slightly more than two plain trainings.
    Raises ValueError for a layer that cannot start anew, and for an optimizer of other parameters.
    Source: Han et al. (2018), Co-teaching: robust training of deep neural networks with extremely noisy labels.
    """

    def __init__(
        self,
        n_train: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        peer: nn.Module | None = None,
        forget_rate: float = 0.2,
        n_epochs: float = 10.0,
        exponent: float = 1.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, model, optimizer, peer, loss)
        check_number("forget_rate", forget_rate, "[0, 1)")
        check_number("n_epochs", n_epochs, "(0, inf)")
        check_number("exponent", exponent, "(0, inf)")
        self.forget_rate, self.n_epochs, self.exponent = forget_rate, n_epochs, exponent

    @property
    def share(self) -> float:
        """Share of the next batch that each network trains on."""
        left_out = 0.0 if self.is_warming_up else min(1.0, self.epoch**self.exponent / self.n_epochs)
        return 1.0 - self.forget_rate * left_out

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return _easiest(batch.found["peer_losses"], self.share, rows)

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """The peer's losses and step, also in a warm-up, so that it is as experienced as the model when it begins to choose."""
        self.remember_peer(rows)
        batch.found["peer_losses"] = self._learn(batch, rows)

    def _learn(self, batch: TrainingPass, rows: RowBatch) -> Tensor:
        """Losses (n,) of the batch under the peer, detached, after the peer's step on the model's easiest rows."""
        with self.as_peer():
            losses = self.losses(self.peer_prediction(batch.model, batch.x), batch.y)
            weights = _easiest(batch.losses.detach(), self.share, rows).to(losses.dtype)
            if self.base_weights is not None:
                weights = weights * self.base_weights[rows.positions].to(losses.dtype)
            self.step_peer(rows.mean(weights * losses), rows)
        return losses.detach()


def _easiest(losses: Tensor, share: float, rows: RowBatch) -> Tensor:
    """Weights (n,) of the rows with the least losses (n,); losses that are NaN come last."""
    return top_share(-losses.nan_to_num(float("inf"), posinf=float("inf")), share, rows)
