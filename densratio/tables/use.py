"""The treatment of one column: how it becomes numbers, why it is left out, and where the samples do not overlap."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._scale import varies
from .reading import Column
from .spelling import kind_of_texts

__all__ = ["ColumnUse", "dropped", "numbers_rows", "shown_value", "use_of"]

_SHOWN = 5  # levels that a sentence names
_FEW_LEVELS, _MANY_LEVELS, _ROWS = 30, 100, 20.0  # most levels with 0/1 columns: always, and with so many rows of each level
_COUNTED, _HOLES = 50, 1.05  # rows from which whole numbers in equal steps are not by chance, and their largest range per number
_WORDS = {
    "numbers": "numbers",
    "booleans": "one-hot",
    "categories": "one-hot",
    "dates": "days since 1970",
    "zoned dates": "days since 1970",
    "durations": "days",
    "times": "share of the day",
}


@dataclass(frozen=True)
class ColumnUse:
    """What was done to one column.

    name : of the column.
    kind : "numbers", "booleans", "categories", "dates", "zoned dates", "durations", "times", or "dropped".
    levels : texts with a 0/1 column of their own, sorted.
    n_rest : number of rarer texts, which share one 0/1 column.
    fill : the number that replaces a gap, the median of both samples; None if all numbers are equal.
    has_gaps : whether a 0/1 column marks missing values.
    reason : why the column was dropped.
    no_overlap : sentences about values that only one sample has.
    """

    name: Any
    kind: str
    levels: tuple[str, ...] = ()
    n_rest: int = 0
    fill: float | None = None
    has_gaps: bool = False
    reason: str = ""
    no_overlap: tuple[str, ...] = ()

    @property
    def is_one_hot(self) -> bool:
        """Whether the column became 0/1 columns."""
        return self.kind in ("booleans", "categories")

    @property
    def varies(self) -> bool:
        """Whether the column has more than one number."""
        return self.fill is not None

    @property
    def encoded_names(self) -> list[str]:
        """Names of the k encoded columns."""
        if self.kind == "dropped":
            return []
        if not self.is_one_hot:
            return [str(self.name)] * self.varies + [f"{self.name} (missing)"] * self.has_gaps
        others = ["(other)"] * (self.n_rest > 0) + ["(missing)"] * self.has_gaps
        return [f"{self.name}={level}" for level in (*self.levels, *others)]

    def encode(self, column: Column) -> np.ndarray:
        """The numbers (n, k) of a column (n,) of this kind. An unknown level counts as rare."""
        gap = column.is_gap
        if not self.is_one_hot:
            parts = [np.where(gap, self.fill or 0.0, column.values)] * self.varies + [gap] * self.has_gaps
            return np.column_stack(parts).astype(np.float64)
        place = {level: number for number, level in enumerate(self.levels)}
        rest = len(self.levels) if self.n_rest else -1
        at = np.array([place.get(text, rest) for text in _texts(column)])
        at[gap] = len(self.encoded_names) - 1 if self.has_gaps else -1
        return (at[:, None] == np.arange(len(self.encoded_names))).astype(np.float64)

    @property
    def treatment(self) -> str:
        """What was done, in words."""
        if self.kind == "dropped":
            return f"dropped: {self.reason}"
        if not self.is_one_hot:
            words = _WORDS[self.kind] if self.varies else "missing or not, as all values are equal"
            return words + ", a 0/1 column for gaps" * (self.has_gaps and self.varies)
        rest = f", {self.n_rest} rarer levels together" * (self.n_rest > 0)
        return f"one-hot: {_listed(self.levels) or 'no frequent level'}{rest}{', gaps as a level' * self.has_gaps}"

    def __str__(self) -> str:
        return f"{self.name}: {self.treatment}" + "".join(f". No overlap: {words}" for words in self.no_overlap)


def dropped(name: Any, reason: str) -> ColumnUse:
    """A column that is left out."""
    return ColumnUse(name, "dropped", reason=reason)


def use_of(name: Any, source: Column, target: Column, max_levels: int | None, is_undeclared: bool = False) -> ColumnUse:
    """What to do with a column, from its values in both samples, of one kind; undeclared texts may be something else."""
    gaps = [column.is_gap for column in (source, target)]
    if all(gap.all() for gap in gaps):
        return dropped(name, "no value in any row")
    has_gaps = bool(any(gap.any() for gap in gaps))
    apart = tuple(_gaps_apart(*gaps))
    if source.kind in ("booleans", "categories"):
        return _one_hot(name, source, target, max_levels, is_undeclared, has_gaps, apart)
    values = [column.values[~gap] for column, gap in zip((source, target), gaps, strict=True)]
    pooled = np.concatenate(values)
    if varies([pooled[:, None]])[0]:
        apart = (*_ranges_apart(values[0], values[1], source.kind), *apart)
        counts = np.concatenate([column.n_times[~gap] for column, gap in zip((source, target), gaps, strict=True)])
        return ColumnUse(name, source.kind, fill=_median(pooled, counts), has_gaps=has_gaps, no_overlap=apart)
    if not has_gaps and abs(pooled[0]) >= 2.0**53:
        # Different integers of this size can be equal in floating point.
        return dropped(name, f"one number in floating point, {shown_value(pooled[0], source.kind)}: subtract the smallest value")
    if not has_gaps:
        return dropped(name, f"the same value in all rows, {shown_value(pooled[0], source.kind)}")
    return ColumnUse(name, source.kind, has_gaps=True, no_overlap=apart)


def _median(values: np.ndarray, counts: np.ndarray) -> float:
    """The median of values (n,) with counts (n,)."""
    order = np.argsort(values, kind="stable")
    up_to = np.cumsum(counts[order])
    middle = [np.searchsorted(up_to, 0.5 * up_to[-1], side=side).clip(max=len(values) - 1) for side in ("left", "right")]
    return float(np.mean(values[order][middle]))


def numbers_rows(source: Column, target: Column) -> bool:
    """Whether whole numbers count up in equal steps without repeating, as row numbers do, but for one jump, as between samples.

    The samples of the rows do not matter.
    """
    if source.kind != "numbers" or source.is_gap.any() or target.is_gap.any():
        return False
    values, counts = np.unique(np.concatenate([source.values, target.values]), return_counts=True)
    # Both samples may begin at 0.
    is_counted = len(values) >= _COUNTED and counts.max() <= 2 and bool((values == np.floor(values)).all())
    if not is_counted:
        return False
    jump = int(np.argmax(np.diff(values))) + 1
    return _count_up([values]) or _count_up([values[:jump], values[jump:]])


def _count_up(runs: Sequence[np.ndarray]) -> bool:
    """Whether each run (k,) of sorted numbers counts up in multiples of one step, and hardly ever in more than one of them."""
    steps = [np.diff(run) for run in runs]
    step = np.concatenate(steps).min()
    return all((some % step == 0.0).all() and some.sum() < _HOLES * step * (len(some) + 1) for some in steps)


def _one_hot(
    name: Any, source: Column, target: Column, max_levels: int | None, is_undeclared: bool, has_gaps: bool, apart: tuple[str, ...]
) -> ColumnUse:
    counts = [_rows_of_texts(column) for column in (source, target)]
    sizes = [column.n_times.sum() for column in (source, target)]
    # Rows in which a level must occur to get a column of its own: 10, or 5 % if fewer, and 0.5 % if more.
    needed = [max(2.0, min(10.0, 0.05 * n), 0.005 * n) for n in sizes]
    known = sorted(counts[0].keys() | counts[1].keys())
    if len(known) == 1 and not has_gaps:
        return dropped(name, f"the same value in all rows, {_short(known[0])}")
    shares = {level: sum(count[level] / size for count, size in zip(counts, sizes, strict=True)) for level in known}
    few, most = (_FEW_LEVELS, _MANY_LEVELS) if max_levels is None else (max_levels, max_levels)
    frequent = [
        level
        for rank, level in enumerate(sorted(known, key=lambda level: -shares[level])[:most])
        # With few rows, a level beyond the first ones adds more noise than information.
        if any(count[level] >= max(least, _ROWS * (rank >= few)) for count, least in zip(counts, needed, strict=True))
    ]
    # A single rare level needs no shared column.
    levels = tuple(sorted(frequent)) if len(known) - len(frequent) > 1 else tuple(known)
    if not levels and not has_gaps:
        kind = kind_of_texts(known) if is_undeclared else None
        what = "they name rows and do not describe them" if kind is None else f"they read as {kind}"
        return dropped(name, f"{len(known)} different texts, of which none is frequent: {what}")
    notes = (*_levels_apart(levels, counts, sizes), *apart)
    return ColumnUse(name, source.kind, levels, len(known) - len(levels), has_gaps=has_gaps, no_overlap=notes)


def _rows_of_texts(column: Column) -> Counter[str]:
    """The number of rows with each text."""
    found: Counter[str] = Counter()
    for text, count in zip(_texts(column), column.n_times.tolist(), strict=True):
        if text is not None:
            found[text] += count
    return found


def _texts(column: Column) -> np.ndarray:
    if column.kind == "categories":
        return column.values
    return np.array([None if np.isnan(value) else str(bool(value)) for value in column.values], dtype=object)


# ---------------------------------------------------------------- overlap


def _gaps_apart(source: np.ndarray, target: np.ndarray) -> Iterator[str]:
    for gap, other, names in ((source, target, ("source", "target")), (target, source, ("target", "source"))):
        if gap.any() and not other.any():
            yield f"{_percent(gap.mean())} of the {names[0]} rows have no value, and every {names[1]} row has one"


def _ranges_apart(source: np.ndarray, target: np.ndarray, kind: str) -> Iterator[str]:
    if not len(source) or not len(target):
        return
    for one, other, names in ((source, target, ("source", "target")), (target, source, ("target", "source"))):
        ends = [shown_value(end, kind) for end in (one.max(), other.min(), other.max())]
        outside = float(np.mean((one < other.min()) | (one > other.max())))
        if one.max() < other.min():
            yield (
                f"the {names[0]} ends at {ends[0]} and the {names[1]} begins at {ends[1]}; leave the column out unless it "
                "describes the rows"
            )
        elif 0.5 < outside < 1.0:
            yield f"{_percent(outside)} of the {names[0]} rows are outside the {names[1]}'s range, {ends[1]} to {ends[2]}"


def _levels_apart(levels: tuple[str, ...], counts: list[Counter[str]], sizes: list[float]) -> Iterator[str]:
    for mine, other, names in ((0, 1, ("source", "target")), (1, 0, ("target", "source"))):
        only = [level for level in levels if counts[mine][level] and not counts[other][level]]
        if only:
            share = _percent(sum(counts[mine][level] for level in only) / sizes[mine])
            yield f"{share} of the {names[0]} rows have a level that no {names[1]} row has: {_listed(only)}"


# ---------------------------------------------------------------- words


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"


def _short(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:29] + "…")


def _listed(levels: Any) -> str:
    more = len(levels) - _SHOWN
    return ", ".join(map(_short, levels[:_SHOWN])) + f" and {more} more" * (more > 0)


def shown_value(value: float, kind: str) -> str:
    """A value of a column of this kind, in words."""
    if kind not in ("dates", "zoned dates"):
        return f"{value:.6g}" + " days" * (kind == "durations")
    try:
        return f"{datetime.datetime(1970, 1, 1) + datetime.timedelta(days=value):%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    except OverflowError:
        return f"day {value:.0f} after 1970-01-01"
