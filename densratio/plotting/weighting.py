"""Learned weighting functions: weight against loss, one curve for each group of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._style import CURVES, hide_spines, panels

__all__ = ["weighting_functions"]


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
