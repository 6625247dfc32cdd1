"""BalanceDisplay: the love plot of standardized mean differences before and after weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import to_host
from .._validation import check_count
from ..diagnostics import ColumnBalance, Report
from ..diagnostics.columns import numeric_columns, rows_where, source_mask
from ..diagnostics.diagnosis import balance_of, weights_at
from ..diagnostics.render import printable
from ._style import GRAY, SOURCE, TARGET, axes_for

__all__ = ["BalanceDisplay", "shortened"]

_OFF_BALANCE = 0.1
_LONGEST_NAME = 30


class BalanceDisplay:
    """Absolute standardized mean difference of each column before and after weighting, the largest on top.

    names : (d,) column names. before, after : (d,) standardized mean differences, signed; infinite ones are drawn at the edge.
    After `plot`: ax_, figure_, the axes and the figure.
    Source: Love (2004), after whom the plot is named; the measure is `densratio.diagnostics.standardized_mean_difference`.
    """

    def __init__(self, *, names: Sequence[str], before: Any, after: Any):
        self.names = names
        self.before = before
        self.after = after

    @classmethod
    def from_estimator(cls, ratio: Any, X: Any, y: Any, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Balance under a fitted ratio's weights of the source rows of X (n, d); y (n,), the smaller value is the source."""
        return cls.from_predictions(X, y, ratio, max_columns=max_columns, ax=ax)

    @classmethod
    def from_predictions(cls, X: Any, y: Any, weights: Any, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Balance under weights (n_source,) >= 0 of the source rows, in their order and of any scale."""
        columns = numeric_columns(X, has_gaps=True)
        is_source = source_mask(y, columns.values.shape[0])
        source, target = (rows_where(columns.values, mask) for mask in (is_source, ~is_source))
        return cls._of(balance_of(columns.names, source, target, weights_at(weights, X, is_source)), max_columns, ax)

    @classmethod
    def from_report(cls, report: Report, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Balance from a report of `densratio.diagnostics.diagnose`."""
        return cls._of(report.balance, max_columns, ax)

    @classmethod
    def _of(cls, balance: Sequence[ColumnBalance], max_columns: int, ax: Any) -> BalanceDisplay:
        names, before, after, _ = zip(*balance, strict=True)
        return cls(names=names, before=before, after=after).plot(max_columns=max_columns, ax=ax)

    def plot(self, *, max_columns: int = 20, ax: Any = None) -> BalanceDisplay:
        """Draw the `max_columns` columns that are most off balance, before or after weighting."""
        check_count("max_columns", max_columns)
        before, after = (np.abs(np.asarray(to_host(x), dtype=np.float64)) for x in (self.before, self.after))
        shown = np.argsort(-np.maximum(before, after), kind="stable")[:max_columns]
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        if ax is None:
            # A line of text for each column.
            self.figure_.set_size_inches(6.4, 1.3 + 0.28 * max(len(shown), 4))
        _draw(self.ax_, [shortened(self.names[j]) for j in shown], before[shown], after[shown])
        if len(shown) < len(before):
            self.ax_.set_title(f"the {len(shown)} of {len(before)} columns most off balance", fontsize="medium")
        return self


def _draw(ax: Any, names: list[str], before: np.ndarray, after: np.ndarray) -> None:
    height = np.arange(len(names))[::-1]
    finite = np.concatenate([before, after])
    finite = finite[np.isfinite(finite)]
    edge = 1.08 * max(2.0 * _OFF_BALANCE, float(np.max(finite, initial=0.0)))
    ax.hlines(height, np.minimum(before, edge), np.minimum(after, edge), color=GRAY, linewidth=1, alpha=0.6)
    ax.axvline(_OFF_BALANCE, color=GRAY, linestyle="--", linewidth=1, label=f"off balance beyond {_OFF_BALANCE}")
    for values, color, marker, size, label in ((before, SOURCE, "o", 11, "before"), (after, TARGET, "D", 6, "after")):
        is_finite = np.isfinite(values)
        ax.plot(values[is_finite], height[is_finite], marker, color=color, clip_on=False, label=f"{label} weighting")
        if not is_finite.all():
            # An infinite difference (no spread) is an arrow at the end of the axis. The branch is needed: an empty unclipped
            # line would break a constrained layout.
            ax.plot(np.full(np.sum(~is_finite), edge), height[~is_finite], ">", color=color, markersize=size, clip_on=False)
    ax.set_yticks(height, names)
    ax.set(xlim=(0.0, edge), ylim=(-0.7, len(names) - 0.3), xlabel="absolute standardized mean difference")
    # The points are sorted from the largest down, but with many columns the last may be as far off balance.
    ax.legend(loc="best", frameon=False)


def shortened(name: str) -> str:
    """A name of at most 30 printable characters that matplotlib draws literally."""
    name = printable(name)
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    # Two dollar signs would begin and end a formula.
    return name.replace("$", r"\$")
