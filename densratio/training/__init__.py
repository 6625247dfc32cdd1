"""Reweighting inside torch training loops. The only room that imports torch."""

from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .critic import Critic
from .data import Indexed, endless
from .dynamic import DynamicReweighter
from .monitor import Monitor
from .reweighter import Reweighter
from .sampler import importance_sampler
from .shifted_data import ShiftedDataset, labels_of
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
    "ShiftedDataset",
    "Sliced",
    "Uniform",
    "ValidationOnly",
    "endless",
    "importance_sampler",
    "labels_of",
    "suspicious_rows",
]
