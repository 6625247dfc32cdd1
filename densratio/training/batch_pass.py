"""One pass of a training batch, kept so that its losses can be had again under other parameters and the same draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .agreement import LastLayer, last_layer
from .losses import Loss
from .passes import Listener, device_of_model, frozen_statistics, unwrapped, validation_pass

__all__ = ["BatchPass"]


@dataclass(frozen=True)
class BatchPass:
    """Losses (n,) of a training batch with their graph, its predictions (n, ...), and what is needed to compute them again."""

    model: nn.Module
    x: Any
    y: Any
    loss: Loss
    prediction: Tensor
    losses: Tensor
    entry: Tensor | None
    output: Tensor | None
    draws: tuple[Tensor, Tensor | None]

    @classmethod
    def of(cls, model: nn.Module, x: Any, y: Any, loss: Loss, *, hears_last_layer: bool = False) -> BatchPass:
        """Pass the rows through the model, in the mode it is in, as plain training would."""
        listener, draws = Listener(None, hears_last_layer=hears_last_layer), _draws(device_of_model(model))
        with listener.of(model):
            prediction = model(x)
        return cls(model, x, y, loss, prediction, loss(prediction, y), listener.last_entry, listener.last_output, draws)

    @property
    def named_parameters(self) -> dict[str, Tensor]:
        """The parameters that are trained, by name in the unwrapped model."""
        return {name: p for name, p in unwrapped(self.model).named_parameters() if p.requires_grad}

    def losses_at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Losses (n,) under other parameters, with the same draws of dropout; leaves no trace in the model."""
        with frozen_statistics(self.model), _with_draws(self.draws, device_of_model(self.model)):
            return self.loss(functional_call(unwrapped(self.model), dict(parameters), (self.x,)), self.y)

    def last_layer(self) -> LastLayer:
        """Factors of the rows' gradients in the last linear layer. Raises ValueError where the predictions are no such layer's."""
        return _last_layer(self.prediction, self.y, self.loss, self.entry, self.output)

    def last_layer_of(self, x: Any, y: Any) -> LastLayer:
        """The same of other rows, in a pass that leaves no trace."""
        listener = Listener(None, hears_last_layer=True)
        with validation_pass(self.model), listener.of(self.model):
            prediction = self.model(x)
        return _last_layer(prediction, y, self.loss, listener.last_entry, listener.last_output)


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


