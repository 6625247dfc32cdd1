"""Class-prior shift with its truth attached: which rows stay, and the ratio of a balanced target to them in each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Imbalance", "step_imbalance"]


class Imbalance(NamedTuple):
    """rows (n,) that stay, shuffled; is_minority (K,) bool; class_ratio (K,): P(y) of a balanced target / P(y) of these rows."""

    rows: np.ndarray
    is_minority: np.ndarray
    class_ratio: np.ndarray


def step_imbalance(
    labels: np.ndarray,
    ratio: float,
    fraction: float = 0.5,
    *,
    n_classes: int | None = None,
    random_state: int | np.random.Generator = 0,
) -> Imbalance:
    """Keep all classes at one size but a `fraction` of them, drawn at random, at 1 / `ratio` of it.

    labels (n,): integers 0..K-1, K = max(labels) + 1 where n_classes is None. The large classes have as many rows as the
    smallest class has; the small ones that number / ratio, rounded, at least 1.
    Raises ValueError for ratio < 1, a fraction outside [0, 1], or a class without rows.
    Source: Buda, Maki & Mazurowski (2018), A systematic study of the class imbalance problem (step imbalance).
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise ValueError(f"labels must be (n,) integers >= 0; got shape {labels.shape} and dtype {labels.dtype}.")
    if not ratio >= 1.0 or not 0.0 <= fraction <= 1.0:
        raise ValueError(f"ratio must be >= 1 and fraction in [0, 1]; got {ratio} and {fraction}.")
    counts = np.bincount(labels, minlength=n_classes or 0)
    if n_classes is not None and len(counts) > n_classes:
        raise ValueError(f"Label {len(counts) - 1} is out of range for n_classes={n_classes}.")
    if len(counts) == 0 or counts.min() == 0:
        raise ValueError(f"Every class needs rows; classes {np.flatnonzero(counts == 0).tolist()} have none.")
    rng = np.random.default_rng(random_state)
    is_minority = np.zeros(len(counts), dtype=bool)
    is_minority[rng.permutation(len(counts))[: round(fraction * len(counts))]] = True
    sizes = np.where(is_minority, max(1, round(counts.min() / ratio)), counts.min())
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[: sizes[c]] for c in range(len(counts))])
    return Imbalance(rng.permutation(rows), is_minority, sizes.sum() / (len(counts) * sizes))
