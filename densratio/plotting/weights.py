"""WeightsDisplay: the distribution of the weights over the source rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import to_host
from ..diagnostics import effective_sample_size
from ..diagnostics.columns import source_mask
from ..diagnostics.diagnosis import weights_at
from ..diagnostics.weights import weight_shares
from ._style import GRAY, SOURCE, TARGET, axes_for

__all__ = ["WeightsDisplay"]

_BINS = 40


class WeightsDisplay:
    """Weights of the source rows, as a histogram or as the share of the total weight on the heaviest rows.

    weights : (n_source,) weights, scaled to mean 1. name : label in the title.
    After `plot`: ax_, figure_, the axes and the figure.
    """

    def __init__(self, *, weights: Any, name: str | None = None):
        self.weights = weights
        self.name = name

    @classmethod
    def from_estimator(
        cls, ratio: Any, X: Any, y: Any, *, kind: str = "histogram", name: str | None = None, ax: Any = None
    ) -> WeightsDisplay:
        """Weights from a fitted ratio at the source rows of X (n, d); y (n,), the smaller value is the source."""
        weights = weights_at(ratio, X, source_mask(y, np.shape(X)[0]))
        return cls(weights=weights, name=name or type(ratio).__name__).plot(kind=kind, ax=ax)

    @classmethod
    def from_predictions(cls, weights: Any, *, kind: str = "histogram", name: str | None = None, ax: Any = None) -> WeightsDisplay:
        """Weights (n_source,) computed elsewhere, >= 0, of any scale."""
        shares = weight_shares(weights)
        return cls(weights=shares * len(shares), name=name).plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "histogram", ax: Any = None) -> WeightsDisplay:
        """Draw. kind: "histogram" (the last bin holds everything above), or "share" (the Lorenz curve, heaviest rows first)."""
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {sorted(_KINDS)}; got {kind!r}.")
        weights = np.asarray(to_host(self.weights), dtype=np.float64)
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        _KINDS[kind](self.ax_, weights)
        effective = f"{len(weights)} rows count as {effective_sample_size(weights):.0f}"
        self.ax_.set_title(f"{self.name}: {effective}" if self.name else effective)
        return self


def _histogram(ax: Any, weights: np.ndarray) -> None:
    top = max(2.0, float(np.quantile(weights, 0.99)))
    above = int(np.sum(weights > top))
    rows = ax.hist(np.minimum(weights, top), bins=np.linspace(0.0, top, _BINS + 1), color=SOURCE)[0]
    ax.axvline(1.0, color=GRAY, linestyle="--", linewidth=1)
    ax.text(1.0, 0.99, " mean", color=GRAY, transform=ax.get_xaxis_transform(), va="top")
    if above:
        label = f"{above} row{'s' if above > 1 else ''} above,\nup to {np.max(weights):.3g}"
        ax.annotate(label, (top, rows[-1]), (0, 4), textcoords="offset points", ha="right", va="bottom")
    ax.set(xlim=(0.0, top), ylim=(0.0, 1.08 * np.max(rows)), xlabel="weight", ylabel="source rows")


def _share(ax: Any, weights: np.ndarray) -> None:
    share = np.concatenate([[0.0], np.cumsum(np.sort(weights)[::-1])]) / np.sum(weights)
    rows = np.linspace(0.0, 1.0, len(share))
    ax.plot(rows, rows, color=GRAY, linestyle="--", linewidth=1, label="equal weights")
    ax.plot(rows, share, color=SOURCE, label="weights")
    half = rows[np.searchsorted(share, 0.5)]
    ax.plot([half], [0.5], "o", color=TARGET, label=f"half of the weight on {100.0 * half:.3g} % of the rows")
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, 1.02), xlabel="share of the source rows, heaviest first", ylabel="share of the weight")
    ax.legend(loc="lower right", frameon=False)


_KINDS = {"histogram": _histogram, "share": _share}
