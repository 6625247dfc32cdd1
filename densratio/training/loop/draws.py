"""Random draws: of a batch, the same on every rank and after a resume; and torch's own generators, kept and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draws", "generator_of", "generator_states", "is_captured", "same_draws", "set_generators"]


class Draws:
    """A random generator of numpy, whose state is in the state_dict of the method that draws from it."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator."""
        return dict(self.random.bit_generator.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.random.bit_generator.state = dict(state)

    def restorer(self) -> Callable[[], None]:
        """A function that restores the state of now."""
        return partial(self.load_state_dict, self.state_dict())


def generator_of(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that whole numbers >= 0 seed, such as a seed and the number of the batch."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed[0]))


def is_captured(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, during which no value can be read, the state of the generator included."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def generator_states(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """States of torch's global generators: the CPU's, and the device's own; None for one that has none or can't be read."""
    # A replay of a captured graph draws on.
    has_own = hasattr(_of_device(device), "get_rng_state") and not is_captured(device)
    return torch.get_rng_state(), _of_device(device).get_rng_state(device) if has_own else None


def set_generators(states: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    """Set the generators to the states."""
    torch.set_rng_state(states[0])
    if states[1] is not None:
        _of_device(device).set_rng_state(states[1], device)


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Afterwards the random generators of the CPU and of `device` are as they were before."""
    states = generator_states(device)
    try:
        yield
    finally:
        set_generators(states, device)


def _of_device(device: torch.device) -> Any:
    """torch.cuda, torch.mps or another; None for a device without a module of its own."""
    return getattr(torch, device.type, None)
