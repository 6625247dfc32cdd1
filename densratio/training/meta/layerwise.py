"""Products <tangent, g_i> from what the backward pass gave anyway: one more product in each layer, no further pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..loop.training_pass import Layer, TrainingPass

__all__ = ["can_split_by_layers", "layerwise"]

LINEAR_IN_PARAMETERS = {
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding,
    nn.LayerNorm, nn.GroupNorm,
}  # fmt: skip
"""Layers whose output is linear in their weights and biases: with the tangent in their place they give its derivative.

These classes alone: a subclass may compute something else.
"""


def can_split_by_layers(rows: TrainingPass) -> bool:
    """Whether every trained parameter belongs to layers of LINEAR_IN_PARAMETERS that keep the rows apart, as far as can be seen.

    Rows that are combined in between, and outputs changed in place, can't be seen here; compare the numbers with another product.
    """
    layers, n = rows.layers, len(rows.losses)
    if layers is None or any(isinstance(module, nn.modules.batchnorm._NormBase) for module in rows.model.modules()):
        return False
    linear = [layer.module for layer in layers if type(layer.module) in LINEAR_IN_PARAMETERS]
    held = {id(p) for module in linear for p in module.parameters(recurse=False)}
    is_covered = all(id(p) in held for p in rows.named_parameters.values())
    return is_covered and len(linear) == len(layers) and all(_keeps_rows(layer, n) for layer in layers)


def _keeps_rows(layer: Layer, n: int) -> bool:
    has_rows = len(layer.entry) == len(layer.output) == n
    # Half precision of torch.float16 has no room for the least weights that slopes are divided by.
    return has_rows and layer.output.requires_grad and not layer.is_changed and layer.output.dtype != torch.float16


def layerwise(layers: Sequence[Layer], slopes: Sequence[Tensor], tangents: dict[int, Tensor]) -> Tensor:
    """sum over layers <slope_i, layer(entry_i) with the tangent as its parameters> (n,).

    slopes: d (sum of losses) / d output of each layer, (n, ...). tangents: by the id of the parameter; 0 where there is none.
    """
    total: Tensor | None = None
    with torch.no_grad():
        for layer, slope in zip(layers, slopes, strict=True):
            named = layer.module.named_parameters(recurse=False)
            parameters = {name: tangents.get(id(p), torch.zeros_like(p)) for name, p in named}
            moved = functional_call(layer.module, parameters, (layer.entry,))
            # One pass over both, without a product in memory.
            part = torch.linalg.vecdot(slope.flatten(1), moved.flatten(1).to(slope.dtype))
            total = part if total is None else total + part
    assert total is not None
    return total
