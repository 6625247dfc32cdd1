"""What the ranks of a distributed run tell each other: the rows of all, in the order of the ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["n_ranks", "of_all_ranks", "sum_over_ranks"]


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


def sum_over_ranks(values: Sequence[Tensor]) -> list[Tensor]:
    """Sums over the ranks of tensors that have the same shapes on each; the values themselves with one rank."""
    if n_ranks() > 1:
        values = [value.clone() for value in values]
        for value in values:
            dist.all_reduce(value)
    return list(values)


def _gathered(values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values) for _ in range(n_ranks())]
    dist.all_gather(parts, values)
    return parts
