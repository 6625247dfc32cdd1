"""A mixture of two beta distributions for the losses of all rows, one for right and one for wrong labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BetaMixture"]

_N_STEPS = 10
_EDGE = 1e-3  # margin at both ends of the unit interval, where a beta density may be infinite
_N_CELLS = 100


class BetaMixture(nn.Module):
    """p(l) = sum_k share_k Beta(l; a_k, b_k) of losses scaled to [0, 1], and the probability of the lower component given a loss.

    `fit` scales the losses so that their 5 % and 95 % quantiles become 0 and 1, and uses those in between. It takes ten steps of
    expectation-maximization, whose maximization matches the weighted mean and variance of each component. `lower` reads a table of
    100 cells. Beyond the loss at which the upper component is most probable its probability stays at that maximum, because the
    tails of two beta densities may cross again. Below the mean of the lower component the upper one is at most as probable as at
    that mean; this is not in the source. Before the first fit, and after a fit to no losses, the probability is 1.
    It never waits for a device.
    Source: Arazo et al. (2019), Unsupervised label noise modeling and loss correction.
    """

    ends: Tensor
    shapes: Tensor
    shares: Tensor
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ends", torch.tensor([0.0, 1.0]))
        self.register_buffer("shapes", torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
        self.register_buffer("shares", torch.full((2,), 0.5))
        self.register_buffer("table", torch.ones(_N_CELLS))

    @torch.no_grad()
    def fit(self, losses: Tensor, is_known: Tensor) -> None:
        """Fit the mixture to the losses (n,) where `is_known` (n,) is true."""
        in_order = torch.where(is_known, losses, float("inf")).sort().values
        # Without losses every one counts as low. A tensor () as an index would be read on the host.
        at = (torch.linspace(0.05, 0.95, 2, device=losses.device) * (is_known.sum() - 1)).round().long().clamp(min=0)
        low, high = in_order.index_select(0, at).nan_to_num(posinf=0.0)
        self.ends.copy_(torch.stack([low, high]))
        counted = (is_known & (losses >= low) & (losses <= high)).to(losses.dtype)
        x = self._scaled(losses.where(is_known, low))
        self.shapes.fill_(2.0).fill_diagonal_(1.0)
        self.shares.fill_(0.5)
        for _ in range(_N_STEPS):
            mass = self._responsibilities(x) * counted
            total = mass.sum(dim=1).clamp(min=1e-12)
            mean = ((mass * x).sum(dim=1) / total).clamp(_EDGE, 1.0 - _EDGE)
            variance = (mass * (x - mean[:, None]) ** 2).sum(dim=1) / total
            rest = mean * (1.0 - mean)
            concentration = rest / torch.minimum(variance.clamp(min=1e-6), 0.999 * rest) - 1.0
            self.shapes.copy_(torch.stack([mean * concentration, (1.0 - mean) * concentration], dim=1))
            self.shares.copy_(total / total.sum())
        self.table.copy_(torch.where(is_known.any(), self._table(), 1.0))

    def lower(self, losses: Tensor) -> Tensor:
        """Probability (n,) that a loss (n,) is of the component of the smaller losses."""
        cell = (self._scaled(losses) * _N_CELLS).long().clamp(0, _N_CELLS - 1)
        return self.table[cell].to(losses.dtype)

    def _table(self) -> Tensor:
        x = torch.linspace(_EDGE, 1.0 - _EDGE, _N_CELLS, device=self.table.device, dtype=self.table.dtype)
        means = self.shapes[:, 0] / self.shapes.sum(dim=1)
        least = means.min().clamp(_EDGE, 1.0 - _EDGE)
        # With few rows a wide upper component may be more probable below that mean, and claim the rows of least loss.
        upper = torch.minimum(self._upper(x, means), self._upper(torch.maximum(x, least), means))
        at = torch.arange(_N_CELLS, device=x.device)
        held = torch.where(at >= upper.argmax(), upper.max(), upper)
        return 1.0 - held

    def _upper(self, x: Tensor, means: Tensor) -> Tensor:
        """Probability (n,) of the component of the larger mean, given scaled losses (n,)."""
        first, second = self._responsibilities(x).unbind()
        return torch.where(means[0] > means[1], first, second)

    def _responsibilities(self, x: Tensor) -> Tensor:
        """Probabilities (2, n) of the components, given scaled losses (n,)."""
        a, b = self.shapes[:, 0, None], self.shapes[:, 1, None]
        log_density = (a - 1.0) * x.log() + (b - 1.0) * torch.log1p(-x) - torch.lgamma(a) - torch.lgamma(b) + torch.lgamma(a + b)
        return torch.softmax(log_density + self.shares[:, None].clamp(min=1e-12).log(), dim=0)

    def _scaled(self, losses: Tensor) -> Tensor:
        low, high = self.ends
        span = (high - low).clamp(min=1e-6)
        return ((losses.to(self.ends.dtype) - low) / span).clamp(_EDGE, 1.0 - _EDGE)
