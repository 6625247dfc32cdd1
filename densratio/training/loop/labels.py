"""Class labels as a loop gives them: integers >= 0, one for each row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["batch_labels", "checked_labels"]


def batch_labels(y: Any, n: int, name: str, device: torch.device) -> Tensor:
    """Labels (n,) of a batch. Raises ValueError for what is no integer >= 0 for each row."""
    return checked_labels(y, n, f"{name} must hold the class of each row of the batch").to(device)


def checked_labels(y: Any, n: int, what: str) -> Tensor:
    """Labels (n,) as int64. Raises ValueError for what is no integer >= 0 for each row."""
    if not isinstance(y, Tensor) and np.asarray(y).dtype.kind in "OSU":
        raise ValueError(f"{what}, integers ({n},); got texts or other objects. Number the classes from 0 on.")
    labels = torch.as_tensor(y)
    if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{what}, integers ({n},); got shape {tuple(labels.shape)} and dtype {labels.dtype}.")
    if n and int(labels.min()) < 0:
        raise ValueError(f"{what}, integers >= 0; got {int(labels.min())}.")
    return labels.to(torch.int64)
