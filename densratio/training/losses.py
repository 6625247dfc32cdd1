"""Losses of each row, for tasks whose prediction has more than one number a row."""

from .loop.losses import Loss, cross_entropy, multilabel, pixel_cross_entropy, rows_mean, squared_error, token_cross_entropy

__all__ = ["Loss", "cross_entropy", "multilabel", "pixel_cross_entropy", "rows_mean", "squared_error", "token_cross_entropy"]
