"""Cross-fitting: every row is scored by models that did not see it or a copy of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..._arrays import concat_rows
from ...model_selection import Fold
from ..samples import Samples, row_counts
from .mixed import kinds_of_mixed

__all__ = ["Table", "dealt", "named_folds", "table_of"]


class Table(NamedTuple):
    """Rows of both domains, source first: X (n, d) in float64 or of objects, labels y (n,) 0 or 1.

    counts (n,): how often each row counts. kind (n,): a number shared by equal rows of both domains.
    """

    X: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    kind: np.ndarray

    @property
    def group(self) -> np.ndarray:
        """A number (n,) shared by equal rows of the same domain."""
        return 2 * self.kind + self.y

    @property
    def copies(self) -> np.ndarray:
        """Number of copies (n,) that may go to different folds: the counts if they are whole numbers, else 1."""
        return self.counts if np.array_equal(self.counts, np.rint(self.counts)) else np.ones(len(self.counts))

    def mean_of_copies(self, values: np.ndarray) -> np.ndarray:
        """Values (n,) averaged over the equal rows of each domain."""
        total = np.bincount(self.group, self.counts)
        return (np.bincount(self.group, self.counts * values) / np.where(total > 0.0, total, 1.0))[self.group]


def table_of(samples: Samples) -> Table:
    """The samples as one table."""
    X = concat_rows(samples.source, samples.target)
    X = X if X.dtype.kind == "O" else X.astype(np.float64)
    return Table(X, np.repeat([0, 1], samples.sizes), np.concatenate(row_counts(samples)), kinds_of_mixed(X))


def dealt(table: Table, n_folds: int, seed: int | list[int]) -> np.ndarray:
    """Share (n, k) of each row that each of k folds holds out; rows sum to 1. k is n_folds, or fewer if there are few rows.

    Equal rows of both domains go to the same fold, because a model that has seen a copy has seen the row. A row with at least
    n_folds copies is spread evenly over all folds instead, in each domain; otherwise the models would miss frequent values of
    discrete data. Every fold keeps rows of both domains for training; k is 1 if that is impossible. The folds depend only on
    the samples and the seed, not on the order of the rows or on copies versus counts.
    """
    frequent = (np.bincount(table.kind, table.copies) >= n_folds)[table.kind]
    in_both = np.all([np.bincount(table.kind, table.y == domain) > 0 for domain in (0, 1)], axis=0)[table.kind]
    shuffled = np.random.default_rng(seed).permutation(int(table.kind.max()) + 1)[table.kind]
    decks = [_deck(table, domain, frequent, in_both & ~frequent, shuffled) for domain in (0, 1)]
    n_folds = int(min(n_folds, *(cards.sum() for _, cards in decks)))
    shares = np.empty((len(table.y), n_folds))
    for rows, cards in decks:
        end = np.cumsum(cards)
        # Copies of a row that is not spread get no card of their own: they go to the fold of the row.
        start = np.where(frequent[rows], end - cards, end - 1.0)
        end = np.where(frequent[rows], end, start + 1.0)
        before = [np.floor((place[:, None] - 1.0 - np.arange(n_folds)) / n_folds) for place in (start, end)]
        shares[rows] = (before[1] - before[0]) / (end - start)[:, None]
    if np.array_equal(table.copies, table.counts):
        return shares
    # The cards of equal rows depend on their order, and their weights differ: they share equally.
    sizes = np.maximum(np.bincount(table.group), 1)
    return np.stack([(np.bincount(table.group, held_out) / sizes)[table.group] for held_out in shares.T], axis=1)


def named_folds(folds: list[Fold], n_source: int, n_target: int) -> np.ndarray:
    """Indicators (n, k) of the rows that each of k given folds holds out, source rows first; folds may overlap.

    Raises ValueError if no fold holds out some row.
    """
    held_out = np.zeros((n_source + n_target, len(folds)))
    for number, fold in enumerate(folds):
        held_out[np.concatenate([fold.source, n_source + fold.target]), number] = 1.0
    times = held_out.sum(axis=1)
    if np.any(times == 0.0):
        raise ValueError(f"cv holds out {int(np.sum(times > 0.0))} of {len(times)} rows: every row must be held out at least once.")
    return held_out


def _deck(
    table: Table, domain: int, frequent: np.ndarray, comes_first: np.ndarray, shuffled: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a domain in dealing order, and the number of cards of each: its copies, or 1 for the first of equal rows.

    Rows that occur in both domains come first, so that both decks deal them to the same folds.
    """
    rows = np.flatnonzero(table.y == domain)
    rows = rows[np.lexsort((shuffled[rows], ~comes_first[rows]))]
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = table.kind[rows[1:]] != table.kind[rows[:-1]]
    return rows, np.where(frequent[rows], table.copies[rows], is_first.astype(np.float64))
