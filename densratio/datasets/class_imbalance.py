"""Class imbalance (label shift) with a known ratio: rows to keep, and the ratio of a balanced target to them in each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._validation import check_number
from .checks import generator
from .label_noise import class_numbers

__all__ = ["Imbalance", "long_tail", "step_imbalance"]


class Imbalance(NamedTuple):
    """rows (n,) to keep, shuffled; is_minority (K,) bool; class_ratio (K,): P(y) of a balanced target / P(y) of these rows.

    is_minority: the classes drawn as small (step imbalance), or those with class_ratio > 1 (long tail).
    """

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
    """Subsample all classes to one size, and a `fraction` of them, drawn at random, to 1 / `ratio` of it.

    labels (n,): integers 0..K-1, K = max(labels) + 1 if n_classes is None. The large classes have as many rows as the
    smallest class of `labels`; the small ones that number / ratio, rounded, at least 1.
    Raises ValueError for ratio < 1, a fraction outside [0, 1], or a class without rows.
    Source: Buda, Maki & Mazurowski (2018), A systematic study of the class imbalance problem (step imbalance).
    """
    labels, counts = _class_sizes(labels, n_classes)
    check_number("ratio", ratio, "[1, inf)", ", the large classes over the small ones")
    check_number("fraction", fraction, "[0, 1]", ", of the classes")
    rng = generator(random_state)
    is_minority = np.zeros(len(counts), dtype=bool)
    is_minority[rng.permutation(len(counts))[: round(fraction * len(counts))]] = True
    sizes = np.where(is_minority, max(1, round(counts.min() / ratio)), counts.min())
    return Imbalance(_draw(labels, sizes, rng), is_minority, _ratio_to_balance(sizes))


def long_tail(
    labels: np.ndarray, factor: float, *, n_classes: int | None = None, random_state: int | np.random.Generator = 0
) -> Imbalance:
    """Keep n_c = n_0 factor^(-c / (K-1)) rows of class c, rounded down, at least 1: class sizes fall geometrically.

    labels (n,): integers 0..K-1, K = max(labels) + 1 if n_classes is None. factor >= 1: the largest class size over the smallest
    (some papers give its inverse). n_0 is the largest number for which every class has enough rows: all rows of class 0 if
    the classes of `labels` have equal sizes.
    Raises ValueError for factor < 1 or a class without rows.
    Source: Cui et al. (2019), Class-balanced loss based on effective number of samples.
    """
    labels, counts = _class_sizes(labels, n_classes)
    check_number("factor", factor, "[1, inf)", ", the largest class over the smallest")
    shares = float(factor) ** (-np.arange(len(counts)) / max(len(counts) - 1, 1))
    # The small term keeps floor from rounding down a whole number that floating point puts just below itself.
    largest = np.floor(np.min(counts / shares) + 1e-9)
    sizes = np.maximum(np.floor(largest * shares + 1e-9), 1).astype(np.int64)
    class_ratio = _ratio_to_balance(sizes)
    return Imbalance(_draw(labels, sizes, generator(random_state)), class_ratio > 1.0, class_ratio)


def _class_sizes(labels: np.ndarray, n_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    labels, n_classes = class_numbers(labels, n_classes)
    counts = np.bincount(labels, minlength=n_classes)
    if len(counts) == 0 or counts.min() == 0:
        raise ValueError(f"Every class needs at least one row; classes {np.flatnonzero(counts == 0).tolist()} have none.")
    return labels, counts


def _draw(labels: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffled rows, sizes[c] of each class c, drawn without replacement."""
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:size] for c, size in enumerate(sizes)])
    return rng.permutation(rows)


def _ratio_to_balance(sizes: np.ndarray) -> np.ndarray:
    return sizes.sum() / (len(sizes) * sizes)
