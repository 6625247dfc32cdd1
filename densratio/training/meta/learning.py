"""How a network that gives the weights learns: Adam on the slope of the validation loss in the weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..loop.late_errors import waits_for
from ..loop.ranks import Rows

__all__ = ["learned_weights", "move", "step"]

_log = logging.getLogger("densratio")


def learned_weights(learner: Any, weights_now: Callable[[], Tensor], slope_of: Callable[[Tensor], Tensor], rows: Rows) -> Tensor:
    """Weights (n,), without a graph, after the step of the learner's `network` on sum_i c_i w_i where one is due.

    weights_now(): weights (n,) as the network gives them, with the graph to its parameters. slope_of(weights): c (n,). A slope that
    is not finite moves nothing; on a device that the host does not wait for it counts as 0.
    """
    if learner.is_due:
        weights = weights_now()
        slope = slope_of(weights)
        if waits_for(slope.device) or bool(torch.isfinite(slope).all()):
            slope = torch.where(torch.isfinite(slope).all(), slope, 0.0).to(weights.dtype)
            step(learner.network_optimizer, list(learner.network.parameters()), (slope * weights).sum(), rows)
        else:
            name, number = type(learner).__name__, learner.steps_seen
            _log.warning("%s: the meta-gradient of batch %d is not finite, and nothing is learned.", name, number)
    with torch.no_grad():
        return weights_now()


def step(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor, rows: Rows) -> None:
    """One step down the sum of `loss` over the ranks; on a device, gradients that are NaN or infinite count as 0."""
    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    if waits_for(loss.device):
        # A slope of 0 times a weight that is NaN is NaN.
        filled = [gradient.nan_to_num(0.0, 0.0, 0.0) for gradient in filled]
    move(optimizer, parameters, rows.sum_of(filled))


def move(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    """One step with these gradients."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    for moved, state in optimizer.state.items():
        moment = state.get("exp_avg")
        if moment is not None and (moment.device, moment.dtype) != (moved.device, moved.dtype):
            # The moments follow the parameters to another device or precision.
            optimizer.load_state_dict(optimizer.state_dict())
            break
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
