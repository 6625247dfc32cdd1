"""Passes of validation rows through a model that is being trained, which leave no trace in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LayerOutputs", "device_of_model", "first_rows", "frozen_statistics", "validation_pass"]


@contextmanager
def validation_pass(model: nn.Module) -> Iterator[None]:
    """Within it no gradient is recorded; what normalisation layers and random generators record is forgotten afterwards.

    The mode of the model stays: in training mode validation rows meet the same normalisation and dropout as training rows,
    so that a loss means the same on both.
    """
    with torch.no_grad(), frozen_statistics(model), _same_draws(device_of_model(model)):
        yield


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within it normalisation layers in training mode normalise as usual, and what they record is forgotten afterwards."""
    recorded = [
        (layer, name, buffer)
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.training
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    # Stand-ins take the updates, so that the true buffers are not written to and autograd sees no change in them.
    for layer, name, buffer in recorded:
        layer._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for layer, name, buffer in recorded:
            layer._buffers[name] = buffer


def first_rows(batch: Any, n: int) -> Any:
    """The first n rows of a tensor, or of every tensor in a dict, tuple or list."""
    if isinstance(batch, Mapping):
        return {key: first_rows(part, n) for key, part in batch.items()}
    if isinstance(batch, tuple | list) and any(isinstance(part, Tensor | Mapping) for part in batch):
        return type(batch)(first_rows(part, n) for part in batch)
    return batch[:n]


def device_of_model(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model without any."""
    first: Tensor | None = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


class LayerOutputs:
    """Takes what the module named `layer` gives in a pass through a model; nothing where layer is None.

    One object serves every pass: a compiled model keeps writing to the object that its first pass met.
    """

    def __init__(self, layer: str | None):
        self.layer = layer
        self._taken: list[Tensor] = []

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Within it passes through `model` are listened to."""
        if self.layer is None:
            yield
            return
        self._taken.clear()
        handle = _module(model, self.layer).register_forward_hook(self._take)
        try:
            yield
        finally:
            handle.remove()

    def last(self, n_rows: int) -> Tensor:
        """The last output (n_rows, d), detached and flattened."""
        if not self._taken or not isinstance(self._taken[-1], Tensor) or len(self._taken[-1]) != n_rows:
            got = f"shape {tuple(self._taken[-1].shape)}" if self._taken and isinstance(self._taken[-1], Tensor) else "none"
            raise ValueError(
                f"The layer {self.layer!r} must give a tensor with a row for each of the {n_rows} rows; got {got}. A compiled "
                "model that ran before it was listened to gives none: call torch.compiler.reset() before the first step."
            )
        return self._taken.pop().detach().flatten(1)

    def _take(self, module: nn.Module, args: Any, output: Any) -> None:
        self._taken.append(output)


def _module(model: nn.Module, layer: str) -> nn.Module:
    # Wrappers such as DistributedDataParallel and torch.compile keep the model under a name of their own.
    inner = model
    for _ in range(4):
        modules = dict(inner.named_modules())
        if layer in modules:
            return modules[layer]
        inner = next((part for name in ("module", "_orig_mod") if isinstance(part := getattr(inner, name, None), nn.Module)), inner)
    names = [name for name, _ in inner.named_modules() if name]
    raise ValueError(f"The model has no layer {layer!r}; its layers are {names[:30]}{' ...' if len(names) > 30 else ''}.")


@contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Random generators of the CPU and of `device` are afterwards where they were."""
    # While a CUDA graph is captured its generator cannot be read; a replay then draws on.
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        yield
        return
    has_generator = device.type not in ("cpu", "meta")
    with torch.random.fork_rng(devices=[device] if has_generator else [], device_type=device.type if has_generator else "cuda"):
        yield
