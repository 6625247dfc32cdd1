"""Rows drawn in proportion to their importance weights, for loops that cannot weigh the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from ...._arrays import to_host

__all__ = ["importance_sampler"]

_LARGEST = 2**24  # categories that torch.multinomial takes


def importance_sampler(
    weights: Any, num_samples: int | None = None, replacement: bool = True, generator: torch.Generator | None = None
) -> WeightedRandomSampler:
    """A sampler for DataLoader that draws row i with probability weights[i] / sum(weights): batches come from the target.

    weights (n,): numpy or tensor, the `weights_` of a ratio fitted on these rows as its source, for one. num_samples: draws of
    one pass, n if None. replacement=False draws no row twice. generator: on the CPU; None takes torch's global state.
    Do not also multiply the loss by the weights: each row would count by its weight squared.
    Raises ValueError for weights that are not 1-D, finite, >= 0 and somewhere > 0, more than 2^24 of them, or too few rows of
    weight > 0 to draw num_samples without replacement.
    """
    values = _check_weights(weights)
    n_draws = _check_draws(len(values) if num_samples is None else num_samples)
    n_drawable = int(np.count_nonzero(values))
    if not replacement and n_draws > n_drawable:
        raise ValueError(
            f"Only {n_drawable} rows have a weight > 0: without replacement num_samples can be at most that; got {n_draws}."
        )
    # The sum of weights near the largest float would overflow.
    scaled: Any = values / values.max()
    return WeightedRandomSampler(scaled, n_draws, replacement, generator)


def _check_weights(weights: Any) -> np.ndarray:
    values = np.asarray(to_host(weights))
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise ValueError(f"weights must be (n,) real numbers; got shape {values.shape} and dtype {values.dtype}.")
    if not 0 < len(values) <= _LARGEST:
        raise ValueError(f"weights must have 1 to {_LARGEST} entries, all that torch draws from; got {len(values)}.")
    values = values.astype(np.float64)
    is_bad = ~np.isfinite(values) | (values < 0.0)
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise ValueError(f"weights must be finite and >= 0; got {values[first]} at row {first} ({is_bad.sum()} such rows).")
    if values.max() == 0.0:
        raise ValueError("weights are all 0: there is no row to draw. A ratio that is 0 on every source row means no overlap.")
    return values


def _check_draws(num_samples: Any) -> int:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int | np.integer) or num_samples < 1:
        raise ValueError(f"num_samples must be an int >= 1 or None; got {num_samples!r}.")
    return int(num_samples)
