"""Losses of each row, for tasks whose prediction has more than one number a row."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

__all__ = [
    "Loss", "check_classes", "cross_entropy", "multilabel", "pixel_cross_entropy", "rows_mean", "squared_error",
    "token_cross_entropy",
]  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]
"""(prediction, label) of n rows -> losses (n,)."""

IGNORED = -100  # torch's mark of a position that has no label


def cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Cross entropy (n,) of logits (n, C) and labels (n,), or probabilities (n, C)."""
    return functional.cross_entropy(prediction, label, reduction="none")


def check_classes(prediction: Tensor, label: Tensor) -> None:
    """Raise ValueError for the labels that cross entropy is most often given in another form, with what to type."""
    if label.ndim == 2 and label.shape[1] == 1 and prediction.ndim == 2 and prediction.shape[1] > 1:
        got = tuple(label.shape)
        raise ValueError(f"Cross entropy takes the class of each row, (n,); got labels {got}. Type y.squeeze(1).long().")
    if label.ndim == 1 and label.is_floating_point() and prediction.ndim == 2:
        raise ValueError(
            f"Cross entropy takes classes as integers; got labels of {label.dtype}. Type y.long(), or for numbers to be predicted "
            "give the reweighter loss=densratio.training.losses.squared_error."
        )


def squared_error(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean squared error (n,) of each row; prediction and label (n,) or (n, ...) of equal sizes, (n, 1) beside (n,) too."""
    return rows_mean((prediction.reshape(label.shape) - label) ** 2)


def multilabel(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean binary cross entropy (n,) over the labels of each row; logits and 0 / 1 labels (n, L)."""
    return rows_mean(functional.binary_cross_entropy_with_logits(prediction, label.to(prediction.dtype), reduction="none"))


def token_cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean cross entropy (n,) over the tokens of each sequence; logits (n, T, C), labels (n, T), -100 where there is none."""
    return pixel_cross_entropy(prediction.movedim(-1, 1), label)


def pixel_cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean cross entropy (n,) over the pixels of each image; logits (n, C, h, w), labels (n, h, w), -100 where there is none."""
    each = functional.cross_entropy(prediction, label, reduction="none", ignore_index=IGNORED)
    return rows_mean(each, label != IGNORED)


def rows_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean (n,) of the entries of each row of `values` (n, ...), of those alone where `mask` (n, ...) is true; 0 where none is."""
    if mask is None:
        return values.flatten(1).mean(dim=1) if values.ndim > 1 else values
    counted = mask.to(values.dtype).flatten(1)
    # Where a mask is false a loss may be infinite, and infinity times 0 is NaN.
    kept = values.flatten(1).where(counted > 0, 0.0)
    return kept.sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)
