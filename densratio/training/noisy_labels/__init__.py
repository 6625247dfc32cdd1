"""Methods for wrong labels that correct the loss or the labels, or let a second network choose the rows; no validation rows."""

from .co_teaching import CoTeaching
from .divide_mix import DivideMix
from .elr import ELR
from .elr_plus import ELRPlus
from .joint_optimization import JointOptimization
from .label_correction import LabelCorrection
from .m_correction import MCorrection
from .meta_cleaner import MetaCleaner

__all__ = ["ELR", "CoTeaching", "DivideMix", "ELRPlus", "JointOptimization", "LabelCorrection", "MCorrection", "MetaCleaner"]
