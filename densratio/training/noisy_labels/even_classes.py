"""A term against predictions that collapse to few classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..loop.ranks import Rows

__all__ = ["distance_from_even"]


def distance_from_even(p: Tensor, rows: Rows) -> Tensor:
    """sum_k (1/K) log((1/K) / mean_i p_ik) (), the divergence of even classes from the mean of the rows' softmax p (n, K)."""
    shares = rows.mean_row(p).clamp(min=torch.finfo(p.dtype).tiny)
    return -(shares.log().mean() + math.log(p.shape[1]))
