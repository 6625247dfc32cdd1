"""Columns of numbers and texts with gaps, made frames of numbers: gaps dropped or filled, texts encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .console import enumerated, quoted

__all__ = ["Frames", "finish"]

_MISSING = "(missing)"


class Frames(NamedTuple):
    """Two frames of float64 with the same columns, the source rows that are in them (n_source,), and what was done, in words."""

    source: Any
    target: Any
    is_kept: np.ndarray
    encoded: tuple[str, ...]
    notes: tuple[str, ...]


def finish(pairs: Sequence[tuple[Any, Any]], encoded: Sequence[str], missing: str | None) -> Frames:
    """Frames from pairs of series, source and target; `encoded` names the columns that hold texts."""
    from pandas import concat

    notes: list[str] = []
    pairs = [_trimmed(pair, notes) if pair[0].name in encoded else pair for pair in pairs]
    counts = {str(pair[0].name): n for pair in pairs if (n := sum(int(values.isna().sum()) for values in pair))}
    is_full = [~np.any([pair[i].isna() for pair in pairs], axis=0) for i in (0, 1)]
    if missing == "drop" and counts:
        pairs = [(source[is_full[0]], target[is_full[1]]) for source, target in pairs]
        notes.append(_dropped(is_full, counts))
    elif counts:
        marked = ", and marked in columns of 0 and 1" if missing == "indicate" else ""
        notes.append(f"Filled in the median of the column, or its most frequent text{marked}: {_counted(counts)}.")
    is_kept = is_full[0] if missing == "drop" else np.ones(len(is_full[0]), dtype=bool)
    parts = [_numeric(pair, str(pair[0].name) in encoded, missing) for pair in pairs]
    frames = [concat([part[i] for part in parts], axis=1) for i in (0, 1)]
    _check_names(frames[0])
    source, target = (frame.reset_index(drop=True) for frame in frames)
    return Frames(source, target, is_kept, tuple(encoded), tuple(notes))


def _trimmed(pair: tuple[Any, Any], notes: list[str]) -> tuple[Any, Any]:
    """Texts without the spaces around them: 'clerk ' and 'clerk' look like one value, and are."""
    texts = [values.astype(object).map(str, na_action="ignore") for values in pair]
    trimmed = [values.map(str.strip, na_action="ignore") for values in texts]
    odd = sorted({text for old, new in zip(texts, trimmed, strict=True) for text in old[old.notna() & (old != new)]})
    if odd:
        notes.append(f"Column '{pair[0].name}': spaces around {quoted(odd, 3)} were left out.")
    return trimmed[0], trimmed[1]


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


def _numeric(pair: tuple[Any, Any], is_text: bool, missing: str | None) -> tuple[Any, Any]:
    from pandas import DataFrame, concat

    name, both = str(pair[0].name), concat(pair)
    is_missing = [values.isna().to_numpy(dtype=float) for values in pair]
    if is_text:
        filling = _MISSING if missing == "indicate" or both.isna().all() else both.mode().iloc[0]
        return _encoded(name, *(values.where(values.notna(), filling).to_numpy(dtype=object) for values in pair))
    floats = [values.to_numpy(dtype=np.float64, na_value=np.nan) for values in pair]
    median = np.nanmedian(np.concatenate(floats))
    frames = [DataFrame({name: np.where(np.isnan(values), median, values)}) for values in floats]
    if missing == "indicate" and any(gaps.any() for gaps in is_missing):
        frames = [frame.assign(**{f"{name}={_MISSING}": gaps}) for frame, gaps in zip(frames, is_missing, strict=True)]
    return frames[0], frames[1]


def _encoded(name: str, source: np.ndarray, target: np.ndarray) -> tuple[Any, Any]:
    from pandas import DataFrame

    from ..diagnostics.columns import level_name

    values = sorted({*source, *target})
    source, target = (
        DataFrame({level_name(name, value): (texts == value).astype(float) for value in values}) for texts in (source, target)
    )
    return source, target


def _check_names(frame: Any) -> None:
    if not frame.columns.is_unique:
        twins = sorted(set(frame.columns[frame.columns.duplicated()]))
        raise ValueError(f"--encode gives two columns the name {quoted(twins)}: rename one of the columns in both files.")
