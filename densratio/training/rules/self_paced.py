"""SelfPaced: the easiest rows of each batch first, more of them from epoch to epoch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..batch_pass import BatchPass
from ..exchange import n_ranks, of_all_ranks
from ..losses import Loss, cross_entropy
from ..per_batch import BatchReweighter

__all__ = ["SelfPaced", "top_share"]


class SelfPaced(BatchReweighter):
    """w_i = 1 / s for the share s of the batch with the least losses and 0 for the rest; s grows from `start` to `end`.

    start, end in (0, 1] : shares at first and after n_epochs epochs, linear in between. With wrong labels an `end` of about the
    share of right ones keeps the others out. The threshold on the loss is that of each batch.
    Source: Kumar, Packer & Koller (2010), Self-paced learning for latent variable models.
    """

    def __init__(
        self,
        n_train: int,
        *,
        start: float = 0.5,
        end: float = 1.0,
        n_epochs: float = 10.0,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        if not (0.0 < start <= 1.0 and 0.0 < end <= 1.0 and n_epochs > 0):
            raise ValueError(f"start and end must be in (0, 1] and n_epochs > 0; got {start!r}, {end!r} and {n_epochs!r}.")
        self.start, self.end, self.n_epochs = start, end, n_epochs

    @property
    def share(self) -> float:
        """Share of the next batch that is trained on."""
        return self.start + (self.end - self.start) * min(1.0, self.epoch / self.n_epochs)

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        return top_share(-rows.losses.detach(), self.share)


def top_share(scores: Tensor, share: float) -> Tensor:
    """Weights (n,) of mean 1: even for the round(share n) rows, at least one, of the largest scores (n,), else 0.

    With torch.distributed the share is that of the rows of all ranks.
    """
    of_all = of_all_ranks(scores)
    n_kept = max(1, round(share * len(of_all)))
    kept = torch.topk(of_all, n_kept).indices
    weights = torch.zeros_like(of_all).index_fill(0, kept, len(of_all) / n_kept)
    return weights if n_ranks() == 1 else weights[_own_places(scores)]


def _own_places(values: Tensor) -> Tensor:
    """Places (n,) of this rank's `values` (n,) among those of all ranks."""
    ranks = of_all_ranks(torch.full(values.shape, dist.get_rank(), device=values.device))
    return (ranks < dist.get_rank()).sum() + torch.arange(len(values), device=values.device)
