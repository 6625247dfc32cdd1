"""Small networks by the shape of their input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LINEAR_REACH", "is_linear", "made_network", "small_network"]

LINEAR_REACH = 3.0  # learning rate times steps, which bounds the weights of standardized columns


def small_network(input_shape: tuple[int, ...], n_classes: int, hidden: int = 256) -> nn.Module:
    """Two 3 x 3 convolutions and two linear layers for images (c, h, w); for rows (d,) a perceptron with two hidden layers."""
    if len(input_shape) == 1:
        first, second = nn.Linear(input_shape[0], hidden), nn.Linear(hidden, hidden)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(hidden, n_classes))
    channels, height, width = input_shape
    # Images above 16 pixels are pooled twice, so that the linear layer stays small.
    first_pool = nn.MaxPool2d(2) if height > 16 else nn.Identity()
    side = 2 if height > 16 else 1
    flat = 32 * (height // side // 2) * (width // side // 2)
    model = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        first_pool,
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, 128),
        nn.ReLU(),
        nn.Linear(128, n_classes),
    )
    # With few channels, channels-last memory halves the time on CPUs, and so does pooling before the ReLU.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types


def is_linear(model: nn.Module) -> bool:
    """Whether a network has one matrix of weights: its weights must grow until it is certain of a row."""
    return sum(parameter.ndim > 1 for parameter in model.parameters()) == 1


def made_network(factory: Any, rows: Tensor, n_classes: int) -> nn.Module:
    """The result of factory(n_features or shape, n_classes) for rows (n, ...), with logits (n, n_classes).

    Raises ValueError if it is not a module, can't take the rows, or gives other shapes.
    """
    shape = tuple(rows.shape[1:])
    size = shape[0] if len(shape) == 1 else shape
    try:
        made = factory(size, n_classes)
    except TypeError as error:
        raise ValueError(
            f"model must be a function (n_features or shape, n_classes) -> nn.Module; model({size}, {n_classes}): {error}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"model must be a function (n_features or shape, n_classes) -> nn.Module; it gave {type(made).__name__}.")
    network, some = made.to(rows.device).eval(), rows[:2]
    try:
        with torch.no_grad():
            found = network(some)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"The network that model makes can't take rows of shape {shape}: {error}") from error
    if getattr(found, "shape", None) != (len(some), n_classes):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(f"The network that model makes must give logits (n, {n_classes}); for {len(some)} rows it gave {got}.")
    return network.train()
