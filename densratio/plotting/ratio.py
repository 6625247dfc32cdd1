"""RatioDisplay: the ratio along one column or over two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import to_host
from .._validation import check_count
from ..diagnostics.columns import source_mask
from ._slices import column_names, column_values, positions, slice_rows
from ._style import GRAY, SOURCE, TARGET, axes_for

__all__ = ["RatioDisplay"]

_MAX_DRAWN_ROWS = 300  # of each sample; more would overlap
_MAX_RATIO = 100.0  # of the color scale


class RatioDisplay:
    """The ratio p_target(x) / p_source(x) along one column or over two, with the rows of both samples.

    The other columns are held at their median over all rows (text columns at their most frequent value). It is a slice through
    the ratio, not a mean over the other columns.

    names : one column name or two. grid : one array (n,), or two (n_0,) and (n_1,). ratio : (n,) or (n_0, n_1) values on the grid.
    source, target : for each column the values of the samples' rows, or None.
    After `plot`: ax_, figure_, the axes and the figure; colorbar_ with two columns.
    """

    def __init__(self, *, names: Sequence[str], grid: Sequence[Any], ratio: Any, source: Any = None, target: Any = None):
        self.names = names
        self.grid = grid
        self.ratio = ratio
        self.source = source
        self.target = target

    @classmethod
    def from_estimator(
        cls, ratio: Any, X: Any, y: Any, *, columns: int | str | Sequence[int | str] = 0, resolution: int = 100, ax: Any = None
    ) -> RatioDisplay:
        """Slice of a fitted ratio through the rows X (n, d); y (n,), the smaller value is the source.

        columns: a position or a name, or two of them. resolution: grid points per column, from the 1 % to the 99 % quantile of
        the samples.
        """
        check_count("resolution", resolution, 2)
        chosen = positions(X, columns)
        is_source = source_mask(y, X.shape[0])
        values = [column_values(X, j) for j in chosen]
        source, target = ([v[mask] for v in values] for mask in (is_source, ~is_source))
        grid = [_span(s, t, resolution) for s, t in zip(source, target, strict=True)]
        mesh = [axis.ravel() for axis in np.meshgrid(*grid, indexing="ij")]
        heights = np.asarray(to_host(ratio.transform(slice_rows(X, dict(zip(chosen, mesh, strict=True))))))
        names = tuple(column_names(X)[j] for j in chosen)
        shaped = heights.reshape([len(axis) for axis in grid])
        return cls(names=names, grid=grid, ratio=shaped, source=source, target=target).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, grid: Any, ratio: Any, *, names: Sequence[str] | None = None, source: Any = None, target: Any = None, ax: Any = None
    ) -> RatioDisplay:
        """Ratios computed elsewhere: values (n,) at grid (n,), or (n_0, n_1) over a pair of grids (n_0,) and (n_1,).

        source, target: rows to draw with it, (n_s,) and (n_t,), or with two grids (n_s, 2) and (n_t, 2).
        """
        heights = np.asarray(to_host(ratio), dtype=np.float64)
        axes = [np.asarray(to_host(axis), dtype=np.float64) for axis in ([grid] if heights.ndim == 1 else grid)]
        if heights.ndim not in (1, 2) or heights.shape != tuple(len(axis) for axis in axes):
            raise ValueError(
                f"ratio must have one value at each grid point; got shape {heights.shape} for grids of "
                f"{' and '.join(str(len(axis)) for axis in axes)} points."
            )
        rows = [None if x is None else list(np.asarray(to_host(x)).reshape(-1, len(axes)).T) for x in (source, target)]
        names = tuple(names) if names is not None else tuple(f"x{j}" for j in range(len(axes)))
        return cls(names=names, grid=axes, ratio=heights, source=rows[0], target=rows[1]).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> RatioDisplay:
        """Draw a curve for one column, or colors on a log scale around 1 for two."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        (self._curve if len(self.grid) == 1 else self._map)()
        if self.source is not None or self.target is not None:
            self.ax_.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        return self

    def _curve(self) -> None:
        ax, (grid,) = self.ax_, self.grid
        ax.plot(grid, self.ratio, color="black")
        ax.axhline(1.0, color=GRAY, linestyle="--", linewidth=1)
        top = 1.25 * max(1.0, float(np.max(self.ratio)))
        for rows, color, height, label in ((self.source, SOURCE, 0.91, "source rows"), (self.target, TARGET, 0.96, "target rows")):
            if rows is not None:
                drawn = _drawn_rows(rows, self.grid)[0]
                at = np.full(len(drawn), height)
                ax.plot(drawn, at, "|", color=color, markersize=9, alpha=0.5, transform=ax.get_xaxis_transform(), label=label)
        ax.set(xlim=(grid[0], grid[-1]), ylim=(0.0, top), xlabel=self.names[0], ylabel="ratio target / source")

    def _map(self) -> None:
        from matplotlib.colors import LogNorm

        ax, (first, second) = self.ax_, self.grid
        heights = np.asarray(self.ratio).T
        top = _color_limit(heights)
        # The scale is logarithmic, so ratios of 0 get its lowest color.
        shown = np.clip(heights, 1.0 / top, top)
        mesh = ax.pcolormesh(first, second, shown, norm=LogNorm(1.0 / top, top), cmap="PRGn_r", shading="nearest", rasterized=True)
        if np.min(shown) < 1.0 < np.max(shown):
            ax.contour(first, second, shown, levels=[1.0], colors="black", linewidths=1)
        for rows, color, marker, label in ((self.source, SOURCE, "o", "source rows"), (self.target, TARGET, "^", "target rows")):
            if rows is not None:
                drawn = _drawn_rows(rows, self.grid)
                ax.plot(*drawn, marker, color=color, markersize=4, markeredgecolor="white", markeredgewidth=0.4, label=label)
        self.colorbar_ = self.figure_.colorbar(mesh, ax=ax, extend="both", label="ratio target / source")
        ax.set(xlim=(first[0], first[-1]), ylim=(second[0], second[-1]), xlabel=self.names[0], ylabel=self.names[1])


def _span(source: np.ndarray, target: np.ndarray, resolution: int) -> np.ndarray:
    low = min(np.quantile(source, 0.01), np.quantile(target, 0.01))
    high = max(np.quantile(source, 0.99), np.quantile(target, 0.99))
    # A constant column still needs an axis of positive length.
    return np.linspace(low, high, resolution) if high > low else np.linspace(low - 0.5, high + 0.5, resolution)


def _drawn_rows(rows: list[np.ndarray], grid: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rows within the grid, among at most 300 drawn with a fixed seed."""
    drawn = np.random.default_rng(0).permutation(len(rows[0]))[:_MAX_DRAWN_ROWS]
    picked = [values[drawn] for values in rows]
    inside = np.all([(v >= axis[0]) & (v <= axis[-1]) for v, axis in zip(picked, grid, strict=True)], axis=0)
    return [values[inside] for values in picked]


def _color_limit(heights: np.ndarray) -> float:
    """Upper limit of a color scale that is symmetric around 1 on a log axis."""
    furthest = np.maximum(heights, 1.0 / np.maximum(heights, 1.0 / _MAX_RATIO))
    return float(np.clip(np.quantile(furthest, 0.98), 2.0, _MAX_RATIO))
