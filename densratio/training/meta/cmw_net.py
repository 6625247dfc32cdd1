"""CMWNet: Meta-Weight-Net with a head for each group of classes of similar size; it can be transferred to another data set."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.optim import Adam

from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import training_labels
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from .gradient import MetaGradient, gradient_from
from .weight_network import WeightNetwork, groups_of_classes, learned_weights

__all__ = ["CMWNet"]

Kind = TypeVar("Kind", bound="CMWNet")


class CMWNet(BatchReweighter):
    """w_i = V_k(l_i), k the group of row i's class: class-aware Meta-Weight-Net. K = 1 is `MWNet`.

    Parameters
    ----------
    y_train : (n_train,) int
        Classes of the training rows, 0..C-1. k-means groups the classes by their sizes, the smallest first.
    K : int
        Number of groups; each has its own head on a shared layer.
    normalize : bool
        Whether the weights are divided by their mean in the batch.
    soft_labels : False
        Soft labels are the class `CMWNetSL`; True raises an error that says so.
    Other parameters as in `MWNet`.

    groups_ : (C,) the group of each class. is_frozen : whether the network no longer learns, after `transfer`.
    Source: Shu et al. (2023), CMW-Net: learning a class-aware sample weighting mapping for robust deep learning.
    """

    uses_validation: ClassVar[bool] = True
    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "network_optimizer", "is_frozen")

    network: WeightNetwork
    groups_: Tensor
    row_groups: Tensor

    def __init__(
        self,
        n_train: int,
        y_train: Any,
        *,
        K: int = 3,
        gradient: MetaGradient | None = None,
        soft_labels: Any = False,
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
        if soft_labels:
            raise ValueError(
                "Soft labels are a class of their own: CMWNetSL(n_train, y_train), with soft_labels=SoftLabels(...) where its "
                "moving average, ensemble or mixup are to differ, and gradient=MetaGradient(optimizer=..., every=...)."
            )
        labels = training_labels(y_train, n_train)
        engine = gradient_from(gradient, optimizer, mode, product, every, n_val, val_refresh, fixed_step_length)
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs, gradient=engine)
        self.network = WeightNetwork(K, hidden)
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)
        self.register_buffer("groups_", groups_of_classes(labels, K))
        self.register_buffer("row_groups", self.groups_[torch.as_tensor(labels, dtype=torch.int64)], persistent=False)
        self.normalize = normalize

    def transfer(self, n_train: int, y_train: Any, *, warmup_epochs: float = 1.0) -> CMWNet:
        """The learned network on another data set, whose classes are grouped anew. It is frozen and needs no validation rows.

        warmup_epochs: initial passes with all weights 1. Before anything is learned all losses are large, and the few small ones
        would get nearly all the weight.
        Classes that all have the same size form one group, with the head of the smallest classes.
        """
        K, hidden = self.network.K, self.network.linear.out_features
        moved = CMWNet(n_train, y_train, K=K, normalize=self.normalize, hidden=hidden, warmup_epochs=warmup_epochs, loss=self.loss)
        return self._handed_to(moved)

    def _handed_to(self, moved: Kind) -> Kind:
        """Give the other method this network, frozen."""
        moved.network.load_state_dict(self.network.state_dict())
        moved.is_frozen = True
        return moved.to(self.weights_.device)

    @property
    def is_frozen(self) -> bool:
        """Whether the network no longer learns."""
        return not self.learns

    @is_frozen.setter
    def is_frozen(self, is_frozen: bool) -> None:
        self.learns = not is_frozen
        self.network.requires_grad_(not is_frozen)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        def weights_now() -> Tensor:
            weights = self.network(batch.losses.detach(), self.row_groups[rows.positions])
            return rows.mean_one(weights) if self.normalize else weights

        return learned_weights(self, weights_now, lambda weights: self.meta.of(batch, weights, val), rows)
