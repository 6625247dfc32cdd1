"""Learned reweighting: methods whose weights follow the gradient of the validation loss after the next training step, and LiLAW."""

from ..loop.data import ChosenRows
from .bilaw import BiLAW
from .cmw_net import CMWNet
from .cmw_net_sl import CMWNetSL
from .fsr import FSR
from .gdw import GDW
from .gradient import MetaGradient
from .l2r import L2R
from .lilaw import LiLAW
from .lrw import LRWEasy, LRWHard, LRWRandom
from .lrw_opt import LRWOpt
from .mcw import MCW
from .mw_net import MWNet
from .soft_labels import SoftLabels
from .weight_network import WeightNetwork

__all__ = [
    "FSR", "GDW", "L2R", "MCW", "BiLAW", "CMWNet", "CMWNetSL", "ChosenRows", "LRWEasy", "LRWHard", "LRWOpt", "LRWRandom", "LiLAW",
    "MWNet", "MetaGradient", "SoftLabels", "WeightNetwork",
]  # fmt: skip
