"""Parts of a critic: its network, and a batch in the form that its loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..._arrays import running_sum
from ..loop.draws import generator_of

__all__ = ["CriticBatch", "heads", "own_output", "perceptron", "units_of"]

_SLOPE = 0.2  # slope of the rectifiers below 0


@dataclass(frozen=True)
class CriticBatch:
    """Rows (n + m, d) of both samples, the source's n first, and their mass in the sum over the classes.

    signed_mass (n + m,): -a_i and b_j, with equal totals in every class; classes (n + m,). order (n,): source rows sorted by class;
    reached (n,): their cumulative weights in that order; start, mass (C,): the cumulative weight before a class, and its weight.
    """

    rows: Tensor
    signed_mass: Tensor
    classes: Tensor
    n: int
    order: Tensor
    reached: Tensor
    start: Tensor
    mass: Tensor

    @classmethod
    def of(cls, weights: Tensor, source: Tensor, target: Tensor, y: Tensor, y_val: Tensor, n_classes: int) -> CriticBatch:
        """b_j = 1 / m, and a_i = w_i times the class's share of the target over its weight; 0 in a class that one sample lacks."""
        weights = weights.to(source.dtype)
        mass = weights @ one_hot(y, n_classes).to(source.dtype)
        share = one_hot(y_val, n_classes).to(source.dtype).mean(0)
        is_in_both = (mass > 0.0) & (share > 0.0)
        rate = torch.where(is_in_both, share / torch.where(is_in_both, mass, 1.0), 0.0)
        of_target = is_in_both.to(source.dtype)[y_val] / len(target)
        order = y.argsort(stable=True)
        return cls(
            rows=torch.cat([source, target]),
            signed_mass=torch.cat([-rate[y] * weights, of_target]),
            classes=torch.cat([y, y_val]),
            n=len(source),
            order=order,
            reached=running_sum(weights[order]),
            start=running_sum(mass) - mass,
            mass=mass,
        )

    @property
    def target_mass(self) -> Tensor:
        """b (m,)."""
        return self.signed_mass[self.n :]

    @property
    def target_classes(self) -> Tensor:
        """(m,)"""
        return self.classes[self.n :]

    def points_between(self, generator: torch.Generator | None) -> Tensor:
        """Points (m, d) on segments from each target row to a source row of its class, drawn in proportion to its weight."""
        target, y = self.rows[self.n :], self.target_classes
        drawn = torch.rand((2, len(target)), generator=generator, dtype=target.dtype, device=target.device)
        place = torch.searchsorted(self.reached, self.start[y] + drawn[0] * self.mass[y], right=True).clamp(max=self.n - 1)
        return torch.lerp(self.rows[self.order[place]], target, drawn[1][:, None])


def units_of(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and mean absolute deviation () of all rows; a deviation of 0 becomes 1."""
    rows = torch.cat([source, target])
    center = rows.mean(0)
    spread = (rows - center).abs().mean()
    return center, torch.where(spread > 0.0, spread, 1.0)


def own_output(outputs: Tensor, classes: Tensor) -> Tensor:
    """The output (n,) for each row's class, from outputs (n, K); the only one if K = 1."""
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    # The gradient of a gather adds up in no fixed order on a GPU, and ranks would drift apart.
    return (outputs * one_hot(classes, outputs.shape[1]).to(outputs.dtype)).sum(1)


def perceptron(sizes: Sequence[int], n_outputs: int, seed: int) -> nn.Sequential:
    """Linear layers of sizes[0] columns, then sizes[1:] rectified units, then n_outputs without a bias, which W does not determine.

    Drawn by `seed` alone, on the CPU.
    """
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        drawn = _even((n_out, n_in + 1), n_in, (seed, 0, i))
        layers += [_linear(drawn[:, :-1], drawn[:, -1]), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers, _linear(heads(range(n_outputs), sizes[-1], seed)))


def heads(labels: range, n_in: int, seed: int) -> Tensor:
    """Weights (len(labels), n_in) of a perceptron's outputs; they do not depend on when an output is made."""
    return torch.stack([_even((n_in,), n_in, (seed, 1, label)) for label in labels])


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    # The default initialization would draw from the global generator.
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _even(size: tuple[int, ...], n_in: int, seed: tuple[int, ...]) -> Tensor:
    """Even on [-1, 1] / sqrt(n_in), as torch starts its linear layers."""
    return (2.0 * torch.rand(size, generator=generator_of(*seed)) - 1.0) / n_in**0.5
