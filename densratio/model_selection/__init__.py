"""Cross-validation of parameters: folds of both domains, closed-form leave-one-out scores, and the table of results."""

from .choice import Choice, choose
from .folds import Fold, are_partition, folds_of, folds_of_stacked, k_fold_scores, stratified_folds
from .leave_one_out import leave_one_out_scores

__all__ = [
    "Choice", "Fold", "are_partition", "choose", "folds_of", "folds_of_stacked", "k_fold_scores", "leave_one_out_scores",
    "stratified_folds",
]  # fmt: skip
