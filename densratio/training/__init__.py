"""Reweighting inside torch training loops. The only room that imports torch."""

from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .critic import Critic
from .data import Indexed, endless
from .dynamic import DynamicReweighter
from .monitor import Monitor
from .reweighter import Reweighter
from .sampler import importance_sampler
from .sliced import Sliced
from .suspicious import suspicious_rows

__all__ = [
    "DIW",
    "Critic",
    "DynamicReweighter",
    "Indexed",
    "Monitor",
    "RandomWeights",
    "Reweighter",
    "Sliced",
    "Uniform",
    "ValidationOnly",
    "endless",
    "importance_sampler",
    "suspicious_rows",
]
