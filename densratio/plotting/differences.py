"""DifferencesDisplay: the columns and the rows in which two tables differ, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._validation import check_count
from ..tables.differences import Differences, differences
from ._style import GRAY, SOURCE, TARGET, hide_spines, pair_of_axes
from .balance import shortened

__all__ = ["DifferencesDisplay"]

_SURE = 0.05
_BINS = 30


class DifferencesDisplay:
    """Columns by their distance, filled if they differ significantly; and the ratios of the source and of the target rows.

    If the two histograms are apart, the samples can be separated: few source rows are like the target rows on the right.
    differences : the result of `densratio.tables.differences`. After `plot`: axes_, figure_.
    """

    def __init__(self, *, differences: Differences):
        self.differences = differences

    @classmethod
    def from_samples(cls, source: Any, target: Any, *, drop: Any = (), max_columns: int = 20, axes: Any = None) -> Any:
        """Compare two tables; arguments as in `densratio.tables.differences`."""
        return cls.from_differences(differences(source, target, drop=drop), max_columns=max_columns, axes=axes)

    @classmethod
    def from_differences(cls, found: Differences, *, max_columns: int = 20, axes: Any = None) -> DifferencesDisplay:
        """Draw the result of `differences`."""
        return cls(differences=found).plot(max_columns=max_columns, axes=axes)

    def plot(self, *, max_columns: int = 20, axes: Any = None) -> DifferencesDisplay:
        """Draw at most max_columns columns. axes: a pair of axes; None opens a pyplot figure."""
        check_count("max_columns", max_columns)
        self.axes_ = pair_of_axes(min(max_columns, len(self.differences.columns))) if axes is None else axes
        self.figure_ = self.axes_[0].figure
        _draw_columns(self.axes_[0], self.differences, max_columns)
        _draw_rows(self.axes_[1], self.differences)
        return self


def _draw_columns(ax: Any, found: Differences, max_columns: int) -> None:
    shown = found.columns[:max_columns]
    heights = np.arange(len(shown))[::-1]
    colors = [SOURCE if column.p_value <= _SURE else "none" for column in shown]
    ax.barh(heights, [column.distance for column in shown], color=colors, edgecolor=SOURCE, height=0.7)
    ax.set_yticks(heights, [shortened(str(column.name)) for column in shown])
    ax.set(xlim=(0.0, 1.0), xlabel="distance", title=f"columns (filled: p <= {_SURE})")
    hide_spines(ax)


def _draw_rows(ax: Any, found: Differences) -> None:
    ratios = [found.source_ratio, found.target_ratio]
    least = min((some[some > 0.0].min() for some in ratios if some.any()), default=1.0)
    logs = [np.log10(np.maximum(some, least)) for some in ratios]
    edges = np.histogram_bin_edges(np.concatenate(logs), bins=_BINS)
    for some, color, label in zip(logs, (SOURCE, TARGET), ("source", "target"), strict=True):
        share = np.full(len(some), 1.0 / len(some))
        ax.hist(some, edges, weights=share, color=color, alpha=0.5, label=f"{label} rows")
    ax.axvline(0.0, color=GRAY, linestyle="--", linewidth=1)
    ax.set(xlabel="log10 of the ratio target / source", ylabel="share of the rows", title=f"rows (AUC {found.auc:.2f})")
    ax.legend(frameon=False)
    hide_spines(ax)
