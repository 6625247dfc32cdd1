"""The first pass over a table in partitions: errors in the input, and a uniform sample of each domain."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .._validation import check_sample_weight, ordered_labels
from .partitions import Block, Partitions

__all__ = ["Survey", "survey"]

_MOST_LABELS = 6  # values of y that are tracked: two are valid, and more give an error that shows some


class _Draw(NamedTuple):
    """Rows drawn from one domain: those with the smallest keys. Arrays have one entry per row; place: (partition, position)."""

    key: np.ndarray
    place: np.ndarray
    rows: np.ndarray
    weight: np.ndarray | None

    def smallest(self, n: int) -> _Draw:
        """The `n` rows with the smallest keys, or all rows if there are fewer."""
        if len(self.key) <= n:
            return self
        keep = np.argpartition(self.key, n - 1)[:n]
        return _Draw(*(None if part is None else part[keep] for part in self))  # type: ignore[arg-type]


def _pooled(draws: list[_Draw]) -> _Draw:
    parts = zip(*draws, strict=True)
    return _Draw(*(None if part[0] is None else np.concatenate(part) for part in parts))  # type: ignore[arg-type]


class Survey(NamedTuple):
    """The findings of one pass over X, y and sample_weight; surveys of two parts of a table are merged."""

    sizes: dict[Any, dict[int, int]]
    """For each label, the number of its rows by partition."""
    draws: dict[Any, _Draw]
    is_nan: np.ndarray
    is_infinite: np.ndarray
    """(d,) whether a column has NaN, and whether it has infinity."""

    @property
    def labels(self) -> tuple[Any, Any]:
        """The labels of source and target, see `ordered_labels`."""
        return ordered_labels(sorted(self.sizes))[0]

    def n_rows(self, label: Any) -> int:
        """Number of rows of the domain `label`."""
        return sum(self.sizes[label].values())

    def sample(self, columns: list[Any] | None) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """The rows drawn from all domains in table order, as (X, y, sample_weight).

        X is a dataframe if `columns` is given. If a column of the table has NaN or infinity anywhere, so does the first row of X,
        so that validating the sample validates the table.
        """
        pooled = _pooled(list(self.draws.values()))
        labels = np.concatenate([np.repeat(np.asarray([label]), len(draw.key)) for label, draw in self.draws.items()])
        order = np.lexsort(pooled.place.T[::-1])
        rows = pooled.rows[order]
        rows[:1, self.is_infinite] = np.inf
        rows[:1, self.is_nan] = np.nan
        weight = None if pooled.weight is None else pooled.weight[order]
        if columns is None:
            return rows, labels[order], weight
        import pandas

        return pandas.DataFrame(rows, columns=columns), labels[order], weight


def survey(partitions: Partitions, n_sample: int, seed: int) -> Survey:
    """One pass over the table, which keeps n_sample rows of each domain.

    Each row gets a random key, and the rows with the smallest keys are the sample of a domain: a uniform sample for any
    partitioning. Rows of weight 0 come last. Raises ValueError for invalid y or weights, and for a table without rows.
    """
    found = partitions.reduce(_survey_block, functools.partial(_merged, n_sample=n_sample), (n_sample, seed))
    if len(found.sizes) > 2:
        shown = ", ".join(map(str, sorted(found.sizes)[:5]))
        raise ValueError(f"y must have exactly two values, 0 = source and 1 = target; got more than two ({shown}, ...).")
    if not found.sizes:
        raise ValueError("X has no rows: every partition is empty.")
    return found


def _survey_block(block: Block, plan: tuple[int, int]) -> Survey:
    _check_sides(block)
    n_sample, seed = plan
    key = np.random.default_rng([seed, block.number]).random(len(block.rows))
    if block.weight is not None:
        key = key + (block.weight == 0.0)
    values, counts = np.unique(block.labels, return_counts=True)
    named = list(zip(values.tolist(), counts.tolist(), strict=True))[:_MOST_LABELS]
    draws = {label: _draw(block, key, block.labels == label, n_sample) for label, _ in named}
    sizes = {label: {block.number: count} for label, count in named}
    return Survey(sizes, draws, np.isnan(block.rows).any(axis=0), np.isinf(block.rows).any(axis=0))


def _draw(block: Block, key: np.ndarray, is_member: np.ndarray, n_sample: int) -> _Draw:
    at = np.flatnonzero(is_member)
    if len(at) > n_sample:
        at = at[np.argpartition(key[at], n_sample - 1)[:n_sample]]
    place = np.column_stack([np.full(len(at), block.number), at])
    return _Draw(key[at], place, block.rows[at], None if block.weight is None else block.weight[at])


def _merged(mine: Survey, theirs: Survey, n_sample: int) -> Survey:
    # Sort before truncating, so that the result does not depend on the order of the partitions.
    labels = sorted({*mine.sizes, *theirs.sizes})[:_MOST_LABELS]
    sizes = {label: {**mine.sizes.get(label, {}), **theirs.sizes.get(label, {})} for label in labels}
    draws = {}
    for label in labels:
        both = [part.draws[label] for part in (mine, theirs) if label in part.draws]
        draws[label] = _pooled(both).smallest(n_sample)
    return Survey(sizes, draws, mine.is_nan | theirs.is_nan, mine.is_infinite | theirs.is_infinite)


def _check_sides(block: Block) -> None:
    n = len(block.rows)
    if block.labels is None:
        raise ValueError(
            f"Input y contains NaN or infinity in partition {block.number}; it must hold two domain labels, 0 = source and "
            "1 = target."
        )
    for name, side in (("y", block.labels), ("sample_weight", block.weight)):
        if side is not None and len(side) != n:
            raise ValueError(
                f"Partition {block.number} has {n} rows in X and {len(side)} in {name}: they must be partitioned alike."
            )
    check_sample_weight(block.weight, n, f" of partition {block.number}")
