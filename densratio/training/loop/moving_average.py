"""A moving average of a model's parameters and running statistics, and what the averaged model predicts."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..._validation import check_number
from .model import device_of_model, unwrapped
from .validation_pass import evaluation, validation_pass

__all__ = ["MovingAverage"]


class MovingAverage(nn.Module):
    """value <- decay value + (1 - decay) parameter in each step; integer buffers are copied. decay in [0, 1).

    The first steps average all steps so far, so that the initial parameters do not dominate. The values are in state_dict.
    """

    def __init__(self, decay: float = 0.99):
        super().__init__()
        check_number("decay", decay, "[0, 1)")
        self.decay = decay
        self.values: dict[str, Tensor] = {}
        self.n_steps = 0

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Add the present parameters to the average."""
        decay = min(self.decay, self.n_steps / (self.n_steps + 1.0))
        inner = unwrapped(model)
        # Tied weights appear once, by the name that functional_call takes.
        for name, value in chain(inner.named_parameters(), inner.named_buffers()):
            value = value.detach()
            if name not in self.values or not value.is_floating_point():
                self.values[name] = value.detach().clone()
            else:
                # A new tensor, so that a holder of the old values can restore them.
                self.values[name] = torch.lerp(self.values[name].to(value), value, 1.0 - decay)
        self.n_steps += 1

    def predict(self, model: nn.Module, x: Any) -> Tensor:
        """Prediction of the averaged model, in eval mode, for the rows x; without gradients, and without a trace in `model`."""
        inner, values = unwrapped(model), self.values_on(device_of_model(model))
        with validation_pass(inner), evaluation(inner):
            return functional_call(inner, values, (x,))

    def values_on(self, device: torch.device) -> dict[str, Tensor]:
        """The values by name, which are moved to the device."""
        self.values = {name: value.to(device) for name, value in self.values.items()}
        return self.values

    def get_extra_state(self) -> dict[str, Any]:
        """The values, for state_dict."""
        return {"values": self.values, "n_steps": self.n_steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load the values of a state_dict."""
        self.values, self.n_steps = {name: value.clone() for name, value in state["values"].items()}, state["n_steps"]
