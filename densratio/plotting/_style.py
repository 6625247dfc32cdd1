"""What all plots share: colors, axes and the import of matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["CURVES", "GRAY", "SOURCE", "TARGET", "axes_for", "hide_spines", "matplotlib_figure", "panels"]

# Distinguishable with any color vision (Okabe & Ito).
SOURCE, TARGET, GRAY = "#0072B2", "#D55E00", "#7F7F7F"
CURVES = (SOURCE, TARGET, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_NEEDS_MATPLOTLIB = 'Plots need matplotlib: pip install "densratio-toolkit[plot]"'


def matplotlib_figure() -> Any:
    """matplotlib's Figure class, which needs no display."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(_NEEDS_MATPLOTLIB) from None
    return Figure


def axes_for(ax: Any) -> Any:
    """`ax`, or where it is None the axes of a new pyplot figure, which a notebook shows."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError(_NEEDS_MATPLOTLIB) from None
    return plt.subplots(layout="constrained")[1]


def panels(n: int) -> tuple[Any, list[Any]]:
    """A figure that needs no display, with n axes in rows of up to four."""
    n_columns = min(4, n)
    n_rows = -(-n // n_columns)
    figure = matplotlib_figure()(figsize=(3.4 * n_columns, 2.7 * n_rows), layout="constrained")
    axes = np.ravel(figure.subplots(n_rows, n_columns, squeeze=False))
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, list(axes[:n])


def hide_spines(ax: Any) -> None:
    """Hide the top and right spines."""
    ax.spines[["top", "right"]].set_visible(False)
