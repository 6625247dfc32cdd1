"""Weights by a rule of the row's own loss, class or margin: no validation rows, nothing learned."""

from .class_balanced import ClassBalanced
from .focal import Focal
from .margin import MarginBased, margins
from .rho_loss import RHOLoss, irreducible_losses
from .self_paced import SelfPaced

__all__ = ["ClassBalanced", "Focal", "MarginBased", "RHOLoss", "SelfPaced", "irreducible_losses", "margins"]
