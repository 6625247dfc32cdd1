"""The rows of a fit: numbers on one scale, labels as class numbers, equal rows merged into counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Rows", "dealt", "held_shares", "merged"]


class Rows(NamedTuple):
    """Distinct rows x (m, ...) float32 with labels y (m,), how much each counts, and whether its label is known to be right."""

    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    is_clean: np.ndarray

    def take(self, rows: np.ndarray) -> Rows:
        """The rows with these numbers, or where a mask is true."""
        return Rows(self.x[rows], self.y[rows], self.counts[rows], self.is_clean[rows])


def merged(rows: Rows) -> tuple[Rows, np.ndarray]:
    """Distinct rows in an order of their own, and the place (n,) of each given row in it, -1 for a row that counts 0.

    So the order of the rows does not matter, and a row that counts k equals k copies.
    """
    used = np.flatnonzero(rows.counts > 0)
    keys = np.column_stack([_bytes(rows.x[used]), _bytes(rows.y[used]), _bytes(rows.is_clean[used])])
    _, first, inverse = np.unique(_whole(keys), return_index=True, return_inverse=True)
    place = np.full(len(rows.y), -1)
    place[used] = inverse
    distinct = rows.take(used[first])
    return distinct._replace(counts=np.bincount(inverse, rows.counts[used], len(first))), place


def held_shares(rows: Rows, folds: int, seed: int) -> np.ndarray:
    """Share (m, folds) of each distinct row that a fold holds out.

    Rows with equal x are held out together, so that a copy does not reveal its label, nor a row with another label that it is
    wrong. But if the labels of one x differ, and it has a copy for each fold, the rows of each label are dealt evenly.
    """
    draw = np.random.default_rng(seed)
    _, kind, n_labels = np.unique(_whole(_bytes(rows.x)), return_inverse=True, return_counts=True)
    shares = np.eye(folds)[(draw.permutation(len(n_labels)) % folds)[kind]]
    copies = np.maximum(np.round(rows.counts), 1.0).astype(int)
    is_dealt = (n_labels[kind] > 1) & (np.bincount(kind, copies)[kind] >= folds)
    for row in np.flatnonzero(is_dealt):
        places = (draw.integers(folds) + np.arange(copies[row])) % folds
        shares[row] = np.bincount(places, minlength=folds) / copies[row]
    return shares


def dealt(rows: Rows, held_share: np.ndarray) -> tuple[Rows, Rows]:
    """The learned and the held-out rows, if a fold holds out a share (m,) of each row."""
    learned, held = (rows._replace(counts=rows.counts * share).take(share > 0.0) for share in (1.0 - held_share, held_share))
    return learned, held


def _bytes(values: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(values.reshape(len(values), -1))
    # Adding 0 turns -0.0, which has other bytes, into 0.
    return (flat + 0.0 if flat.dtype.kind == "f" else flat).view(np.uint8)


def _whole(keys: np.ndarray) -> np.ndarray:
    """Rows of bytes (n, k) as n values that sort and compare."""
    return np.ascontiguousarray(keys).view(f"V{keys.shape[1]}")[:, 0]
