"""CMWNetSL: CMW-Net whose weights divide each row's loss between its given label and a pseudo-label of an averaged model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..loop.mixed_labels import MixedLabels
from ..loop.ranks import on_all_ranks
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import OUTSIDE, known_labels
from .cmw_net import CMWNet
from .gradient import MetaGradient, gradient_from
from .soft_labels import SoftLabels
from .weight_network import learned_weights

__all__ = ["CMWNetSL"]


class CMWNetSL(CMWNet):
    """loss_i = v_i CE(y_i) + (1 - v_i) CE(z_i), v_i = V_k(l_i) as in `CMWNet` and z_i a pseudo-label; mixup mixes the rows.

    Parameters
    ----------
    soft_labels : SoftLabels or None
        Moving average, ensemble and mixup of the pseudo-labels; None: as published. On rows of measurements mixup may cost
        accuracy, and an input of several parts can't be mixed: SoftLabels(mixup=None).
    gradient : MetaGradient or None
        The meta-gradient, "exact" or "first_order"; None: MetaGradient(every=10), whose optimizer may be assigned later. The
        algorithm in the paper has every=1.
    optimizer, mode, product, every, fixed_step_length : parameters of `MetaGradient`, in place of `gradient`.
    warmup_epochs : float
        Initial passes over the data with all weights 1, on the given labels alone, while the average already follows the
        classifier. With 0, as published, the first pseudo-labels are meaningless, and v_i may go to 1 for all rows and stay there.
    y_train, K, hidden, learning_rate, weight_decay : as in `CMWNet`. The loss is the cross entropy of class labels.

    weights_ holds v_i. `transfer` keeps the decay, ensemble and mixup of the soft labels; their average starts anew.
    Source: Shu et al. (2023), CMW-Net: learning a class-aware sample weighting mapping for robust deep learning.
    """

    no_base_weights: str = "CMWNetSL mixes rows, which have no base weights: leave them out, or use CMWNet."

    def __init__(
        self,
        n_train: int,
        y_train: Any,
        *,
        K: int = 3,
        soft_labels: SoftLabels | None = None,
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        fixed_step_length: bool | None = None,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 1.0,
    ):
        gradient = gradient_from(gradient, optimizer, mode, product, every, None, None, fixed_step_length, usual_every=10)
        if soft_labels is not None and not isinstance(soft_labels, SoftLabels):
            raise ValueError(f"soft_labels must be a SoftLabels(...) or None; got {soft_labels!r}.")
        if gradient.mode == "last_layer" or gradient.product == "layers":
            raise ValueError(
                'Soft labels train each row on four losses: use mode="exact" or mode="first_order", and leave out product="layers".'
            )
        super().__init__(
            n_train, y_train, K=K, gradient=gradient, normalize=False, hidden=hidden, learning_rate=learning_rate,
            weight_decay=weight_decay, warmup_epochs=warmup_epochs,
        )  # fmt: skip
        self.soft_labels = SoftLabels() if soft_labels is None else soft_labels

    def transfer(self, n_train: int, y_train: Any, *, warmup_epochs: float = 1.0) -> CMWNetSL:
        own = self.soft_labels
        soft_labels = SoftLabels(own.average.decay, own.ensemble, own.mixup, own.seed)
        K, hidden = self.network.K, self.network.linear.out_features
        moved = CMWNetSL(n_train, y_train, K=K, soft_labels=soft_labels, hidden=hidden, warmup_epochs=warmup_epochs)
        return self._handed_to(moved)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        """Weights (4n,) of the four losses of each row."""
        mixed: MixedLabels = batch.y
        self.soft_labels.keep(mixed, rows)
        groups = self.row_groups[rows.positions]

        def weights_now() -> Tensor:
            first, second = mixed.given_losses(batch).chunk(2)
            return mixed.shared(self.network(first, groups), self.network(second, groups[mixed.order]))

        return learned_weights(self, weights_now, lambda weights: self.meta.of(batch, weights, val, self.losses), rows)

    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        with self.soft_labels.unchanged_on_error():
            return super().weighted_loss(model, train, val)

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        self.soft_labels.average.follow(model)
        if self.is_warming_up:
            return super()._passed(model, x, y, index)
        rows = self._rows(index, len(y))
        mixed = self.soft_labels.mix(model, x, y, rows, self.n_train)
        # Check the given rows, before a bad one is mixed with others.
        is_outside = on_all_ranks(lambda: known_labels(y, mixed.z.shape[1])[1])
        found = mixed.z if is_outside is None else mixed.z.masked_fill(is_outside[:, None], OUTSIDE)
        rows.check(found, self.n_train, self.late_errors)
        batch = self.meta.rows(model, mixed.x, mixed, MixedLabels.losses)
        rows.check(batch.losses.detach().reshape(4, -1).T, self.n_train, self.late_errors)
        return replace(batch, weight_scale=mixed.weight_scale), rows
