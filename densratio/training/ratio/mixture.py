"""Shares of several divergences in one weight, by how well each one's training gradient agrees with the validation gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..loop.training_pass import LastLayer, weighted_gradient

__all__ = ["Agreement"]

_MEMORY = 0.99  # decay of an agreement per look at validation rows: about the last hundred count


class Agreement(nn.Module):
    """p_k proportional to exp(sum over past looks of 0.99^age cos(G(w_k), G_val)), for the weights w_k of method k.

    G(w) = sum_i w_i g_i and G_val = sum_j g_j are the gradients of the weighted training loss and of the validation loss in the
    last linear layer, from two matrix products without another pass. The share of a method grows if its weights point the training
    step along the validation gradient. The shares start equal; it never waits for the device.
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
        """Add the evidence of a batch: weights (n,) of each method for the rows of `train`, on all ranks."""
        train, val = train.of_all_rows(), val.of_all_rows()
        target = weighted_gradient(val, torch.ones_like(val.slope[:, 0]))
        gradients = torch.stack([weighted_gradient(train, w.to(train.slope.dtype)).flatten() for w in weights])
        cosines = torch.nn.functional.cosine_similarity(gradients, target.flatten()[None])
        # A batch with NaN is no evidence.
        fresh = torch.where(torch.isfinite(cosines).all(), cosines.to(self.evidence.dtype), 0.0)
        self.evidence.mul_(_MEMORY).add_(fresh)
