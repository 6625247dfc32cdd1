"""Predicted probabilities of class labels, as the methods for wrong labels compare them with what they store of each row."""

from __future__ import annotations

import torch
from torch import Tensor

from ..loop.training_pass import TrainingPass
from ..meta.soft_labels import MixedLabels

__all__ = ["class_probabilities"]


def class_probabilities(batch: TrainingPass, name: str, n_classes: int | None = None) -> Tensor:
    """Softmax (n, K) of the batch's logits, with its graph, in at least single precision.

    Raises ValueError, in the name of the method, for anything but logits (n, K), of n_classes where that is given, and integer
    labels (n,).
    """
    prediction, y = batch.prediction, batch.y.y if isinstance(batch.y, MixedLabels) else batch.y
    is_of_classes = prediction.ndim == 2 and n_classes in (None, prediction.shape[1])
    if not is_of_classes or y.ndim != 1 or y.is_floating_point():
        columns = "K" if n_classes is None else n_classes
        raise ValueError(
            f"{name} needs logits (n, {columns}) and class labels (n,), integers; got {tuple(prediction.shape)} and "
            f"{tuple(y.shape)} of {y.dtype}."
        )
    return torch.softmax(prediction.to(torch.promote_types(prediction.dtype, torch.float32)), dim=1)
