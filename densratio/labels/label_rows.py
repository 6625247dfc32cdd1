"""Rows with given labels: probabilities of all classes, or of the most probable ones and of all others together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .sharpening import LikeliestClasses, sharpened, sharpened_likeliest

__all__ = ["SMALLEST", "LabelRows", "LikeliestRows", "WholeRows", "label_rows", "raised"]

SMALLEST = 1e-9
_FEW_CLASSES, _LIKELIEST = 32, 31


@dataclass(frozen=True)
class LabelRows(ABC):
    """Probabilities (n, ...), labels (n,), which labels are known to be right, how often each row counts, and the origin of proba.

    holds_noise: whether proba was learned from labels as given. Values per class in each row have the columns of proba.
    """

    proba: np.ndarray
    given: np.ndarray
    is_clean: np.ndarray
    counts: np.ndarray
    holds_noise: bool

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """K, the number of classes."""

    @property
    @abstractmethod
    def place(self) -> np.ndarray:
        """The column (n,) of each given label."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> LabelRows:
        """The rows with these numbers."""

    @abstractmethod
    def log_classes(self, transition: np.ndarray) -> np.ndarray:
        """log P(true class | row) of each single class."""

    @abstractmethod
    def raised(self, log_q: np.ndarray, power: float) -> np.ndarray:
        """Probabilities in proportion to a power of q."""

    @abstractmethod
    def likelihood(self, transition: np.ndarray) -> np.ndarray:
        """P(given label | true class)."""

    @abstractmethod
    def confusion(self, joint: np.ndarray) -> np.ndarray:
        """Sums (K, K) of a joint probability over the rows by given label (columns) and true class (rows)."""

    @abstractmethod
    def class_sums(self, q: np.ndarray) -> np.ndarray:
        """Sums (K,) of q over the rows."""

    @abstractmethod
    def of_group(self, q: np.ndarray, group: np.ndarray, least: float) -> np.ndarray:
        """The numbers of the rows in which some class of a group (K,) has more than `least` of q."""

    @abstractmethod
    def likeliest(self, least: np.ndarray) -> np.ndarray:
        """The most probable class (n,) among those that reach their own least probability (K,); -1 for none."""

    @abstractmethod
    def surest(self, numbers: np.ndarray) -> np.ndarray:
        """Sums (K, K) of proba over the rows that it assigns to each class most surely; `numbers` (K,) of them for each class."""

    @abstractmethod
    def all_classes(self, q: np.ndarray) -> np.ndarray:
        """q (n, K) in columns of all classes."""

    def of_given(self, q: np.ndarray) -> np.ndarray:
        """The entries (n,) of the given labels."""
        return q[np.arange(len(q)), self.place]

    def with_none_clean(self) -> LabelRows:
        """The rows as if none were known to be right."""
        return replace(self, is_clean=np.zeros_like(self.is_clean))

    def _taken(self, rows: np.ndarray) -> dict[str, Any]:
        return {name: getattr(self, name)[rows] for name in ("proba", "given", "is_clean", "counts")}


@dataclass(frozen=True)
class WholeRows(LabelRows):
    """Rows with all classes: proba (n, K)."""

    @property
    def n_classes(self) -> int:
        return self.proba.shape[1]

    @property
    def place(self) -> np.ndarray:
        return self.given

    @cached_property
    def _is_given(self) -> np.ndarray:
        """1 at the given label of each row (n, K), 0 elsewhere."""
        return np.eye(self.n_classes)[self.given]

    def take(self, rows: np.ndarray) -> WholeRows:
        return replace(self, **self._taken(rows))

    def log_classes(self, transition: np.ndarray) -> np.ndarray:
        q = sharpened(self.proba, transition) if self.holds_noise else self.proba
        return np.log(np.maximum(q, SMALLEST))

    def raised(self, log_q: np.ndarray, power: float) -> np.ndarray:
        return raised(log_q, power)

    def likelihood(self, transition: np.ndarray) -> np.ndarray:
        return transition[:, self.given].T

    def confusion(self, joint: np.ndarray) -> np.ndarray:
        return joint.T @ self._is_given

    def class_sums(self, q: np.ndarray) -> np.ndarray:
        return q.sum(axis=0)

    def of_group(self, q: np.ndarray, group: np.ndarray, least: float) -> np.ndarray:
        return np.flatnonzero(q[:, group].max(axis=1) > least)

    def likeliest(self, least: np.ndarray) -> np.ndarray:
        above = np.where(self.proba >= least, self.proba, -1.0)
        return np.where(above.max(axis=1) >= 0.0, above.argmax(axis=1), -1)

    def surest(self, numbers: np.ndarray) -> np.ndarray:
        rows = [np.argsort(-column, kind="stable")[:n] for column, n in zip(self.proba.T, numbers, strict=True)]
        return np.array([self.counts[own] @ self.proba[own] for own in rows])

    def all_classes(self, q: np.ndarray) -> np.ndarray:
        return q


@dataclass(frozen=True)
class LikeliestRows(LabelRows):
    """Rows of many classes: proba (n, m + 1) has a column for each of `classes` (n, m), with the given one, and one for the rest.

    The other classes of a row share the last column equally, and have the mean rates of all classes.
    """

    classes: np.ndarray
    n_all: int

    @property
    def n_classes(self) -> int:
        return self.n_all

    @cached_property
    def place(self) -> np.ndarray:
        return (self.classes == self.given[:, None]).argmax(axis=1)

    @cached_property
    def _kept(self) -> LikeliestClasses:
        return LikeliestClasses(self.classes, self.n_all)

    @cached_property
    def _pairs(self) -> np.ndarray:
        """Place (n, m) in a matrix (K, K) of each class and the given label."""
        return self.classes * self.n_all + self.given[:, None]

    @property
    def n_others(self) -> int:
        """Classes that share the last column."""
        return self.n_all - self.classes.shape[1]

    def take(self, rows: np.ndarray) -> LikeliestRows:
        return replace(self, classes=self.classes[rows], **self._taken(rows))

    def log_classes(self, transition: np.ndarray) -> np.ndarray:
        q = sharpened_likeliest(self.proba, transition, self._kept) if self.holds_noise else self.proba.copy()
        q[:, -1] /= self.n_others
        return np.log(np.maximum(q, SMALLEST))

    def raised(self, log_q: np.ndarray, power: float) -> np.ndarray:
        raised = np.exp(power * (log_q - log_q.max(axis=1, keepdims=True)))
        raised[:, -1] *= self.n_others
        return raised / raised.sum(axis=1, keepdims=True)

    def likelihood(self, transition: np.ndarray) -> np.ndarray:
        others = (transition.sum(axis=0) - np.diag(transition)) / (self.n_all - 1)
        likelihood = np.empty(self.proba.shape)
        likelihood[:, :-1], likelihood[:, -1] = transition.ravel()[self._pairs], others[self.given]
        return likelihood

    def confusion(self, joint: np.ndarray) -> np.ndarray:
        K, others = self.n_all, np.bincount(self.given, joint[:, -1], self.n_all) / (self.n_all - 1)
        own = np.bincount(self._pairs.ravel(), joint[:, :-1].ravel(), K * K).reshape(K, K)
        return own + np.where(np.eye(K, dtype=bool), 0.0, others)

    def class_sums(self, q: np.ndarray) -> np.ndarray:
        own = np.bincount(self.classes.ravel(), q[:, :-1].ravel(), self.n_all)
        return own + q[:, -1].sum() / self.n_all

    def of_group(self, q: np.ndarray, group: np.ndarray, least: float) -> np.ndarray:
        return np.flatnonzero((group[self.classes] & (q[:, :-1] > least)).any(axis=1))

    def likeliest(self, least: np.ndarray) -> np.ndarray:
        above = np.where(self.proba[:, :-1] >= least[self.classes], self.proba[:, :-1], -1.0)
        return np.where(above.max(axis=1) >= 0.0, self.classes[np.arange(len(above)), above.argmax(axis=1)], -1)

    def surest(self, numbers: np.ndarray) -> np.ndarray:
        K, m = self.n_all, self.classes.shape[1]
        flat, values = self.classes.ravel(), self.proba[:, :-1].ravel()
        order = np.lexsort((-values, flat))
        begins = np.searchsorted(flat[order], np.arange(K))
        rank = np.arange(len(order)) - begins[flat[order]]
        is_in = rank < numbers[flat[order]]
        rows, true = order[is_in] // m, flat[order[is_in]]
        weighted = self.counts[rows, None] * self.proba[rows]
        sums = np.bincount((true[:, None] * K + self.classes[rows]).ravel(), weighted[:, :-1].ravel(), K * K).reshape(K, K)
        return sums + (np.bincount(true, weighted[:, -1], K) / K)[:, None]

    def all_classes(self, q: np.ndarray) -> np.ndarray:
        whole = np.repeat(q[:, -1:] / self.n_others, self.n_all, axis=1)
        np.put_along_axis(whole, self.classes, q[:, :-1], axis=1)
        return whole


def label_rows(proba: np.ndarray, given: np.ndarray, is_clean: np.ndarray, counts: np.ndarray, holds_noise: bool) -> LabelRows:
    """The rows of proba (n, K); with many classes only the most probable ones of each row."""
    n_classes = proba.shape[1]
    if n_classes <= _FEW_CLASSES:
        return WholeRows(proba, given, is_clean, counts, holds_noise)
    ranked, at = proba.copy(), np.arange(len(given))
    ranked[at, given] = np.inf  # The given class is among them.
    classes = np.argpartition(-ranked, _LIKELIEST - 1, axis=1)[:, :_LIKELIEST]
    own = np.take_along_axis(proba, classes, axis=1)
    others = np.maximum(1.0 - own.sum(axis=1), (n_classes - _LIKELIEST) * SMALLEST)
    return LikeliestRows(np.column_stack([own, others]), given, is_clean, counts, holds_noise, classes, n_classes)


def raised(log_q: np.ndarray, power: float) -> np.ndarray:
    """Probabilities (n, K) in proportion to a power of q."""
    raised = np.exp(power * (log_q - log_q.max(axis=1, keepdims=True)))
    return raised / raised.sum(axis=1, keepdims=True)
