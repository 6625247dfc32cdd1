"""A batch mixed with itself, in which each row has a given label and a pseudo-label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..._validation import check_number
from ..losses import cross_entropy
from .draws import Draws
from .ranks import n_ranks, rank_here
from .training_pass import TrainingPass

__all__ = ["MixedLabels", "check_mixable", "check_mixup", "mixed", "mixup_of"]


class MixedLabels(NamedTuple):
    """A batch mixed with itself in another order: x = share x + (1 - share) x[order], share in [1/2, 1].

    y (n,): given labels; z (n, C): pseudo-labels; order (n,).
    """

    x: Any
    y: Tensor
    z: Tensor
    order: Tensor
    share: float

    @classmethod
    def drawn(cls, x: Any, y: Tensor, z: Tensor, mixup: float | None, random: np.random.Generator) -> MixedLabels:
        """The batch with a share from Beta(mixup, mixup) and a random order; unmixed if mixup is None."""
        share, order = (1.0, torch.arange(len(y))) if mixup is None else _drawn(len(y), mixup, random)
        order = order.to(z.device, non_blocking=True)
        return cls(share * x + (1.0 - share) * x[order] if share < 1.0 else x, y, z, order, share)

    def shared(self, v: Tensor, v_of_order: Tensor) -> Tensor:
        """Weights (4n,) of the four losses of each row; v (n,) is the share of the given label in rows, v_of_order in rows[order].

        They are scaled so that the mean of weight times loss is the mean over rows.
        """
        parts = zip((self.share, 1.0 - self.share), (v, v_of_order), strict=True)
        return 4.0 * torch.cat([part for a, b in parts for part in (a * b, a * (1.0 - b))])

    @property
    def weight_scale(self) -> float:
        """The factor that turns the first n of these weights back into v."""
        return 1.0 / (4.0 * self.share)

    @staticmethod
    def losses(prediction: Tensor, labels: Any) -> Tensor:
        """Cross entropies (4n,) against y, z, y[order] and z[order]."""
        mixed: MixedLabels = labels
        of_labels = mixed.y, mixed.z.to(prediction.dtype), mixed.y[mixed.order], mixed.z[mixed.order].to(prediction.dtype)
        return torch.cat([cross_entropy(prediction, label) for label in of_labels])

    def given_losses(self, batch: TrainingPass) -> Tensor:
        """Losses (2n,) of the pass against the given labels y and y[order], detached."""
        n = len(self.y)
        losses = batch.losses.detach()
        return torch.cat([losses[:n], losses[2 * n : 3 * n]])


def check_mixup(mixup: Any) -> float | str | None:
    """`mixup`. Raises ValueError for anything but a number > 0, "auto" or None."""
    return mixup if mixup is None or mixup == "auto" else check_number("mixup", mixup, "(0, inf)", ', "auto" or None')


def mixup_of(mixup: float | str | None, x: Any, published: float) -> float | None:
    """The beta parameter of the mixing of rows x, or None; of "auto" the published one for images and other rows (n, c, ...).

    Mixed rows of measurements are seldom rows that could have been measured. Raises ValueError for rows that can't be averaged.
    """
    if mixup == "auto":
        return published if isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 2 else None
    if mixup is not None:
        check_mixable(x, "give mixup=None")
    return mixup  # type: ignore[return-value]


def mixed(parts: tuple[Tensor, ...], mixup: float | None, draws: Draws) -> tuple[Tensor, ...]:
    """Tensors (n, ...) of the same rows, all mixed with the rows of one random order; as they are if mixup is None."""
    if mixup is None:
        return parts
    share, order = _drawn(len(parts[0]), mixup, draws.random)
    order = order.to(parts[0].device, non_blocking=True)
    return tuple(share * part + (1.0 - share) * part[order] for part in parts)


def _drawn(n_rows: int, mixup: float, random: np.random.Generator) -> tuple[float, Tensor]:
    """A share in [1/2, 1], the larger of the two that Beta(mixup, mixup) gives, and a random order (n_rows,).

    Every rank mixes its own rows in an order of its own, and leaves its generator in the same state as all others.
    """
    share = random.beta(mixup, mixup)
    # Every rank draws equally many numbers, whatever its rows.
    own = np.random.default_rng(random.integers(2**63, size=n_ranks())[rank_here()])
    return float(max(share, 1.0 - share)), torch.as_tensor(own.permutation(n_rows))


def check_mixable(x: Any, instead: str) -> None:
    """Raise ValueError for input that can't be averaged. instead: what to type for it."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(f"Mixup averages the input, which must be one tensor of floats; got {got}: {instead}.")
