"""Wrong labels: which rows have them, how certainly and how many, and a classifier that trains well in spite of them."""

from .classifier import NoisyLabelClassifier
from .find import find_label_issues
from .probabilities import label_issues_from_probabilities

__all__ = ["NoisyLabelClassifier", "find_label_issues", "label_issues_from_probabilities"]
