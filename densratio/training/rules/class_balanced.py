"""ClassBalanced: rows of small classes count more, by the effective number of rows of each class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import to_host
from ..batch_pass import BatchPass
from ..losses import Loss, cross_entropy
from ..per_batch import BatchReweighter

__all__ = ["ClassBalanced"]


class ClassBalanced(BatchReweighter):
    """w_i proportional to (1 - beta) / (1 - beta^n_c), n_c the size of row i's class; mean 1 over the training rows.

    y_train (n_train,) : classes of the training rows, integers >= 0.
    beta in [0, 1] : 0 weighs all rows alike, 1 by the inverse size of their class; 0.9999 as published for large data.
    Source: Cui et al. (2019), Class-balanced loss based on effective number of samples.
    """

    row_weights: Tensor

    def __init__(self, n_train: int, y_train: Any, *, beta: float = 0.9999, warmup_epochs: float = 0.0, loss: Loss = cross_entropy):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        labels = np.asarray(to_host(y_train))
        if labels.shape != (n_train,) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            got = f"shape {labels.shape} and dtype {labels.dtype}"
            raise ValueError(f"y_train must be ({n_train},) integers >= 0, the class of each training row; got {got}.")
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f"beta must be in [0, 1]; got {beta!r}.")
        sizes = np.bincount(labels)[labels].astype(np.float64)
        weights = 1.0 / sizes if beta == 1.0 else (1.0 - beta) / -np.expm1(sizes * np.log(beta)) if beta > 0 else np.ones(n_train)
        self.register_buffer("row_weights", torch.as_tensor(weights / weights.mean(), dtype=torch.float32), persistent=False)

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        return self.row_weights[positions]
