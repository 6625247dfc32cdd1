"""Wrong labels: which rows, how sure, and how many."""

from .find import find_label_issues
from .probabilities import label_issues_from_probabilities

__all__ = ["find_label_issues", "label_issues_from_probabilities"]
