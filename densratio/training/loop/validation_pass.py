"""Passes of validation rows through a model in training, which leave no trace in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .draws import same_draws
from .model import device_of_model

__all__ = ["evaluation", "first_rows", "frozen_buffers", "validation_pass"]


@contextmanager
def validation_pass(model: nn.Module) -> Iterator[None]:
    """Inside it no gradient is recorded; afterwards normalization layers and random generators are as they were before.

    The model keeps its mode: in training mode validation rows get the same normalization and dropout as training rows, so that a
    loss means the same for both.
    """
    with torch.no_grad(), frozen_buffers(model), same_draws(device_of_model(model)):
        yield


@contextmanager
def frozen_buffers(model: nn.Module) -> Iterator[None]:
    """Inside it layers in training mode, such as normalization, work as usual; afterwards their buffers are as they were before."""
    recorded = [
        (layer, name, buffer)
        for layer in model.modules()
        if layer.training
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    # Copies take the updates, so that autograd sees no change in the true buffers.
    for layer, name, buffer in recorded:
        layer._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for layer, name, buffer in recorded:
            layer._buffers[name] = buffer


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Inside it every layer of the model is in eval mode."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, is_training in modes:
            layer.training = is_training


def first_rows(batch: Any, n: int) -> Any:
    """The first n rows of a tensor, or of every tensor in a dict, tuple or list."""
    if isinstance(batch, Mapping):
        return {key: first_rows(part, n) for key, part in batch.items()}
    if isinstance(batch, tuple | list) and any(isinstance(part, Tensor | Mapping) for part in batch):
        return type(batch)(first_rows(part, n) for part in batch)
    return batch[:n]
