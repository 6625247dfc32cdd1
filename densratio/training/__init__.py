"""Reweighting inside torch training loops. The only room that imports torch."""

from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .critic import Critic
from .data import Indexed, endless
from .dynamic import DynamicReweighter
from .meta import L2R, ChosenRows, CMWNet, LiLAW, LRWEasy, LRWHard, LRWOpt, LRWRandom, MetaGradient, MWNet, SoftLabels
from .monitor import Monitor
from .reweighter import Reweighter
from .rules import ClassBalanced, Focal, MarginBased, RHOLoss, SelfPaced, irreducible_losses, margins
from .sampler import importance_sampler
from .shifted_data import ShiftedDataset, labels_of
from .sliced import Sliced
from .suspicious import suspicious_rows

__all__ = [
    "DIW",
    "L2R",
    "CMWNet",
    "ChosenRows",
    "ClassBalanced",
    "Critic",
    "DynamicReweighter",
    "Focal",
    "Indexed",
    "LRWEasy",
    "LRWHard",
    "LRWOpt",
    "LRWRandom",
    "LiLAW",
    "MWNet",
    "MarginBased",
    "MetaGradient",
    "Monitor",
    "RHOLoss",
    "RandomWeights",
    "Reweighter",
    "SelfPaced",
    "ShiftedDataset",
    "Sliced",
    "SoftLabels",
    "Uniform",
    "ValidationOnly",
    "endless",
    "importance_sampler",
    "irreducible_losses",
    "labels_of",
    "margins",
    "suspicious_rows",
]
