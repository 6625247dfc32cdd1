"""Predicted probabilities of class labels, as the methods for wrong labels compare them with what they store of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from ..loop.training_pass import TrainingPass

__all__ = ["class_probabilities"]


def class_probabilities(batch: TrainingPass, n_classes: int, name: str) -> Tensor:
    """Softmax (n, K) of the batch's logits, with its graph, in at least single precision.

    Raises ValueError, in the name of the method, for anything but logits (n, n_classes) and integer labels (n,).
    """
    prediction, y = batch.prediction, batch.y
    if prediction.ndim != 2 or prediction.shape[1] != n_classes or y.ndim != 1 or y.is_floating_point():
        raise ValueError(
            f"{name} of {n_classes} classes needs logits (n, {n_classes}) and class labels (n,), integers; got "
            f"{tuple(prediction.shape)} and {tuple(y.shape)} of {y.dtype}."
        )
    return torch.softmax(prediction.to(torch.promote_types(prediction.dtype, torch.float32)), dim=1)
