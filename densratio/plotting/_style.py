"""Shared by all plots: colors, axes and the import of matplotlib."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["CURVES", "GRAY", "SOURCE", "TARGET", "axes_for", "hide_spines", "pair_of_axes", "panels"]

# Distinguishable with any color vision (Okabe & Ito).
SOURCE, TARGET, GRAY = "#0072B2", "#D55E00", "#7F7F7F"
CURVES = (SOURCE, TARGET, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def axes_for(ax: Any) -> Any:
    """`ax`, or if it is None the axes of a new pyplot figure, which a notebook shows; without top and right spines."""
    return hide_spines(_matplotlib("pyplot").subplots(layout="constrained")[1] if ax is None else ax)


def pair_of_axes(n_lines: int) -> Any:
    """Two axes side by side in a new pyplot figure, with room for `n_lines` names."""
    size = (9.0, 1.3 + 0.28 * max(n_lines, 8))
    return _matplotlib("pyplot").subplots(1, 2, figsize=size, layout="constrained")[1]


def panels(n: int, title: str = "") -> tuple[Any, list[Any]]:
    """A figure that needs no display, with n axes in rows of up to four."""
    n_columns = min(4, n)
    n_rows = -(-n // n_columns)
    figure = _matplotlib("figure").Figure(figsize=(3.4 * n_columns, 2.7 * n_rows), layout="constrained")
    axes = np.ravel(figure.subplots(n_rows, n_columns, squeeze=False))
    for axis in axes[n:]:
        axis.set_visible(False)
    if title:
        figure.suptitle(title)
    return figure, [hide_spines(axis) for axis in axes[:n]]


def hide_spines(ax: Any) -> Any:
    """The axes without their top and right spines."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _matplotlib(module: str) -> Any:
    try:
        return import_module(f"matplotlib.{module}")
    except ImportError:
        raise ImportError('Plots need matplotlib: pip install "densratio-toolkit[plot]"') from None
