"""Two figures of a label-noise experiment, one panel per method: weights of clean and flipped rows, learned weighting functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._style import CURVES, GRAY, SOURCE, TARGET, hide_spines, panels

__all__ = ["weight_histograms", "weighting_functions"]


def weight_histograms(weights: Mapping[str, np.ndarray], is_flipped: Mapping[str, np.ndarray], *, title: str = "") -> Any:
    """Figure with one panel per method: histograms of the weights, of clean rows upward and of flipped rows downward.

    weights: method -> (n,) weights; is_flipped: method -> (n,) bool. The last bin holds everything above the panel's range.
    """
    figure, axes = panels(len(weights))
    for axis, (name, values) in zip(axes, weights.items(), strict=True):
        _histograms(axis, np.asarray(values), np.asarray(is_flipped[name], dtype=bool))
        axis.set(title=name, xlabel="weight in the loss", ylabel="rows")
        hide_spines(axis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def weighting_functions(
    losses: np.ndarray, curves: Mapping[str, np.ndarray], *, groups: Mapping[str, list[str]] | None = None, title: str = ""
) -> Any:
    """Figure with one panel per method: weight, before it is scaled to mean 1 in a batch, against loss.

    losses (m,), ascending; curves: method -> (K, m) weights, a curve for each group; groups: method -> K names for the legend.
    """
    figure, axes = panels(len(curves))
    for axis, (name, values) in zip(axes, curves.items(), strict=True):
        labels = (groups or {}).get(name, [""] * len(values))
        for curve, label, color in zip(values, labels, CURVES, strict=False):
            axis.plot(losses, curve, color=color, label=label or None)
        axis.set(title=name, xlabel="loss", ylabel="weight before scaling", xlim=(losses[0], losses[-1]))
        axis.set_ylim(0.0, 1.08 * max(1e-12, float(np.max(values))))
        if any(labels):
            axis.legend(frameon=False)
        hide_spines(axis)
    if title:
        figure.suptitle(title)
    return figure


def _histograms(axis: Any, values: np.ndarray, is_flipped: np.ndarray) -> None:
    top = max(2.0, float(np.quantile(values, 0.99)))
    shown, bins = np.minimum(values, top), np.linspace(0.0, top, 31)
    groups = (~is_flipped, 1.0, SOURCE, "clean rows, upward"), (is_flipped, -1.0, TARGET, "flipped rows, downward")
    for rows, sign, color, label in groups:
        axis.hist(shown[rows], bins=bins, weights=np.full(rows.sum(), sign), color=color, label=label)
    axis.axhline(0.0, color=GRAY, linewidth=0.8)
    axis.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
