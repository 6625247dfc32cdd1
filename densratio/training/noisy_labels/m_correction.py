"""M-correction: each row's loss is shared between its label and the model's own class, by a beta mixture of all losses."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..._validation import check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from .beta_mixture import BetaMixture
from .probabilities import class_probabilities

__all__ = ["MCorrection"]


class MCorrection(BatchReweighter):
    """loss_i = v_i l(y_i) + (1 - v_i) l(z_i), z_i the class the model predicts, v_i = P(right | l_i) by a mixture of all losses.

    The mixture of two beta distributions is fitted at the head of each pass over the data to the losses that the rows had when
    they were last in a batch; v_i is that of the row's present loss. With prior > 0 a term
    prior sum_k (1/K) log((1/K) / mean_i p_ik) keeps the predictions of a batch from going to few classes.

    n_train : int, rows of the training set.
    hard : z_i is the likeliest class; False: all classes by their softmax, without a gradient.
    prior >= 0 : weight of that term; 1 as published. It assumes classes of equal sizes: 0 for others.
    warmup_epochs : first passes on the given labels alone, after which losses must still tell right from wrong labels. As
        published 105 of 300, at a large step length; a small network learns wrong labels by heart within tens.
    loss : per-row loss of logits (n, K) and class labels (n,).

    weights_ holds v_i. last_losses (n_train,): those of each row's last batch. mixture: the `BetaMixture`.
    Raises ValueError with the first batch after the warm-up for other predictions or labels.
    Source: Arazo et al. (2019), Unsupervised label noise modeling and loss correction, without its mixup.
    """

    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "fitted_pass")

    last_losses: Tensor

    def __init__(
        self, n_train: int, *, hard: bool = True, prior: float = 1.0, warmup_epochs: float = 10.0, loss: Loss = cross_entropy
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_number("prior", prior, "[0, inf)")
        self.hard, self.prior = hard, prior
        self.fitted_pass = -1
        self.mixture = BetaMixture()
        self.register_buffer("last_losses", torch.zeros(n_train))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        p = class_probabilities(batch, "MCorrection")
        losses = batch.losses.detach()
        z = p.detach().argmax(dim=1) if self.hard else p.detach()
        own = self.losses(batch.prediction, z)
        if self.fitted_pass != int(self.epoch):
            self.mixture.fit(self.last_losses, self.row_losses.mass > 0)
            self.fitted_pass = int(self.epoch)
        right = self.mixture.lower(losses)
        batch.found["added"] = (1.0 - right) * own
        if self.prior > 0:
            shares = rows.mean_row(p).clamp(min=torch.finfo(p.dtype).tiny)
            batch.found["added"] = batch.found["added"] - self.prior * (shares.log().mean() + math.log(p.shape[1]))
        return right

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        batch, rows = super()._passed(model, x, y, index)
        rows.write(self.last_losses, batch.losses)
        return batch, rows
