"""The network that turns a row's loss into its weight, with one head for each group of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ..._arrays import to_host

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


def groups_of_classes(y_train: Any, K: int) -> Tensor:
    """Group (C,) of each class, 0 for the smallest classes to K - 1 for the largest: k-means on the classes' sizes.

    y_train (n_train,): labels 0..C-1. Fewer groups where fewer sizes differ.
    Raises ValueError for labels that are not such, and for a class without rows.
    """
    labels = np.asarray(to_host(y_train))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0 or labels.min() < 0:
        raise ValueError(f"y_train must be (n_train,) integer labels >= 0; got shape {labels.shape} and dtype {labels.dtype}.")
    sizes = np.bincount(labels)
    if sizes.min() == 0:
        raise ValueError(
            f"Every class needs training rows; the classes {np.flatnonzero(sizes == 0).tolist()} have none. Number the classes "
            "that occur from 0 on."
        )
    n_groups = min(K, len(np.unique(sizes)))
    means = KMeans(n_groups, n_init=10, random_state=0).fit(sizes[:, None])
    rank = np.argsort(np.argsort(means.cluster_centers_[:, 0]))
    return torch.as_tensor(rank[means.labels_])
