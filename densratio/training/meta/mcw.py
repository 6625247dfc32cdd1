"""MCW: the weight of a row is that of its class, by the class's size, plus a term of its own from the meta-gradient."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..._validation import check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from ..rules import class_balanced_weights
from .gradient import MetaGradient, gradient_from, step_of_size

__all__ = ["MCW"]


class MCW(BatchReweighter):
    """w_i = max(u_i + e_i, 0), divided by its mean in the batch; u_i is the weight of the row's class, e_i is the row's own.

    u are the weights of `ClassBalanced`, which correct for other class frequencies; e corrects for rows within a class that are
    distributed differently from those of the validation set. e_i = -step c_i / mean |c| is one step from 0 down the meta-gradient
    c_i = dL_val / dw_i at the weights u. In batches that are not due (`every` > 1) rows keep their last e_i.
    The validation rows should have the class frequencies of the rows that are predicted later; in the paper all classes are equal.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    y_train : (n_train,) int >= 0
        Given labels.
    beta : float in [0, 1]
        As in `ClassBalanced`; 0.9999 as published.
    step : float >= 0
        Mean absolute e in a batch, beside u of mean 1 over the training rows; 0 is `ClassBalanced` with weights of mean 1 in each
        batch.
    gradient : MetaGradient or None
        The meta-gradient; None: MetaGradient("exact"), with the step at the weights u as published.
    optimizer, mode, product, every, n_val, val_refresh, fixed_step_length : parameters of `MetaGradient`, in place of `gradient`.
    warmup_epochs : float
        Initial passes over the data with all weights 1; 160 of 200 in the paper.
    loss : as in `MWNet`.

    conditional (n_train,): e_i of the last due batch of each row, 0 before it.
    Source: Jamal et al. (2020), Rethinking class-balanced methods for long-tailed visual recognition from a domain adaptation
    perspective; Shu et al. (2023), CMW-Net, gives it the name.
    """

    uses_validation: ClassVar[bool] = True
    normalize = True

    row_weights: Tensor
    conditional: Tensor

    def __init__(
        self,
        n_train: int,
        y_train: Any,
        *,
        warmup_epochs: float,
        beta: float = 0.9999,
        step: float = 0.5,
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        n_val: int | None = None,
        val_refresh: int | None = None,
        fixed_step_length: bool | None = None,
        loss: Loss = cross_entropy,
    ):
        engine = gradient_from(gradient, optimizer, mode, product, every, n_val, val_refresh, fixed_step_length)
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs, gradient=engine)
        check_number("step", step, "[0, inf)")
        self.step = step
        # Not in state_dict, because the labels are passed again after a resume.
        self.register_buffer("row_weights", class_balanced_weights(n_train, y_train, beta), persistent=False)
        self.register_buffer("conditional", torch.zeros(n_train))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        by_class, own = (of_rows[rows.positions] for of_rows in (self.row_weights, self.conditional))
        if self.is_due:
            own = -step_of_size(self.meta.of(batch, by_class, val), self.step, rows).to(by_class.dtype)
            rows.write(self.conditional, own)
        # If all are 0 the quotient is NaN, and the batch trains unweighted.
        return rows.mean_one((by_class + own).clamp(min=0.0))
