"""Reweighting inside torch training loops. The only room that imports torch."""

from .baselines import RandomWeights, Uniform, ValidationOnly
from .data import Indexed, endless
from .reweighter import DynamicReweighter, Reweighter

__all__ = ["DynamicReweighter", "Indexed", "RandomWeights", "Reweighter", "Uniform", "ValidationOnly", "endless"]
