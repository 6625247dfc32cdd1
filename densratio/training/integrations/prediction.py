"""A model as a reweighter calls it: one argument in, one prediction out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..loop.validation_pass import validation_pass

__all__ = ["Prediction"]


class Prediction(nn.Module):
    """Calls a model of other arguments and outputs, and keeps its outputs.

    module: the model, whose layers, mode and device count. call(x) -> its outputs; prediction(outputs) -> what a loss takes.
    """

    def __init__(self, module: nn.Module, call: Callable[[Any], Any], prediction: Callable[[Any], Any] = lambda outputs: outputs):
        super().__init__()
        self.module = module
        self._call = call
        self._prediction = prediction
        self._given: list[tuple[Any, Any]] = []

    def forward(self, x: Any) -> Any:
        outputs = self._call(x)
        self._given.append((x, outputs))
        return self._prediction(outputs)

    def outputs(self, x: Any) -> Any:
        """The model's outputs for x, from the pass of x, or from a new one without gradients where there was none."""
        for given, outputs in self._given:
            if given is x:
                return outputs
        with validation_pass(self.module):
            return self._call(x)
