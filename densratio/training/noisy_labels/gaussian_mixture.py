"""A mixture of two Gaussians for the losses of all rows, one for right and one for wrong labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GaussianMixture"]

_N_MEANS, _N_STEPS = 10, 10
_LEAST_VARIANCE = 5e-4  # added to both variances, of losses from 0 to 1


class GaussianMixture(nn.Module):
    """p(l) = sum_k share_k N(l; mean_k, variance_k) of losses scaled to [0, 1], and the probability of the lower one given a loss.

    `fit` scales the losses by the smallest and the largest, finds two means by ten steps of k-means from both ends, and takes ten
    steps of expectation-maximization, with 5e-4 added to each variance. Beyond the two means the probability stays at its value at
    the nearer one, because the tails of two Gaussians cross again; this is not in the source. Before the first fit, and after a fit
    to no losses, the probability is 1. It never waits for a device.
    Source: Li, Socher & Hoi (2020), DivideMix.
    """

    ends: Tensor
    means: Tensor
    variances: Tensor
    shares: Tensor
    is_fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ends", torch.tensor([0.0, 1.0]))
        self.register_buffer("means", torch.tensor([0.0, 1.0]))
        self.register_buffer("variances", torch.ones(2))
        self.register_buffer("shares", torch.full((2,), 0.5))
        self.register_buffer("is_fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, losses: Tensor, is_known: Tensor) -> None:
        """Fit the mixture to the losses (n,) where `is_known` (n,) is true."""
        infinite = float("inf")
        low, high = torch.where(is_known, losses, infinite).min(), torch.where(is_known, losses, -infinite).max()
        self.is_fitted.copy_(is_known.any())
        self.ends.copy_(torch.where(self.is_fitted, torch.stack([low, high]), self.ends))
        x, counted = self._scaled(losses.where(is_known, self.ends[0])), is_known.to(self.means.dtype)
        self.means.copy_(torch.linspace(0.0, 1.0, 2, device=x.device))
        for _ in range(_N_MEANS):
            is_upper = (x[None] - self.means[:, None]).abs().argmin(dim=0)
            nearest = torch.stack([counted * (is_upper == k) for k in range(2)])
            # A mean without a loss stays.
            mass = nearest.sum(dim=1)
            self.means.copy_(torch.where(mass > 0, (nearest * x).sum(dim=1) / mass.clamp(min=1.0), self.means))
        self._maximize(x, nearest)
        for _ in range(_N_STEPS):
            self._maximize(x, self._responsibilities(x) * counted)

    def lower(self, losses: Tensor) -> Tensor:
        """Probability (n,) that a loss (n,) is of the component of the smaller losses."""
        low, high = self.means.min(), self.means.max()
        first, second = self._responsibilities(torch.minimum(torch.maximum(self._scaled(losses), low), high)).unbind()
        found = torch.where(self.means[0] <= self.means[1], first, second)
        return torch.where(self.is_fitted, found, 1.0).to(losses.dtype)

    def _maximize(self, x: Tensor, mass: Tensor) -> None:
        """Shares, means and variances that suit the responsibilities mass (2, n)."""
        total = mass.sum(dim=1).clamp(min=1e-10)
        self.shares.copy_(total / total.sum())
        self.means.copy_((mass * x).sum(dim=1) / total)
        self.variances.copy_((mass * (x[None] - self.means[:, None]) ** 2).sum(dim=1) / total + _LEAST_VARIANCE)

    def _responsibilities(self, x: Tensor) -> Tensor:
        """Probabilities (2, n) of the components, given scaled losses (n,)."""
        log_density = -0.5 * ((x[None] - self.means[:, None]) ** 2 / self.variances[:, None] + self.variances[:, None].log())
        return torch.softmax(log_density + self.shares[:, None].clamp(min=1e-10).log(), dim=0)

    def _scaled(self, losses: Tensor) -> Tensor:
        low, high = self.ends
        return (losses.to(self.ends.dtype) - low) / (high - low).clamp(min=1e-10)
