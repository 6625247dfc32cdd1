"""GDW: each class of a row has its own weight, refined by one step down the meta-gradient."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..._validation import check_number
from ..loop.labels import labels_to_look_up
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import class_probabilities
from .gradient import MetaGradient, gradient_from, step_of_size
from .mw_net import MWNet
from .weight_network import learned_weights

__all__ = ["GDW"]

_LEAST = 1e-6  # of a class weight, as published


class GDW(MWNet):
    """Logit j of row i has the gradient v_ij (p_ij - y_ij) / n: generalized data weighting, with a weight for each row and class.

    First v_ij = V(l_i), the weights of `MWNet`, whose network learns as there. Then v_ij takes one step down the meta-gradient
    c_ij = dL_val / dv_ij: v_ij - s_ij with s_ij = step c_ij / mean |c|, at most `clip` in size. The weight of the label is the mean
    of the other classes' weights by their probability, v_iy = sum_{j != y} p_ij v_ij / (1 - p_iy), so that the gradients of a row
    in its logits still sum to 0.
    `weights_` holds v_iy: how strongly the row's label is learned. If all classes have equal weights this is `MWNet`; so it is in
    batches that are not due (`every` > 1).

    Parameters
    ----------
    gradient : MetaGradient or None
        The meta-gradient, "exact" or "first_order".
    optimizer, mode, product, every, fixed_step_length : parameters of `MetaGradient`, in place of `gradient`.
    step, clip : float > 0
        Of the step of the class weights. 0.1 and 0.2 correspond to the published numbers: a rate of 100 on the slope divided by its
        sum over 100 rows and 10 classes, and of 1000 for 100 classes.
    normalize : bool
        Whether V is divided by its mean in the batch before the step, and v by the mean of v_iy after it. False: V in (0, 1), as
        published.
    hidden, learning_rate, weight_decay, warmup_epochs : as in `MWNet`. The loss is the cross entropy of class labels.

    Raises ValueError for predictions that are not logits (n, C), or labels that are not integers (n,).
    Source: Chen et al. (2021), Generalized data weighting via class-level gradient manipulation.
    """

    check_targets = staticmethod(partial(labels_to_look_up, "GDW"))

    def __init__(
        self,
        n_train: int,
        *,
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        fixed_step_length: bool | None = None,
        step: float = 0.1,
        clip: float = 0.2,
        normalize: bool = True,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 0.0,
    ):
        engine = gradient_from(gradient, optimizer, mode, product, every, None, None, fixed_step_length)
        if engine.mode == "last_layer" or engine.product == "layers":
            raise ValueError(
                'GDW weighs each class of a row: use mode="exact" or mode="first_order", and leave out product="layers".'
            )
        check_number("step", step, "(0, inf)")
        check_number("clip", clip, "(0, inf)")
        super().__init__(
            n_train, gradient=engine, normalize=normalize, hidden=hidden, learning_rate=learning_rate, weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
        )  # fmt: skip
        self.step, self.clip = step, clip

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        """v_iy (n,), with a graph that gives each weighted loss the gradient v_ij (p_ij - y_ij) in its logits."""
        others = class_probabilities(batch.prediction.detach()).scatter(1, batch.y[:, None], 0.0)
        errors = others.scatter(1, batch.y[:, None], -others.sum(dim=1, keepdim=True))
        first: list[tuple[Tensor, Tensor]] = []

        def slope_of(weights: Tensor) -> Tensor:
            first.append((weights.detach(), self._slope_of_classes(batch, errors, weights.detach(), val)))
            return first[0][1].sum(dim=1)

        weights = learned_weights(self, lambda: self.network_weights(batch, rows), slope_of, rows)
        if not first:
            return weights
        weights, slope = first[0]
        step = step_of_size(slope, self.step, rows).clamp(-self.clip, self.clip)
        by_class = (weights[:, None] - step).clamp(min=_LEAST)
        own = _weight_of_label(batch, by_class)
        if self.normalize:
            by_class, own = by_class / rows.mean(own), rows.mean_one(own)
        return _with_gradient(batch, errors, by_class, own)

    def _slope_of_classes(self, batch: TrainingPass, errors: Tensor, weights: Tensor, val: Any) -> Tensor:
        """c (n, C) if all classes of row i have the weight w_i; 0 if an entry is not finite."""
        n_classes = errors.shape[1]

        def terms(prediction: Tensor, label: Any) -> Tensor:
            """(n C,) numbers whose gradients are those of the rows through each logit."""
            return (errors * prediction).flatten()

        by_class = replace(batch, loss=terms, losses=terms(batch.prediction, batch.y), layers=None)
        # The meta-gradient averages over n C losses, the loop over n rows.
        even = n_classes * weights.repeat_interleave(n_classes)
        return n_classes * self.meta.of(by_class, even, val, self.losses).reshape(errors.shape)


def _weight_of_label(batch: TrainingPass, by_class: Tensor) -> Tensor:
    """v_iy (n,) of the weights (n, C): the mean of the others by their probability."""
    # Not p / (1 - p_y), which is 0 / 0 for a memorized row.
    others = batch.prediction.detach().to(by_class.dtype).scatter(1, batch.y[:, None], -float("inf")).softmax(dim=1)
    return (others * by_class).sum(dim=1)


def _with_gradient(batch: TrainingPass, errors: Tensor, by_class: Tensor, own: Tensor) -> Tensor:
    """v_iy (n,), whose product with l has the gradient sum_j v_ij (p_ij - y_ij) dz_ij: the weight supplies what v_iy dl lacks."""
    beyond = (by_class - own[:, None]) * errors.scatter(1, batch.y[:, None], 0.0)
    # l >= 1 - p_y up to rounding, so the quotient is at most 1.
    size = torch.maximum(batch.losses.detach(), errors.amin(dim=1).abs()).clamp(min=torch.finfo(errors.dtype).tiny)
    through = (beyond / size[:, None] * batch.prediction).sum(dim=1)
    return own + through - through.detach()
