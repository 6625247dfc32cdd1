"""Random draws of a batch that are the same on every rank and after a resume."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["generator_of"]


def generator_of(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that whole numbers >= 0 seed, such as a seed and the number of the batch."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed[0]))
