"""Histograms of the weights of clean and flipped rows, one panel per method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._style import GRAY, SOURCE, TARGET, hide_spines, panels

__all__ = ["weight_histograms"]


def weight_histograms(weights: Mapping[str, np.ndarray], is_flipped: Mapping[str, np.ndarray], *, title: str = "") -> Any:
    """Figure with one panel per method: histograms of the weights, of clean rows upward and of flipped rows downward.

    weights: method -> (n,) weights; is_flipped: method -> (n,) bool. The last bin holds everything above the panel's range.
    """
    figure, axes = panels(len(weights))
    for axis, (name, values) in zip(axes, weights.items(), strict=True):
        _panel(axis, name, np.asarray(values), np.asarray(is_flipped[name], dtype=bool))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def _panel(axis: Any, name: str, values: np.ndarray, is_flipped: np.ndarray) -> None:
    top = max(2.0, float(np.quantile(values, 0.99)))
    bins = np.linspace(0.0, top, 31)
    shown = np.minimum(values, top)
    for rows, sign, color, label in (
        (~is_flipped, 1.0, SOURCE, "clean rows, upward"),
        (is_flipped, -1.0, TARGET, "flipped rows, downward"),
    ):
        axis.hist(shown[rows], bins=bins, weights=np.full(rows.sum(), sign), color=color, label=label)
    axis.axhline(0.0, color=GRAY, linewidth=0.8)
    axis.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
    axis.set(title=name, xlabel="weight in the loss", ylabel="rows")
    hide_spines(axis)
