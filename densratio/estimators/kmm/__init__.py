"""Kernel mean matching: the estimator, the ratio at any row, and its cross-validation."""

from .estimator import KMM

__all__ = ["KMM"]
