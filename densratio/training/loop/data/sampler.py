"""Rows drawn in proportion to their importance weights, for loops that cannot weigh the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from ...._arrays import to_host

__all__ = ["ImportanceSampler", "importance_sampler"]

_BLOCK = 2**20  # rows of which the keys of a draw without replacement are in memory at a time


class ImportanceSampler(Sampler[int]):
    """A sampler for DataLoader that draws row i with probability weights[i] / sum(weights), and gives each rank its part of the draw.

    All ranks make the same draw of `num_samples` rows from the seed and the epoch, and rank r takes every num_replicas-th row of
    it, from its r-th on; a draw that does not divide is made longer, so that all ranks get as many. Call `set_epoch` before
    each pass, or every pass draws the same rows.

    With replacement: uniform numbers looked up among the cumulative sums of the weights, of any number of rows. Without: the
    rows of the largest log(weight) + Gumbel noise, which are those of drawing one after the other (Efraimidis & Spirakis 2006).

    Parameters
    ----------
    weights : (n,) numpy or tensor
        The `weights_` of a ratio fitted on these rows as its source, for one. `set_weights` changes them.
    num_samples : int or None
        Rows of one pass of all ranks together, n if None.
    replacement : bool
        False draws no row twice.
    num_replicas, rank : int or None
        As in torch's DistributedSampler; None: those of torch.distributed where it is on, else 1 and 0.
    seed : int

    Do not also multiply the loss by the weights: each row would count by its weight squared.
    Raises ValueError for weights that are not 1-D, finite, >= 0 and somewhere > 0, or too few rows of weight > 0 to draw
    num_samples without replacement.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int | None = None,
        replacement: bool = True,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
    ):
        self.num_replicas = _ranks() if num_replicas is None else num_replicas
        self.rank = _rank_here() if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank must be in 0..num_replicas - 1; got rank={self.rank} and num_replicas={self.num_replicas}.")
        self.replacement, self.seed, self.epoch = replacement, seed, 0
        self._n_draws = None if num_samples is None else _check_draws(num_samples)
        self.set_weights(weights)

    def set_weights(self, weights: Any) -> None:
        """New weights (n,) from the next pass on, the same on every rank: those that a reweighter has by then, for one."""
        values = _check_weights(weights)
        n_draws = len(values) if self._n_draws is None else self._n_draws
        n_drawable = int(np.count_nonzero(values))
        if not self.replacement and self._padded(n_draws) > n_drawable:
            raise ValueError(
                f"Only {n_drawable} rows have a weight > 0: without replacement num_samples can be at most that; "
                f"got {self._padded(n_draws)} for {self.num_replicas} ranks."
            )
        self.weights, self.num_samples = values, n_draws

    def set_epoch(self, epoch: int) -> None:
        """Draw anew in the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._padded(self.num_samples) // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        draw = self._draw(np.random.default_rng((self.seed, self.epoch)), self._padded(self.num_samples))
        return iter(draw[self.rank :: self.num_replicas].tolist())

    def _padded(self, n_draws: int) -> int:
        return -(-n_draws // self.num_replicas) * self.num_replicas

    def _draw(self, random: np.random.Generator, n_draws: int) -> np.ndarray:
        # The sum of weights near the largest float would overflow.
        scaled = self.weights / self.weights.max()
        return _with_replacement(scaled, n_draws, random) if self.replacement else _without_replacement(scaled, n_draws, random)


def importance_sampler(
    weights: Any, num_samples: int | None = None, replacement: bool = True, *, seed: int = 0
) -> ImportanceSampler:
    """`ImportanceSampler` of one process, or of the ranks of torch.distributed."""
    return ImportanceSampler(weights, num_samples, replacement, seed=seed)
