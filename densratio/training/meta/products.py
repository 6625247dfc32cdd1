"""Products <tangent, g_i> of one direction with the gradient of each row's loss, computed in four ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..loop.training_pass import Layer, TrainingPass

__all__ = ["PRODUCTS", "can_split_by_layers", "double_backward", "finite_differences", "forward", "layerwise", "tolerance"]

Product = Callable[[TrainingPass, Sequence[Tensor]], Tensor]


def forward(batch: TrainingPass, tangent: Sequence[Tensor]) -> Tensor:
    """Forward-mode differentiation (n,): one pass that carries the tangent along and keeps no graph."""
    # Fused attention has no forward mode; the plain products have.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        pairs = zip(batch.named_parameters.items(), tangent, strict=True)
        losses = batch.losses_at({name: forward_ad.make_dual(p.detach(), t) for (name, p), t in pairs})
        products = forward_ad.unpack_dual(losses).tangent
        return torch.zeros_like(losses) if products is None else products


def double_backward(batch: TrainingPass, tangent: Sequence[Tensor]) -> Tensor:
    """Derivative (n,) of sum_i v_i <tangent, g_i> in v: backward through the graph of a backward pass.

    It runs a pass of its own, because the kernels of the training pass may not be differentiable twice.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        parameters = {name: p.detach().requires_grad_() for name, p in batch.named_parameters.items()}
        losses = batch.losses_at(parameters)
        v = torch.ones_like(losses, requires_grad=True)
        gradients = torch.autograd.grad((v * losses).sum(), list(parameters.values()), create_graph=True, allow_unused=True)
        whole = torch.stack([(g * t).sum() for g, t in zip(gradients, tangent, strict=True) if g is not None]).sum()
        products = torch.autograd.grad(whole, v)[0] if whole.requires_grad else torch.zeros_like(losses.detach())
        # The whole is linear in v: a backward pass written without a graph loses a part, and the sum reveals it.
        if (products.sum() - whole.detach()).abs() > tolerance(batch) * products.norm():
            raise RuntimeError("A layer's backward pass can't be differentiated.")
        return products


def finite_differences(batch: TrainingPass, tangent: Sequence[Tensor]) -> Tensor:
    """Central differences (n,) of the losses along the tangent, for layers without forward mode and double backward.

    Accurate to about eps^(2/3) of the losses' own scale, eps the precision of the parameters.
    """
    with torch.no_grad():
        named = batch.named_parameters
        length, size = (torch.linalg.vector_norm(torch.stack([t.norm() for t in part])) for part in (tangent, list(named.values())))
        tiny = torch.finfo(length.dtype)
        step = tiny.eps ** (1 / 3) * size.clamp(min=1.0) / length.clamp(min=tiny.tiny)
        ends = (
            batch.losses_at({name: p + sign * step * t for (name, p), t in zip(named.items(), tangent, strict=True)})
            for sign in (1.0, -1.0)
        )
        return torch.where(length > 0, (next(ends) - next(ends)) / (2.0 * step), 0.0)


def tolerance(batch: TrainingPass) -> float:
    """Relative error of products from rounding in the passes through the model: the square root of their precision."""
    # A model may have autocast inside, as accelerate puts it there.
    is_half = torch.is_autocast_enabled(batch.losses.device.type) or any(layer.output.itemsize < 4 for layer in batch.layers or [])
    return float(torch.finfo(torch.bfloat16 if is_half else batch.losses.dtype).eps ** 0.5)


PRODUCTS: dict[str, Product] = {"forward": forward, "double_backward": double_backward, "finite_differences": finite_differences}
"""(batch, tangent) -> (n,); the first that a model supports is taken."""

LINEAR_IN_PARAMETERS = {
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding,
    nn.LayerNorm, nn.GroupNorm,
}  # fmt: skip
"""Layers whose output is linear in their weights and biases: with the tangent in their place they give the derivative.

Exactly these classes, because a subclass may compute something else.
"""


def can_split_by_layers(batch: TrainingPass) -> bool:
    """Whether every trained parameter belongs to layers of LINEAR_IN_PARAMETERS that visibly keep the rows apart.

    Rows that are combined between layers, and outputs changed in place, are not visible here; compare with another product.
    """
    layers, n = batch.layers, len(batch.losses)
    if layers is None or any(isinstance(module, nn.modules.batchnorm._NormBase) for module in batch.model.modules()):
        return False
    linear = [layer.module for layer in layers if type(layer.module) in LINEAR_IN_PARAMETERS]
    held = {id(p) for module in linear for p in module.parameters(recurse=False)}
    is_covered = all(id(p) in held for p in batch.named_parameters.values())
    return is_covered and len(linear) == len(layers) and all(_keeps_rows(layer, n) for layer in layers)


def _keeps_rows(layer: Layer, n: int) -> bool:
    has_rows = len(layer.entry) == len(layer.output) == n
    # torch.float16 cannot represent the least weights, by which slopes are divided.
    return (
        has_rows and layer.output.requires_grad and layer.output._version == layer.version and layer.output.dtype != torch.float16
    )


def _fitting(entry: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """The input of a layer in the precision of its parameters, unless autocast or the layer sees to that."""
    own = next(iter(parameters.values())).dtype
    if entry.dtype == own or not entry.is_floating_point() or torch.is_autocast_enabled(entry.device.type):
        return entry
    return entry.to(own)


def layerwise(layers: Sequence[Layer], slopes: Sequence[Tensor], tangents: dict[int, Tensor]) -> Tensor:
    """sum over layers <slope_i, layer(entry_i) with the tangent as its parameters> (n,): one product per layer, no other pass.

    slopes: d (sum of losses) / d output of each layer, (n, ...). tangents: by the id of the parameter; 0 for a missing one.
    """
    total: Tensor | None = None
    with torch.no_grad():
        for layer, slope in zip(layers, slopes, strict=True):
            named = layer.module.named_parameters(recurse=False)
            parameters = {name: tangents.get(id(p), torch.zeros_like(p)) for name, p in named}
            moved = functional_call(layer.module, parameters, (_fitting(layer.entry, parameters),))
            # One pass over both, without the product in memory.
            part = torch.linalg.vecdot(slope.flatten(1), moved.flatten(1).to(slope.dtype))
            total = part if total is None else total + part
    assert total is not None
    return total
