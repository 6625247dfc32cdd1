"""MarginBased: rows by how far their label is ahead of the other classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..batch_pass import BatchPass
from ..exchange import mean_one
from ..losses import Loss, cross_entropy
from ..per_batch import BatchReweighter

__all__ = ["MarginBased", "margins"]

FAVOURS = {"hard": -1.0, "easy": 1.0}


class MarginBased(BatchReweighter):
    """w_i proportional to 1 - m_i, of mean 1 in the batch, for the probabilistic margin m_i = p_y - max_{j != y} p_j in [-1, 1].

    favors : "hard", rows of small margin, for clean labels; or "easy", 1 + m_i, which keeps wrong labels small.
    Source: margin-based reweighting (MBR) as a baseline in Jain et al. (2024), Improving generalization via meta-learning on hard
    samples; the linear form is this library's.
    """

    def __init__(self, n_train: int, *, favors: str = "hard", warmup_epochs: float = 0.0, loss: Loss = cross_entropy):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        if favors not in FAVOURS:
            raise ValueError(f"favors must be one of {sorted(FAVOURS)}; got {favors!r}.")
        self.favors = favors

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        weights = 1.0 + FAVOURS[self.favors] * margins(rows.prediction, rows.y)
        return mean_one(weights)


def margins(prediction: Tensor, y: Tensor) -> Tensor:
    """p_y - max_{j != y} p_j (n,) in [-1, 1] of logits (n, C), C >= 2, and labels (n,); detached, in at least single precision.

    Raises ValueError for other shapes.
    """
    if prediction.ndim != 2 or prediction.shape[1] < 2 or y.shape != (len(prediction),) or y.is_floating_point():
        raise ValueError(f"Margins need logits (n, C) and labels (n,); got {tuple(prediction.shape)} and {tuple(y.shape)}.")
    p = torch.softmax(prediction.detach().to(torch.promote_types(prediction.dtype, torch.float32)), dim=1)
    own = p.gather(1, y[:, None])
    return (own - p.scatter(1, y[:, None], -1.0).amax(dim=1, keepdim=True))[:, 0]
