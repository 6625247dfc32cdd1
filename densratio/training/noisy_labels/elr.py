"""ELR: a moving average of each row's predictions keeps the network at what it learned before it memorizes wrong labels."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..._validation import check_count, check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import check_classes
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, class_probabilities, cross_entropy

__all__ = ["ELR", "agreement_term", "normalized"]

_LEAST = 1e-4  # least probability: log(1 - <p, t>) is unbounded if both are certain


class ELR(BatchReweighter):
    """loss_i = l_i + strength log(1 - <p_i, t_i>), t_i <- decay t_i + (1 - decay) p_i a moving average of the row's softmax p_i.

    The second term pulls p_i toward its own past. If the label is right, this keeps the gradient of a learned row from vanishing;
    if it is wrong, it cancels the gradient toward the label.

    n_train : int, rows of the training set.
    n_classes : int, K. targets (n_train, K): the t_i, 0 for a row that was in no batch; the argmax is the class last predicted for
        the row.
    strength >= 0 : lambda; 3 as published for CIFAR-10 and 7 for CIFAR-100. With few rows or few epochs this may be too much.
    decay in [0, 1) : beta; 0.7 as published for CIFAR-10 and 0.9 for CIFAR-100.
    warmup_epochs : initial passes with the plain loss, in which the averages stay 0.
    loss : per-row loss of logits (n, K) and class labels (n,).

    All weights are 1, so `weights_` carries no information; `suspicious_rows` ranks by the plain losses.
    Raises ValueError with the first batch for other predictions or labels.
    Source: Liu et al. (2020), Early-learning regularization prevents memorization of noisy labels.
    """

    targets: Tensor

    def __init__(
        self,
        n_train: int,
        n_classes: int,
        *,
        strength: float = 3.0,
        decay: float = 0.7,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_count("n_classes", n_classes)
        self.check_targets = partial(check_classes, "ELR", n_classes=n_classes)
        check_number("strength", strength, "[0, inf)")
        check_number("decay", decay, "[0, 1)")
        self.n_classes, self.strength, self.decay = n_classes, strength, decay
        self.register_buffer("targets", torch.zeros(n_train, n_classes))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        fresh = normalized(class_probabilities(batch.prediction).detach())
        rows.write(self.targets, torch.lerp(fresh, self.targets[rows.positions].to(fresh.dtype), self.decay))
        batch.found["added"] = self.strength * agreement_term(batch.prediction, self.targets[rows.positions])
        return torch.ones_like(batch.losses.detach())


def normalized(p: Tensor) -> Tensor:
    """Probabilities (n, K) of sum 1, none of which is 0 or 1."""
    p = p.clamp(_LEAST, 1.0 - _LEAST)
    return p / p.sum(dim=1, keepdim=True)


def agreement_term(prediction: Tensor, t: Tensor) -> Tensor:
    """log(1 - <p, t>) (n,) of the softmax p of logits (n, K) and averages t (n, K)."""
    p = class_probabilities(prediction).clamp(_LEAST, 1.0 - _LEAST)
    return torch.log1p(-(p * t.to(p.dtype)).sum(dim=1))
