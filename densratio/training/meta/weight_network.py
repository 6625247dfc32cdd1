"""The network that turns a row's loss into its weight, with one head for each group of classes."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

__all__ = ["WeightNetwork", "groups_of_classes"]


class WeightNetwork(nn.Module):
    """v = sigmoid(head_k(relu(linear(loss)))), k the group of the row's class; losses (n,), groups (n,) or None -> (n,).

    One hidden layer is shared by the K heads; K = 1 is Meta-Weight-Net.
    """

    def __init__(self, K: int = 1, hidden: int = 100):
        super().__init__()
        if K < 1 or hidden < 1:
            raise ValueError(f"K, the number of heads, and hidden must be >= 1; got {K} and {hidden}.")
        self.K = K
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


def groups_of_classes(labels: np.ndarray, K: int) -> Tensor:
    """Group (C,) of each class 0..C-1, 0 for the smallest to K - 1 for the largest: k-means on their numbers of rows in `labels`.

    Fewer groups where fewer sizes differ.
    """
    sizes = np.bincount(labels)
    means = KMeans(min(K, len(np.unique(sizes))), n_init=10, random_state=0).fit(sizes[:, None])
    rank = np.argsort(np.argsort(means.cluster_centers_[:, 0]))
    return torch.as_tensor(rank[means.labels_])
