"""Networks that give each row its weight, from its loss, its features or its input, and the step by which they learn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ..._arrays import waits_for
from ..._validation import check_count
from ..loop.optimizer_step import step_with
from ..loop.ranks import Rows

__all__ = ["FeatureNetwork", "WeightNetwork", "WeightOfInput", "groups_of_classes", "learned_weights"]

_log = logging.getLogger("densratio")


class WeightNetwork(nn.Module):
    """v = sigmoid(head_k(relu(linear(loss)))), k the group of the row's class; losses (n,), groups (n,) or None -> (n,).

    One hidden layer is shared by the K heads; K = 1 is Meta-Weight-Net.
    """

    def __init__(self, K: int = 1, hidden: int = 100):
        super().__init__()
        self.K = check_count("K", K, more=", the number of heads")
        check_count("hidden", hidden)
        self.linear = nn.Linear(1, hidden)
        self.heads = nn.Linear(hidden, K)

    def forward(self, losses: Tensor, groups: Tensor | None = None) -> Tensor:
        with torch.autocast(losses.device.type, enabled=False):
            scores = self.heads(torch.relu(self.linear(losses.to(self.linear.weight.dtype)[:, None])))
            chosen = scores[:, 0] if groups is None else scores.gather(1, groups[:, None])[:, 0]
            return torch.sigmoid(chosen)

    @torch.no_grad()
    def curves(self, losses: Tensor) -> Tensor:
        """Weight (K, n) that each head gives to these losses (n,)."""
        losses = losses.to(self.linear.weight.device)
        return torch.stack([self(losses, torch.full((len(losses),), k, device=losses.device)) for k in range(self.K)])


class FeatureNetwork(nn.Module):
    """v = sigmoid(linear(relu(linear(features)))): features (n, d) -> (n,)."""

    def __init__(self, n_features: int, hidden: int = 100):
        super().__init__()
        self.n_features = check_count("n_features", n_features)
        check_count("hidden", hidden)
        self.layers = nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        self.check(features)
        with torch.autocast(features.device.type, enabled=False):
            return torch.sigmoid(self.logits(features.to(next(self.parameters()).dtype)))

    def check(self, features: Tensor) -> None:
        """Raise ValueError for features (n, d) of another number of columns."""
        if features.shape[1] != self.n_features:
            raise ValueError(f"n_features={self.n_features} were declared and the features have {features.shape[1]} columns.")

    def logits(self, features: Tensor) -> Tensor:
        """The output (n,) before the sigmoid."""
        return self.layers(features)[:, 0]


class WeightOfInput(nn.Module):
    """v = sigmoid(network(x)), for a network with one output per row: x (n, ...) -> (n,)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Any) -> Tensor:
        logits = self.network(x)
        if logits.numel() != len(logits):
            raise ValueError(f"The weight network must give one number for each row, (n,) or (n, 1); got {tuple(logits.shape)}.")
        return torch.sigmoid(logits.flatten())


def groups_of_classes(labels: np.ndarray, K: int) -> Tensor:
    """Group (C,) of each class 0..C-1, from 0 for the smallest to K - 1 for the largest classes, by k-means on the class sizes.

    If there are fewer distinct sizes than K there are fewer groups, spread over 0 to K - 1: the largest classes always get K - 1.
    Classes that all have the same size get 0.
    """
    sizes = np.bincount(labels)
    means = KMeans(min(K, len(np.unique(sizes))), n_init=10, random_state=0).fit(sizes[:, None])
    rank = np.argsort(np.argsort(means.cluster_centers_[:, 0]))
    return torch.as_tensor(rank[means.labels_] * (K - 1) // max(1, len(rank) - 1))


def learned_weights(learner: Any, weights_now: Callable[[], Tensor], slope_of: Callable[[Tensor], Tensor], rows: Rows) -> Tensor:
    """Weights (n,), without a graph, after a step of the learner's `network` on sum_i c_i w_i if one is due.

    weights_now(): weights (n,) as the network gives them, with the graph to its parameters. slope_of(weights): c (n,). If a slope
    is not finite there is no step; on a device that the host does not wait for it counts as 0.
    """
    if learner.is_due:
        weights = weights_now()
        slope = slope_of(weights)
        if waits_for(slope.device) or bool(torch.isfinite(slope).all()):
            slope = torch.where(torch.isfinite(slope).all(), slope, 0.0).to(weights.dtype)
            gradients = _step(learner.network_optimizer, list(learner.network.parameters()), (slope * weights).sum(), rows)
            if learner.monitor is not None:
                learner.monitor.take("meta_gradient", gradients)
        else:
            name, number = type(learner).__name__, learner.steps_seen
            _log.warning("%s: the meta-gradient of batch %d is not finite, and nothing is learned.", name, number)
    with torch.no_grad():
        return weights_now()


def _step(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor, rows: Rows) -> Sequence[Tensor]:
    """One step down the sum of `loss` over the ranks, and its gradients; on a device, NaN and infinity in a gradient count as 0."""
    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    if waits_for(loss.device):
        # A slope of 0 times a weight that is NaN is NaN.
        filled = [gradient.nan_to_num(0.0, 0.0, 0.0) for gradient in filled]
    summed = rows.sum_of(filled)
    step_with(optimizer, parameters, summed)
    return summed
