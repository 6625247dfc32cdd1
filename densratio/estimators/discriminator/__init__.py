"""Probabilistic classification: the ratio as the odds of a cross-fitted, calibrated classifier."""

from .estimator import Discriminator

__all__ = ["Discriminator"]
