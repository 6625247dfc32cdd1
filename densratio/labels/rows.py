"""The rows of a fit: numbers of one scale, labels as class numbers, equal rows merged into counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Rows", "merged"]


class Rows(NamedTuple):
    """Distinct rows x (m, ...) float32 with label y (m,), how much each counts, and whether its label is known."""

    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    is_clean: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """The rows of these numbers, or where a mask is true."""
        return Rows(self.x[rows], self.y[rows], self.counts[rows], self.is_clean[rows])


def merged(rows: Rows) -> tuple[Rows, np.ndarray]:
    """Rows without copies in an order of their own, and the place (n,) of each given row; rows that count 0 are left out, place -1.

    So the order of the rows does not matter, and a row that counts k is k copies.
    """
    used = np.flatnonzero(rows.counts > 0)
    flat = np.ascontiguousarray(rows.x[used].reshape(len(used), -1)) + 0.0  # no -0.0
    keys = np.column_stack([flat.view(np.uint8), rows.y[used, None].view(np.uint8), rows.is_clean[used, None].view(np.uint8)])
    whole = np.ascontiguousarray(keys).view(f"V{keys.shape[1]}")[:, 0]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    place = np.full(len(rows.y), -1)
    place[used] = inverse
    distinct = rows.take(used[first])
    return distinct._replace(counts=np.bincount(inverse, rows.counts[used], len(first))), place
