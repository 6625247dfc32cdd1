"""Reweighting inside torch training loops. The only room that imports torch."""

from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .data import Indexed, endless
from .dynamic import DynamicReweighter
from .reweighter import Reweighter
from .sampler import importance_sampler

__all__ = [
    "DIW",
    "DynamicReweighter",
    "Indexed",
    "RandomWeights",
    "Reweighter",
    "Uniform",
    "ValidationOnly",
    "endless",
    "importance_sampler",
]
