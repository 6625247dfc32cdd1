"""MWNet: a small network of a row's loss, learned by the meta-gradient, gives the row its weight."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ..loop.batch_reweighter import BatchReweighter
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from .gradient import MetaGradient, gradient_from
from .weight_network import WeightNetwork, learned_weights

__all__ = ["MWNet"]


def _losses(batch: TrainingPass) -> Tensor:
    return batch.losses.detach()


class MWNet(BatchReweighter):
    """w_i = V(l_i), V = linear(1, 100), relu, linear(100, 1), sigmoid: Meta-Weight-Net.

    The classifier trains on the mean of w l, w divided by its mean in the batch. normalize=False leaves w in (0, 1) as V gives it,
    the printed formula; early in training, when every row helps, all weights then rise together until the sigmoid saturates.

    Parameters
    ----------
    n_train : int
        Rows of the training set, over which the index ranges.
    gradient : MetaGradient or None
        The meta-gradient, such as MetaGradient(mode="exact", every=5). None: one made from the next parameters.
    optimizer, mode, product, every, n_val, val_refresh, fixed_step_length : parameters of `MetaGradient`, in place of `gradient`.
    normalize : bool
        Whether the weights are divided by their mean in the batch.
    hidden, learning_rate, weight_decay : of V and its Adam.
    warmup_epochs : float
        Initial passes over the data with all weights 1.
    loss : per-row loss of training and validation rows.

    Source: Shu et al. (2019), Meta-Weight-Net: learning an explicit mapping for sample weighting.
    """

    uses_validation: ClassVar[bool] = True
    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "network_optimizer")

    network: nn.Module
    network_input: ClassVar[staticmethod[[TrainingPass], Tensor]] = staticmethod(_losses)
    """The network's input from a pass: (n,), or (n, k)."""

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
        fixed_step_length: bool | None = None,
        normalize: bool = True,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        engine = gradient_from(gradient, optimizer, mode, product, every, n_val, val_refresh, fixed_step_length)
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs, gradient=engine)
        self.network = WeightNetwork(1, hidden)
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)
        self.normalize = normalize

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return learned_weights(
            self, lambda: self.network_weights(batch, rows), lambda weights: self.meta.of(batch, weights, val), rows
        )

    def network_weights(self, batch: TrainingPass, rows: RowBatch) -> Tensor:
        """Present weights (n,) of the network, with the graph to its parameters."""
        weights = self.network(self.network_input(batch))
        return rows.mean_one(weights) if self.normalize else weights
