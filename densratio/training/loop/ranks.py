"""What the ranks of a distributed run tell each other: the rows of all, in the order of the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

__all__ = ["mean_one", "n_ranks", "of_all_ranks", "sum_over_ranks"]


T = TypeVar("T", Tensor, Tensor | None)


def n_ranks() -> int:
    """Processes of the run; 1 where torch.distributed was not started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def of_all_ranks(values: Tensor) -> Tensor:
    """Rows (N, ...) of every rank, given those of this one (n, ...); the same on all ranks, and `values` itself with one rank.

    On the CPU the ranks may have different numbers of rows. On a GPU they must have as many each, as DistributedSampler gives
    them: to ask would make the host wait for the device.
    """
    if n_ranks() == 1:
        return values
    values = values.contiguous()
    if values.device.type != "cpu":
        return torch.cat(_gathered(values))
    sizes = [int(size) for size in _gathered(torch.tensor(len(values)))]
    padded = values.new_zeros((max(sizes), *values.shape[1:]))
    padded[: len(values)] = values
    return torch.cat([part[:size] for part, size in zip(_gathered(padded), sizes, strict=True)])


def sum_over_ranks(values: Sequence[T]) -> list[T]:
    """Sums over the ranks of tensors that have the same shapes on each, or are None; the values themselves with one rank."""
    if n_ranks() > 1:
        values = [None if value is None else value.clone() for value in values]
        for value in values:
            if value is not None:
                dist.all_reduce(value)
    return list(values)


def mean_one(weights: Tensor) -> Tensor:
    """weights (n,) divided by their mean over the rows of all ranks, with the graph of both; no number where all are 0."""
    if n_ranks() == 1:
        return weights / weights.mean()
    total = torch.stack([weights.sum(), weights.new_tensor(float(len(weights)))])
    total = all_reduce(total)  # backward sums over the ranks too
    return weights / (total[0] / total[1])


def _gathered(values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values) for _ in range(n_ranks())]
    dist.all_gather(parts, values)
    return parts
