"""Scores of rows from the logits of one training: each is larger where a label is likelier wrong.

logits (T, n, K): those of all rows after each of T epochs, the first epoch first; labels (n,). Each function gives (n,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

__all__ = ["aum", "cnlcu_soft", "confidence", "data_iq", "el2n", "forgetting", "grand", "uncertainty", "variability"]


def aum(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the mean over the epochs of the logit of the label less the largest other.

    Source: Pleiss et al. (2020), Identifying mislabeled data using the area under the margin ranking.
    """
    is_own = one_hot(labels, logits.shape[-1]).bool()
    return -(_of_label(logits, labels) - logits.masked_fill(is_own, -torch.inf).amax(dim=-1)).mean(dim=0)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """1 less the mean over the epochs of p, the probability of the label: Data Maps, whose wrong rows are of low confidence.

    Source: Swayamdipta et al. (2020), Dataset cartography.
    """
    return 1.0 - _probability(logits, labels).mean(dim=0)


def variability(logits: Tensor, labels: Tensor) -> Tensor:
    """Standard deviation over the epochs of p, the other axis of a data map: 0 after one epoch.

    Source: Swayamdipta et al. (2020), Dataset cartography.
    """
    return _probability(logits, labels).std(dim=0, correction=0)


def uncertainty(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the epochs of p (1 - p), the aleatoric uncertainty of Data-IQ.

    Source: Seedat et al. (2022), Data-IQ.
    """
    p = _probability(logits, labels)
    return (p * (1.0 - p)).mean(dim=0)


def data_iq(logits: Tensor, labels: Tensor) -> Tensor:
    """`confidence` less `uncertainty`, which is the mean of (1 - p)^2.

    Data-IQ calls a row hard where its confidence and its uncertainty are both low. It has groups and no order: this one is ours.
    Source: Seedat et al. (2022), Data-IQ.
    """
    return confidence(logits, labels) - uncertainty(logits, labels)


def cnlcu_soft(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the epochs of log(1 + l + l^2 / 2), l the loss: CNLCU-S where the network trains on all rows.

    The bound subtracts what depends on how often a row was selected, which is then the same for all.
    Source: Xia et al. (2022), Sample selection with uncertainty of losses for learning with noisy labels.
    """
    losses = torch.stack([cross_entropy(epoch, labels, reduction="none") for epoch in logits])
    return torch.log(1.0 + losses + losses**2 / 2.0).mean(dim=0)


def el2n(logits: Tensor, labels: Tensor) -> Tensor:
    """Norm of the softmax less the label after the last epoch.

    Source: Paul et al. (2021), Deep learning on a data diet.
    """
    return _error(logits[-1], labels)


def grand(logits: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Mean over the epochs of the norm of the gradient of the row's loss in the weights and biases of the last layer.

    features (T, n, d): what that layer takes. The paper takes all layers, and means over networks in place of epochs.
    Source: Paul et al. (2021), Deep learning on a data diet.
    """
    return (_error(logits, labels) * (1.0 + features.square().sum(dim=-1)).sqrt()).mean(dim=0)


def forgetting(logits: Tensor, labels: Tensor) -> Tensor:
    """How often a row was right after an epoch and wrong after the next; infinite where it was never right.

    Source: Toneva et al. (2019), An empirical study of example forgetting during deep neural network learning.
    """
    is_right = logits.argmax(dim=-1) == labels
    count = (is_right[:-1] & ~is_right[1:]).sum(dim=0).to(logits.dtype)
    return count.masked_fill(~is_right.any(dim=0), torch.inf)


def _of_label(values: Tensor, labels: Tensor) -> Tensor:
    return values[..., torch.arange(len(labels)), labels]


def _probability(logits: Tensor, labels: Tensor) -> Tensor:
    return _of_label(logits.softmax(dim=-1), labels)


def _error(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.softmax(dim=-1) - one_hot(labels, logits.shape[-1])).norm(dim=-1)
