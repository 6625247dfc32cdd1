"""Joint optimization: the mean of a row's last predictions replaces its label; two terms keep the labels spread and confident."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..._columns import numbers_of
from ..._validation import check_count, check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import labels_to_look_up
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import class_probabilities
from .even_classes import mean_prediction

__all__ = ["JointOptimization"]


class JointOptimization(BatchReweighter):
    """loss = mean_i sum_k y_ik (-log p_ik) + alpha sum_k q_k log(q_k / mean_i p_ik) + beta mean_i sum_k p_ik (-log p_ik).

    y_i is first the given label, one-hot, and after the warm-up the mean of the softmax p_i in the row's last `window` batches
    before this one. Labels from the network itself would collapse to one class, which the second term prevents. The third term
    keeps p_i near one class, because a soft label does not change the predictions that it came from. Both terms also act in the
    warm-up. The learning rate must be so large that wrong labels are replaced before the network memorizes them. In the paper a new
    network is finally trained, plainly, on the labels that were found: `labels`.

    n_train : int, rows of the training set.
    n_classes : int, K.
    alpha, beta >= 0 : 1.2 and 0.8 as published for CIFAR-10 with 70 % symmetric noise, 0.8 and 0.4 with asymmetric noise.
    hard : whether y_i is one-hot, at the largest entry of the mean.
    prior (K,) or None : q, the shares of the classes among the right labels; None: equal.
    window : int >= 1, number of stored predictions per row; 10 as published.
    warmup_epochs : initial passes on the given labels; 70 of 200 as published.

    labels (n_train, K): the means, rows of sum 1; 0 for a row that was in no batch. weights_ holds y_iy, the share of the given
    label.
    predictions (n_train, window, K): the averaged predictions. The loss is the cross entropy of class labels.
    Raises ValueError with the first batch for predictions other than logits (n, K), or labels that are not integers (n,).
    Source: Tanaka et al. (2018), Joint optimization framework for learning with noisy labels.
    """

    predictions: Tensor
    prior: Tensor

    def __init__(
        self,
        n_train: int,
        n_classes: int,
        *,
        alpha: float = 1.2,
        beta: float = 0.8,
        hard: bool = False,
        prior: Any = None,
        window: int = 10,
        warmup_epochs: float = 70.0,
    ):
        super().__init__(n_train, warmup_epochs=warmup_epochs)
        check_count("n_classes", n_classes)
        check_count("window", window, more=", the predictions that are kept of each row")
        for name, value in (("alpha", alpha), ("beta", beta)):
            check_number(name, value, "[0, inf)")
        self.check_targets = partial(labels_to_look_up, "JointOptimization", n_classes=n_classes)
        self.n_classes, self.alpha, self.beta, self.hard = n_classes, alpha, beta, hard
        self.register_buffer("prior", _shares(prior, n_classes), persistent=False)
        # 0 until that many predictions were made.
        self.register_buffer("predictions", torch.zeros(n_train, window, n_classes))

    @property
    def labels(self) -> Tensor:
        """The labels (n_train, K) from the predictions so far."""
        return _means(self.predictions)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        """y_iy (n,); the loss of the other classes is added."""
        log_p, given = batch.found["log_p"], functional.one_hot(batch.y, self.n_classes)
        means = _means(batch.found["predictions"]).to(log_p.dtype)
        means = torch.where(means.sum(dim=1, keepdim=True) > 0, means, given.to(log_p.dtype))
        label = functional.one_hot(means.argmax(dim=1), self.n_classes).to(log_p.dtype) if self.hard else means
        batch.found["added"] = batch.found["added"] - (torch.where(given > 0, 0.0, label) * log_p).sum(dim=1)
        return label.gather(1, batch.y[:, None])[:, 0]

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """Add the two terms and store the predictions, also in a warm-up: their means are the first labels that replace others."""
        p, kept = class_probabilities(batch.prediction), self.predictions[rows.positions]
        base = None if self.base_weights is None else self.base_weights[rows.positions]
        limits, prior = torch.finfo(p.dtype), self.prior.to(p.dtype)
        # A logit of -inf, for an excluded class, contributes to neither sum.
        log_p = torch.log_softmax(batch.prediction.to(p.dtype), dim=1).clamp(min=limits.min)
        spread = (torch.xlogy(prior, prior) - prior * mean_prediction(p, rows, base).clamp(min=limits.tiny).log()).sum()
        added = self.alpha * spread - self.beta * (p * log_p).sum(dim=1)
        batch.found.update(log_p=log_p, predictions=kept, added=added)
        rows.write(self.predictions, torch.cat([kept[:, 1:], p.detach().to(kept.dtype)[:, None]], dim=1))


def _means(predictions: Tensor) -> Tensor:
    """Means (n, K) of the predictions (n, window, K) made so far."""
    total = predictions.sum(dim=1)
    mass = total.sum(dim=1, keepdim=True)
    return torch.where(mass > 0, total / mass.clamp(min=torch.finfo(mass.dtype).tiny), 0.0)


def _shares(prior: Any, n_classes: int) -> Tensor:
    """The prior (K,) with sum 1. Raises ValueError for anything else."""
    needed = f"({n_classes},) finite shares >= 0 of the classes, not all 0"
    shares = np.ones(n_classes) if prior is None else numbers_of(prior, "prior", needed)
    if shares.shape != (n_classes,) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.any():
        raise ValueError(f"prior must be {needed}; got {prior!r}.")
    return torch.as_tensor(shares / shares.sum(), dtype=torch.float32)
