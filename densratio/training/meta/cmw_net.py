"""CMWNet: Meta-Weight-Net with a head for each group of classes of like size; it can be taken to another data set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..._arrays import to_host
from ..loop.losses import Loss, cross_entropy
from ..loop.ranks import mean_one
from ..loop.reweighter import mean_of_all_ranks
from ..loop.training_pass import BatchPass
from .base import NetworkReweighter
from .soft_labels import MixedLabels, SoftLabels
from .weight_network import WeightNetwork, groups_of_classes

__all__ = ["CMWNet"]


class CMWNet(NetworkReweighter):
    """w_i = V_k(l_i), k the group of row i's class: class-aware Meta-Weight-Net. K = 1 is `MWNet`.

    Parameters
    ----------
    y_train : (n_train,) int
        Classes of the training rows, 0..C-1. k-means groups the classes by their sizes, the smallest first.
    K : int
        Groups, each with its own head on a shared layer.
    soft_labels : bool or SoftLabels
        CMW-Net-SL: each row trains on v y + (1 - v) z with a pseudo-label z of an averaged model, and mixup. The meta-gradient is
        then taken in each tenth batch unless `every` says otherwise.
    normalize : bool
        Divide the weights by their mean in the batch; not with soft labels, whose weights are shares.
    hidden, learning_rate, weight_decay : of the network and of Adam on it. Other parameters as in `MetaReweighter`.

    groups_ : (C,) the group of each class. is_frozen : whether the network no longer learns, after `transfer`.
    Source: Shu et al. (2023), CMW-Net: learning a class-aware sample weighting mapping for robust deep learning.
    """

    groups_: Tensor
    row_groups: Tensor

    def __init__(
        self,
        n_train: int,
        y_train: Any,
        *,
        K: int = 3,
        soft_labels: bool | SoftLabels = False,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str = "exact",
        product: str = "auto",
        every: int | None = None,
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
        usual = 10 if soft_labels else 1
        super().__init__(
            n_train, optimizer=optimizer, mode=mode, product=product, every=usual if every is None else every, n_val=n_val,
            val_refresh=val_refresh, fixed_step_length=fixed_step_length, warmup_epochs=warmup_epochs, loss=loss,
        )  # fmt: skip
        self.learn_with(WeightNetwork(K, hidden), learning_rate, weight_decay)
        if len(y_train) != n_train:
            raise ValueError(f"y_train must hold the class of each of the {n_train} training rows; got {len(y_train)} labels.")
        if soft_labels and mode == "last_layer":
            raise ValueError('soft_labels train each row on four losses: use mode="exact" or mode="first_order".')
        if soft_labels and (loss is not cross_entropy or product == "layers"):
            raise ValueError('soft_labels train on four cross entropies a row: leave out loss= and product="layers".')
        self.register_buffer("groups_", groups_of_classes(y_train, K))
        self.register_buffer("row_groups", self.groups_[torch.as_tensor(to_host(y_train), dtype=torch.int64)], persistent=False)
        self.normalize = normalize
        self.soft_labels = SoftLabels() if soft_labels is True else (soft_labels or None)
        self.is_frozen = False

    def transfer(self, n_train: int, y_train: Any, *, warmup_epochs: float = 1.0) -> CMWNet:
        """The learned network on another data set, its classes grouped anew; it learns no more and needs no validation rows.

        warmup_epochs: first passes with all weights 1: before anything is learned all losses are large, and the few that are not
        would get nearly all the weight.
        Classes that all have one size are one group, which takes the head of the smallest classes.
        """
        K, hidden = self.weight_network.K, self.weight_network.linear.out_features
        moved = CMWNet(n_train, y_train, K=K, normalize=self.normalize, hidden=hidden, warmup_epochs=warmup_epochs, loss=self.loss)
        moved.network.load_state_dict(self.network.state_dict())
        moved.network.requires_grad_(False)
        moved.is_frozen = True
        return moved.to(self.weights_.device)

    @property
    def weight_network(self) -> WeightNetwork:
        """The network that gives the weights."""
        assert isinstance(self.network, WeightNetwork)
        return self.network

    def get_extra_state(self) -> dict[str, Any]:
        """Counts, the state of the network's optimiser, and whether the network still learns, for state_dict."""
        return {**super().get_extra_state(), "is_frozen": self.is_frozen}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what a state_dict holds of these."""
        super().set_extra_state(state)
        self.is_frozen = state["is_frozen"]
        self.network.requires_grad_(not self.is_frozen)

    @property
    def is_due(self) -> bool:
        return not self.is_frozen and super().is_due

    def network_weights(self, rows: BatchPass, positions: Tensor) -> Tensor:
        weights = self.network(rows.losses.detach(), self.row_groups[positions])
        return mean_one(weights) if self.normalize else weights

    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        if self.soft_labels is None:
            return super().weighted_loss(model, train, val)
        x, y, index = self._given(model, train, val)
        self.begin(model)
        told = self.told(index, len(y))
        positions = self.within(told.own)
        before = self.soft_labels.here()
        self.soft_labels.average.follow(model)
        try:
            if self.is_warming_up:
                return super().weighted_loss(model, train, val)
            mixed = self.soft_labels.mix(model, x, y, positions, len(self.weights_))
            rows = self.meta.rows(model, mixed.x, mixed, MixedLabels.losses)
            self.is_usable = self.usable(rows.losses.detach().reshape(4, -1).T, told)
        except ValueError:
            self.soft_labels.go_back(before)
            raise
        self.soft_labels.keep(mixed, positions, self.is_usable)
        shares = self._shares(rows, mixed, positions)
        if self.is_due:
            slope = self.meta.of_loss(rows, shares, lambda predict: self.losses(predict(val[0]), val[1]).mean())
            self.learn(shares, slope)
            with torch.no_grad():
                shares = self._shares(rows, mixed, positions)
        shares = shares.detach()
        own = len(y)
        self._record(mixed.given_losses(rows)[:own], shares[:own] / (4.0 * mixed.share), told)
        return mean_of_all_ranks(shares.to(rows.losses.dtype) * rows.losses)

    def _shares(self, rows: BatchPass, mixed: MixedLabels, positions: Tensor) -> Tensor:
        """Weights (4n,) of the four losses of each row, scaled so that their mean is the mean over rows of the published sum."""
        given, groups = mixed.given_losses(rows), self.row_groups[positions]
        first, second = given.chunk(2)
        v = self.network(first, groups), self.network(second, groups[mixed.order])
        share = mixed.share, 1.0 - mixed.share
        return 4.0 * torch.cat([part for a, b in zip(share, v, strict=True) for part in (a * b, a * (1.0 - b))])
