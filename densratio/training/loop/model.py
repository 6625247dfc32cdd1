"""The model that a loop trains: its device and layers, what wraps it, and what a pass shows of its layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from .told import warn

__all__ = [
    "Adapter",
    "Listener",
    "compile_anew",
    "device_of_model",
    "eager",
    "is_compiled",
    "last_linear",
    "single_precision",
    "uncompiled",
    "unwrapped",
    "warn_unless_training",
]


P = ParamSpec("P")
R = TypeVar("R")


class eager(Generic[P, R]):  # noqa: N801  # a decorator
    """A method that runs uncompiled where a whole step is compiled. torch's compiler, a third of the import, loads only there."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]):
        self.method = method

    def __get__(self, owner: Any, kind: Any = None) -> Callable[P, R]:
        method: Any = self.method
        if owner is None:
            return method
        if torch.compiler.is_compiling():
            method = torch.compiler.disable(method)
        return method.__get__(owner, kind)


def single_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Inside it the loop's autocast is off."""
    is_on = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if is_on else nullcontext()


class Adapter(nn.Module, ABC):
    """A module that calls a model, `module`, with other arguments or outputs; for the adapters of frameworks."""

    module: nn.Module

    @abstractmethod
    def around(self, module: nn.Module) -> nn.Module:
        """The same around another module, such as the model without its wrapper."""


def device_of_model(model: nn.Module) -> torch.device:
    """The device of the first parameter or buffer; the CPU for a model without any."""
    first: Tensor | None = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def last_linear(model: nn.Module) -> nn.Linear | None:
    """The last nn.Linear of a model; None if it has none."""
    return next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model within wrappers such as torch.compile and DistributedDataParallel; an adapter stays, around that model."""
    if isinstance(model, Adapter):
        return model.around(unwrapped(model.module))
    inner: Any = model
    while True:
        is_parallel = isinstance(inner, nn.parallel.DistributedDataParallel | nn.DataParallel)
        part = inner.module if is_parallel else getattr(inner, "_orig_mod", None)
        if not isinstance(part, nn.Module):
            return inner
        inner = part


def uncompiled(model: nn.Module) -> nn.Module:
    """The model without torch.compile around it, in an adapter or alone."""
    if isinstance(model, Adapter):
        return model.around(uncompiled(model.module))
    return getattr(model, "_orig_mod", model)


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it runs under torch.compile."""
    return any(hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) for part in model.modules())


def compile_anew(model: nn.Module) -> None:
    """Have a compiled model compiled again before the first pass that listens to it.

    Code compiled earlier, for this model or another of its class, would not call the hooks.
    """
    if is_compiled(model):
        torch.compiler.reset()


def warn_unless_training(model: nn.Module) -> None:
    """Warn if a model with dropout or normalization is in evaluation mode."""
    modes = nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd
    if not model.training and any(isinstance(module, modes) for module in model.modules()):
        warn(
            "The model is in eval mode: dropout is off and the statistics of its normalization do not change. Call model.train() "
            "before the epoch, unless this is what you want."
        )


class Listener:
    """Keeps, in a pass through a model, the output of the module named `layer`, and the input and output of the last linear layer.

    One object serves every pass, because a compiled model keeps writing to the object of its first pass. A copy is empty.
    """

    def __init__(self, layer: str | None, *, keeps_last_layer: bool = False):
        self.layer = layer
        self._keeps_last_layer = keeps_last_layer
        self._outputs: list[Any] = []
        self._last: list[tuple[Any, Any, int]] = []

    def __getstate__(self) -> dict[str, Any]:
        # The outputs of a pass hold its graph, which cannot be copied.
        return {**self.__dict__, "_outputs": [], "_last": []}

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """Inside it the outputs of a pass through `model` are kept."""
        self._outputs.clear()
        self._last.clear()
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
        """The last output of the layer (n_rows, d), detached and flattened. Raises ValueError for an output of another form."""
        output = self._outputs[-1] if self._outputs else None
        if not isinstance(output, Tensor) or len(output) != n_rows:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"The layer {self.layer!r} must give a tensor with a row for each of the {n_rows} rows; got {got}. A compiled "
                "model that ran before it was listened to gives none: call torch.compiler.reset() before the step."
            )
        return output.detach().flatten(1)

    def last(self) -> tuple[Tensor | None, Tensor | None]:
        """The last input (n, h) of the last linear layer, detached, and its output; no output if it was changed in place since."""
        if not self._last:
            return None, None
        entry, output, version = self._last[-1]
        return entry.detach(), output if output._version == version else None

    def _keep_output(self, module: nn.Module, args: Any, output: Any) -> None:
        self._outputs.append(output)

    def _keep_last(self, module: nn.Module, args: Any, output: Any) -> None:
        self._last.append((args[0], output, output._version))


def _module(model: nn.Module, layer: str) -> nn.Module:
    # Wrappers, torch's and the frameworks' adapters, hold the model under a name of their own.
    inner = model
    for _ in range(4):
        modules = dict(inner.named_modules())
        if layer in modules:
            return modules[layer]
        inner = next((part for name in ("module", "_orig_mod") if isinstance(part := getattr(inner, name, None), nn.Module)), inner)
    names = [name for name, _ in inner.named_modules() if name]
    raise ValueError(f"The model has no layer {layer!r}; its layers are {names[:30]}{' ...' if len(names) > 30 else ''}.")
