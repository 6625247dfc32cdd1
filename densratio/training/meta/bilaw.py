"""BiLAW: Meta-Weight-Net whose network sees a row's margins over all classes instead of its loss."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Adam

from ..._validation import check_count
from ..loop.labels import labels_to_look_up
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from ..rules import class_margins
from .gradient import MetaGradient
from .mw_net import MWNet
from .weight_network import FeatureNetwork

__all__ = ["BiLAW"]


def _margins(batch: TrainingPass) -> Tensor:
    return class_margins(batch.prediction, batch.y)


class BiLAW(MWNet):
    """w_i = V(m_i), where m_i = p_y - p (C,) holds the margins of the row's label over each class, 0 over itself.

    V = linear(C, hidden), relu, linear(hidden, 1), sigmoid. Unlike a loss, the margins show which classes a row is close to.
    The published method trains and validates on adversarial rows, which the loop has to make: if x and x_val were moved by an
    attack on the model, the margins and losses are those of the moved rows. With unmoved rows this is the method without the
    attack.

    n_classes : int >= 2, columns of the logits.
    Other parameters as in `MWNet`.

    Raises ValueError for predictions that are not logits (n, n_classes), or labels that are not integers (n,).
    Source: Holtz, Weng & Mishne (2022), Learning sample reweighting for accuracy and adversarial robustness.
    """

    network_input: ClassVar[staticmethod[[TrainingPass], Tensor]] = staticmethod(_margins)

    def __init__(
        self,
        n_train: int,
        n_classes: int,
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
        super().__init__(
            n_train, gradient=gradient, optimizer=optimizer, mode=mode, product=product, every=every, n_val=n_val,
            val_refresh=val_refresh, fixed_step_length=fixed_step_length, normalize=normalize, hidden=hidden,
            warmup_epochs=warmup_epochs, loss=loss,
        )  # fmt: skip
        check_count("n_classes", n_classes, 2, more=", the columns of the logits")
        self.check_targets = partial(labels_to_look_up, "BiLAW", n_classes=n_classes)
        self.network = FeatureNetwork(n_classes, hidden)
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)
