"""What reweighting is compared with, by the same line of code: even, random, and validation rows alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .batch import positions_of
from .losses import Loss, cross_entropy
from .reweighter import Reweighter, mean_of_all_ranks

__all__ = ["RandomWeights", "Uniform", "ValidationOnly"]


class Uniform(Reweighter):
    """Every weight 1: plain training."""

    def weighted_loss(self, model: nn.Module, train: Any, val: Any) -> Tensor:
        x, y, _ = train
        return mean_of_all_ranks(self.losses(model(x), y))


class RandomWeights(Reweighter):
    """Rectified standard normal weights, drawn anew for each batch and scaled to mean 1. seed: int."""

    def __init__(self, n_train: int, loss: Loss = cross_entropy, *, seed: int = 0):
        super().__init__(n_train, loss)
        self._generator = torch.Generator().manual_seed(seed)

    def weighted_loss(self, model: nn.Module, train: Any, val: Any) -> Tensor:
        x, y, index = train
        losses = self.losses(model(x), y)
        drawn = torch.randn(len(losses), generator=self._generator).clamp(min=0.0)
        # A batch without a positive draw trains with even weights.
        weights = drawn / drawn.mean() if drawn.sum() > 0 else torch.ones_like(drawn)
        weights = weights.to(self.weights_.device)
        self.weights_[positions_of(index, len(losses), "index", weights.device, len(self.weights_))] = weights
        return mean_of_all_ranks(weights.to(losses.device, losses.dtype) * losses)

    def get_extra_state(self) -> Tensor:
        """State of the random generator, for state_dict."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take up the generator of a state_dict."""
        self._generator.set_state(state)


class ValidationOnly(Reweighter):
    """Every training row has weight 0 and the validation batch is what is learned."""

    def __init__(self, n_train: int, loss: Loss = cross_entropy):
        super().__init__(n_train, loss)
        self.weights_.zero_()

    def weighted_loss(self, model: nn.Module, train: Any, val: Any) -> Tensor:
        x_val, y_val, _ = val
        return mean_of_all_ranks(self.losses(model(x_val), y_val))
