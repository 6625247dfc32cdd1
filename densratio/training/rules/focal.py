"""Focal: rows that the model already gets right count less."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..batch_pass import BatchPass
from ..losses import Loss, cross_entropy
from ..per_batch import BatchReweighter

__all__ = ["Focal"]


class Focal(BatchReweighter):
    """w_i = (1 - p_i)^gamma, p_i = exp(-l_i) the probability of the row's label under its cross entropy: the focal loss.

    The gradient goes through the weights too, as published. gamma >= 0; 0 is plain training. The weights are in [0, 1], of no
    fixed mean. Source: Lin et al. (2017), Focal loss for dense object detection.
    """

    def __init__(self, n_train: int, *, gamma: float = 2.0, warmup_epochs: float = 0.0, loss: Loss = cross_entropy):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        if not gamma >= 0.0:
            raise ValueError(f"gamma must be >= 0; got {gamma!r}.")
        self.gamma = gamma

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        # The root of 0 has no slope, which a gamma below 1 would meet.
        missed = -torch.expm1(-rows.losses)
        return missed.clamp(min=torch.finfo(missed.dtype).tiny) ** self.gamma
