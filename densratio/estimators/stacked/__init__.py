"""Stacking: a combination of several ratios that the data choose."""

from .estimator import StackedRatio

__all__ = ["StackedRatio"]
