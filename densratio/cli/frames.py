"""Columns with gaps, made the frames that the encoder reads: rows with gaps left out, gaps filled in, or kept to be marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .column import Column
from .console import enumerated, quoted

__all__ = ["Frames", "framed", "trimmed"]


class Frames(NamedTuple):
    """Two pandas frames with the same columns, the source rows that are in them (n_source,), and what was done, in words."""

    source: Any
    target: Any
    is_kept: np.ndarray
    notes: tuple[str, ...]


def framed(pairs: Sequence[Sequence[Column]], missing: str | None) -> Frames:
    """Frames of pairs of columns, source and target; missing: "drop", "impute", or else the encoder marks gaps."""
    from pandas import concat

    notes: list[str] = []
    columns = [trimmed(pair, notes) for pair in pairs]
    source, target = (concat([pair[i] for pair in columns], axis=1) for i in (0, 1))
    is_full = [frame.notna().all(axis=1).to_numpy() for frame in (source, target)]
    gaps = source.isna().sum() + target.isna().sum()
    counts = {str(name): int(count) for name, count in gaps.items() if count}
    if counts and missing == "drop":
        notes.append(_dropped(is_full, counts))
        source, target = (frame[full].reset_index(drop=True) for frame, full in zip((source, target), is_full, strict=True))
    elif counts and missing == "impute":
        notes.append(f"Filled in the median of the column, or its most frequent value: {_counted(counts)}.")
        both = {name: concat([source[name], target[name]]) for name in source.columns if gaps[name]}
        fill = {name: of.median() if of.dtype.kind in "fmM" else of.mode().iloc[0] for name, of in both.items()}
        source, target = source.fillna(fill), target.fillna(fill)
    elif counts:
        notes.append(f"Marked in columns of 0 and 1: {_counted(counts)}.")
    is_kept = is_full[0] if missing == "drop" else np.ones(len(is_full[0]), dtype=bool)
    return Frames(source, target, is_kept, tuple(notes))


def trimmed(columns: Sequence[Column], notes: list[str]) -> list[Any]:
    """Values of one column of each table without the spaces around texts: 'clerk ' and 'clerk' look like one value, and are."""
    if not columns[0].is_text:
        return [column.values for column in columns]
    texts = [column.values.astype(object).map(str, na_action="ignore") for column in columns]
    stripped = [values.map(str.strip, na_action="ignore") for values in texts]
    odd = sorted({text for old, new in zip(texts, stripped, strict=True) for text in old[old.notna() & (old != new)]})
    if odd:
        notes.append(f"Column '{columns[0].name}': spaces around {quoted(odd, 3)} were left out.")
    return stripped


def _dropped(is_full: list[np.ndarray], counts: dict[str, int]) -> str:
    n_source, n_target = (int(np.sum(~full)) for full in is_full)
    if min(full.sum() for full in is_full) < 2:
        raise ValueError(
            f"--missing drop leaves {is_full[0].sum()} of {len(is_full[0])} rows of the source and {is_full[1].sum()} of "
            f"{len(is_full[1])} of the target; there are {_counted(counts)}. Take --missing impute, or leave columns out."
        )
    return f"Left out rows, {n_source} of the source, with weight 0, and {n_target} of the target: {_counted(counts)}."


def _counted(counts: dict[str, int]) -> str:
    columns = [f"'{name}' ({count})" for name, count in counts.items()]
    return f"missing values in {enumerated(columns)}"
