"""Losses per row: for noisy labels, unequal classes, and predictions of more than one number per row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._arrays import to_host, waits_for
from .._validation import check_number

__all__ = [
    "Loss",
    "backward_corrected",
    "check_tensor",
    "cross_entropy",
    "focal",
    "forward_corrected",
    "generalized_cross_entropy",
    "label_margins",
    "multilabel",
    "pixel_cross_entropy",
    "rows_mean",
    "squared_error",
    "symmetric_cross_entropy",
    "token_cross_entropy",
]

Loss = Callable[[Tensor, Tensor], Tensor]
"""(prediction, label) of n rows -> losses (n,)."""

IGNORED = -100  # torch's label of a position without one
OUTSIDE = -math.inf  # the loss of a label of no class, where the host doesn't see the labels


def cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Cross entropy (n,) of logits (n, C) and labels (n,) or class probabilities (n, C); 0 for the label -100, which is none.

    On a GPU, which the host does not wait for, the loss of a label of no class is -inf, without a gradient: a reweighter raises
    the error with a later batch.
    Raises ValueError for other inputs, and names the loss that takes them, and for labels of no class on the CPU.
    """
    check_tensor(prediction)
    if not isinstance(label, Tensor):
        raise ValueError(f"Labels must be a tensor; got {type(label).__name__}: type y = torch.as_tensor(y).")
    try:
        return _class_losses(prediction, label)
    except (IndexError, RuntimeError, ValueError) as error:
        hint = other_task(prediction, label)
        if hint is None:
            raise
        given = f"a prediction {tuple(prediction.shape)} and labels {tuple(label.shape)} of {label.dtype}"
        raise ValueError(f"Cross entropy takes logits (n, C) and labels (n,), integers 0 to C - 1; got {given}. {hint}") from error


_CROSS_ENTROPY = partial(functional.cross_entropy, reduction="none", ignore_index=IGNORED)


def _class_losses(prediction: Tensor, label: Tensor, loss: Loss = _CROSS_ENTROPY) -> Tensor:
    """A loss (n, ...) of predictions (n, C, ...) and labels (n, ...), -100 for none, or probabilities (n, C, ...)."""
    if label.is_floating_point() or prediction.ndim < 2:
        return loss(prediction, label)
    if waits_for(label.device):
        label, is_outside = known_labels(label, prediction.shape[1])
        losses = loss(prediction, label)
        return losses if is_outside is None else losses.masked_fill(is_outside, OUTSIDE)
    label = label.long()
    try:
        # torch's own check costs no look at a value, which could be neither compiled nor mapped by vmap.
        return loss(prediction, label)
    except IndexError:
        _check_known(label, prediction.shape[1])
        raise


def known_labels(label: Tensor, n_classes: int) -> tuple[Tensor, Tensor | None]:
    """Labels (n, ...) as int64, -100 for none, and which of them (n, ...) were of no class, where the host doesn't see them.

    Those are -100 too: a kernel that meets another number ends the process. Where the host sees them it raises ValueError.
    """
    label = label.long()
    if waits_for(label.device):
        is_outside = (label != label.clamp(0, n_classes - 1)) & (label != IGNORED)
        return label.masked_fill(is_outside, IGNORED), is_outside
    if label.numel():
        least, most = label.aminmax()
        if int(least) < 0 or int(most) >= n_classes:
            _check_known(label, n_classes)
    return label, None


def _check_known(label: Tensor, n_classes: int) -> None:
    """Raise ValueError for labels (n, ...) outside 0 to n_classes - 1 and other than -100; on a host."""
    places = (((label < 0) | (label >= n_classes)) & (label != IGNORED)).nonzero()
    if not len(places):
        return
    known = label[label != IGNORED]
    row, number = int(places[0, 0]), int(label[tuple(places[0])])
    n_rows = len(places[:, 0].unique())
    more = f", and {n_rows} of the {len(label)} rows have such labels" if n_rows > 1 else ""
    raise ValueError(
        f"The model has {n_classes} classes and the labels go from {int(known.min())} to {int(known.max())}: row {row} of the "
        f"batch has {number}{more}. Number the classes from 0 to {n_classes - 1}; {IGNORED} stands for no label."
    )


def check_tensor(prediction: Any) -> None:
    """Raise ValueError for a model's output that is no tensor, with the part of it that may be meant."""
    if isinstance(prediction, Tensor):
        return
    part = ".logits" if hasattr(prediction, "logits") else '["logits"]' if isinstance(prediction, Mapping) else "[0]"
    raise ValueError(
        f"The model returns a {type(prediction).__name__}, and a tensor is needed. Train a module around the model, whose "
        f"forward(x) returns self.model(x){part}, or self.model(**x){part} where x is a dict."
    )


def focal(prediction: Tensor, label: Tensor, gamma: float = 2.0) -> Tensor:
    """(1 - p)^gamma times the cross entropy (n,), p the probability of the label; logits (n, C), labels (n,).

    Source: Lin et al. (2017), Focal loss for dense object detection.
    """
    check_number("gamma", gamma, "[0, inf)")
    losses = cross_entropy(prediction, label)
    return focal_factor(losses, gamma) * losses


def class_probabilities(prediction: Tensor) -> Tensor:
    """Softmax (n, C) of logits (n, C), with its graph, in at least single precision."""
    return torch.softmax(prediction.to(torch.promote_types(prediction.dtype, torch.float32)), dim=1)


def focal_factor(losses: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma (n,) of the cross entropies -log p (n,)."""
    # Minus infinity, of a label of no class, must stay in the product.
    missed = -torch.expm1(-losses.abs())
    # The root of 0 has an infinite slope, which matters for a gamma below 1.
    return missed.clamp(min=torch.finfo(missed.dtype).tiny) ** gamma


def generalized_cross_entropy(prediction: Tensor, label: Tensor, q: float = 0.7) -> Tensor:
    """(1 - p^q) / q (n,), p the probability of the label: cross entropy as q -> 0, the mean absolute error at q = 1.

    Logits (n, C), labels (n,). Source: Zhang & Sabuncu (2018), Generalized cross entropy loss for training deep neural networks
    with noisy labels.
    """
    check_number("q", q, "(0, 1]")
    return -torch.expm1(-q * cross_entropy(prediction, label)) / q


def symmetric_cross_entropy(
    prediction: Tensor, label: Tensor, alpha: float = 0.1, beta: float = 1.0, log_zero: float = -4.0
) -> Tensor:
    """alpha times the cross entropy plus beta times the reverse cross entropy (n,).

    The reverse cross entropy of a one-hot label q is -sum_k p_k log q_k, where `log_zero` < 0 stands for log 0. It equals
    -log_zero (1 - p), p the probability of the label. The reverse term is bounded, and so is its slope; the cross entropy speeds up
    learning. Logits (n, C), labels (n,); alpha, beta >= 0.
    Source: Wang et al. (2019), Symmetric cross entropy for robust learning with noisy labels, with alpha and beta of CIFAR-10.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("-log_zero", -log_zero)):
        check_number(name, value, "[0, inf)")
    losses = cross_entropy(prediction, label)
    return alpha * losses + beta * log_zero * torch.expm1(-losses)


def forward_corrected(transition: Any) -> Loss:
    """The loss -log (T' p)_y: cross entropy of the noisy label, p the prediction of the clean one, T[i, j] = P(noisy j | clean i).

    transition (C, C): rows of sum 1. Returns a loss of logits (n, C) and labels (n,). Raises ValueError for another matrix.
    Source: Patrini et al. (2017), Making deep neural networks robust to label noise: a loss correction approach.
    """
    return partial(_forward_corrected, _transition(transition).log())


def backward_corrected(transition: Any) -> Loss:
    """The loss sum_j (T^-1)[y, j] l_j, l_j the cross entropy of class j, T[i, j] = P(noisy j | clean i): it is unbiased.

    Its mean over the noisy labels of a row is the cross entropy of the right label. The loss of a single row may be negative, and
    it varies more the closer T is to a singular matrix; forward correction varies less.
    transition (C, C): rows of sum 1, with an inverse. Returns a loss of logits (n, C) and labels (n,). Raises ValueError for
    another matrix. Source: Patrini et al. (2017), as for `forward_corrected`.
    """
    matrix = _transition(transition)
    if int(torch.linalg.matrix_rank(matrix)) < len(matrix):
        raise ValueError("transition must have an inverse; this one has none. forward_corrected takes it.")
    return partial(_backward_corrected, torch.linalg.inv(matrix))


def _transition(transition: Any) -> Tensor:
    matrix = torch.as_tensor(to_host(transition), dtype=torch.float64)
    is_square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not is_square or not bool((matrix >= 0).all()) or not torch.allclose(matrix.sum(1), torch.ones_like(matrix[0])):
        raise ValueError(f"transition must be (C, C), rows of sum 1 with entries >= 0; got shape {tuple(matrix.shape)}.")
    return matrix


def _forward_corrected(log_transition: Tensor, prediction: Tensor, label: Tensor) -> Tensor:
    _check_classes("transition", log_transition, prediction, label)
    own = torch.log_softmax(prediction, dim=1)[:, :, None]
    noisy = torch.logsumexp(own + log_transition.to(prediction.device, prediction.dtype), dim=1)
    return _class_losses(noisy, label, partial(functional.nll_loss, reduction="none", ignore_index=IGNORED))


def _backward_corrected(inverse: Tensor, prediction: Tensor, label: Tensor) -> Tensor:
    _check_classes("transition", inverse, prediction, label)
    of_classes = -torch.log_softmax(prediction, dim=1)
    return _class_losses(of_classes, label, partial(_sum_of_classes, inverse.to(prediction.device, of_classes.dtype)))


def _sum_of_classes(inverse: Tensor, of_classes: Tensor, label: Tensor) -> Tensor:
    """sum_j inverse[y, j] l_j (n,) of the losses l (n, C) of all classes and labels y (n,); 0 for the label -100."""
    is_ignored = label == IGNORED
    # Not by indexing, where -1 would be the last class.
    own = functional.embedding(label.masked_fill(is_ignored, 0), inverse)
    return (own * of_classes).sum(dim=1).masked_fill(is_ignored, 0.0)


def label_margins(class_sizes: Any, largest: float = 0.5, scale: float = 30.0) -> Loss:
    """LDAM's loss: cross entropy of scaled logits, after a margin largest (n_min / n_c)^(1/4) is subtracted from the label's logit.

    class_sizes (C,): training rows of each class. Returns a loss of logits (n, C) and labels (n,). In the paper the logits are
    cosines of features and class vectors.
    Source: Cao et al. (2019), Learning imbalanced datasets with label-distribution-aware margin loss.
    """
    sizes = torch.as_tensor(to_host(class_sizes), dtype=torch.float64)
    if sizes.ndim != 1 or not bool((sizes > 0).all()):
        raise ValueError(f"class_sizes must be (C,) numbers > 0, the training rows of each class; got {class_sizes!r}.")
    return partial(_label_margins, largest * (sizes.min() / sizes) ** 0.25, scale)


def _label_margins(margins: Tensor, scale: float, prediction: Tensor, label: Tensor) -> Tensor:
    _check_classes("class_sizes", margins, prediction, label)
    of_class = label.long().clamp(0, len(margins) - 1)
    less = torch.diag(margins.to(prediction.device, prediction.dtype))[of_class]
    return cross_entropy(scale * (prediction - less), label)


def _check_classes(name: str, of_classes: Tensor, prediction: Tensor, label: Tensor) -> None:
    check_tensor(prediction)
    n_classes = len(of_classes)
    if prediction.ndim != 2 or prediction.shape[1] != n_classes:
        raise ValueError(f"{name} has {n_classes} classes, so logits must be (n, {n_classes}); got {tuple(prediction.shape)}.")
    if label.is_floating_point() or label.shape != prediction.shape[:1]:
        got = f"{tuple(label.shape)} of {label.dtype}"
        raise ValueError(f"With {name} labels are the class of each row, ({len(prediction)},) integers; got {got}.")


def squared_error(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean squared error (n,) of each row; prediction and label have shape (n,) or (n, ...), and (n, 1) may meet (n,)."""
    check_tensor(prediction)
    return rows_mean((prediction.reshape(label.shape) - label) ** 2)


def multilabel(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean binary cross entropy (n,) over the labels of each row; logits and 0 / 1 labels (n, L).

    For one label a row both may be (n,), and logits (n, 1) may meet labels (n,).
    """
    check_tensor(prediction)
    is_one_each = prediction.numel() == label.numel() == len(label) == len(prediction)
    logits = prediction.reshape(label.shape) if is_one_each else prediction
    return rows_mean(functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none"))


def token_cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean cross entropy (n,) over the tokens of each sequence; logits (n, T, C), labels (n, T), -100 for no label.

    Raises ValueError for labels of no class; on a GPU their row has the loss -inf, as in `cross_entropy`.
    """
    check_tensor(prediction)
    return pixel_cross_entropy(prediction.movedim(-1, 1), label)


def pixel_cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean cross entropy (n,) over the pixels of each image; logits (n, C, h, w), labels (n, h, w), -100 for no label.

    Raises ValueError for labels of no class; on a GPU their row has the loss -inf, as in `cross_entropy`.
    """
    check_tensor(prediction)
    each = _class_losses(prediction, label)
    return rows_mean(each, label != IGNORED)


def takes_classes(loss: Loss) -> bool:
    """Whether a loss is one of these that take the class of each row, -100 for none."""
    of_classes = cross_entropy, focal, generalized_cross_entropy, symmetric_cross_entropy
    return getattr(loss, "func", loss) in (*of_classes, _forward_corrected, _backward_corrected, _label_margins)


def rows_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean (n,) of the entries of each row of `values` (n, ...); only of those where `mask` (n, ...) is true; 0 if none is."""
    if mask is None:
        return values.flatten(1).mean(dim=1) if values.ndim > 1 else values
    counted = mask.to(values.dtype).flatten(1)
    # A masked loss may be infinite, and infinity times 0 is NaN.
    kept = values.flatten(1).where(counted > 0, 0.0)
    return kept.sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)


def other_task(prediction: Tensor, label: Tensor) -> str | None:
    """Advice for a prediction and labels that cross entropy does not take; None if they look right."""
    n, n_classes = len(prediction), prediction.shape[-1]
    if prediction.ndim == 1 or (prediction.ndim == 2 and n_classes == 1):
        return (
            "The model gives one number a row: loss=densratio.training.losses.squared_error for numbers, multilabel there for "
            "labels 0 and 1, or a logit for each class."
        )
    if prediction.ndim > 2:
        return "For labels of tokens or pixels use loss=densratio.training.losses.token_cross_entropy or pixel_cross_entropy."
    if label.shape == prediction.shape:
        return "One-hot labels become y.argmax(dim=1). For several labels a row use loss=densratio.training.losses.multilabel."
    if label.shape == (n, 1):
        return "Take the one column of the labels: y[:, 0]."
    if label.shape == (n,) and label.is_floating_point():
        return "Make the labels integers, y.long(); for numbers use loss=densratio.training.losses.squared_error."
    if label.shape == (n,) and label.dtype not in (torch.int64, torch.uint8):
        return "Make the labels integers of 64 bits, y.long()."
    return None
