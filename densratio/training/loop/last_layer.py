"""Gradients of the losses of a batch in the last linear layer of a model, in two factors, without a pass of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .losses import Loss
from .ranks import Rows

__all__ = ["LastLayer", "last_layer", "weighted_gradient"]


class LastLayer(NamedTuple):
    """Gradients of the losses of n rows in the last linear layer, in two factors: g_i = slope_i outer (entry_i, 1)."""

    slope: Tensor
    """(n, C) d loss_i / d output_i."""
    entry: Tensor
    """(n, h) its input; h = 0 where the model has no such layer."""

    def of_all_rows(self) -> LastLayer:
        """The factors of the rows of all ranks."""
        return LastLayer(*(Rows(len(part)).all(part) for part in self))


def last_layer(prediction: Tensor, label: Any, losses: Loss, entry: Tensor | None) -> LastLayer:
    """Factors of the rows' gradients, from the outputs (n, ...) of a model and the input of its last linear layer."""
    output = prediction.detach().to(torch.promote_types(prediction.dtype, torch.float32)).requires_grad_()
    with torch.enable_grad():
        slope = torch.autograd.grad(losses(output, label).sum(), output)[0].flatten(1)
    fits = entry is not None and entry.ndim == 2 and prediction.ndim == 2 and len(entry) == len(prediction)
    return LastLayer(slope, entry.to(slope.dtype) if fits and entry is not None else slope[:, :0])


def weighted_gradient(layer: LastLayer, weights: Tensor) -> Tensor:
    """sum_i w_i g_i (C, h + 1), for weights (n,); the last column is the biases'."""
    weighted = (layer.slope * weights[:, None]).mT
    return torch.cat([weighted @ layer.entry, weighted.sum(dim=1, keepdim=True)], dim=1)
