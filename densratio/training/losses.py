"""Losses of each row: for noisy or unequal classes, and for tasks whose prediction has more than one number a row."""

from .loop.losses import (
    Loss,
    cross_entropy,
    focal,
    forward_corrected,
    generalized_cross_entropy,
    label_margins,
    multilabel,
    pixel_cross_entropy,
    rows_mean,
    squared_error,
    token_cross_entropy,
)

__all__ = [
    "Loss", "cross_entropy", "focal", "forward_corrected", "generalized_cross_entropy", "label_margins", "multilabel",
    "pixel_cross_entropy", "rows_mean", "squared_error", "token_cross_entropy",
]  # fmt: skip
