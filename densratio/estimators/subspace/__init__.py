"""Least-squares hetero-distributional subspace search: the ratio in the few directions in which the domains differ."""

from .estimator import SubspaceLSIF

__all__ = ["SubspaceLSIF"]
