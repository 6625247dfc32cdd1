"""The class-prior ratio that multiplies weights estimated class by class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..loop.labels import checked_labels
from ..loop.row_batch import RowBatch
from ..loop.state import before_loading

__all__ = ["ClassFrequencies"]


class ClassFrequencies(nn.Module):
    """The known labels of both samples, and the class-prior ratio that they give.

    y_train (n_train,), y_val (n_val,): integer labels >= 0, declared or given batch by batch; -1 for a label not known yet.
    """

    y_train: Tensor
    y_val: Tensor

    def __init__(self, y_train: Tensor, y_val: Tensor):
        super().__init__()
        self.register_buffer("y_train", y_train)
        self.register_buffer("y_val", y_val)
        self._ratio: np.ndarray | None = None
        before_loading(self, _forget_ratio)

    @classmethod
    def unknown(cls, n_train: int, n_val: int) -> ClassFrequencies:
        """No label is known."""
        return cls(*(torch.full((n,), -1, dtype=torch.int64) for n in (n_train, n_val)))

    @classmethod
    def declared(cls, y_train: Any, y_val: Any, n_train: int, n_val: int) -> ClassFrequencies:
        """All labels are known. Raises ValueError for anything but one integer >= 0 for each row."""
        given = (("y_train", y_train, n_train), ("y_val", y_val, n_val))
        return cls(*(checked_labels(y, n, f"{name} must hold the class of each row") for name, y, n in given))

    def record(self, y: Tensor, rows: RowBatch, y_val: Tensor, val_rows: RowBatch) -> None:
        """Store the labels of a batch."""
        for known, labels, at in ((self.y_train, y, rows), (self.y_val, y_val, val_rows)):
            if bool((known[at.positions] != labels).any()):
                at.write(known, labels)
                self.look_again()

    def look_again(self) -> None:
        """Compute the ratio again: labels have changed."""
        self._ratio = None

    def ratio(self, label: int) -> float | None:
        """(n_val,y / n_val) / (n_train,y / n_train); None if the class has not occurred in both samples yet.

        0 for a class without validation rows, if all their labels are known.
        """
        if self._ratio is None:
            self._ratio = self._ratios()
        value = float(self._ratio[label]) if label < len(self._ratio) else float("nan")
        return None if np.isnan(value) else value

    def _ratios(self) -> np.ndarray:
        train, val = (y[y >= 0].cpu().numpy() for y in (self.y_train, self.y_val))
        n_classes = 1 + max((int(y.max()) for y in (train, val) if len(y)), default=-1)
        counts, val_counts = np.bincount(train, minlength=n_classes), np.bincount(val, minlength=n_classes)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (val_counts / max(1, len(val))) / (counts / max(1, len(train)))
        is_known = (counts > 0) & ((val_counts > 0) | (len(val) == len(self.y_val)))
        return np.where(is_known, ratio, np.nan)


def _forget_ratio(classes: ClassFrequencies, stored: dict[str, Tensor]) -> None:
    classes.look_again()
