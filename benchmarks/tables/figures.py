"""The record of the runs as figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.runner import Row, save_figure

from .records import read
from .tables import median, ordered, unique, values

__all__ = ["draw_figures"]

COLORS = {
    "reference": "0.55",
    "densratio": "#c1272d",
    "adapt": "#0072b2",
    "skada": "#009e73",
    "hoxo": "#e69f00",
    "sklearn": "#7a4fa3",
}
MARKERS = "osv^D<>Pp*Xdh"
WIDTH = 8.2  # inches: a page of the documentation shows a figure about so wide, so its text is no smaller than the page's


def draw_figures(folder: Path, part: str) -> None:
    """The part's figures in `folder` from its PART_runs.json."""
    _, rows = read(folder / f"{part}_runs.json")
    for name, draw in FIGURES[part].items():
        figure = draw(rows)
        if figure is not None:
            save_figure(figure, folder / f"{name}.png", dpi=110)
            plt.close(figure)


def nmse_by_data(rows: list[Row]) -> Figure:
    """A panel for each data set: median NMSE of each contender, a bar from the smallest to the largest seed."""
    data = unique((row["shift"], row["d"]) for row in rows)
    names = [name for name in ordered(rows) if name != "true ratio" and values([r for r in rows if r["contender"] == name], "NMSE")]
    n_columns = min(3, len(data))
    n_lines = math.ceil(len(data) / n_columns)
    size = (WIDTH, n_lines * (0.7 + 0.16 * len(names)))
    figure, panels = plt.subplots(n_lines, n_columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, (shift, d) in zip(panels.flat, data, strict=False):
        _nmse_panel(panel, [row for row in rows if (row["shift"], row["d"]) == (shift, d)], names)
        panel.set_title(f"{shift}, d = {d}", fontsize=10)
    for panel in panels.flat[len(data) :]:
        panel.set_visible(False)
    figure.supxlabel("NMSE of the source rows' weights (median and range over the seeds; the dotted line: no weights)")
    return figure


def _nmse_panel(panel: Axes, rows: list[Row], names: list[str]) -> None:
    for height, name in enumerate(reversed(names)):
        runs = [row for row in rows if row["contender"] == name]
        found = values(runs, "NMSE")
        if found:
            color = COLORS[runs[0]["library"]]
            panel.plot([min(found), max(found)], [height, height], color=color, linewidth=1.5)
            panel.plot(statistics.median(found), height, "o", color=color, markersize=5)
    even = median([row for row in rows if row["contender"] == "no weights"], "NMSE")
    if even:
        panel.axvline(even, color="0.6", linestyle=":", linewidth=1)
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    # Labels of more than three decades would run into each other.
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1e3 * low else (1.0,)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(axis="x", labelsize=8)
    panel.set_yticks(range(len(names)), list(reversed(names)), fontsize=8)
    panel.grid(axis="x", alpha=0.3)


def cost_against(axis: str, score: str) -> Callable[[list[Row]], Figure | None]:
    """A figure of `score` against "n" or "d": a panel for each family, ours in red."""

    def draw(rows: list[Row]) -> Figure | None:
        here = [row for row in rows if row["axis"] == axis and values([row], score)]
        families = unique(row["family"] for row in here)
        if not here:
            return None
        n_columns = min(2, len(families))
        n_lines = math.ceil(len(families) / n_columns)
        size = (WIDTH, 3.8 * n_lines)
        figure, panels = plt.subplots(
            n_lines, n_columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
        )
        for panel, family in zip(panels.flat, families, strict=False):
            _cost_panel(panel, [row for row in here if row["family"] == family], axis, score)
            panel.set_title(family, fontsize=10)
        # The panels share their axis, so its ticks are those of all of them.
        sizes = unique(row[axis] for row in here)
        panels.flat[0].set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        for panel in panels.flat[len(families) :]:
            panel.set_visible(False)
        figure.supxlabel("source rows n" if axis == "n" else "columns d")
        figure.supylabel(score)
        return figure

    return draw


def _cost_panel(panel: Axes, rows: list[Row], axis: str, score: str) -> None:
    for number, name in enumerate(ordered(rows)):
        runs = sorted((row for row in rows if row["contender"] == name), key=lambda row: row[axis])
        style = "-" if runs[0]["library"] == "densratio" else "--"
        # A method that needs no measurable memory would vanish from a logarithmic axis.
        heights = [max(row[score], 1e-4 if score.endswith("seconds") else 0.1) for row in runs]
        marker = MARKERS[number % len(MARKERS)]
        panel.plot(
            [row[axis] for row in runs], heights, style, color=COLORS[runs[0]["library"]], marker=marker, markersize=4, label=name
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)


def stream_memory(rows: list[Row]) -> Figure | None:
    """Resident memory against the rows seen so far."""
    trace = next((row["trace"] for row in rows if row["part"] == "stream" and row.get("trace")), None)
    if trace is None or trace[0][1] is None:
        return None
    figure, panel = plt.subplots(figsize=(6, 3.2), layout="constrained")
    panel.plot([seen for seen, _ in trace], [mib for _, mib in trace], color=COLORS["densratio"])
    panel.set(xlabel="source rows seen", ylabel="resident MiB", ylim=(0, 1.2 * max(mib for _, mib in trace)))
    panel.grid(alpha=0.3)
    return figure


FIGURES: dict[str, dict[str, Callable[[list[Row]], Figure | None]]] = {
    "accuracy": {"nmse": nmse_by_data},
    "cost": {
        "seconds_against_n": cost_against("n", "fit seconds"),
        "memory_against_n": cost_against("n", "MiB above import"),
        "seconds_against_d": cost_against("d", "fit seconds"),
    },
    "speed": {"stream_memory": stream_memory},
}
