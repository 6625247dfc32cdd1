"""One pass of a training batch, kept so that its losses can be had again under other parameters and the same draws."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .last_layer import LastLayer, last_layer
from .losses import Loss
from .validation_pass import Listener, device_of_model, frozen_buffers, unwrapped, validation_pass

__all__ = ["BatchPass", "Layer"]


class Layer(NamedTuple):
    """A layer with parameters of its own, what it took in and what it gave, (n, ...) each, the latter with its graph."""

    module: nn.Module
    entry: Tensor
    output: Tensor
    version: int

    @property
    def is_changed(self) -> bool:
        """Whether what it gave was changed in place since."""
        return self.output._version != self.version


@dataclass(frozen=True)
class BatchPass:
    """Losses (n,) of a training batch with their graph, its predictions (n, ...), and what is needed to compute them again.

    found: what a method computed of the rows and needs more than once in the batch, by name.
    """

    model: nn.Module
    x: Any
    y: Any
    loss: Loss
    prediction: Tensor
    losses: Tensor
    entry: Tensor | None
    output: Tensor | None
    draws: tuple[Tensor, Tensor | None]
    layers: list[Layer] | None = None
    found: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module, x: Any, y: Any, loss: Loss, *, hears: Collection[str] = ()) -> BatchPass:
        """Pass the rows through the model, in the mode it is in, as plain training would.

        hears: "last_layer" keeps what the last linear layer took in and gave, "layers" that of every layer with parameters.
        """
        listener, draws = Listener(None, hears_last_layer="last_layer" in hears), _draws(device_of_model(model))
        layers: list[Layer] | None = [] if "layers" in hears else None
        with listener.of(model), _collecting(model, layers):
            prediction = model(x)
        entry, output = listener.last_entry, None if listener.last_output_changed else listener.last_output
        return cls(model, x, y, loss, prediction, loss(prediction, y), entry, output, draws, layers)

    @property
    def named_parameters(self) -> dict[str, Tensor]:
        """The parameters that are trained, by name in the unwrapped model."""
        return {name: p for name, p in unwrapped(self.model).named_parameters() if p.requires_grad}

    def losses_at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Losses (n,) under other parameters, with the same draws of dropout; leaves no trace in the model."""
        with frozen_buffers(self.model), _with_draws(self.draws, device_of_model(self.model)):
            return self.loss(functional_call(unwrapped(self.model), dict(parameters), (self.x,)), self.y)

    def last_layer(self) -> LastLayer:
        """Factors of the rows' gradients in the last linear layer. Raises ValueError where the predictions are no such layer's."""
        return _last_layer(self.prediction, self.y, self.loss, self.entry, self.output)

    def last_layer_of(self, x: Any, y: Any) -> LastLayer:
        """The same of other rows, in a pass that leaves no trace."""
        listener = Listener(None, hears_last_layer=True)
        with validation_pass(self.model), listener.of(self.model):
            prediction = self.model(x)
        output = None if listener.last_output_changed else listener.last_output
        return _last_layer(prediction, y, self.loss, listener.last_entry, output)


@contextmanager
def _collecting(model: nn.Module, layers: list[Layer] | None) -> Iterator[None]:
    """Within it every call of a module with parameters of its own adds to `layers`, unless that is None."""

    def hear(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if layers is not None and len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            layers.append(Layer(module, args[0].detach(), output, output._version))

    own = [m for m in unwrapped(model).modules() if layers is not None and any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_hook(hear) for module in own]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_layer(prediction: Tensor, y: Any, loss: Loss, entry: Tensor | None, output: Tensor | None) -> LastLayer:
    is_last = output is not None and output.shape == prediction.shape and output.data_ptr() == prediction.data_ptr()
    if entry is None or entry.ndim != 2 or not is_last:
        raise ValueError(
            'mode="last_layer" needs a model whose predictions (n, C) are what its last nn.Linear gives, with nothing after it, '
            'such as a softmax; use mode="first_order" or mode="exact" with this one.'
        )
    return last_layer(prediction, y, loss, entry)


def _draws(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def _with_draws(draws: tuple[Tensor, Tensor | None], device: torch.device) -> Iterator[None]:
    """Random generators draw again what they drew then, and go on afterwards from where they are now."""
    now = _draws(device)
    _set_draws(draws, device)
    try:
        yield
    finally:
        _set_draws(now, device)


def _set_draws(draws: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(draws[0])
    if draws[1] is not None:
        torch.cuda.set_rng_state(draws[1], device)
