"""Shares of several divergences in one weight, by how well each one's training gradient agrees with the validation gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .exchange import of_all_ranks
from .losses import Loss

__all__ = ["Agreement", "LastLayer", "last_layer", "weighted_gradient"]

_MEMORY = 0.99  # of an agreement at the next look at validation rows: about the last hundred count


class LastLayer(NamedTuple):
    """Gradients of the losses of n rows in the last linear layer, in two factors: g_i = slope_i outer (entry_i, 1)."""

    slope: Tensor
    """(n, C) d loss_i / d output_i."""
    entry: Tensor
    """(n, h) what the layer took in; h = 0 where the model has no such layer."""


class Agreement(nn.Module):
    """p_k proportional to exp(sum over past looks of 0.99^age cos(G(w_k), G_val)), for the weights w_k of method k.

    G(w) = sum_i w_i g_i and G_val = sum_j g_j are the gradients of the weighted training loss and of the validation loss in the
    last linear layer: two products of matrices, and no pass through the model. Where a method's weights point the training
    step along the validation gradient, its share grows. The shares start even; nothing here waits for the device.
    """

    evidence: Tensor

    def __init__(self, n_methods: int):
        super().__init__()
        self.register_buffer("evidence", torch.zeros(n_methods))

    @property
    def share(self) -> Tensor:
        """p (K,), of sum 1."""
        return torch.softmax(self.evidence, dim=0)

    def record(self, weights: Sequence[Tensor], train: LastLayer, val: LastLayer) -> None:
        """Take in a batch: weights (n,) of each method for the rows of `train`, those of all ranks where there are several."""
        train, val = (LastLayer(*(of_all_ranks(part) for part in layer)) for layer in (train, val))
        target = weighted_gradient(val, torch.ones_like(val.slope[:, 0]))
        cosines = torch.stack([_cosine(weighted_gradient(train, w.to(train.slope.dtype)), target) for w in weights])
        # A batch that is not usable says nothing.
        heard = torch.where(torch.isfinite(cosines).all(), cosines.to(self.evidence.dtype), 0.0)
        self.evidence.mul_(_MEMORY).add_(heard)


def last_layer(prediction: Tensor, label: Any, losses: Loss, entry: Tensor | None) -> LastLayer:
    """Factors of the rows' gradients, from the outputs (n, ...) of a model and what its last linear layer took in."""
    output = prediction.detach().to(torch.promote_types(prediction.dtype, torch.float32)).requires_grad_()
    with torch.enable_grad():
        slope = torch.autograd.grad(losses(output, label).sum(), output)[0].flatten(1)
    fits = entry is not None and entry.ndim == 2 and prediction.ndim == 2 and len(entry) == len(prediction)
    return LastLayer(slope, entry.to(slope.dtype) if fits and entry is not None else slope[:, :0])


def weighted_gradient(layer: LastLayer, weights: Tensor) -> Tensor:
    """sum_i w_i g_i (C, h + 1), for weights (n,); the last column is the biases'."""
    weighted = (layer.slope * weights[:, None]).mT
    return torch.cat([weighted @ layer.entry, weighted.sum(dim=1, keepdim=True)], dim=1)


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(x.flatten(), y.flatten(), dim=0)
