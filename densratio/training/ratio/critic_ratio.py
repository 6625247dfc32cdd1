"""The density ratio of a table by a critic: a network in place of the exact potential of regularized Wasserstein matching."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..._arrays import Array, put, to_host, widest_here
from ..._blocks import over_rows
from ...objectives.row_weights import WeightSet
from .critic import Critic
from .critic_network import units_of

__all__ = ["CriticFit", "CriticRatio", "fit_ratio"]

_WIDTHS = (64, 64)
_LEARNING_RATE = 1e-3
_BETAS = (0.5, 0.9)
_KEPT = 0.98  # share of the average network that an update keeps
_BATCH = 512  # most rows of each sample in an update; as many are drawn if there are more rows or unequal counts
_HELD_OUT = 0.25  # share of the rows whose score decides the number of updates
_LEAST_ROWS = 8  # rows of a sample below which none are held out
_EVERY, _PATIENCE, _MOST = 10, 5, 500  # updates between two scores, scores without improvement until the stop, and most updates
_UNTESTED = 100  # updates if no rows are held out


class CriticFit(NamedTuple):
    """A fitted ratio, its dual value, the number of updates, and whether held-out rows stopped them."""

    ratio: CriticRatio
    value: float
    n_iter: int
    converged: bool


@dataclass(frozen=True, eq=False)
class CriticRatio:
    """r(x) = clip((f(x) - level) / regularization, 0, upper), f a network, in the units of the rows."""

    network: nn.Module
    units: tuple[Tensor, Tensor]
    regularization: float
    upper: float
    level: float = 0.0

    def __call__(self, rows: Array) -> Array:
        """The ratio (n,) at rows (n, d) of any library."""
        return put(np.clip((self.height(rows) - self.level) / self.regularization, 0.0, self.upper), rows)

    def to(self, like: Array) -> CriticRatio:
        """The same: rows move to the network instead."""
        return self

    def height(self, rows: Array) -> np.ndarray:
        """f (n,), on the host."""
        center, unit = self.units
        points = _wide(rows, center.device)

        @torch.no_grad()
        def part(some: Tensor) -> Tensor:
            return self.network(((some - center) / unit).float())[:, 0]

        return to_host(over_rows(part, points, sum(_WIDTHS))).astype(np.float64) * float(unit)


class _Sample(NamedTuple):
    """Distinct rows (n, d) as a tensor, and their counts (n,), scaled to mean 1."""

    rows: Tensor
    counts: np.ndarray

    def at(self, places: np.ndarray) -> _Sample:
        """Some of the rows."""
        where = torch.as_tensor(places, device=self.rows.device)
        return _Sample(self.rows[where], self.counts[places] / self.counts[places].mean())

    def drawn(self, rng: np.random.Generator) -> Tensor:
        """The rows of an update: all, or a draw in proportion to the counts."""
        n = len(self.rows)
        if n <= _BATCH and np.ptp(self.counts) == 0.0:
            return self.rows
        places = rng.choice(n, size=_BATCH, p=self.counts / self.counts.sum())
        return self.rows[torch.as_tensor(places, device=self.rows.device)]

    def mean(self, values: np.ndarray) -> float:
        """The mean of values (n,) over the rows, weighted by their counts."""
        return float(np.average(values, weights=self.counts))

    def split(self, rng: np.random.Generator) -> tuple[_Sample, _Sample]:
        """The kept rows, and the held-out rows."""
        order, n_out = rng.permutation(len(self.rows)), int(_HELD_OUT * len(self.rows))
        return self.at(np.sort(order[n_out:])), self.at(np.sort(order[:n_out]))


class _Learning:
    """A critic that learns the ratio of two samples, and the moving average of its networks."""

    def __init__(self, samples: tuple[_Sample, _Sample], regularization: float, max_weight: float | None, seed: int):
        self.source, self.target = samples
        self.regularization, self.max_weight = regularization, max_weight
        self.units = units_of(self.source.rows, self.target.rows)
        critic = Critic(widths=_WIDTHS, learning_rate=_LEARNING_RATE, betas=_BETAS, n_updates=1, n_pretraining=0, seed=seed)
        critic.fixed_units = self.units
        critic.may_be_flat = True  # the regularization bends the potential, so that it is less steep in most places
        self.critic, self.rng = critic.to(self.source.rows.device), np.random.default_rng(seed)
        self.average: nn.Module | None = None

    def update(self) -> None:
        """One step of the critic, at the weights that its potential gives to the rows of the step."""
        source, target = self.source.drawn(self.rng), self.target.drawn(self.rng)
        network = self.critic.network
        height = np.zeros(len(source)) if network is None else self._ratio(network).height(source)
        weights = WeightSet(len(source), self.max_weight).project(height / self.regularization)
        self.critic.learn(torch.as_tensor(weights).to(source), source, target)
        network = self.critic.network
        assert network is not None
        if self.average is None:
            self.average = deepcopy(network)
        for mean, parameter in zip(self.average.parameters(), network.parameters(), strict=True):
            mean.lerp_(parameter, 1.0 - _KEPT)

    def fitted(self, n_iter: int, converged: bool) -> CriticFit:
        """The ratio by the average network, of mean 1 over the source rows."""
        assert self.average is not None
        ratio = self._ratio(self.average)
        height, ridge = ratio.height(self.source.rows), self.regularization
        feasible = WeightSet(len(height), self.max_weight, counts=self.source.counts)
        weights = feasible.project_counted(height / ridge)
        between = (weights > 0.0) & (weights < ratio.upper)
        chosen, at = (between, weights) if between.any() else (weights > 0.0, ratio.upper)
        level = float(np.mean((height - ridge * at)[chosen]))
        value = self.target.mean(ratio.height(self.target.rows)) - self.source.mean(weights * (height - 0.5 * ridge * weights))
        ratio = replace(ratio, level=level)
        return CriticFit(ratio, value, n_iter, converged)

    def _ratio(self, network: nn.Module) -> CriticRatio:
        upper = float("inf") if self.max_weight is None else float(self.max_weight)
        return CriticRatio(network, self.units, self.regularization, upper)


def fit_ratio(
    source: tuple[np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    *,
    regularization: float,
    max_weight: float | None,
    max_iter: int,
    seed: int,
    device: Any = "cpu",
) -> CriticFit:
    """The ratio of two samples, each given as distinct rows (n, d) and their counts (n,).

    The critic maximizes mean_j f(v_j) - mean_i phi(f(x_i)) - 10 E max(|grad f| - 1, 0)^2, the dual of the regularized problem, with
    phi(f) = max over 0 <= w <= max_weight of w f - regularization w^2 / 2. This is the critic loss (16) of the ADIW paper at the
    best weights for the present f. Updates stop when the score of held-out rows no longer rises; then a new critic learns from all
    rows for as many updates, on `device`.
    """
    first, second = (_Sample(_wide(rows, device), counts / counts.mean()) for rows, counts in (source, target))
    samples = first, second
    strength = (regularization, max_weight, seed)
    n_iter, converged = min(_UNTESTED, max_iter), True
    if min(len(sample.rows) for sample in samples) >= _LEAST_ROWS:
        n_iter, converged = _best_count(samples, strength, max_iter)
    learning = _Learning(samples, *strength)
    for _ in range(n_iter):
        learning.update()
    return learning.fitted(n_iter, converged)


def _wide(rows: Array, device: Any) -> Tensor:
    """Rows in float64 if the device supports it, so that a large offset costs no digits before they are centered."""
    tensor = rows if isinstance(rows, Tensor) else torch.tensor(rows)
    return widest_here(tensor.to(device))


def _best_count(samples: tuple[_Sample, _Sample], strength: tuple[float, float | None, int], max_iter: int) -> tuple[int, bool]:
    """The number of updates with the best score of held-out rows, and whether later ones proved worse."""
    rng = np.random.default_rng((strength[2], 1))
    (source, source_out), (target, target_out) = (sample.split(rng) for sample in samples)
    learning = _Learning((source, target), *strength)
    best, best_count = -float("inf"), min(_EVERY, max_iter)
    for count in range(1, min(max_iter, _MOST) + 1):
        learning.update()
        if count % _EVERY == 0:
            ratio = learning.fitted(count, True).ratio
            score = target_out.mean(to_host(ratio(target_out.rows)))
            score -= 0.5 * source_out.mean(to_host(ratio(source_out.rows)) ** 2)
            if score > best:
                best, best_count = score, count
            elif count >= best_count + _EVERY * _PATIENCE:
                return best_count, True
    return best_count, False
