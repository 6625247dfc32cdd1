"""The records as figures: accuracy by epoch, and the final weights as in the paper's Figures 5 and 6."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.runner import save_figure

from .methods import title
from .records import BIN_EDGES, Record, as_file_name, read_runs
from .shifts import shift_of
from .tables import group_title, grouped

__all__ = ["draw_figures"]

ON, OFF = "#0072B2", "#D55E00"
NAMES = {"noise": ("clean rows", "flipped rows"), "class_prior": ("rows of small classes", "rows of large classes")}
Group = dict[str, list[Record]]
A_PANEL, A_LINE = 8, 10  # methods that are told apart by color in a panel, and boxes side by side


def draw_figures(folder: Path) -> None:
    """accuracy-*.png, weights-*.png and boxes-*.png in `folder`, one of each for every experiment, named after it."""
    for key, methods in grouped(read_runs(folder)).items():
        figures = {"accuracy": curves(methods), "weights": histograms(methods), "boxes": boxes(methods)}
        for name, figure in figures.items():
            if figure is not None:
                # About as many letters of this size as the figure is wide.
                figure.suptitle(textwrap.fill(group_title(key), int(12 * figure.get_figwidth())), fontsize=10)
                save_figure(figure, folder / f"{as_file_name([name, *key])}.png", dpi=90)
                plt.close(figure)


def curves(methods: Group) -> Figure:
    """Test accuracy by epoch, mean over the seeds, some methods a panel and Uniform in grey in each; methods with a bank dashed."""
    names = list(dict.fromkeys(m.partition("@")[0] for m in methods if m != "uniform")) or ["uniform"]
    parts = [names[i : i + A_PANEL] for i in range(0, len(names), A_PANEL)]
    figure, panels = plt.subplots(
        1, len(parts), figsize=(1.0 + 5.5 * len(parts), 4.6), squeeze=False, sharey=True, layout="constrained"
    )
    for panel, part in zip(panels.flat, parts, strict=True):
        for method, runs in methods.items():
            name, is_uniform = method.partition("@")[0], method == "uniform"
            if name in part or is_uniform:
                color = "0.6" if is_uniform else plt.get_cmap("tab10")(part.index(name))
                curve(panel, method, runs, color=color, linewidth=3.0 if is_uniform else 1.3)
        panel.set(xlabel="epoch")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, ncols=2, loc="lower right")
    panels[0, 0].set_ylabel("test accuracy, %")
    return figure


def curve(panel: Axes, method: str, runs: list[Record], *, color: Any, linewidth: float) -> None:
    """One method's line."""
    length = min(len(run["history"]["accuracy"]) for run in runs)
    mean = 100.0 * np.mean([run["history"]["accuracy"][:length] for run in runs], axis=0)
    style = "--" if "@" in method else "-"
    label = title(method, runs[0]["identity"]["layer"])
    panel.plot(np.arange(1, length + 1), mean, style, color=color, linewidth=linewidth, label=label)


def histograms(methods: Group) -> Figure | None:
    """Final weights of rows to keep and of rows that are off, all seeds, a panel for each method."""
    shown = weighted(methods)
    if not shown:
        return None
    n_columns = min(4, len(shown))
    n_lines = math.ceil(len(shown) / n_columns)
    figure, panels = plt.subplots(n_lines, n_columns, figsize=(3.2 * n_columns, 2.4 * n_lines), squeeze=False, layout="constrained")
    for panel, (method, runs) in zip(panels.flat, shown.items(), strict=False):
        for part, color, label in zip(("on", "off"), (ON, OFF), labels(runs), strict=True):
            found = [run["weights"][part]["counts"] for run in runs if part in run["weights"]]
            counts = np.sum(found, axis=0) if found else np.zeros(len(BIN_EDGES) - 1)
            panel.stairs(counts, BIN_EDGES, fill=True, color=color, alpha=0.6, label=label)
        panel.set_yscale("log")
        decorate(panel, method, runs, "weight (the last bin: all above)")
    for panel in panels.flat[len(shown) :]:
        panel.set_visible(False)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def boxes(methods: Group) -> Figure | None:
    """Quartiles of the final weights, whiskers to the 5 % and 95 % quantiles, the mean a triangle; seed 0 or the first there is."""
    shown = weighted(methods)
    if not shown:
        return None
    parts = [list(shown.items())[i : i + A_LINE] for i in range(0, len(shown), A_LINE)]
    figure, panels = plt.subplots(
        len(parts), 1, figsize=(1.6 + 1.0 * len(parts[0]), 3.6 * len(parts)), squeeze=False, layout="constrained"
    )
    for panel, part in zip(panels.flat, parts, strict=True):
        for place, (_, runs) in enumerate(part):
            for side, color, shift in (("on", ON, -0.2), ("off", OFF, 0.2)):
                if side in runs[0]["weights"]:
                    box(panel, runs[0]["weights"][side], place + shift, color)
        panel.set_xticks(range(len(part)), [title(m, r[0]["identity"]["layer"]) for m, r in part], rotation=30, ha="right")
        panel.set_xlim(-0.6, len(parts[0]) - 0.4)
        panel.set_ylabel("final weight")
        panel.grid(axis="y", alpha=0.3)
    for color, label in zip((ON, OFF), labels(next(iter(shown.values()))), strict=True):
        panels[0, 0].plot([], [], "s", color=color, alpha=0.6, label=label)
    panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


def box(panel: Axes, spread: dict[str, Any], place: float, color: str) -> None:
    """One box of the record's quantiles."""
    low, first, median, third, high = spread["quantiles"]
    statistics = {"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high, "mean": spread["mean"], "fliers": []}
    panel.bxp(
        [statistics], positions=[place], widths=0.34, patch_artist=True, showmeans=True, manage_ticks=False,
        boxprops={"facecolor": color, "alpha": 0.6}, medianprops={"color": "black"}, meanprops={"markersize": 4},
    )  # fmt: skip


def weighted(methods: Group) -> Group:
    """The methods that weigh training rows unevenly."""
    return {name: runs for name, runs in methods.items() if name not in ("uniform", "val_only")}


def labels(runs: list[Record]) -> tuple[str, str]:
    """What rows to keep, and rows that are off, are called in this experiment."""
    return NAMES["noise" if shift_of(runs[0]["identity"]["shift"]).has_noisy_rows else "class_prior"]


def decorate(panel: Axes, method: str, runs: list[Record], xlabel: str) -> None:
    """Title and labels of a panel."""
    panel.set_title(title(method, runs[0]["identity"]["layer"]), fontsize=9)
    panel.set_xlabel(xlabel, fontsize=8)
    panel.set_ylabel("rows, all seeds", fontsize=8)
    panel.tick_params(labelsize=7)
