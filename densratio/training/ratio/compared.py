"""What a step compares of a pass through the model: losses, the output of a layer, or a transformation of the prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..loop.training_pass import LastLayer, last_layer
from ..loop.validation_pass import Listener, is_compiled
from ..losses import Loss

__all__ = ["Compared", "Comparison", "Transformation"]

Transformation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, label, losses (n,)) -> what is compared, (n,) or (n, d)."""


class Compared(NamedTuple):
    """Of the rows of one pass: losses (n,), values (n,) or (n, d) to compare, and gradients in the last layer where asked for."""

    losses: Tensor
    values: Tensor
    last: LastLayer | None


class Comparison:
    """A pass through the model that keeps what is compared: of `layer`, or else of `transformation`, or else the losses."""

    def __init__(self, layer: str | None, transformation: Transformation | None, *, keeps_last_layer: bool):
        self.transformation = transformation
        self._listener = Listener(layer, keeps_last_layer=keeps_last_layer)
        self._is_heard = layer is None and not keeps_last_layer

    def of(self, model: nn.Module, x: Any, y: Any, loss: Loss, *, wants_last: bool) -> Compared:
        """The rows (x, y) passed through `model`, in the mode it is in."""
        if not self._is_heard and is_compiled(model):
            # Code that was compiled before it was listened to, for this model or another of its class, would tell nothing.
            torch.compiler.reset()
        self._is_heard = True
        with self._listener.of(model):
            prediction = model(x)
        losses = loss(prediction, y)
        last = last_layer(prediction, y, loss, self._listener.last()[0]) if wants_last else None
        if self._listener.layer is not None:
            return Compared(losses, self._listener.output(len(losses)), last)
        return Compared(losses, losses if self.transformation is None else self.transformation(prediction, y, losses), last)
