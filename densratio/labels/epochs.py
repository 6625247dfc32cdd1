"""One epoch of a network, and draws and threads of torch whose global state is afterwards as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..training.loop.draws import same_draws

__all__ = ["drawn_order", "one_epoch", "one_thread", "seeded"]


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Inside it torch draws from the seed; afterwards the global state is as it was before."""
    with same_draws(device):
        # torch.manual_seed also seeds the GPU, whose state is kept above only if it is the device.
        set_seed = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
        set_seed(int(seed))
        yield


@contextmanager
def one_thread(is_short: bool) -> Iterator[None]:
    """Use one thread of torch in the block if the steps of a training are short.

    Threads that wait for each other gain little then: two take 1.2 times as long for the perceptron of a table, and .75 times for
    convolutions of 8 x 8 pixels, but ten to a hundred times as long if other processes have the cores.
    """
    before = torch.get_num_threads()
    if is_short:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
