"""What all pictures share: their colours, and how matplotlib is reached."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["CURVES", "GREY", "SOURCE", "TARGET", "axes_for", "bare", "matplotlib_figure", "panels"]

# Told apart by people with any colour vision (Okabe & Ito).
SOURCE, TARGET, GREY = "#0072B2", "#D55E00", "#7F7F7F"
CURVES = (SOURCE, TARGET, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_NEEDS_MATPLOTLIB = 'Plots need matplotlib: pip install "densratio-toolkit[plot]"'


def matplotlib_figure() -> Any:
    """matplotlib's Figure class, which draws without a window."""
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
    """A figure without a window, of n axes in rows of up to four."""
    n_columns = min(4, n)
    n_rows = -(-n // n_columns)
    figure = matplotlib_figure()(figsize=(3.4 * n_columns, 2.7 * n_rows), layout="constrained")
    axes = np.ravel(figure.subplots(n_rows, n_columns, squeeze=False))
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, list(axes[:n])


def bare(ax: Any) -> None:
    """Take away the top and right frame lines."""
    ax.spines[["top", "right"]].set_visible(False)
