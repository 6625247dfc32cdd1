"""Sliced: the Wasserstein-1 distance between rows of several columns, as a mean over random directions of the closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..._arrays import running_sum
from ..._validation import check_count
from ..loop.row_batch import RowBatch
from .potential import Estimate, Potential, chance_factor

__all__ = ["Sliced"]


class Sliced(Potential):
    """Mean over random directions u of the Wasserstein-1 distance between the projections x.u and v.u: one sort, no critic.

    For each direction W = int |F_w - F_target| dt and dW/dw_i = (1/n) int_{x_i.u}^inf sign(F_w - F_target)(t) dt, exactly.
    n_directions: int >= 1, drawn uniformly from the unit sphere, anew for each batch. relaxation, step_size, seed: see `Potential`.
    The expected distance between two samples of one distribution is mean over u of int sqrt(F (1 - F)) dt, F = F_target, times
    sqrt(2 / pi (1 / n_effective + 1 / m)).
    Sources: Bonneel et al. (2015) for the slices; del Barrio, Gine & Matran (1999) for the expectation.
    """

    def __init__(self, n_directions: int = 50, *, relaxation: float = 0.5, step_size: float | None = None, seed: int = 0):
        super().__init__(relaxation, seed, step_size)
        self.n_directions = check_count("n_directions", n_directions)

    def directions(self, like: Tensor) -> Tensor:
        """The unit vectors (d, n_directions) of the present batch, for rows `like` (n, d)."""
        size = (like.shape[1], self.n_directions)
        drawn = torch.randn(size, generator=self._generator(like.device), dtype=like.dtype, device=like.device)
        return drawn / torch.linalg.vector_norm(drawn, dim=0)

    def learn_from(
        self, weights: Tensor, source: Tensor, target: Tensor, y: Tensor | None, y_val: Tensor | None, rows: RowBatch | None
    ) -> None:
        """Nothing: the distance is in closed form."""

    def between(self, source: Tensor, target: Tensor, label: int = 0) -> Callable[[Tensor], Estimate]:
        n, m = len(source), len(target)
        points = (torch.cat([source, target]) @ self.directions(source)).T.contiguous()
        # numpy sorts three times as fast on a CPU.
        is_host = points.device.type == "cpu"
        order = torch.from_numpy(np.argsort(points.numpy(), axis=1)) if is_host else points.argsort(dim=1)
        points = points.gather(1, order)
        length = points[:, 1:] - points[:, :-1]
        drawn = torch.cat([source.new_zeros(n), source.new_full((m,), 1.0 / m)])
        reached = running_sum(drawn[order], axis=1)[:, :-1].clamp(max=1.0)
        spread = ((reached * (1.0 - reached)).sqrt() * length).sum(1).mean()

        def estimate(weights: Tensor) -> Estimate:
            excess = running_sum(torch.cat([weights / n, -drawn[n:]])[order], axis=1)[:, :-1]  # F_w - F_target between neighbors
            # As in Wasserstein1: a difference within the rounding of the sum is none.
            excess = torch.where(excess.abs() > torch.finfo(excess.dtype).eps * (n + m), excess, 0.0)
            rising = running_sum(excess.sign() * length, axis=1)
            beyond = torch.cat([rising[:, -1:], rising[:, -1:] - rising], dim=1)  # int from each point to infinity
            slope = torch.empty_like(beyond).scatter_(1, order, beyond)[:, :n].mean(0)
            return Estimate((excess.abs() * length).sum(1).mean(), slope / n, chance_factor(weights, m) * spread)

        return estimate

    def extra_repr(self) -> str:
        return f"n_directions={self.n_directions}, relaxation={self.relaxation}, seed={self.seed}"
