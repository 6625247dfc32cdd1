"""Figures of training runs: changes of margins, logged numbers, and weights over the softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densratio.plotting import logged_curves, margin_bins, margin_changes, weight_map

pytest.importorskip("matplotlib")

margins = st.lists(st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)), min_size=1, max_size=30)


@given(pairs=margins, n_bins=st.integers(1, 12))
def test_each_row_is_in_the_bin_of_its_margin_before(pairs, n_bins):
    before, after = np.array(pairs).T
    table = margin_bins(before, after, 2.0 / n_bins)
    edges = np.linspace(-1.0, 1.0, n_bins + 1)
    np.testing.assert_allclose(table.start, edges[:-1], atol=1e-12)
    own = np.clip(np.floor((before + 1.0) * n_bins / 2.0 + 1e-9).astype(int), 0, n_bins - 1)
    for b in range(n_bins):
        change = (after - before)[own == b]
        assert table.rows[b] == len(change)
        assert table.mean[b] == pytest.approx(np.mean(change) if len(change) else np.nan, nan_ok=True, abs=1e-12)
        assert table.deviation[b] == pytest.approx(np.std(change, ddof=1) if len(change) > 1 else np.nan, nan_ok=True, abs=1e-12)


def test_the_edges_belong_to_the_bins_that_they_begin():
    table = margin_bins([-1.0, -0.8, 0.2, 0.6, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0])
    assert table.rows.tolist() == [1, 1, 0, 0, 0, 0, 1, 0, 1, 1]
    assert np.isnan(table.error[0]) and margin_bins([0.1, 0.1], [0.2, 0.6]).error[5] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("before", "after", "width", "words"),
    [
        ([0.1], [0.2, 0.3], 0.2, "of the same rows"),
        ([], [], 0.2, "n >= 1"),
        ([0.1], [1.2], 0.2, r"in \[-1, 1\]"),
        ([np.nan], [0.2], 0.2, "or NaN"),
        ([0.1], [0.2], 0.0, r"width must be in \(0, 2\]"),
    ],
)
def test_margins_that_are_none_are_refused(before, after, width, words):
    with pytest.raises(ValueError, match=words):
        margin_bins(before, after, width)


def test_changes_of_margins_are_counted_for_each_method_and_their_means_drawn_by_bin():
    before, after = np.random.default_rng(0).uniform(-1.0, 1.0, (2, 300))
    figure = margin_changes(before, {"LRW-Hard": after, "LRW-Easy": before}, title="All")
    hard, easy, bins = (axis for axis in figure.axes if axis.get_visible())
    assert [sum(bar.get_height() for bar in axis.patches) for axis in (hard, easy)] == [300, 300]
    assert hard.get_title().startswith(f"LRW-Hard\nmean {np.mean(after - before):+.3f}, median")
    np.testing.assert_allclose(bins.lines[0].get_ydata(), margin_bins(before, after).mean)
    figure.canvas.draw()


def test_logged_numbers_have_a_panel_each_and_a_curve_for_each_run():
    logged = [("parameters/alpha", 10.0, 1), ("weights/drift", 0.5, 1), ("parameters/alpha", 9.0, 2)]
    figure = logged_curves({"0 %": logged, "50 %": iter(logged[1:])}, ["parameters/alpha"])
    (axis,) = figure.axes
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[1.0, 10.0], [2.0, 9.0]], [[2.0, 9.0]]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["0 %", "50 %"]
    figure.canvas.draw()
    with pytest.raises(ValueError, match=r"No run has logged \['parameters/beta'\]; there are \['parameters/alpha'"):
        logged_curves({"0 %": logged}, ["parameters/beta"])


def test_the_weight_map_is_the_function_where_rows_can_be_and_empty_elsewhere():
    figure = weight_map({"a": lambda own, largest: own + 2.0 * largest, "b": lambda own, largest: own}, resolution=20, title="All")
    panels = [axis for axis in figure.axes if axis.images]
    shown = [np.ma.filled(axis.images[0].get_array(), np.nan) for axis in panels]
    own, largest = np.meshgrid(*[(np.arange(20) + 0.5) / 20] * 2)
    i, j = np.meshgrid(np.arange(20), np.arange(20))
    can_be = (i <= j) & (i + j + 1 <= 20)
    for found, expected in zip(shown, (own + 2.0 * largest, own), strict=True):
        np.testing.assert_allclose(found, np.where(can_be, expected, np.nan))
    line = panels[0].collections[0]
    np.testing.assert_allclose(line.get_array(), 3.0 * own[0])
    assert line.get_clim() == panels[0].images[0].get_clim() == (pytest.approx(0.075), pytest.approx(2.925))
    figure.canvas.draw()
