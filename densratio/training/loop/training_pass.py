"""The pass of a training batch through the model, and its losses under other parameters with the same random draws."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..losses import Loss
from .draws import generator_states, same_draws, set_generators
from .model import Listener, device_of_model, unwrapped
from .ranks import Rows
from .validation_pass import frozen_buffers, validation_pass

__all__ = ["LastLayer", "Layer", "TrainingPass", "last_layer", "weighted_gradient"]

_SHORT = {torch.uint8, torch.int8, torch.int16, torch.int32}  # integers that are no labels to torch
_SINK = "_DDPSinkBackward"  # DistributedDataParallel's copy of all outputs
_COPIES = {"CloneBackward0", "ToCopyBackward0", _SINK}  # nodes of the graph that pass a tensor on as it is


class Layer(NamedTuple):
    """A layer with parameters of its own, its input and its output, (n, ...) each, the latter with its graph."""

    module: nn.Module
    entry: Tensor
    output: Tensor
    version: int
    """Version of the output, which changes when it is modified in place."""


@dataclass(frozen=True)
class TrainingPass:
    """Losses (n,) of a training batch with their graph, its predictions (n, ...), and what recomputing them takes.

    entry: the input of the last linear layer, detached, if it was kept. ends_in_last_layer: whether the predictions (n, C) are the
    output of that layer.
    found: values that a method computed from the rows and needs again in the same batch, by name.
    weight_scale: the factor that turns a weight here into the weight of its row.
    """

    model: nn.Module
    x: Any
    y: Any
    loss: Loss
    prediction: Tensor
    losses: Tensor
    entry: Tensor | None
    ends_in_last_layer: bool
    draws: tuple[Tensor, Tensor | None]
    layers: list[Layer] | None = None
    found: dict[str, Tensor] = field(default_factory=dict)
    weight_scale: float = 1.0

    @classmethod
    def of(cls, model: nn.Module, x: Any, y: Any, loss: Loss, *, keeps: Collection[str] = ()) -> TrainingPass:
        """Pass the rows through the model, in its present mode, as plain training would.

        keeps: "last_layer" keeps the input and output of the last linear layer, "layers" those of every layer with parameters.
        """
        if isinstance(y, Tensor) and y.ndim == 1 and y.dtype in _SHORT:
            y = y.long()  # as torch's indexing takes them
        listener, device = Listener(None, keeps_last_layer="last_layer" in keeps), device_of_model(model)
        draws = generator_states(device)
        layers: list[Layer] | None = [] if "layers" in keeps else None
        with listener.of(model), _collecting(model, layers):
            prediction = model(x)
        entry, output = listener.last()
        return cls(model, x, y, loss, prediction, loss(prediction, y), entry, _ends_in(prediction, entry, output), draws, layers)

    @property
    def named_parameters(self) -> dict[str, Tensor]:
        """The parameters that are trained, by name in the unwrapped model."""
        return {name: p for name, p in unwrapped(self.model).named_parameters() if p.requires_grad}

    def losses_at(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Losses (n,) under other parameters, with the same dropout draws; they leave no trace in the model."""
        device = device_of_model(self.model)
        with frozen_buffers(self.model), same_draws(device):
            set_generators(self.draws, device)
            return self.loss(functional_call(unwrapped(self.model), dict(parameters), (self.x,)), self.y)

    def features(self, name: str, n_features: int) -> Tensor:
        """The kept input (n, n_features) of the last linear layer, detached.

        Raises ValueError, in the name of a method, if the model has no such layer or one of another width.
        """
        entry = self.entry
        if entry is None or entry.ndim != 2 or len(entry) != len(self.losses) or entry.shape[1] != n_features:
            got = "has none" if entry is None else f"has an input of shape {tuple(entry.shape)}"
            raise ValueError(
                f"{name} weighs rows by the input (n, {n_features}) of the model's last nn.Linear; this model {got}. "
                "Give n_features, the in_features of that layer."
            )
        return entry.detach()

    def last_layer(self) -> LastLayer:
        """Factors of the rows' gradients in the last linear layer. Raises ValueError if the predictions are not its output."""
        _check_prediction(self.prediction)
        if not self.ends_in_last_layer:
            raise ValueError(
                'mode="last_layer" needs a model whose predictions (n, C) are the output of its last nn.Linear, with nothing after '
                'it, such as a softmax; use mode="first_order" or mode="exact" with this one.'
            )
        return last_layer(self.prediction, self.y, self.loss, self.entry)

    def last_layer_of(self, x: Any, y: Any) -> LastLayer:
        """The same for other rows, in a pass that leaves no trace; whether predictions are that output, this pass has shown."""
        listener = Listener(None, keeps_last_layer=True)
        with validation_pass(self.model), listener.of(self.model):
            prediction = self.model(x)
        return last_layer(prediction, y, self.loss, listener.last()[0])


class LastLayer(NamedTuple):
    """Gradients of the losses of n rows in the last linear layer, in two factors: g_i = slope_i outer (entry_i, 1)."""

    slope: Tensor
    """(n, C) d loss_i / d output_i."""
    entry: Tensor
    """(n, h) its input; h = 0 if the model has no such layer."""

    def of_all_rows(self) -> LastLayer:
        """The factors of the rows of all ranks."""
        rows = Rows(len(self.slope))
        return LastLayer(*(rows.all(part) for part in self))


def last_layer(prediction: Tensor, label: Any, losses: Loss, entry: Tensor | None) -> LastLayer:
    """Factors of the rows' gradients, from the outputs (n, ...) of a model and the input of its last linear layer.

    Raises ValueError for a model that predicts anything but one tensor.
    """
    _check_prediction(prediction)
    output = prediction.detach().to(torch.promote_types(prediction.dtype, torch.float32)).requires_grad_()
    with torch.enable_grad():
        slope = torch.autograd.grad(losses(output, label).sum(), output)[0].flatten(1)
    fits = entry is not None and entry.ndim == 2 and prediction.ndim == 2 and len(entry) == len(prediction)
    return LastLayer(slope, entry.to(slope.dtype) if fits and entry is not None else slope[:, :0])


def _check_prediction(prediction: Any) -> None:
    if not isinstance(prediction, Tensor):
        raise ValueError(
            f"Gradients of the last layer need a model that predicts one tensor; this one gives a {type(prediction).__name__}. "
            'Type one method in place of "auto", such as "kmm", and mode="first_order" or mode="exact" in place of "last_layer".'
        )


def weighted_gradient(layer: LastLayer, weights: Tensor) -> Tensor:
    """sum_i w_i g_i (C, h + 1), for weights (n,); the last column is the biases'."""
    weighted = (layer.slope * weights[:, None]).mT
    return torch.cat([weighted @ layer.entry, weighted.sum(dim=1, keepdim=True)], dim=1)


@contextmanager
def _collecting(model: nn.Module, layers: list[Layer] | None) -> Iterator[None]:
    """Inside it every call of a module with its own parameters is added to `layers`, unless that is None."""

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if layers is not None and len(args) == 1 and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            layers.append(Layer(module, args[0].detach(), output, output._version))

    own = [m for m in unwrapped(model).modules() if layers is not None and any(True for _ in m.parameters(recurse=False))]
    handles = [module.register_forward_hook(keep) for module in own]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ends_in(prediction: Any, entry: Tensor | None, output: Tensor | None) -> bool:
    """Whether a prediction is the output of the last linear layer, given that layer's input and output, or None."""
    if entry is None or entry.ndim != 2 or output is None or not isinstance(prediction, Tensor):
        return False
    is_same = output.data_ptr() == prediction.data_ptr()
    return output.shape == prediction.shape and (is_same or _is_passed_on(output, prediction))


def _is_passed_on(output: Tensor, prediction: Tensor) -> bool:
    """Whether a prediction is a copy of the output, as wrappers make it for another precision or to find unused parameters."""
    node, place = prediction.grad_fn, prediction.output_nr
    while node is not None and (node is not output.grad_fn or place != output.output_nr):
        if node.name() not in _COPIES:
            return False
        edges = [edge for edge in node.next_functions if edge[0] is not None]
        # Of the sink's inputs, the first is no output of the model, and those without a gradient have no edge.
        needs = getattr(node, "needs_input_grad", ())
        node, place = edges[sum(needs[1 : 1 + place])] if node.name() == _SINK else edges[0]
    return node is not None
