"""Displays: what they draw is what the measures give, on any table, with or without a window."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from sklearn.calibration import calibration_curve
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from densratio import KLIEP, LSIF, stack_domains
from densratio.diagnostics import diagnose, effective_sample_size, standardized_mean_difference
from densratio.plotting import (
    BalanceDisplay,
    DifferencesDisplay,
    DiscriminatorCalibrationDisplay,
    PerformanceDisplay,
    RatioDisplay,
    WeightsDisplay,
    weight_histograms,
)
from densratio.plotting._slices import slice_rows
from densratio.two_step import TargetPerformance

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture(autouse=True)
def _no_figure_is_left_open():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def shift():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((150, 3)), rng.standard_normal((100, 3)) * 0.9 + [0.8, -0.3, 0.0]
    return stack_domains(source, target)


@pytest.fixture(scope="module")
def fitted(shift):
    return LSIF(gamma=0.3).fit(*shift)


class Exponential:
    """A ratio in closed form with a fitted estimator's surface: exp of one column, whose mean over N(0, 1) is sqrt(e)."""

    def __init__(self, slopes):
        self.slopes = np.asarray(slopes)

    def transform(self, X):
        return np.exp(np.asarray(X, dtype=float) @ self.slopes)


def every_display(fitted, shift, ax):
    X, y = shift
    yield WeightsDisplay.from_estimator(fitted, X, y, ax=ax())
    yield WeightsDisplay.from_estimator(fitted, X, y, kind="share", ax=ax())
    yield WeightsDisplay.from_predictions(fitted.weights_, ax=ax())
    yield BalanceDisplay.from_estimator(fitted, X, y, ax=ax())
    yield BalanceDisplay.from_predictions(X, y, fitted.weights_, ax=ax())
    yield BalanceDisplay.from_report(diagnose(fitted, X, y, n_permutations=9), ax=ax())
    yield RatioDisplay.from_estimator(fitted, X, y, resolution=12, ax=ax())
    yield RatioDisplay.from_estimator(fitted, X, y, columns=(2, 0), resolution=12, ax=ax())
    yield RatioDisplay.from_predictions([0.0, 1.0], [0.5, 2.0], ax=ax())
    yield DiscriminatorCalibrationDisplay.from_estimator(fitted, X, y, ax=ax())
    yield DiscriminatorCalibrationDisplay.from_predictions(y, fitted.transform(X), ax=ax())


def test_every_display_draws_in_the_given_axes_and_opens_no_figure(fitted, shift):
    for display in every_display(fitted, shift, lambda: Figure().subplots()):
        assert display.ax_.figure is display.figure_
        display.figure_.canvas.draw()
        again = Figure().subplots()
        assert display.plot(ax=again).ax_ is again
    assert plt.get_fignums() == []


def test_every_display_opens_a_figure_where_no_axes_are_given(fitted, shift):
    n_displays = sum(1 for _ in every_display(fitted, shift, lambda: None))
    assert len(plt.get_fignums()) == n_displays


# ---------------------------------------------------------------- weights


def test_the_histogram_counts_every_row_and_names_those_above(fitted, shift):
    weights = np.r_[np.ones(990), np.full(10, 50.0)]
    display = WeightsDisplay.from_predictions(weights, ax=Figure().subplots())
    assert sum(bar.get_height() for bar in display.ax_.patches) == 1000
    np.testing.assert_allclose(np.mean(display.weights), 1.0, rtol=1e-12)
    texts = [text.get_text() for text in display.ax_.texts]
    assert f"10 rows above,\nup to {50.0 / np.mean(weights):.3g}" in texts
    assert display.ax_.get_title() == f"1000 rows count as {effective_sample_size(weights):.0f}"
    named = WeightsDisplay.from_estimator(fitted, *shift, ax=Figure().subplots())
    assert named.ax_.get_title().startswith("LSIF: 150 rows count as ")
    np.testing.assert_allclose(named.weights, fitted.weights_, rtol=1e-9)


def test_the_share_curve_is_the_cumulative_weight_of_the_heaviest_rows():
    display = WeightsDisplay.from_predictions([1.0, 5.0, 2.0, 0.0], kind="share", ax=Figure().subplots())
    rows, carried = display.ax_.lines[1].get_data()
    np.testing.assert_allclose(rows, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(carried, [0, 5 / 8, 7 / 8, 1, 1])
    assert "half of the weight on 25 % of the rows" in [t.get_text() for t in display.ax_.get_legend().get_texts()]


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"must be one of \['histogram', 'share'\]"):
        WeightsDisplay.from_predictions([1.0, 2.0], kind="violin")


# ---------------------------------------------------------------- balance


def points(display, label):
    line = next(line for line in display.ax_.lines if line.get_label() == label)
    return np.array(line.get_xdata()), np.array(line.get_ydata())


def test_the_love_plot_shows_absolute_differences_the_largest_on_top(fitted, shift):
    X, y = shift
    display = BalanceDisplay.from_estimator(fitted, X, y, ax=Figure().subplots())
    before = np.abs(standardized_mean_difference(X[y == 0], X[y == 1]))
    after = np.abs(standardized_mean_difference(X[y == 0], X[y == 1], fitted.weights_))
    order = np.argsort(-np.maximum(before, after))
    for label, values in (("before weighting", before), ("after weighting", after)):
        drawn, height = points(display, label)
        np.testing.assert_allclose(drawn, values[order], rtol=1e-6)
        np.testing.assert_array_equal(height, [2, 1, 0])
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == [f"x{j}" for j in order]
    assert any(np.all(np.asarray(line.get_xdata()) == 0.1) for line in display.ax_.lines)


def test_a_wide_love_plot_keeps_the_worst_columns_and_says_so():
    rng = np.random.default_rng(0)
    X, y = stack_domains(rng.standard_normal((50, 30)), rng.standard_normal((50, 30)) + np.linspace(0, 2, 30))
    display = BalanceDisplay.from_predictions(X, y, np.ones(50), max_columns=5, ax=Figure().subplots())
    worst = np.sort(np.abs(standardized_mean_difference(X[y == 0], X[y == 1])))[::-1][:5]
    np.testing.assert_allclose(points(display, "before weighting")[0], worst)
    assert display.ax_.get_title() == "the 5 of 30 columns most off balance" and len(display.names) == 30
    with pytest.raises(ValueError, match="max_columns must be an int >= 1"):
        display.plot(max_columns=0, ax=Figure().subplots())


def test_an_infinite_difference_stands_at_the_edge():
    display = BalanceDisplay(names=["a", "b"], before=[0.5, -np.inf], after=[0.0, np.inf]).plot(ax=Figure().subplots())
    edge = display.ax_.get_xlim()[1]
    arrows = [line.get_xdata() for line in display.ax_.lines if line.get_marker() == ">"]
    assert [list(x) for x in arrows] == [[edge], [edge]] and edge < 1.0
    display.figure_.canvas.draw()


def test_a_report_gives_the_love_plot_of_its_table(fitted, shift):
    report = diagnose(fitted, *shift, n_permutations=9)
    of_report = BalanceDisplay.from_report(report, ax=Figure().subplots())
    of_rows = BalanceDisplay.from_estimator(fitted, *shift, ax=Figure().subplots())
    for label in ("before weighting", "after weighting"):
        np.testing.assert_array_equal(points(of_report, label), points(of_rows, label))


# ---------------------------------------------------------------- the ratio in slices


def test_a_slice_is_the_ratio_with_the_other_columns_at_their_median(shift):
    X, y = shift
    ratio = Exponential([1.0, -2.0, 0.5])
    display = RatioDisplay.from_estimator(ratio, X, y, columns=1, resolution=7, ax=Figure().subplots())
    medians = np.median(X, axis=0)
    np.testing.assert_allclose(display.ratio, np.exp(medians[0] - 2.0 * display.grid[0] + 0.5 * medians[2]), rtol=1e-12)
    low, high = (edge(np.quantile(X[y == 0, 1], q), np.quantile(X[y == 1, 1], q)) for edge, q in ((min, 0.01), (max, 0.99)))
    np.testing.assert_allclose(display.grid[0], np.linspace(low, high, 7))
    np.testing.assert_array_equal(display.source[0], X[y == 0, 1])
    assert display.names == ("x1",) and display.ax_.get_xlabel() == "x1"


def test_a_map_has_the_first_column_along_the_horizontal_axis(shift):
    ratio = Exponential([1.0, -2.0, 0.5])
    display = RatioDisplay.from_estimator(ratio, *shift, columns=[2, 0], resolution=9, ax=Figure().subplots())
    first, second = display.grid
    fixed = np.exp(-2.0 * np.median(shift[0][:, 1]))
    np.testing.assert_allclose(display.ratio, fixed * np.exp(0.5 * first[:, None] + second[None, :]), rtol=1e-12)
    drawn = display.ax_.collections[0].get_array().reshape(9, 9)
    top = display.ax_.collections[0].norm.vmax
    np.testing.assert_allclose(drawn, np.clip(display.ratio.T, 1 / top, top), rtol=1e-12)
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("x2", "x0")
    np.testing.assert_allclose(display.ax_.get_xlim(), (first[0], first[-1]))


@pytest.mark.parametrize("kind", ["numpy", "pandas", "polars", "torch", "sparse"])
def test_a_slice_is_of_the_tables_own_kind(shift, kind):
    X, y = shift
    ratio, table = LSIF(gamma=0.3), X
    if kind in ("pandas", "polars"):
        library = pytest.importorskip(kind)
        table = library.DataFrame({name: X[:, j] for j, name in enumerate("abc")})
    elif kind == "torch":
        table = pytest.importorskip("torch").asarray(X)
    expected = RatioDisplay.from_estimator(ratio.fit(X, y), X, y, columns=2, resolution=5, ax=Figure().subplots())
    ratio.fit(table, y)
    if kind == "sparse":
        table = scipy.sparse.csr_array(X)
    columns = "c" if kind in ("pandas", "polars") else 2
    found = RatioDisplay.from_estimator(ratio, table, y, columns=columns, resolution=5, ax=Figure().subplots())
    np.testing.assert_allclose(found.ratio, expected.ratio, rtol=1e-6)
    assert found.names == (("c",) if kind in ("pandas", "polars") else ("x2",))
    rows = slice_rows(table, {2: np.array([0.0, 1.0])})
    assert rows.shape == (2, 3) and (kind == "sparse" or type(rows) is type(table))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_words_stand_at_their_commonest_value(kind):
    library = pytest.importorskip(kind)
    town = np.array(["B", "A", "B", "B", "A", "C", "A", "A"])
    frame = library.DataFrame({"town": town, "age": np.arange(8.0), "children": np.arange(8)})
    if kind == "pandas":
        frame["town"] = frame["town"].astype("category")
    rows = slice_rows(frame, {1: np.array([0.5, 1.5, 2.5])})
    assert list(rows["town"]) == ["A", "A", "A"] and list(rows["age"]) == [0.5, 1.5, 2.5] and list(rows["children"]) == [3.5] * 3
    assert rows["town"].dtype == frame["town"].dtype and list(rows.columns) == list(frame.columns)
    y = np.repeat([0, 1], 4)
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["town"]), remainder="passthrough")
    fitted = make_pipeline(encode, KLIEP(gamma=0.1)).fit(frame, y)
    display = RatioDisplay.from_estimator(fitted, frame, y, columns="age", resolution=4, ax=Figure().subplots())
    np.testing.assert_allclose(display.ratio, fitted.transform(slice_rows(frame, {1: display.grid[0]})), rtol=1e-12)
    with pytest.raises(ValueError, match="Column 'town' is not numeric"):
        RatioDisplay.from_estimator(fitted, frame, y, columns="town")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (3, "Column 3 does not exist"),
        ("age", "x0, x1, x2"),
        ((0, 0), "two different ones"),
        ((0, 1, 2), "two different"),
        (-1, "-1"),
    ],
)
def test_columns_that_are_not_there_are_refused(fitted, shift, columns, words):
    with pytest.raises(ValueError, match=words):
        RatioDisplay.from_estimator(fitted, *shift, columns=columns)


def test_constant_columns_and_ratios_of_zero_can_be_drawn():
    X, y = stack_domains(np.c_[np.arange(6.0), np.ones(6)], np.c_[np.arange(4.0), np.ones(4)])

    class Step:
        def transform(self, X):
            return np.where(X[:, 0] > 2.0, 0.0, 1e6)

    display = RatioDisplay.from_estimator(Step(), X, y, columns=(0, 1), resolution=5, ax=Figure().subplots())
    display.figure_.canvas.draw()
    np.testing.assert_allclose(display.grid[1], [0.5, 0.75, 1.0, 1.25, 1.5])
    drawn = display.ax_.collections[0].get_array()
    assert (drawn.min(), drawn.max()) == (0.01, 100.0)


def test_a_ratio_that_is_there_can_be_drawn_with_its_rows():
    first, second = np.linspace(0, 1, 4), np.linspace(0, 2, 3)
    heights = 1.0 + first[:, None] * second[None, :]
    rows = np.array([[0.5, 1.0], [9.0, 1.0]])
    display = RatioDisplay.from_predictions((first, second), heights, names=["a", "b"], source=rows, ax=Figure().subplots())
    np.testing.assert_allclose(points(display, "source rows"), [[0.5], [1.0]])
    line = RatioDisplay.from_predictions(first, heights[:, 1], target=[0.2, 0.4], ax=Figure().subplots())
    np.testing.assert_array_equal(np.sort(points(line, "target rows")[0]), [0.2, 0.4])
    with pytest.raises(ValueError, match="grids of 3 and 4 points"):
        RatioDisplay.from_predictions((second, first), heights)


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("n_bins", [1, 4, 10])
def test_the_curve_is_scikit_learns_of_bayes_rule(n_bins):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [700, 300])
    ratio = rng.lognormal(size=1000)
    display = DiscriminatorCalibrationDisplay.from_predictions(y, ratio, n_bins=n_bins, ax=Figure().subplots())
    probability = ratio * 0.3 / (ratio * 0.3 + 0.7)
    prob_true, prob_pred = calibration_curve(y, probability, n_bins=n_bins, strategy="quantile")
    np.testing.assert_allclose(display.prob_true, prob_true, rtol=1e-12)
    np.testing.assert_allclose(display.prob_pred, prob_pred, rtol=1e-12)
    np.testing.assert_allclose(display.y_prob, probability, rtol=1e-12)
    np.testing.assert_array_equal(display.line_.get_data(), [display.prob_pred, display.prob_true])
    assert display.n_rows.sum() == 1000 and np.ptp(display.n_rows) <= 1


def test_the_true_ratio_is_calibrated_and_its_square_is_too_extreme():
    rng = np.random.default_rng(0)
    X, y = stack_domains(rng.standard_normal((6000, 1)), rng.standard_normal((3000, 1)) + 1.0)
    true = np.exp(X[:, 0] - 0.5)
    display = DiscriminatorCalibrationDisplay.from_predictions(y, true, ax=Figure().subplots())
    noise = np.sqrt(display.prob_pred * (1 - display.prob_pred) / display.n_rows)
    assert np.all(np.abs(display.prob_true - display.prob_pred) < 4 * noise)
    extreme = DiscriminatorCalibrationDisplay.from_predictions(y, true**3, ax=Figure().subplots())
    assert extreme.prob_true[0] > extreme.prob_pred[0] + 4 * noise[0] and extreme.prob_true[-1] < extreme.prob_pred[-1]


def test_equal_ratios_share_a_bin_and_zero_is_a_ratio():
    y = np.array([0, 0, 0, 1, 1, 1])
    display = DiscriminatorCalibrationDisplay.from_predictions(y, [0, 0, 0, 0, 4.0, 4.0], ax=Figure().subplots())
    np.testing.assert_allclose(display.prob_pred, [0.0, 0.8])
    np.testing.assert_allclose(display.prob_true, [0.25, 1.0])
    np.testing.assert_array_equal(display.n_rows, [4, 2])


def test_two_curves_in_the_same_axes_have_two_colors_and_one_diagonal(fitted, shift):
    ax = Figure().subplots()
    curves = [DiscriminatorCalibrationDisplay.from_estimator(fitted, *shift, name=name, ax=ax) for name in ("one", "two")]
    assert curves[0].line_.get_color() != curves[1].line_.get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["calibrated", "one", "two"]


@pytest.mark.parametrize(
    ("y", "ratio", "n_bins", "words"),
    [
        ([0, 1], [1.0, -1.0], 10, "finite numbers >= 0"),
        ([0, 1], [1.0, np.inf], 10, "finite numbers >= 0"),
        ([0, 1], [[1.0, 1.0]], 10, "got shape"),
        ([0, 0], [1.0, 1.0], 10, "One domain is empty"),
        ([0, 1], [1.0, 1.0, 1.0], 10, "2 labels"),
        ([0, 1], [1.0, 1.0], 0, "n_bins must be an int >= 1"),
    ],
)
def test_ratios_that_have_no_curve_are_refused(y, ratio, n_bins, words):
    with pytest.raises(ValueError, match=words):
        DiscriminatorCalibrationDisplay.from_predictions(np.array(y), ratio, n_bins=n_bins)


# ---------------------------------------------------------------- histograms of a label-noise experiment


def test_each_method_has_a_panel_whose_bars_count_its_rows():
    rng = np.random.default_rng(0)
    weights = {name: rng.exponential(size=200) for name in "abcde"}
    is_flipped = {name: rng.uniform(size=200) < 0.4 for name in weights}
    figure = weight_histograms(weights, is_flipped, title="All")
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == list(weights) and plt.get_fignums() == []
    for axis, name in zip(panels, weights, strict=True):
        bars = [sum(bar.get_height() for bar in container) for container in axis.containers]
        assert bars == [np.sum(~is_flipped[name]), -np.sum(is_flipped[name])]
        assert "-" not in axis.yaxis.get_major_formatter()(-100.0, 0)
    figure.canvas.draw()


# ---------------------------------------------------------------- performance by chunks


def estimates():
    known = {"standard_error": 0.1, "effective_rows": 40.0, "source_estimate": 0.9, "metric": "accuracy", "method": "iw"}
    known |= {"confidence": 0.95, "n_rows": 100}
    return [
        TargetPerformance(estimate=0.8, interval=(0.7, 0.9), warning=None, chunk="May", **known),
        TargetPerformance(estimate=0.6, interval=(0.0, 1.0), warning="Can't say: no overlap", chunk="June", **known),
    ]


def test_chunks_are_drawn_with_their_intervals_and_hollow_where_nothing_can_be_said():
    ax = Figure().subplots()
    display = PerformanceDisplay.from_estimates(estimates(), ax=ax)
    interval, may, june, source = ax.lines
    assert display.ax_ is ax and [label.get_text() for label in ax.get_xticklabels()] == ["May", "June"]
    assert list(interval.get_ydata()) == [0.7, 0.9]
    assert list(may.get_ydata()) == [0.8] and list(june.get_ydata()) == [0.6]
    assert may.get_markerfacecolor() != "none" and june.get_markerfacecolor() == "none"
    assert list(source.get_ydata()) == [0.9, 0.9] and ax.get_ylabel() == "accuracy"


def test_no_estimates_are_refused():
    with pytest.raises(ValueError, match="There are no estimates to draw"):
        PerformanceDisplay.from_estimates([])


def test_differences_are_drawn_by_column_and_by_row():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(60, 3)), rng.normal([2.0, 0.0, 0.0], size=(50, 3))
    display = DifferencesDisplay.from_samples(source, target, max_columns=2, axes=Figure().subplots(1, 2))
    columns, rows = display.axes_
    first, second = columns.patches
    assert columns.get_yticklabels()[0].get_text() == display.differences.columns[0].name == "x0"
    assert first.get_width() == display.differences.columns[0].distance and first.get_y() > second.get_y()
    assert first.get_facecolor()[3] == 1.0 and second.get_facecolor()[3] == 0.0
    source_bars, target_bars = rows.containers
    assert [sum(bar.get_height() for bar in bars) for bars in (source_bars, target_bars)] == pytest.approx([1.0, 1.0])
    assert DifferencesDisplay.from_differences(display.differences).figure_ is not display.figure_
    with pytest.raises(ValueError, match="max_columns must be an int >= 1"):
        display.plot(max_columns=0)
