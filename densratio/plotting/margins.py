"""Margins of one classifier against those of another: how much each row's margin changed, in total and by its first value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .._arrays import to_host
from ._style import CURVES, GRAY, panels

__all__ = ["MarginBins", "margin_bins", "margin_changes"]


class MarginBins(NamedTuple):
    """For bins of the margin before: start (b,), the lower edge; rows (b,); mean (b,) and deviation (b,) of after - before.

    NaN for bins with too few rows: none for the mean, one for the deviation.
    """

    start: np.ndarray
    rows: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard error (b,) of the mean."""
        return self.deviation / np.sqrt(np.maximum(self.rows, 1))


def margin_bins(before: Any, after: Any, width: float = 0.2) -> MarginBins:
    """Changes of margins (n,) in [-1, 1] of the same rows, in bins of the margin before with this width; the last bin includes 1.

    The margins are those of `densratio.training.margins`. Raises ValueError for others and for a width outside (0, 2].
    """
    before, after = _margins(before, after)
    if not 0.0 < width <= 2.0:
        raise ValueError(f"width must be in (0, 2]; got {width!r}.")
    n_bins = int(np.ceil(2.0 / width - 1e-9))
    start = -1.0 + width * np.arange(n_bins)
    # Rounded, so that a margin on an edge without an exact binary form is in the bin that begins there.
    bins = np.clip(np.searchsorted(np.round(start, 12), np.round(before, 12), side="right") - 1, 0, n_bins - 1)
    parts = [(after - before)[bins == b] for b in range(n_bins)]
    mean = [part.mean() if len(part) else np.nan for part in parts]
    deviation = [part.std(ddof=1) if len(part) > 1 else np.nan for part in parts]
    return MarginBins(start, np.array([len(part) for part in parts]), np.array(mean), np.array(deviation))


def margin_changes(before: Any, after: Mapping[str, Any], *, width: float = 0.2, title: str = "") -> Any:
    """Figure of the changes of margins: a histogram for each method, and their means by bins of the margin before.

    before (n,): margins of one classifier, such as plain training's, on rows that were not used for training; after: method -> (n,)
    of the same rows. The bars of the last panel are standard errors. See `margin_bins` for the numbers.
    """
    pairs = {name: _margins(before, values) for name, values in after.items()}
    figure, axes = panels(len(pairs) + 1, title)
    for axis, (name, (old, new)) in zip(axes, pairs.items(), strict=False):
        change = new - old
        axis.hist(change, bins=np.linspace(-2.0, 2.0, 81), color=CURVES[0])
        axis.axvline(0.0, color=GRAY, linestyle="--", linewidth=1)
        most = max(0.1, float(np.abs(change).max()))
        about = f"mean {change.mean():+.3f}, median {np.median(change):+.3f}"
        axis.set(title=f"{name}\n{about}", xlabel="change of the margin", ylabel="rows", xlim=(-most, most))
    for name, color in zip(pairs, CURVES * len(pairs), strict=False):
        table = margin_bins(*pairs[name], width)
        axes[-1].errorbar(table.start + width / 2.0, table.mean, table.error, color=color, marker="o", capsize=2, label=name)
    axes[-1].axhline(0.0, color=GRAY, linestyle="--", linewidth=1)
    axes[-1].set(xlabel="margin before", ylabel="mean change", xlim=(-1.0, 1.0))
    axes[-1].legend(frameon=False)
    return figure


def _margins(before: Any, after: Any) -> tuple[np.ndarray, np.ndarray]:
    old, new = (np.asarray(to_host(values), dtype=np.float64) for values in (before, after))
    if old.ndim != 1 or len(old) == 0 or old.shape != new.shape:
        raise ValueError(f"Margins before and after must be (n,) of the same rows, n >= 1; got {old.shape} and {new.shape}.")
    if not (np.abs(np.concatenate([old, new])) <= 1.0 + 1e-6).all():
        raise ValueError("Margins are in [-1, 1], see densratio.training.margins; got others, or NaN.")
    return old, new
