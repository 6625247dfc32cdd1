"""A step of a method's own optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["step_with"]


def step_with(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """One step of the optimizer with these gradients of its parameters."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    for moved, state in optimizer.state.items():
        moment = state.get("exp_avg", state.get("momentum_buffer"))
        if moment is not None and (moment.device, moment.dtype) != (moved.device, moved.dtype):
            # The moments follow the parameters to another device or precision.
            optimizer.load_state_dict(optimizer.state_dict())
            break
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
