"""How much memory a training step takes at its peak, above what was taken before it."""

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
    """Bytes that torch had taken at most within `step()`, less those taken before; None where torch cannot tell.

    On the CPU torch does not see what was taken before and is given back within, such as old gradients: that is not subtracted.
    What the step writes to standard error is lost there.
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
