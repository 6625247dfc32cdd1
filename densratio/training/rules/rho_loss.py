"""RHOLoss: rows whose loss could still be lowered, by a model that learned from other rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..batch_pass import BatchPass
from ..losses import Loss, cross_entropy
from ..moving_average import evaluation
from ..passes import device_of_model
from ..per_batch import BatchReweighter
from .self_paced import top_share

__all__ = ["RHOLoss", "irreducible_losses"]


class RHOLoss(BatchReweighter):
    """w_i = 1 / s for the share s of the batch with the largest reducible loss l_i - irreducible_i, 0 for the rest.

    irreducible (n_train,) : losses of the training rows under a model that was trained on other rows: `irreducible_losses`.
    share in (0, 1] : rows of the batch that are trained on; 0.1 of large batches as published.
    Source: Mindermann et al. (2022), Prioritized training on points that are learnable, worth learning, and not yet learnt.
    """

    irreducible: Tensor

    def __init__(
        self, n_train: int, irreducible: Any, *, share: float = 0.1, warmup_epochs: float = 0.0, loss: Loss = cross_entropy
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        # A copy: load_state_dict writes into the buffer.
        values = torch.as_tensor(irreducible, dtype=torch.float32).detach().clone()
        if values.shape != (n_train,) or not bool(torch.isfinite(values).all()):
            raise ValueError(f"irreducible must be ({n_train},) finite losses, one for each row; got {tuple(values.shape)}.")
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share must be in (0, 1]; got {share!r}.")
        self.share = share
        self.register_buffer("irreducible", values)

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        return top_share(rows.losses.detach().float() - self.irreducible[positions], self.share)


@torch.no_grad()
def irreducible_losses(model: nn.Module, batches: Iterable[Any], loss: Loss = cross_entropy) -> Tensor:
    """Loss (n,) of each row under a trained model in eval mode, on the host; batches of (x, y) in the order of the rows."""
    device = device_of_model(model)
    with evaluation(model):
        return torch.cat([loss(model(x.to(device)), y.to(device)).float().cpu() for x, y, *_ in batches])
