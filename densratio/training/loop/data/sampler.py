"""Rows drawn in proportion to their importance weights, for loops that cannot weigh the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ...._arrays import to_host
from ...._validation import check_count
from ..ranks import n_ranks, rank_here

__all__ = ["ImportanceSampler", "importance_sampler"]


class ImportanceSampler(Sampler[int]):
    """A sampler for DataLoader that draws row i with probability weights[i] / sum(weights); each rank takes its part of one draw.

    All ranks draw the same `num_samples` rows from the seed and the epoch, and rank r takes every num_replicas-th row, from the
    r-th on. A draw that does not divide evenly is made longer, so that all ranks get equally many. Call `set_epoch` before each
    pass; otherwise every pass draws the same rows.

    With replacement, uniform numbers are looked up among the cumulative weights. Without replacement, the rows with the largest
    log(weight) + Gumbel noise are taken, which equals drawing one row after another. Both take any number of rows.

    Parameters
    ----------
    weights : (n,) numpy or tensor
        For example the `weights_` of a ratio fitted with these rows as its source. `set_weights` changes them.
    num_samples : int or None
        Rows of one pass of all ranks together; None: n.
    replacement : bool
        False draws no row twice.
    num_replicas, rank : int or None
        As in torch's DistributedSampler; None: those of torch.distributed if it is initialized, else 1 and 0.
    seed : int, torch.Generator or None
        A generator on the CPU, or None for torch's global state, draws each pass anew; both serve one rank only.

    Do not also multiply the loss by the weights: each row would count by its squared weight.
    Raises ValueError for weights that are not 1-D, finite, >= 0 and somewhere > 0, or if fewer than num_samples rows of weight > 0
    can be drawn without replacement.
    Source: Efraimidis & Spirakis (2006), Weighted random sampling with a reservoir.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int | None = None,
        replacement: bool = True,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int | torch.Generator | None = 0,
    ):
        self.num_replicas = n_ranks() if num_replicas is None else num_replicas
        self.rank = rank_here() if rank is None else rank
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(f"rank must be in 0..num_replicas - 1; got rank={self.rank} and num_replicas={self.num_replicas}.")
        if self.num_replicas > 1 and not isinstance(seed, int):
            raise ValueError(f"seed must be an int where several ranks share a draw; got {type(seed).__name__}.")
        self.replacement, self.seed, self.epoch = replacement, seed, 0
        self._wanted = None if num_samples is None else check_count("num_samples", num_samples, more=" or None")
        self.set_weights(weights)

    def set_weights(self, weights: Any) -> None:
        """Set the weights (n,) of the next passes, equal on every rank: the current weights of a reweighter, for example."""
        values = _check_weights(weights)
        wanted = len(values) if self._wanted is None else int(self._wanted)
        n_draws = -(-wanted // self.num_replicas) * self.num_replicas
        n_drawable = int(np.count_nonzero(values))
        if not self.replacement and n_draws > n_drawable:
            shared = f" for {self.num_replicas} ranks" if self.num_replicas > 1 else ""
            raise ValueError(
                f"Only {n_drawable} rows have a weight > 0: without replacement num_samples can be at most that; "
                f"got {n_draws}{shared}."
            )
        # The sum of weights near the largest float would overflow.
        self._weights, self._n_draws = values / values.max(), n_draws

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass, which determines the draw together with the seed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._n_draws // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        draw = _with_replacement if self.replacement else _without_replacement
        return iter(draw(self._weights, self._n_draws, self._random())[self.rank :: self.num_replicas].tolist())

    def _random(self) -> np.random.Generator:
        if isinstance(self.seed, int):
            return np.random.default_rng((self.seed, self.epoch))
        return np.random.default_rng(int(torch.randint(2**62, (), generator=self.seed)))


def importance_sampler(
    weights: Any, num_samples: int | None = None, replacement: bool = True, generator: torch.Generator | None = None
) -> ImportanceSampler:
    """An `ImportanceSampler` for a loop in one process. generator: on the CPU; None takes torch's global state."""
    return ImportanceSampler(weights, num_samples, replacement, num_replicas=1, rank=0, seed=generator)


def _with_replacement(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    sums = np.cumsum(weights)
    # By rounding a number can reach the last sum, whose row may have weight 0: the last row above 0 takes it.
    last = int(np.flatnonzero(weights)[-1])
    return np.minimum(np.searchsorted(sums, rng.random(n_draws) * sums[-1], side="right"), last)


def _without_replacement(weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """The rows of the n_draws smallest exponential times of rates `weights`, the first to come first."""
    with np.errstate(divide="ignore", over="ignore"):
        times = np.log(rng.standard_exponential(len(weights))) - np.log(weights)
    first = np.argpartition(times, n_draws - 1)[:n_draws]
    return first[np.argsort(times[first])]


def _check_weights(weights: Any) -> np.ndarray:
    values = np.asarray(to_host(weights))
    if values.ndim != 1 or values.dtype.kind not in "fiub" or len(values) == 0:
        raise ValueError(f"weights must be (n,) real numbers; got shape {values.shape} and dtype {values.dtype}.")
    values = values.astype(np.float64)
    is_bad = ~np.isfinite(values) | (values < 0.0)
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise ValueError(f"weights must be finite and >= 0; got {values[first]} at row {first} ({is_bad.sum()} such rows).")
    if values.max() == 0.0:
        raise ValueError("weights are all 0: there is no row to draw. A ratio that is 0 on every source row means no overlap.")
    return values
