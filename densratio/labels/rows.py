"""The rows of a fit: numbers on one scale, labels as class numbers, equal rows merged into counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._blocks import over_rows

__all__ = ["OwnOrder", "Rows", "dealt", "held_shares", "merged", "own_order"]

_RANKED = 1000  # columns up to which values are ranked, which removes their units, and sorts each column


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


class OwnOrder(NamedTuple):
    """Row numbers (n,) in an order of their own, and for each of n given rows a number that it shares with its equals."""

    rows: np.ndarray
    kind: np.ndarray

    def given(self, values: np.ndarray) -> np.ndarray:
        """Values (r, n, ...) of rows in this order, in the given one; equal rows have the mean of their values."""
        back = values[:, np.argsort(self.rows)]
        copies = np.flatnonzero(np.bincount(self.kind)[self.kind] > 1)
        kind, counts = np.unique(self.kind[copies], return_inverse=True, return_counts=True)[1:]
        for part in back:
            sums = np.zeros((len(counts), *part.shape[1:]))
            np.add.at(sums, kind, part[copies])
            part[copies] = (sums / counts.reshape(-1, *[1] * (part.ndim - 1)))[kind]
        return back


def own_order(rows: Any, *others: np.ndarray | None) -> OwnOrder:
    """An order as if by chance, which depends on what rows hold, and not on where they are or on the columns' units.

    rows: an array (n, ...) of numbers; rows of another kind stay in their order. others (n,): what tells equal rows apart.
    """
    keys = [other for other in others if other is not None]
    if not isinstance(rows, np.ndarray) or rows.ndim < 2 or rows.dtype.kind not in "fiub":
        return OwnOrder(np.arange(len(keys[0])), np.arange(len(keys[0])))
    flat = rows.reshape(len(rows), -1)
    draw, place = np.random.default_rng(0), np.zeros(len(rows))
    if flat.shape[1] <= _RANKED:
        for column in flat.T:
            place += draw.random() * np.unique(column, return_inverse=True)[1]
    else:
        # Sums modulo 2**64 of whole numbers: nothing is rounded, however large a column is, and NaN equals NaN.
        weights = draw.integers(2**64, size=flat.shape[1] * flat.itemsize, dtype=np.uint64)
        place = over_rows(lambda part: (_bytes(part) * weights).sum(axis=1), flat, len(weights))
    order = np.lexsort([*keys, place])
    is_new = np.any([np.diff(key[order]) != 0 for key in (place, *keys)], axis=0)
    kind = np.empty(len(rows), dtype=int)
    kind[order] = np.concatenate([[0], np.cumsum(is_new)])
    # A model may have folds of its own that follow the order: rows beside each other must not be alike.
    return OwnOrder(order[draw.permutation(len(rows))], kind)


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
