"""Learned reweighting: methods whose weights follow the validation loss after the next training step, and their kin."""

from .cmw_net import CMWNet
from .gradient import MetaGradient
from .l2r import L2R
from .lilaw import LiLAW
from .mw_net import MWNet
from .soft_labels import SoftLabels

__all__ = ["L2R", "CMWNet", "LiLAW", "MWNet", "MetaGradient", "SoftLabels"]
