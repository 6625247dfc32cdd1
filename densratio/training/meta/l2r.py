"""L2R: the weight of a row is the agreement of its gradient with the validation gradient."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..loop.batch_reweighter import BatchReweighter
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from .gradient import MetaGradient, gradient_from

__all__ = ["L2R"]


class L2R(BatchReweighter):
    """w_i proportional to max(<g_val, g_i>, 0), of mean 1 in the batch: learning to reweight examples.

    g_val is taken at the present parameters (mode="first_order", the default), where the published virtual step with all weights 0
    leaves them under plain SGD; mode="exact" follows the optimizer's step with a gradient of 0, which momentum still moves.
    In batches that are not due (`every` > 1) rows keep their last weight, scaled to mean 1.
    If no row of a batch agrees, the batch trains unweighted.
    Parameters as in `MWNet`. Source: Ren et al. (2018), Learning to reweight examples for robust deep learning.
    """

    uses_validation: ClassVar[bool] = True
    normalize = True

    def __init__(
        self,
        n_train: int,
        *,
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        n_val: int | None = None,
        val_refresh: int | None = None,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        engine = gradient_from(gradient, optimizer, mode, product, every, n_val, val_refresh, usual_mode="first_order")
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs, gradient=engine)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        if self.is_due:
            weights = (-self.meta.of(batch, torch.zeros_like(batch.losses), val)).clamp(min=0.0)
        else:
            weights = self.weights_[rows.positions]
        # If all are 0 the quotient is NaN, and the batch trains unweighted.
        return rows.mean_one(weights)
