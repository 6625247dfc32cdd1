"""Label shift: class frequencies change, and rows of a class look as before."""

from .estimator import LabelShiftRatio

__all__ = ["LabelShiftRatio"]
