"""MWNet: a small network, learned by the meta-gradient, gives each row its weight from its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ..loop.losses import Loss, cross_entropy
from ..loop.ranks import mean_one
from ..loop.training_pass import BatchPass
from .base import NetworkReweighter
from .weight_network import WeightNetwork

__all__ = ["MWNet"]


class MWNet(NetworkReweighter):
    """w_i = V(l_i), V = linear(1, 100), relu, linear(100, 1), sigmoid: Meta-Weight-Net.

    The classifier trains on the mean of w l, w divided by its mean in the batch. normalize=False takes w in (0, 1) as V gives it,
    the formula as printed: early on, when every row helps, all weights then rise together until the sigmoid is flat.
    hidden, learning_rate, weight_decay : of V and of Adam on it. Other parameters as in `MetaReweighter`.
    Source: Shu et al. (2019), Meta-Weight-Net: learning an explicit mapping for sample weighting.
    """

    def __init__(
        self,
        n_train: int,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str = "exact",
        product: str = "auto",
        every: int = 1,
        n_val: int | None = None,
        val_refresh: int | None = None,
        fixed_step_length: bool = False,
        normalize: bool = True,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(
            n_train, optimizer=optimizer, mode=mode, product=product, every=every, n_val=n_val, val_refresh=val_refresh,
            fixed_step_length=fixed_step_length, warmup_epochs=warmup_epochs, loss=loss,
        )  # fmt: skip
        self.learn_with(WeightNetwork(1, hidden), learning_rate, weight_decay)
        self.normalize = normalize

    def network_weights(self, rows: BatchPass, positions: Tensor) -> Tensor:
        weights = self.network(rows.losses.detach())
        return mean_one(weights) if self.normalize else weights
