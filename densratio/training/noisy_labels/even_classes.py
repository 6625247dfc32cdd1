"""A term against predictions that collapse to few classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..loop.ranks import Rows

__all__ = ["distance_from_even", "mean_prediction"]


def mean_prediction(p: Tensor, rows: Rows, base: Tensor | None) -> Tensor:
    """Mean (K,) of p (n, K) over all rows, weighted by base (n,) unless that is None."""
    if base is None:
        return rows.mean_row(p)
    base = base.to(p.dtype)
    return rows.mean_row(base[:, None] * p) / rows.mean(base).clamp(min=torch.finfo(p.dtype).tiny)


def distance_from_even(p: Tensor, rows: Rows, base: Tensor | None = None) -> Tensor:
    """sum_k (1/K) log((1/K) / mean_i p_ik) (), the divergence of even classes from the mean of the rows' softmax p (n, K).

    base (n,): weights of the rows in the mean, or None.
    """
    shares = mean_prediction(p, rows, base).clamp(min=torch.finfo(p.dtype).tiny)
    return -(shares.log().mean() + math.log(p.shape[1]))
