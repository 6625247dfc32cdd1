"""The next step of a torch optimizer without taking it: where it leads, and its derivative in the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._arrays import waits_for

__all__ = ["OPTIMIZERS", "VirtualStep", "learning_rates", "rule_of", "virtual_step"]

Group = dict[str, Any]
Rule = Callable[[Tensor, Tensor, Group, dict[str, Any]], tuple[Tensor, Tensor]]


class VirtualStep(NamedTuple):
    """Lists over the parameters: their values after the step, and minus the derivative of each entry in its own gradient."""

    parameters: list[Tensor]
    slope: list[Tensor]


def virtual_step(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> VirtualStep:
    """The step that `optimizer` would take from its present state with these gradients; the optimizer does not change.

    The rules of torch act entry by entry, so the derivative is diagonal: SGD and momentum lr, Nesterov lr (1 + mu),
    Adam lr [(1 - b1) / c1 / q - m (1 - b2) g / (c2 s q^2)] with s = sqrt(v), q = s + eps. Parameters that the optimizer does
    not hold stay. Raises ValueError for an optimizer that is not in OPTIMIZERS, or one that maximizes.
    """
    rule, optimizer = rule_of(optimizer), _innermost(optimizer)
    groups = _groups(optimizer)
    moved, slope = [], []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        start, group = parameter.detach(), groups.get(id(parameter))
        # Torch leaves a parameter without a gradient where it is, weight decay or not.
        if group is None or gradient is None:
            step = start, torch.zeros_like(start)
        else:
            step = rule(start, gradient.detach(), group, optimizer.state.get(parameter, {}))
        moved.append(step[0])
        slope.append(step[1])
    return VirtualStep(moved, slope)


def learning_rates(optimizer: torch.optim.Optimizer | None, parameters: Sequence[Tensor]) -> list[Any]:
    """Learning rate of each parameter, 0 for one that the optimizer does not hold; 1 for all without an optimizer."""
    if optimizer is None:
        return [1.0 for _ in parameters]
    groups = _groups(_innermost(optimizer))
    return [groups[id(p)]["lr"] if id(p) in groups else 0.0 for p in parameters]


def _sgd(parameter: Tensor, gradient: Tensor, group: Group, state: dict[str, Any]) -> tuple[Tensor, Tensor]:
    gradient = gradient + group["weight_decay"] * parameter
    step, share, momentum = gradient, 1.0, group["momentum"]
    if momentum != 0:
        buffer = state.get("momentum_buffer")
        # For sparse gradients, as of nn.EmbeddingBag(sparse=True), torch keeps a sparse buffer.
        buffer = buffer.to_dense() if buffer is not None and buffer.is_sparse else buffer
        # The first step is not dampened.
        share = 1.0 if buffer is None else 1.0 - group["dampening"]
        step = gradient if buffer is None else momentum * buffer + share * gradient
        if group["nesterov"]:
            step, share = gradient + momentum * step, 1.0 + momentum * share
    return parameter - group["lr"] * step, torch.zeros_like(parameter) + group["lr"] * share


def _adam(parameter: Tensor, gradient: Tensor, group: Group, state: dict[str, Any]) -> tuple[Tensor, Tensor]:
    (b1, b2), lr, eps = group["betas"], group["lr"], group["eps"]
    if group["weight_decay"] != 0:
        if group.get("decoupled_weight_decay", False):
            parameter = parameter * (1.0 - lr * group["weight_decay"])
        else:
            gradient = gradient + group["weight_decay"] * parameter
    count = _count(state) + 1
    c1, c2 = 1.0 - b1**count, 1.0 - b2**count
    if "exp_avg" in state:
        mean = torch.lerp(state["exp_avg"], gradient, 1.0 - b1)
        square = (b2 * state["exp_avg_sq"]).addcmul_(gradient, gradient, value=1.0 - b2)
    else:
        mean, square = (1.0 - b1) * gradient, (1.0 - b2) * gradient**2
    # d (root of the square) / d gradient, but for the constants. A square of 0 comes from gradients of 0 alone, where it is 0.
    by_root = gradient
    if group["amsgrad"] and "max_exp_avg_sq" in state:
        # Below the largest square so far the root does not move.
        by_root = torch.where(square > state["max_exp_avg_sq"], gradient, 0.0)
        square = torch.maximum(square, state["max_exp_avg_sq"])
    root = (square / c2).sqrt_()
    inverse = (root + eps).reciprocal_()
    bend = torch.where(root > 0, by_root / root, 0.0).mul_(mean).mul_(inverse).mul_(inverse)
    slope = inverse * (lr * (1.0 - b1) / c1) - bend * (lr * (1.0 - b2) / (c1 * c2))
    return parameter - mean.mul_(inverse) * (lr / c1), slope


OPTIMIZERS: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: lambda p, gradient, group, state: _adam(p, gradient, {**group, "decoupled_weight_decay": True}, state),
}
"""(parameter, gradient, group, state) -> (parameter after the step, minus its derivative in the gradient), by optimizer."""


def _count(state: dict[str, Any]) -> Any:
    """Number of steps taken: a float in full precision, or a tensor if the host would wait for it."""
    step = state.get("step", 0)
    return float(step) if isinstance(step, Tensor) and not waits_for(step.device) else step


def rule_of(optimizer: torch.optim.Optimizer) -> Rule:
    """The rule of the optimizer's steps. Raises ValueError for an optimizer that is not in OPTIMIZERS, or one that maximizes."""
    optimizer = _innermost(optimizer)
    if type(optimizer) not in OPTIMIZERS:
        names = ", ".join(sorted(kind.__name__ for kind in OPTIMIZERS))
        raise ValueError(
            f"The exact meta-gradient knows the steps of {names}; got {type(optimizer).__name__}. Use one of these, or "
            'mode="first_order" or mode="last_layer", which work with any optimizer.'
        )
    if any(group.get("maximize", False) for group in optimizer.param_groups):
        raise ValueError("The optimizer maximizes: give one that minimizes the weighted loss.")
    return OPTIMIZERS[type(optimizer)]


def _groups(optimizer: torch.optim.Optimizer) -> dict[int, Group]:
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _innermost(optimizer: Any) -> torch.optim.Optimizer:
    # Lightning and accelerate hand out wrappers that hold torch's optimizer.
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer
