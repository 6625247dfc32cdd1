"""L2R: the weight of a row is how much its gradient agrees with the validation gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..loop.losses import Loss, cross_entropy
from ..loop.ranks import mean_one
from ..loop.training_pass import BatchPass
from .base import MetaReweighter

__all__ = ["L2R"]


class L2R(MetaReweighter):
    """w_i proportional to max(<g_val, g_i>, 0), of mean 1 in the batch: learning to reweight examples.

    g_val at the parameters of the model is what the published virtual step with all weights 0 gives for plain SGD
    (mode="first_order"); mode="exact" follows the optimiser's own step with a gradient of 0, its momentum for one.
    In batches that are not due (`every` > 1) rows keep their last weight, scaled to mean 1.
    A batch none of whose rows agrees trains unweighted.
    Parameters as in `MetaReweighter`. Source: Ren et al. (2018), Learning to reweight examples for robust deep learning.
    """

    def __init__(
        self,
        n_train: int,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str = "first_order",
        product: str = "auto",
        every: int = 1,
        n_val: int | None = None,
        val_refresh: int | None = None,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(
            n_train, optimizer=optimizer, mode=mode, product=product, every=every, n_val=n_val, val_refresh=val_refresh,
            warmup_epochs=warmup_epochs, loss=loss,
        )  # fmt: skip

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        if self.is_due:
            weights = (-self.meta.of(rows, torch.zeros_like(rows.losses), val)).clamp(min=0.0)
        else:
            weights = self.weights_[positions]
        # Where all are 0 the quotient is no number, and the batch trains unweighted.
        return mean_one(weights)
