"""PerformanceDisplay: a model's metric on chunks of the target, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..two_step import TargetPerformance
from ._style import GRAY, TARGET, axes_for

__all__ = ["PerformanceDisplay"]


class PerformanceDisplay:
    """Estimates of a metric on chunks of the target, in order, with intervals; hollow if the data can't say.

    Create it with `from_estimates`. estimates : list of TargetPerformance.
    After `plot`: ax_, figure_, the axes and the figure.
    """

    def __init__(self, *, estimates: Sequence[TargetPerformance]):
        self.estimates = estimates

    @classmethod
    def from_estimates(cls, estimates: Sequence[TargetPerformance], *, ax: Any = None) -> PerformanceDisplay:
        """Draw the list that `target_performance(..., chunks=...)` returns."""
        return cls(estimates=estimates).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> PerformanceDisplay:
        """Draw an estimate and its interval for each chunk, and the metric on the source."""
        found = [self.estimates] if isinstance(self.estimates, TargetPerformance) else list(self.estimates)
        if not found:
            raise ValueError("There are no estimates to draw: pass what target_performance(..., chunks=...) returns.")
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        for place, one in enumerate(found):
            _draw(self.ax_, place, one)
        self.ax_.axhline(found[0].source_estimate, color=GRAY, linestyle="--", linewidth=1, label="on the source")
        self.ax_.set_xticks(range(len(found)), ["target" if one.chunk is None else str(one.chunk) for one in found])
        if len(found) > 6:
            self.ax_.tick_params(axis="x", labelrotation=90)
        self.ax_.set(xlabel="chunk", ylabel=found[0].metric, title=f"on the target, {100.0 * found[0].confidence:g} % intervals")
        self.ax_.legend(frameon=False)
        return self


def _draw(ax: Any, place: int, one: TargetPerformance) -> None:
    is_known = np.isfinite(one.interval).all() and not (one.warning or "").startswith("Can't say")
    if is_known:
        ax.plot([place, place], one.interval, color=TARGET, linewidth=2)
    ax.plot([place], [one.estimate], "o", color=TARGET, markerfacecolor=TARGET if is_known else "none")
