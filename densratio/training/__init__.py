"""Reweighting inside torch training loops."""

from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .loop import Reweighter
from .loop.data import ChosenRows, ImportanceSampler, Indexed, ShiftedDataset, endless, importance_sampler, labels_of
from .loop.monitor import Monitor
from .loop.row_losses import suspicious_rows
from .meta import (
    FSR,
    GDW,
    L2R,
    MCW,
    BiLAW,
    CMWNet,
    CMWNetSL,
    LiLAW,
    LRWEasy,
    LRWHard,
    LRWOpt,
    LRWRandom,
    MetaGradient,
    MWNet,
    SoftLabels,
)
from .noisy_labels import ELR, CoTeaching, DivideMix, ELRPlus, JointOptimization, LabelCorrection, MCorrection, MetaCleaner
from .ratio import Critic, DynamicReweighter, Sliced, published
from .registry import reweighter
from .rules import ClassBalanced, Focal, JustTrainTwice, MarginBased, RHOLoss, SelfPaced, irreducible_losses, margins
from .stable_net import StableNet

__all__ = [
    "DIW",
    "ELR",
    "FSR",
    "GDW",
    "L2R",
    "MCW",
    "BiLAW",
    "CMWNet",
    "CMWNetSL",
    "ChosenRows",
    "ClassBalanced",
    "CoTeaching",
    "Critic",
    "DivideMix",
    "DynamicReweighter",
    "ELRPlus",
    "Focal",
    "ImportanceSampler",
    "Indexed",
    "JointOptimization",
    "JustTrainTwice",
    "LRWEasy",
    "LRWHard",
    "LRWOpt",
    "LRWRandom",
    "LabelCorrection",
    "LiLAW",
    "MCorrection",
    "MWNet",
    "MarginBased",
    "MetaCleaner",
    "MetaGradient",
    "Monitor",
    "RHOLoss",
    "RandomWeights",
    "Reweighter",
    "SelfPaced",
    "ShiftedDataset",
    "Sliced",
    "SoftLabels",
    "StableNet",
    "Uniform",
    "ValidationOnly",
    "endless",
    "importance_sampler",
    "irreducible_losses",
    "labels_of",
    "margins",
    "published",
    "reweighter",
    "suspicious_rows",
]  # fmt: skip
