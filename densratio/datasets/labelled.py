"""Labeled rows of a real data set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Labelled"]


class Labelled(NamedTuple):
    """inputs (n, ...) float32, images as (n, channels, height, width); labels (n,) int64; class names (K,).

    test: inputs and labels of the data set's own test split, None if it has none.
    outside: inputs (m, ...) of classes that are not among the labels, None if there are none.
    given: other labels (n,) of the same rows, as people gave them, by the name of their set; None if there are none.
    """

    inputs: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    test: tuple[np.ndarray, np.ndarray] | None = None
    given: dict[str, np.ndarray] | None = None
    outside: np.ndarray | None = None
