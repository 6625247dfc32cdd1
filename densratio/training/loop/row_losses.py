"""Rows ranked by how likely their label is wrong, by a running mean of each row's loss during training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..._arrays import to_host
from ..._columns import check_none_missing
from .row_batch import RowBatch

__all__ = ["RowLosses", "suspicious_rows"]

_LOW = 0.25  # quantile that represents the right labels of a class, if fewer than three quarters of its labels are wrong


class RowLosses(nn.Module):
    """Mean loss of each training row over its visits, total / mass; a visit in epoch t counts t times.

    total, mass (n_train,): sums over a row's visits of t times the loss, and of t; 0 for a row that was never visited.
    Losses of the first epochs say little, and so do late ones, when the model has memorized the rows. So late visits count more,
    but in a long training not much more.
    """

    total: Tensor
    mass: Tensor

    def __init__(self, n_train: int):
        super().__init__()
        for name in ("total", "mass"):
            self.register_buffer(name, torch.zeros(n_train))

    def record(self, losses: Tensor, rows: RowBatch, epoch: float | Tensor) -> None:
        """Add the finite losses (n,) of a batch, without waiting for the device. epoch > 0: a number, or () on the device."""
        rows.add(self.total, self.mass, losses, scale=epoch)

    def means(self) -> Tensor:
        """Mean loss (n_train,) of each row; NaN for a row that was never visited."""
        return self.total / self.mass


def suspicious_rows(
    reweighter: nn.Module, k: int | None = None, labels: Any = None, *, by: str = "losses", return_scores: bool = False
) -> Any:
    """Numbers (k,) of the training rows whose labels are most likely wrong, the most likely first; all rows if k is None.

    Rows are ranked by their mean loss during training under the weights (`RowLosses`). Weights near 0 keep the network from
    memorizing wrong labels, so that their losses stay high, and a mean over visits is steadier than a single loss or weight.
    If only features were passed to `partial_fit`, and no losses, the current weights rank the rows, the smallest first. Ties keep
    their order, and rows that were never visited come last.
    labels (n_train,): given labels; the score of a row is then its loss minus the lower quartile of its class. Pass them if some
    classes are rare or hard, since the losses of such a class are all high.
    by: "losses" as above; or "easy", for `LiLAW`: the smallest W_alpha = sigmoid(alpha s_y - s_max) of the row's last batch first
    (Moturu et al., 2025).
    return_scores: also return the score (k,) of each of these rows: its mean loss, minus that quartile if labels are given; minus
    its weight if no losses were recorded; or minus W_alpha. It is NaN for a row that was never visited.
    Raises ValueError during the warm-up, if there is nothing to rank by, and for unsuitable k, labels or by.
    """
    if getattr(reweighter, "is_warming_up", False):
        raise ValueError(
            "The reweighter is still warming up: all its weights are held at 1, and its losses say little. Call suspicious_rows "
            "after the warm-up, best at the end of training."
        )
    if by not in ("losses", "easy"):
        raise ValueError(f'by must be "losses" or "easy"; got {by!r}.')
    scores = _scores(reweighter) if by == "losses" else _minus_easy(reweighter)
    if k is not None and (isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(scores)):
        raise ValueError(f"k must be an int from 1 to {len(scores)}, the number of training rows, or None for all; got {k!r}.")
    if labels is not None:
        scores = _within_classes(scores, _checked(labels, len(scores)))
    # A stable sort leaves equal rows in their order; NaN comes last.
    rows = np.argsort(-scores, kind="stable")[:k]
    return (rows, scores[rows]) if return_scores else rows


def _scores(reweighter: nn.Module) -> np.ndarray:
    """Score (n_train,) of each row, higher if its label is more likely wrong; NaN if nothing is known."""
    losses: RowLosses | None = getattr(reweighter, "row_losses", None)
    means = None if losses is None else np.array(to_host(losses.means()), dtype=np.float64)
    if means is not None and not np.isnan(means).all():
        return means
    weights = np.array(to_host(reweighter.weights_), dtype=np.float64)
    if len(weights) > 1 and np.ptp(weights) == 0.0:
        raise ValueError("There is nothing to rank by: no losses were recorded and every row has the same weight.")
    return -weights


def _minus_easy(reweighter: nn.Module) -> np.ndarray:
    difficulty = getattr(reweighter, "difficulty", None)
    if difficulty is None:
        raise ValueError(
            f'by="easy" ranks by a part of the weights of LiLAW, and {type(reweighter).__name__} has none: train with LiLAW, or '
            'pass by="losses".'
        )
    easy = np.array(to_host(difficulty[:, 0]), dtype=np.float64)
    if not easy.any():
        raise ValueError("There is nothing to rank by: no row was in a batch.")
    # A sigmoid is above 0.
    return np.where(easy > 0.0, -easy, np.nan)


def _checked(labels: Any, n: int) -> list[Any]:
    labels = np.asarray(to_host(labels))
    if labels.shape != (n,):
        raise ValueError(f"labels must be ({n},), the given label of each training row; got shape {labels.shape}.")
    check_none_missing(labels, "labels")
    return labels.tolist()


def _within_classes(scores: np.ndarray, labels: list[Any]) -> np.ndarray:
    """Scores minus the lower quartile of their class, over the rows of the class that have a score."""
    number = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    code = np.array([number[label] for label in labels])
    known = [scores[(code == c) & ~np.isnan(scores)] for c in range(len(number))]
    return scores - np.array([np.quantile(rows, _LOW) if len(rows) else 0.0 for rows in known])[code]
