"""BalanceDisplay: the love plot of standardised mean differences before and after weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import to_host
from ..diagnostics import Report
from ..diagnostics.balance import mean_differences
from ..diagnostics.columns import numeric_columns, source_mask, take_rows
from ..diagnostics.diagnosis import weights_at
from ._style import GREY, SOURCE, TARGET, axes_for, bare

__all__ = ["BalanceDisplay"]

_OFF_BALANCE = 0.1
_LONGEST_NAME = 30


class BalanceDisplay:
    """Absolute standardised mean difference of each column before and after weighting, the largest on top.

    Make it by `from_estimator`, `from_predictions` or, of a report that is there, `from_report`.

    names : (d,) column names. before, after : (d,) standardised mean differences, signed; infinite ones stand at the edge.
    After `plot`: ax_, figure_, the axes and the figure.
    Source: Love (2004), after whom the plot is named; `densratio.diagnostics.standardized_mean_difference` for the measure.
    """

    def __init__(self, *, names: Sequence[str], before: Any, after: Any):
        self.names = names
        self.before = before
        self.after = after

    @classmethod
    def from_estimator(cls, ratio: Any, X: Any, y: Any, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Balance under the weights that a fitted ratio gives the source rows of X (n, d); y (n,), the smaller is the source."""
        return cls.from_predictions(X, y, ratio, max_columns=max_columns, ax=ax)

    @classmethod
    def from_predictions(cls, X: Any, y: Any, weights: Any, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Balance under weights (n_source,) of the source rows in their order, >= 0, of any scale."""
        columns = numeric_columns(X)
        is_source = source_mask(y, columns.values.shape[0])
        values = weights_at(weights, X, is_source)
        source, target = (take_rows(columns.values, mask) for mask in (is_source, ~is_source))
        before, after = mean_differences(source, target), mean_differences(source, target, values)
        return cls(names=columns.names, before=before, after=after).plot(max_columns=max_columns, ax=ax)

    @classmethod
    def from_report(cls, report: Report, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Balance as `densratio.diagnostics.diagnose` found it."""
        names, before, after, _ = zip(*report.balance, strict=True)
        return cls(names=names, before=np.array(before), after=np.array(after)).plot(max_columns=max_columns, ax=ax)

    def plot(self, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Draw the `max_columns` columns that are furthest off balance, before or after."""
        if max_columns < 1:
            raise ValueError(f"max_columns must be >= 1; got {max_columns!r}.")
        before, after = (np.abs(np.asarray(to_host(x), dtype=np.float64)) for x in (self.before, self.after))
        shown = np.argsort(-np.maximum(before, after), kind="stable")[:max_columns]
        self.ax_ = _sized(ax, len(shown))
        self.figure_ = self.ax_.figure
        _draw(self.ax_, [_shortened(self.names[j]) for j in shown], before[shown], after[shown])
        rest = len(before) - len(shown)
        if rest:
            self.ax_.set_title(f"the {len(shown)} of {len(before)} columns furthest off balance", fontsize="medium")
        return self


def _draw(ax: Any, names: list[str], before: np.ndarray, after: np.ndarray) -> None:
    height = np.arange(len(names))[::-1]
    finite = np.concatenate([before, after])
    finite = finite[np.isfinite(finite)]
    edge = 1.08 * max(2.0 * _OFF_BALANCE, float(np.max(finite, initial=0.0)))
    ax.hlines(height, np.minimum(before, edge), np.minimum(after, edge), color=GREY, linewidth=1, alpha=0.6)
    ax.axvline(_OFF_BALANCE, color=GREY, linestyle="--", linewidth=1)
    for values, color, marker, size, label in ((before, SOURCE, "o", 11, "before"), (after, TARGET, "D", 6, "after")):
        is_finite = np.isfinite(values)
        ax.plot(values[is_finite], height[is_finite], marker, color=color, clip_on=False, label=f"{label} weighting")
        if not is_finite.all():
            # A difference without spread has no place on the axis: an arrow at its end says that it is infinite. Without any, an
            # empty line that is not clipped would squash a constrained layout.
            ax.plot(np.full(np.sum(~is_finite), edge), height[~is_finite], ">", color=color, markersize=size, clip_on=False)
    ax.set_yticks(height, names)
    ax.set(xlim=(0.0, edge), ylim=(-0.7, len(names) - 0.3))
    ax.set_xlabel("absolute standardised mean difference")
    # Sorted from the largest down, the points leave this corner free.
    ax.legend(loc="lower right", frameon=False)
    bare(ax)


def _sized(ax: Any, n_columns: int) -> Any:
    """`ax`, or new axes high enough for a line of text for each column."""
    axes = axes_for(ax)
    if ax is None:
        axes.figure.set_size_inches(6.4, 1.3 + 0.28 * max(n_columns, 4))
    return axes


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
