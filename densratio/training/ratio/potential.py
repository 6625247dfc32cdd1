"""Potential: the Wasserstein-1 distance between rows of several columns, and the weight step down its slope."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..._validation import check_count, check_number
from ...objectives.row_weights import WeightSet
from ..loop.draws import generator_of, is_captured
from ..loop.row_batch import RowBatch

__all__ = ["Estimate", "Potential", "chance_factor"]

_ROUNDING = 100.0  # units of rounding below which a slope counts as constant


class Estimate(NamedTuple):
    """The distance between the weighted source and the target, as a potential estimates it."""

    value: Tensor
    """() >= 0, in the units of the rows."""
    grad: Tensor
    """(n,) a slope of `value` in the weights."""
    chance: Tensor
    """() expected `value` for two such samples of one distribution."""


class Potential(nn.Module, ABC):
    """Base of the estimates of W(w) = sup_{Lip(f) <= 1} mean_j f(v_j) - mean_i w_i f(x_i), whose slope is -f(x_i) / n.

    w <- project(w - relaxation * max(W - chance, 0) / |g|^2 * g), g the part of the slope along the plane of mean 1. This is
    Polyak's step toward the distance between samples of one distribution, whatever the scale of the rows. Two samples in several
    columns never reach distance 0, so steps toward 0 would fit their noise.
    relaxation: number in (0, 2), the share of that step. step_size: number > 0 for a fixed step w <- project(w + step_size f(x)),
    as in published recipes; None for Polyak's. seed: int; the draws of a batch depend only on it and on the number of the batch,
    which is in state_dict, so a resumed run and every rank draw the same.
    Source: Polyak (1969).
    """

    n_pretraining: int = 0
    """Number of initial batches in which the weights stay."""

    def __init__(self, relaxation: float = 0.5, seed: int = 0, step_size: float | None = None):
        super().__init__()
        if step_size is not None:
            check_number("step_size", step_size, "(0, inf)", ", or None for Polyak's steps")
        check_number("relaxation", relaxation, "(0, 2)", ", a share of Polyak's step")
        self.relaxation = relaxation
        self.step_size = step_size
        self.seed = check_count("seed", seed, 0)
        self.n_batches = 0

    @property
    def is_ready(self) -> bool:
        """Whether the pre-training, if any, is over and weights may be stepped."""
        return self.n_pretraining == 0 or self.n_batches > self.n_pretraining

    def learn(
        self,
        weights: Tensor,
        source: Tensor,
        target: Tensor,
        y: Tensor | None = None,
        y_val: Tensor | None = None,
        rows: RowBatch | None = None,
    ) -> None:
        """Learn from a whole batch before its weights are stepped, possibly class by class.

        weights (n,) of the rows source (n, d); target (m, d); y (n,), y_val (m,): classes >= 0, -1 if unknown. rows: the rows of
        the batch; nothing is learned if they are unusable.
        """
        self.n_batches += 1
        try:
            self.learn_from(weights, source, target, y, y_val, rows)
        except ValueError:
            self.n_batches -= 1
            raise

    @abstractmethod
    def learn_from(
        self, weights: Tensor, source: Tensor, target: Tensor, y: Tensor | None, y_val: Tensor | None, rows: RowBatch | None
    ) -> None:
        """`learn` for the batch number n_batches."""

    @abstractmethod
    def between(self, source: Tensor, target: Tensor, label: int = 0) -> Callable[[Tensor], Estimate]:
        """The estimate as a function of the weights (n,) of source (n, d); target (m, d), both of the class `label`."""

    def step(
        self, max_weight: float | None, n_steps: int, weights: Tensor, source: Tensor, target: Tensor, label: int = 0
    ) -> Tensor:
        """Weights (n,) of mean 1 and at most max_weight (None: no bound) after n_steps steps; it never waits for the device."""
        weights = _projected(max_weight, weights)
        if not self.is_ready:
            return weights
        estimate = self.between(source, target, label)
        for _ in range(n_steps):
            found = estimate(weights)
            if self.step_size is None:
                move = self.relaxation * _polyak_move(found)
            else:
                fixed = self.step_size * len(found.grad) * found.grad
                move = torch.where(torch.isfinite(fixed), fixed, 0.0)
            weights = _projected(max_weight, weights - move.to(weights.dtype))
        return weights

    def get_extra_state(self) -> dict[str, Any]:
        """Count of batches, for state_dict."""
        return {"n_batches": self.n_batches}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load the count of batches."""
        self.n_batches = state["n_batches"]

    def _generator(self, device: torch.device) -> torch.Generator | None:
        """The generator of this batch's draws; None if only the device's own can be used."""
        # In a captured graph only the device's own generator can be drawn from; a replay then draws on.
        if device.type == "meta" or is_captured(device):
            return None
        return generator_of(self.seed, self.n_batches, device=device)


def chance_factor(weights: Tensor, m: int) -> Tensor:
    """Expected |mean of m draws - weighted mean of others| in standard deviations (): sqrt(2 / pi (1 / n_effective + 1 / m))."""
    unit = weights / weights.sum()
    return (2.0 / np.pi * ((unit * unit).sum() + 1.0 / m)).sqrt()


def _polyak_move(estimate: Estimate) -> Tensor:
    """max(value - chance, 0) / |g|^2 * g, g the part of the slope (n,) along the plane of constant mean; 0 if g = 0 or infinite."""
    value, grad, chance = estimate
    along = grad - grad.mean()
    largest = along.abs().max()
    is_even = largest <= _ROUNDING * torch.finfo(grad.dtype).eps * grad.abs().max()
    # In units of the largest entry no square under- or overflows.
    unit = along / torch.where(is_even, 1.0, largest)
    move = (value - chance).clamp(min=0.0) / largest / unit.square().sum() * unit
    return torch.where(is_even | ~torch.isfinite(move), 0.0, move)


def _projected(max_weight: float | None, weights: Tensor) -> Tensor:
    feasible = WeightSet(len(weights), max_weight)
    # For a vector of a batch numpy costs half as much.
    return torch.from_numpy(feasible.project(weights.numpy())) if weights.device.type == "cpu" else feasible.project(weights)
