"""Figures of training runs: weights of clean and flipped rows, learned weights, and the log of a monitor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import to_host
from ._style import CURVES, GRAY, SOURCE, TARGET, panels

__all__ = ["logged_curves", "weight_histograms", "weight_map", "weighting_functions"]


def weight_histograms(weights: Mapping[str, np.ndarray], is_flipped: Mapping[str, np.ndarray], *, title: str = "") -> Any:
    """Figure with one panel per method: histograms of the weights, of clean rows upward and of flipped rows downward.

    weights: method -> (n,) weights; is_flipped: method -> (n,) bool. The last bin holds everything above the panel's range.
    """
    figure, axes = panels(len(weights), title)
    for axis, (name, values) in zip(axes, weights.items(), strict=True):
        _histograms(axis, np.asarray(values), np.asarray(is_flipped[name], dtype=bool))
        axis.set(title=name, xlabel="weight in the loss", ylabel="rows")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def weighting_functions(
    losses: np.ndarray, curves: Mapping[str, np.ndarray], *, groups: Mapping[str, list[str]] | None = None, title: str = ""
) -> Any:
    """Figure with one panel per method: weight, before it is scaled to mean 1 in a batch, against loss.

    losses (m,), ascending; curves: method -> (K, m) weights, a curve for each group; groups: method -> K names for the legend.
    """
    figure, axes = panels(len(curves), title)
    for axis, (name, values) in zip(axes, curves.items(), strict=True):
        labels = (groups or {}).get(name, [""] * len(values))
        for curve, label, color in zip(values, labels, CURVES, strict=False):
            axis.plot(losses, curve, color=color, label=label or None)
        axis.set(title=name, xlabel="loss", ylabel="weight before scaling", xlim=(losses[0], losses[-1]))
        axis.set_ylim(0.0, 1.08 * max(1e-12, float(np.max(values))))
        if any(labels):
            axis.legend(frameon=False)
    return figure


def logged_curves(runs: Mapping[str, Iterable[tuple[str, float, int]]], names: Sequence[str]) -> Any:
    """Figure with one panel per name: its values against the step, a curve for each run.

    runs: run -> the entries (name, value, step) that a `densratio.training.Monitor` logged, such as `logged` of
    `Monitor(lambda *entry: logged.append(entry))`. names: the names to draw, such as "parameters/alpha".
    Raises ValueError for a name that no run has.
    """
    entries = {run: list(logged) for run, logged in runs.items()}
    known = {name for logged in entries.values() for name, *_ in logged}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"No run has logged {unknown}; there are {sorted(known)}.")
    figure, axes = panels(len(names))
    for axis, name in zip(axes, names, strict=True):
        for (run, logged), color in zip(entries.items(), CURVES * len(entries), strict=False):
            points = [(step, value) for own, value, step in logged if own == name]
            axis.plot(*np.reshape(points, (-1, 2)).T, color=color, label=run)
        axis.set(title=name, xlabel="step")
    axes[0].legend(frameon=False)
    return figure


def weight_map(weights: Mapping[str, Callable[[np.ndarray, np.ndarray], Any]], *, resolution: int = 200, title: str = "") -> Any:
    """Figure with one panel per method: its weight as a function of the softmax of the row's label and the row's largest softmax.

    weights: method -> a function of both (n,), such as `LiLAW.weights_at`. Rows are on the diagonal if the classifier predicts the
    label; otherwise they are left of the other diagonal, because the two softmaxes sum to at most 1.
    """
    figure, axes = panels(len(weights), title)
    for axis, (name, function) in zip(axes, weights.items(), strict=True):
        _map(axis, function, (np.arange(resolution) + 0.5) / resolution)
        axis.set(title=name, xlabel="softmax of the label", ylabel="largest softmax", xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    return figure


def _map(axis: Any, function: Callable[[np.ndarray, np.ndarray], Any], grid: np.ndarray) -> None:
    own, largest = np.meshgrid(grid, grid)
    can_be = (own <= largest) & (own + largest <= 1.0 + 1e-9)
    shown = np.full(own.shape, np.nan)
    shown[can_be] = to_host(function(own[can_be], largest[can_be]))
    on_line = np.asarray(to_host(function(grid, grid)))
    span = {"vmin": min(np.nanmin(shown), on_line.min()), "vmax": max(np.nanmax(shown), on_line.max())}
    image = axis.imshow(shown, origin="lower", extent=(0.0, 1.0, 0.0, 1.0), **span)
    axis.scatter(grid, grid, s=6, c=on_line, **span)
    axis.figure.colorbar(image, ax=axis, label="weight")


def _histograms(axis: Any, values: np.ndarray, is_flipped: np.ndarray) -> None:
    top = max(2.0, float(np.quantile(values, 0.99)))
    shown, bins = np.minimum(values, top), np.linspace(0.0, top, 31)
    groups = (~is_flipped, 1.0, SOURCE, "clean rows, upward"), (is_flipped, -1.0, TARGET, "flipped rows, downward")
    for rows, sign, color, label in groups:
        axis.hist(shown[rows], bins=bins, weights=np.full(rows.sum(), sign), color=color, label=label)
    axis.axhline(0.0, color=GRAY, linewidth=0.8)
    axis.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
