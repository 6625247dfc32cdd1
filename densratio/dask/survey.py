"""The first pass over a table in partitions: errors in the input, and a uniform sample of each domain."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .partitions import Block, Partitions

__all__ = ["Survey", "SurveyPlan", "survey"]

_MOST_LABELS = 6  # values of y that are tracked: two are valid, and more give an error that shows some


class SurveyPlan(NamedTuple):
    """n_sample: number of rows kept of each domain; seed: seed of the draw."""

    n_sample: int
    seed: int


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
        return _Draw(self.key[keep], self.place[keep], self.rows[keep], None if self.weight is None else self.weight[keep])

    def plus(self, other: _Draw) -> _Draw:
        """The rows of both draws."""
        key, place, rows = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("key", "place", "rows"))
        if self.weight is None or other.weight is None:
            return _Draw(key, place, rows, None)
        return _Draw(key, place, rows, np.concatenate([self.weight, other.weight]))


class Survey(NamedTuple):
    """The findings of one pass over X, y and sample_weight; surveys of two parts of a table are merged."""

    sizes: dict[Any, dict[int, int]]
    """For each label, the number of its rows by partition."""
    draws: dict[Any, _Draw]
    is_nan: np.ndarray
    is_infinite: np.ndarray
    """(d,) whether a column has NaN, and whether it has infinity."""
    faults: list[str]
    """Error messages about the input, first partition first."""

    @property
    def labels(self) -> tuple[Any, Any]:
        """The labels of source and target; the smaller one is the source."""
        source, target = sorted(self.sizes)
        return source, target

    def n_rows(self, label: Any) -> int:
        """Number of rows of the domain `label`."""
        return sum(self.sizes[label].values())

    def sample(self, columns: list[Any] | None) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """The rows drawn from all domains in table order, as (X, y, sample_weight).

        X is a dataframe if `columns` is given. If a column of the table has NaN or infinity anywhere, so does the first row of X,
        so that validating the sample validates the table.
        """
        pooled = next(iter(self.draws.values()))
        for draw in list(self.draws.values())[1:]:
            pooled = pooled.plus(draw)
        labels = np.concatenate([np.repeat(np.asarray([label]), len(draw.key)) for label, draw in self.draws.items()])
        order = np.lexsort(pooled.place.T[::-1])
        rows = pooled.rows[order]
        rows[:1, self.is_infinite] = np.inf
        rows[:1, self.is_nan] = np.nan
        X = rows
        if columns is not None:
            import pandas

            X = pandas.DataFrame(rows, columns=columns)
        return X, labels[order], None if pooled.weight is None else pooled.weight[order]


def survey(partitions: Partitions, plan: SurveyPlan) -> Survey:
    """One pass over the table.

    Each row gets a random key, and the rows with the smallest keys are the sample of a domain: a uniform sample for any
    partitioning. Rows of weight 0 come last. Raises ValueError for invalid y or weights, and for a table without rows.
    """
    found = partitions.reduce(_survey_block, functools.partial(_merged, n_sample=plan.n_sample), plan)
    if found.faults:
        raise ValueError(found.faults[0])
    if len(found.sizes) > 2:
        shown = ", ".join(map(str, sorted(found.sizes)[:5]))
        raise ValueError(f"y must have exactly two values, 0 = source and 1 = target; got more than two ({shown}, ...).")
    if not found.sizes:
        raise ValueError("X has no rows: every partition is empty.")
    return found


def _survey_block(block: Block, plan: SurveyPlan) -> Survey:
    finite = np.isfinite(block.rows)
    is_bad = ~finite.all(axis=0)
    is_nan = np.zeros_like(is_bad)
    is_nan[is_bad] = np.isnan(block.rows[:, is_bad]).any(axis=0)
    is_infinite = is_bad.copy()
    is_infinite[is_nan] = np.isinf(block.rows[:, is_nan]).any(axis=0)
    faults = _faults(block)
    if faults:
        return Survey({}, {}, is_nan, is_infinite, faults)
    key = np.random.default_rng([plan.seed, block.number]).random(len(block.rows))
    if block.weight is not None:
        key = key + (block.weight == 0.0)
    values, counts = np.unique(block.labels, return_counts=True)
    named = list(zip(values.tolist(), counts.tolist(), strict=True))[:_MOST_LABELS]
    draws = {label: _draw(block, key, block.labels == label, plan.n_sample) for label, _ in named}
    return Survey({label: {block.number: count} for label, count in named}, draws, is_nan, is_infinite, [])


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
        draws[label] = (both[0] if len(both) == 1 else both[0].plus(both[1])).smallest(n_sample)
    is_nan, is_infinite = mine.is_nan | theirs.is_nan, mine.is_infinite | theirs.is_infinite
    return Survey(sizes, draws, is_nan, is_infinite, [*mine.faults, *theirs.faults][:1])


def _faults(block: Block) -> list[str]:
    n = len(block.rows)
    if block.misses_labels:
        return [
            f"Input y contains NaN or infinity in partition {block.number}; it must hold two domain labels, 0 = source and "
            "1 = target."
        ]
    for name, side in (("y", block.labels), ("sample_weight", block.weight)):
        if side is not None and len(side) != n:
            return [f"Partition {block.number} has {n} rows in X and {len(side)} in {name}: they must be partitioned alike."]
    if block.weight is not None and not np.all((block.weight >= 0.0) & np.isfinite(block.weight)):
        bad = int(np.flatnonzero(~((block.weight >= 0.0) & np.isfinite(block.weight)))[0])
        return [f"sample_weight must hold finite numbers >= 0; row {bad} of partition {block.number} has {block.weight[bad]}."]
    return []
