"""Passes of validation rows through a model that is being trained, which leave no trace in it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Listener",
    "device_of_model",
    "first_rows",
    "frozen_buffers",
    "last_linear",
    "unwrapped",
    "validation_pass",
    "warn_unless_training",
]


@contextmanager
def validation_pass(model: nn.Module) -> Iterator[None]:
    """Within it no gradient is recorded; afterwards normalization layers and random generators are as they were.

    The mode of the model stays: in training mode validation rows get the same normalization and dropout as training rows,
    so that a loss means the same on both.
    """
    with torch.no_grad(), frozen_buffers(model), _same_draws(device_of_model(model)):
        yield


@contextmanager
def frozen_buffers(model: nn.Module) -> Iterator[None]:
    """Within it layers in training mode, such as normalization, work as usual; afterwards their buffers are as they were."""
    recorded = [
        (layer, name, buffer)
        for layer in model.modules()
        if layer.training
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


def warn_unless_training(model: nn.Module) -> None:
    """Warn where a model with dropout or normalization is in evaluation mode."""
    modes = nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd
    if not model.training and any(isinstance(module, modes) for module in model.modules()):
        warnings.warn(
            "The model is in eval mode: dropout is off and the statistics of its normalization do not change. Call model.train() "
            "before the epoch, unless this is what you want.",
            UserWarning,
            stacklevel=3,
        )


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


class Listener:
    """Keeps, in a pass through a model, the output of the module named `layer` and the input of the last linear layer.

    One object serves every pass: a compiled model keeps writing to the object of its first pass.
    """

    def __init__(self, layer: str | None, *, keeps_last_layer: bool = False):
        self.layer = layer
        self._keeps_last_layer = keeps_last_layer
        self._outputs: list[Any] = []
        self._entries: list[Any] = []
        self._last_outputs: list[tuple[Any, int]] = []

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Within it the outputs of a pass through `model` are kept."""
        self._outputs.clear()
        self._entries.clear()
        self._last_outputs.clear()
        handles = []
        if self.layer is not None:
            handles.append(_module(model, self.layer).register_forward_hook(self._keep_output))
        if self._keeps_last_layer and (linear := last_linear(model)) is not None:
            handles.append(linear.register_forward_hook(self._keep_last))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def output(self, n_rows: int) -> Tensor:
        """The last output of the layer (n_rows, d), detached and flattened. Raises ValueError where it has another form."""
        output = self._outputs[-1] if self._outputs else None
        if not isinstance(output, Tensor) or len(output) != n_rows:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"The layer {self.layer!r} must give a tensor with a row for each of the {n_rows} rows; got {got}. A compiled "
                "model that ran before it was listened to gives none: call torch.compiler.reset() before the first step."
            )
        return output.detach().flatten(1)

    @property
    def last_entry(self) -> Tensor | None:
        """The last input of the last linear layer (n, h), detached."""
        return self._entries[-1].detach() if self._entries else None

    @property
    def last_output(self) -> Tensor | None:
        """The last output of the last linear layer, detached."""
        return self._last_outputs[-1][0].detach() if self._last_outputs else None

    @property
    def last_output_changed(self) -> bool:
        """Whether that output was changed in place since."""
        return bool(self._last_outputs) and self._last_outputs[-1][0]._version != self._last_outputs[-1][1]

    def _keep_output(self, module: nn.Module, args: Any, output: Any) -> None:
        self._outputs.append(output)

    def _keep_last(self, module: nn.Module, args: Any, output: Any) -> None:
        self._entries.append(args[0])
        self._last_outputs.append((output, output._version))


def last_linear(model: nn.Module) -> nn.Linear | None:
    """The last nn.Linear of a model, None where it has none."""
    return next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within wrappers such as torch.compile and DistributedDataParallel."""
    inner: Any = model
    while True:
        is_parallel = isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel)
        part = inner.module if is_parallel else getattr(inner, "_orig_mod", None)
        if not isinstance(part, nn.Module):
            return inner
        inner = part


def _module(model: nn.Module, layer: str) -> nn.Module:
    # Wrappers, those of unwrapped and the frameworks' adapters, keep the model under a name of their own.
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
    """Afterwards the random generators of the CPU and of `device` are as they were."""
    # While a CUDA graph is captured its generator cannot be read; a replay then draws on.
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        yield
        return
    has_generator = device.type not in ("cpu", "meta")
    with torch.random.fork_rng(devices=[device] if has_generator else [], device_type=device.type if has_generator else "cuda"):
        yield
