"""One epoch of a network, and draws from a seed that leave torch's global state as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..training.loop.draws import same_draws

__all__ = ["drawn_order", "one_epoch", "seeded"]


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Inside it torch draws from the seed; afterwards the global state is as it was before."""
    with same_draws(device):
        # torch.manual_seed also seeds the GPU, whose state is kept above only if it is the device.
        set_seed = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
        set_seed(int(seed))
        yield


def drawn_order(n: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A random order (n,) on the device, drawn on the host, so that a network meets the same batches on every device."""
    # Without non_blocking the host would wait for the copy.
    return torch.randperm(n, generator=generator).to(device, non_blocking=True)


def one_epoch(
    order: Tensor,
    batch_size: int,
    loss: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
) -> list[Tensor]:
    """A step on loss(index) for each batch of the rows in the order (n,); returns the losses, detached."""
    losses = []
    for index in order.split(batch_size):
        if len(index) == 1 < len(order):
            break  # Batch normalization can't take one row.
        value = loss(index)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(value.detach())
    return losses
