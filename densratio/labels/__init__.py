"""Wrong labels: a classifier that trains well in spite of them."""

from .classifier import NoisyLabelClassifier

__all__ = ["NoisyLabelClassifier"]
