"""Divergences with intervals, and the test by a ratio's score: against formulas by hand and binomial bounds."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from diagnostics_cases import gaussian_shift
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, entropy, norm
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import densratio
from densratio import KMM, LSIF, Discriminator, divergence, importance_weights
from densratio._scale import Scale
from densratio.diagnostics import ratio_test, two_sample_test
from densratio.diagnostics.two_sample import permutation_p_value
from densratio.model_selection import stratified_folds

LOGISTIC = Discriminator(LogisticRegression(), calibration=None)

# ---------------------------------------------------------------- divergence


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.lists(st.integers(1, 30), min_size=5, max_size=5))
def test_of_the_true_quotient_of_frequencies_it_is_the_divergence_of_the_two_tables(source_count, target_count):
    source_count, target_count = np.array(source_count), np.array(target_count[: len(source_count)])
    p, q = source_count / source_count.sum(), target_count / target_count.sum()
    places = np.arange(len(p))
    source, target = (np.repeat(places, count)[:, None].astype(float) for count in (source_count, target_count))
    found = divergence(source, target, lambda x: (q / p)[np.asarray(x)[:, 0].astype(int)])
    middle = (p + q) / 2
    expected = {
        "kl": entropy(q, p),
        "pearson": np.sum((q - p) ** 2 / p) / 2,
        "js": (entropy(p, middle) + entropy(q, middle)) / 2,
    }
    for kind, value in expected.items():
        np.testing.assert_allclose(found[kind].estimate, value, rtol=1e-9, atol=1e-12)
        assert found[kind].interval[0] <= found[kind].estimate <= found[kind].interval[1]


def test_the_interval_is_that_of_two_means():
    source, target, ratio = gaussian_shift(0, 300, 200, delta=1.0)
    found = divergence(source, target, ratio, kind="kl", confidence=0.9)
    log, rest = np.log(ratio(target)), 1.0 - ratio(source)
    error = np.sqrt(log.var() / 200 + rest.var() / 300)
    half = norm.ppf(0.95) * error
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-12)
    np.testing.assert_allclose(found.interval, (log.mean() + rest.mean() - half, log.mean() + rest.mean() + half), rtol=1e-12)


def test_the_ratio_is_fitted_on_rows_other_than_those_where_it_is_read():
    # Rows of pure noise: a ratio that had seen them would find a divergence.
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((60, 20)), rng.standard_normal((60, 20))
    X, y = densratio.stack_domains(source, target)
    fitted = Discriminator(LogisticRegression(C=1e4), calibration=None).fit(X, y)
    seen = divergence(source, target, lambda x: fitted.transform(x), kind="kl")
    fresh = divergence(source, target, fitted, kind="kl")
    assert seen.estimate > 0.1 and fresh.estimate == 0.0


def test_parameters_that_a_search_chose_are_kept():
    source, target, _ = gaussian_shift(1, 60, 60)
    ratio = LSIF(gamma=[0.1, 1.0], random_state=0).fit(*densratio.stack_domains(source, target))
    given_gamma = LSIF(gamma=ratio.best_params_["gamma"], random_state=0)
    assert divergence(source, target, ratio, kind="pearson") == divergence(source, target, given_gamma, kind="pearson")


def test_a_frame_with_text_is_taken_as_it_is():
    rng = np.random.default_rng(0)
    source, target = (
        pandas.DataFrame({"job": rng.choice(["a", "b"], 80, p=[1 - p, p]), "age": rng.standard_normal(80)}) for p in (0.2, 0.8)
    )
    assert divergence(source, target, kind="js").interval[0] > 0.0
    assert ratio_test(source, target, n_permutations=99).p_value == 0.01


def test_samples_that_do_not_overlap_are_called_so():
    days = np.arange(60.0)[:, None]
    with pytest.warns(UserWarning, match="hardly overlap"):
        divergence(days, days + 100.0, LOGISTIC)


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        (9, {"kind": "hellinger"}, "kind must be one of"),
        (9, {"confidence": 1.0}, "confidence must be"),
        (9, {"ratio": KMM}, "ratio must be a density ratio"),
        (9, {"ratio": "kmm"}, "ratio must be a density ratio"),
        (9, {"ratio": "kl"}, r"got 'kl'\. The divergence is chosen by its name: kind='kl'\."),
        (9, {"ratio": lambda x: np.zeros(len(x))}, "The ratio is 0 at 9 of 9 target rows"),
        (1, {"ratio": LOGISTIC}, "at least two rows of each domain"),
    ],
)
def test_what_means_nothing_is_refused(rows, changes, words):
    source, target, _ = gaussian_shift(0, 9, rows)
    with pytest.raises(ValueError, match=words):
        divergence(source, target, **changes)


def test_ten_rows_and_frames_with_other_columns():
    source, target, _ = gaussian_shift(0, 5, 5)
    assert 0.0 <= divergence(source, target, LOGISTIC, kind="js").estimate <= np.log(2.0)
    one, other = pandas.DataFrame({"a": [1.0, 2.0]}), pandas.DataFrame({"b": [1.0, 2.0]})
    for function in (divergence, ratio_test):
        with pytest.raises(ValueError, match="differ in their columns"):
            function(one, other)
        with pytest.raises(ValueError, match="infinity in column 'a'"):
            function(one * np.inf, one)


def test_dates_gaps_and_columns_without_a_value_are_taken_as_importance_weights_takes_them():
    rng = np.random.default_rng(0)

    def frame(n, days, gaps):
        when = pandas.Timestamp("2024-01-01") + pandas.to_timedelta(rng.integers(0, days, n), "D")
        number = np.where(rng.random(n) < gaps, np.nan, rng.normal(size=n))
        return pandas.DataFrame({"when": when, "gappy": number, "empty": np.nan, "none": None})

    source, target = frame(80, 100, 0.1), frame(70, 300, 0.5)
    assert np.isfinite(importance_weights(source, target).weights).all()
    assert divergence(source, target, kind="js").interval[0] > 0.0
    days = [part.assign(when=(part["when"] - pandas.Timestamp("1970-01-01")).dt.days, none="x") for part in (source, target)]
    zoned = [part.assign(when=part["when"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")) for part in (source, target)]
    plain = [part.assign(when=part["when"].dt.date) for part in (source, target)]
    for measure in (ratio_test, two_sample_test):
        assert measure(source, target).p_value < 0.05
        assert len({measure(*samples) for samples in ((source, target), days, zoned, plain)}) == 1


# ---------------------------------------------------------------- the test


def test_the_statistic_is_the_best_score_of_a_ratio_of_the_kernels():
    source, target, _ = gaussian_shift(0, 20, 12)
    found = ratio_test(source, target, gamma=0.4, n_centers=32, regularization=0.05, n_permutations=1)
    pooled = np.concatenate([source, target])
    pooled = pooled / Scale.of((pooled, None)).spread
    # With a center at every row the order in which they are drawn does not matter.
    phi = np.exp(-0.4 * ((pooled[:, None] - pooled[None]) ** 2).sum(axis=2))
    psi = phi - phi.mean(axis=0)
    h, C = psi[20:].mean(axis=0), psi.T @ psi / 32 + 0.05 * np.eye(32)
    best = np.linalg.solve(C, h)
    np.testing.assert_allclose(found.statistic, h @ best - best @ C @ best / 2, rtol=1e-9)


@pytest.mark.parametrize(("n_source", "n_target"), [(30, 30), (60, 7)])
def test_equal_samples_have_p_values_that_are_uniform(n_source, n_target):
    n_runs = 300
    pairs = [gaussian_shift(seed, n_source, n_target, delta=0.0)[:2] for seed in range(n_runs)]
    p = np.array([ratio_test(*pair, n_permutations=99, n_centers=20, random_state=seed).p_value for seed, pair in enumerate(pairs)])
    for level in (0.05, 0.2, 0.5, 0.8):
        low, high = binom.interval(0.999, n_runs, level)
        assert low <= np.sum(p <= level) <= high


def test_a_shift_is_found_and_the_unit_of_a_column_does_not_matter():
    source, target, _ = gaussian_shift(0, 300, 300, delta=0.5)
    found = ratio_test(source, target)
    assert found.p_value == 0.001
    scaled = ratio_test(source * [1e3, 1e-3] + 7.0, target * [1e3, 1e-3] + 7.0)
    np.testing.assert_allclose(scaled.statistic, found.statistic, rtol=1e-6)


def test_one_row_against_many_has_as_few_p_values_as_rows():
    source, target, _ = gaussian_shift(0, 19, 1, delta=50.0)
    p = ratio_test(source, target, n_permutations=1999).p_value
    assert abs(p - 1 / 20) < 4 * np.sqrt(0.05 * 0.95 / 1999)
    assert permutation_p_value(1.0, np.zeros(3)) == 0.25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_permutations": 0}, "n_permutations must be an int >= 1"),
        ({"n_centers": 0}, "n_centers must be >= 1"),
        ({"regularization": 0.0}, "regularization > 0"),
        ({"gamma": -1.0}, "gamma must be"),
    ],
)
def test_settings_out_of_range_are_refused(changes, words):
    source, target, _ = gaussian_shift(0, 9, 9)
    with pytest.raises(ValueError, match=words):
        ratio_test(source, target, **changes)


def test_the_upper_end_counts_half_of_what_the_ratio_gains_at_the_rows_of_its_fit():
    source, target, _ = gaussian_shift(1, 60, 50, delta=1.0)
    found = divergence(source, target, LOGISTIC, kind="js", random_state=3)
    inside = []
    for fold in stratified_folds(60, 50, 5, seed=3):
        kept = fold.rest(60, 50)
        X, y = densratio.stack_domains(source[kept[0]], target[kept[1]])
        ratio = clone(LOGISTIC).fit(X, y)
        at_source, at_target = ratio.transform(source[kept[0]]), ratio.transform(target[kept[1]])
        bound = np.mean(np.log(2.0 * at_target / (1.0 + at_target))) + np.mean(np.log(2.0 / (1.0 + at_source)))
        inside.append(0.5 * bound)
    gain = 0.5 * (np.mean(inside) - found.estimate)
    half = norm.ppf(0.975) * found.standard_error
    assert found.estimate > 0.0 and gain > 0.0
    assert found.interval == pytest.approx((max(found.estimate - half, 0.0), found.estimate + half + gain), rel=1e-6)


def test_arrow_tables_are_the_frames_that_they_hold():
    pyarrow = pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    frames = [pandas.DataFrame({"age": rng.normal(shift, 1.0, 60), "job": rng.choice(list("abc"), 60)}) for shift in (0.0, 0.5)]
    arrow = [pyarrow.Table.from_pandas(frame) for frame in frames]
    assert divergence(*arrow, kind="js") == divergence(*frames, kind="js") == divergence(arrow[0], frames[1], kind="js")
    for test in (ratio_test, two_sample_test):
        found, expected = (test(*pair, n_permutations=19, random_state=0) for pair in (arrow, frames))
        assert found.p_value == expected.p_value


@settings(max_examples=10, deadline=None)
@given(far=st.sampled_from([1e3, -1e5, 1e9]), share=st.sampled_from([0.0, 0.05, 0.15]), seed=st.integers(0, 1000))
def test_far_values_and_sentinels_hide_no_difference(far, share, seed):
    draw = np.random.default_rng(seed)
    source, target = draw.normal(size=(300, 2)), draw.normal([1.2, 0.0], 1.0, (300, 2))
    for sample in (source, target):
        sample[draw.random(sample.shape) < share] = far
    source[0, 0] = far
    assert ratio_test(source, target, n_permutations=199).p_value == 1 / 200
    report = densratio.diagnose(np.ones(300), *densratio.stack_domains(source, target), n_permutations=199)
    assert report.p_value == 1 / 200
