"""Histograms of the weights of clean and flipped rows, one panel per method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._style import SOURCE, TARGET, hide_spines, panels

__all__ = ["weight_histograms"]

_CLEAN, _FLIPPED = SOURCE, TARGET


def weight_histograms(weights: Mapping[str, np.ndarray], is_flipped: Mapping[str, np.ndarray], *, title: str = "") -> Any:
    """Figure with one panel per method: histograms of the weights of clean and flipped rows.

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
    for rows, color, label in ((~is_flipped, _CLEAN, "clean rows"), (is_flipped, _FLIPPED, "flipped rows")):
        axis.hist(shown[rows], bins=bins, color=color, alpha=0.6, label=label)
    axis.set_title(name)
    axis.set_xlabel("weight")
    axis.set_ylabel("rows")
    hide_spines(axis)
