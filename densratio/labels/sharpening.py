"""True classes q recovered from probabilities of given labels: q with q T near proba, by Richardson-Lucy steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["EvenTransition", "LikeliestClasses", "sharpened", "sharpened_likeliest"]

_SHARPENINGS, _BLOCK = 30, 256  # steps; rows per block, which fit into the processor's cache
_LEAST = 1e-9


def sharpened(proba: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """q (n, K) with q T near proba: expectation-maximization in each row, which keeps q >= 0 with sum 1."""
    result = np.empty_like(proba)
    for block in (slice(begin, begin + _BLOCK) for begin in range(0, len(proba), _BLOCK)):
        own, q = proba[block], proba[block].copy()
        for _ in range(_SHARPENINGS):
            q *= (own / np.maximum(q @ transition, _LEAST)) @ transition.T
        result[block] = q
    return result


class EvenTransition(NamedTuple):
    """T = common[:, None] + diag(own) + a few entries, so that a product with q takes K steps per row in place of K^2.

    pairs (e, 2), values (e,): true class, given class and value of each entry.
    """

    common: np.ndarray
    own: np.ndarray
    pairs: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, transition: np.ndarray) -> EvenTransition:
        """The parts of T (K, K)."""
        n_classes = len(transition)
        off = ~np.eye(n_classes, dtype=bool)
        common = np.median(transition[off].reshape(n_classes, n_classes - 1), axis=1)
        rest = np.where(off, transition - common[:, None], 0.0)
        pairs = np.argwhere(np.abs(rest) > np.finfo(float).eps)
        return cls(common, np.diag(transition) - common, pairs, rest[tuple(pairs.T)])


class LikeliestClasses:
    """The classes (n, m) out of n_classes that each row keeps, and their places."""

    def __init__(self, classes: np.ndarray, n_classes: int):
        self.classes, self.n_classes = classes, n_classes
        # Small integers are sorted in linear time.
        flat = classes.ravel().astype(np.uint16 if n_classes <= 65535 else np.int64)
        self.order = np.argsort(flat, kind="stable")
        self.begins = np.searchsorted(flat[self.order], np.arange(n_classes + 1))
        self.column = np.full((len(classes), n_classes), -1, dtype=np.int8)
        np.put_along_axis(self.column, classes, np.arange(classes.shape[1], dtype=np.int8)[None], axis=1)

    def entries(self, transition: EvenTransition) -> tuple[np.ndarray, ...]:
        """Row, column of the true class, column of the given class and value of each entry of T between two classes of a row."""
        m = self.classes.shape[1]
        found: list[tuple[np.ndarray, ...]] = [(np.empty(0, int),) * 3 + (np.empty(0, np.float32),)]
        for (k, j), value in zip(transition.pairs, transition.values, strict=True):
            places = self.order[self.begins[k] : self.begins[k + 1]]
            given = self.column[places // m, j]
            is_hit = given >= 0
            places, given = places[is_hit], given[is_hit]
            found.append((places // m, places % m, given.astype(int), np.full(len(places), value, np.float32)))
        parts = [np.concatenate(part) for part in zip(*found, strict=True)]
        in_order = np.argsort(parts[0], kind="stable")
        return tuple(part[in_order] for part in parts)


def sharpened_likeliest(proba: np.ndarray, transition: np.ndarray, kept: LikeliestClasses) -> np.ndarray:
    """`sharpened` for proba (n, m + 1): a column for each class that a row keeps, and one for all others, which are alike."""
    parts, (n, m) = EvenTransition.of(transition), kept.classes.shape
    # The last digits don't matter, and half of the bytes take half of the time.
    common, own = (np.empty((n, m + 1), np.float32) for _ in range(2))
    for column, of_classes in ((common, parts.common), (own, parts.own)):
        column[:, :m], column[:, m] = of_classes[kept.classes], of_classes.mean()
    size = np.ones(m + 1, np.float32)
    size[m] = kept.n_classes - m
    rows, true, given, values = kept.entries(parts)
    begins = np.searchsorted(rows, np.arange(0, n + _BLOCK, _BLOCK))
    result = np.empty_like(proba)
    for number, begin in enumerate(range(0, n, _BLOCK)):
        block, hits = slice(begin, begin + _BLOCK), slice(begins[number], begins[number + 1])
        first = (rows[hits] - begin) * (m + 1)
        from_, to, value = first + true[hits], first + given[hits], values[hits]
        share = proba[block].astype(np.float32)
        q, own_part, common_part = share.copy(), own[block], common[block]
        for _ in range(_SHARPENINGS):
            forward = q * own_part
            forward += np.einsum("ij,ij->i", q, common_part)[:, None] * size
            np.add.at(forward.ravel(), to, value * q.ravel()[from_])
            ratio = np.divide(share, np.maximum(forward, _LEAST, out=forward), out=forward)
            back = (ratio @ size)[:, None] * common_part
            back += ratio * own_part
            np.add.at(back.ravel(), from_, value * ratio.ravel()[to])
            q *= back
        result[block] = q
    return result
