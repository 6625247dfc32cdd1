"""The peak memory of a training step, above the memory in use before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ["peak_memory"]


def peak_memory(step: Callable[[], Any], device: torch.device) -> int | None:
    """Most bytes in use by torch within `step()`, minus those in use before; None if torch cannot measure it.

    On the CPU torch does not see memory that was in use before and is freed within, such as old gradients; it is not subtracted.
    Output of the step to standard error is lost there.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    with _without_notices(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    kineto = getattr(getattr(profiler, "profiler", None), "kineto_results", None)
    if kineto is None:
        return None
    changes = sorted((event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0))


@contextmanager
def _without_notices() -> Iterator[None]:
    """Torch's profiler announces itself on the process's standard error, whatever Python holds it to be."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
