"""Density ratios in a loop: the reweighter that takes warm-started steps of a divergence, and its Wasserstein critics."""

from .critic import Critic
from .dynamic import DynamicReweighter
from .published import published
from .sliced import Sliced

__all__ = ["Critic", "DynamicReweighter", "Sliced", "published"]
