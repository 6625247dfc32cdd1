"""Which columns and rows differ, and chunks of a stream: distances by hand, and p values with the level that they state."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from densratio import GaussianRatio, StreamMonitor, differences, importance_weights
from densratio.tables import TableEncoder

QUICK = {"method": GaussianRatio(), "n_permutations": 9}


def draw(n, rng, age=0.0, share=0.3, gaps=0.2):
    """Rows of a number with gaps, a correlated number, a category and a date."""
    number = rng.normal(age, 1.0, n)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(n) < gaps, np.nan, number),
            "size": number + rng.normal(0.0, 0.3, n),
            "kind": rng.choice(["a", "b", "c"], n, p=[share, 0.9 - share, 0.1]),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 50, n), "D"),
        }
    )


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    return draw(200, rng), draw(150, rng, age=1.0, share=0.7, gaps=0.5)


@pytest.fixture(scope="module")
def found(pair):
    return differences(*pair, n_permutations=199)


def by_name(found):
    return {column.name: column for column in found.columns}


def test_what_is_left_out_is_listed_with_the_reason(pair):
    days = pd.date_range("2024-01-01", periods=350).strftime("%Y-%m-%d").to_numpy()
    source, target = (
        frame.assign(text=some, same=5, none=np.nan) for frame, some in zip(pair, (days[:200], days[200:]), strict=True)
    )
    with pytest.warns(UserWarning, match="Column 'text' holds text, .* reads as dates"):
        found = differences(source, target, drop="size", **QUICK)
    reasons = {
        "text": "350 different texts, of which none is frequent: they read as dates",
        "same": "the same value in all rows, 5",
        "none": "no value in any row",
        "size": "as asked",
    }
    assert {use.name: use.reason for use in found.dropped} == reasons
    assert all(f"\n  {name}: dropped: {reason}\n" in repr(found) for name, reason in reasons.items())
    assert {column.name for column in found.columns} == {"age", "kind", "day"}


def test_a_chunk_says_what_its_test_leaves_out(pair):
    monitor = StreamMonitor(pair[0].assign(same=5), drop="size", n_permutations=99)
    done = monitor.update(pair[1].assign(same=5))
    assert done.dropped == ("same: dropped: the same value in all rows, 5",)
    assert monitor.to_frame()["dropped"].tolist() == [done.dropped]


# ---------------------------------------------------------------- each column


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**31), st.integers(2, 8))
def test_the_distance_of_numbers_is_that_of_kolmogorov_and_smirnov_and_that_of_levels_the_total_variation(n, m, seed, n_values):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, n_values, n), rng.integers(1, n_values + 1, m)
    assume(len({*one, *other}) > 1)
    shares = [np.bincount(some, minlength=n_values + 1) / len(some) for some in (one, other)]
    tables = [pd.DataFrame({"x": some.astype(float), "k": np.char.add("k", some.astype(str))}) for some in (one, other)]
    # Each row twice, for a level in one row alone is no column.
    column = by_name(differences(*(pd.concat([table] * 2) for table in tables), **QUICK))
    assert column["x"].distance == pytest.approx(scipy.stats.ks_2samp(one, other).statistic)
    assert column["k"].distance == pytest.approx(0.5 * np.abs(shares[0] - shares[1]).sum())


def test_a_gap_is_a_value_of_its_own():
    source, target = pd.DataFrame({"x": [1.0, 2.0] * 20}), pd.DataFrame({"x": [1.0, 2.0, np.nan, np.nan] * 10})
    assert differences(source, target, **QUICK).columns[0].distance == pytest.approx(0.5)
    texts = [frame.assign(x=frame["x"].map({1.0: "a", 2.0: "b"})) for frame in (source, target)]
    assert differences(*texts, **QUICK).columns[0].distance == pytest.approx(0.5)


def test_what_differs_comes_first_with_words_and_what_does_not_has_no_small_p_value(found):
    column = by_name(found)
    assert [c.name for c in found.columns][-1] == "day" and column["day"].p_value > 0.05
    assert all(column[name].p_value <= 0.01 for name in ("age", "size", "kind"))
    assert column["kind"].words.startswith("'b' 5") and "missing" in column["age"].words
    assert column["day"].words.startswith("mean 2024-01-")
    assert "kind" in repr(found) and "target rows most unlike the source" in repr(found)
    assert found.to_frame()["name"].tolist() == [c.name for c in found.columns]


def test_a_column_that_says_what_another_says_loses_less_than_one_that_is_alone():
    rng = np.random.default_rng(1)
    source, target = (pd.DataFrame({"a": (a := rng.normal(m, 1, 300)), "same": a, "b": rng.normal(m, 1, 300)}) for m in (0.0, 1.0))
    lost = {name: column.lost for name, column in by_name(differences(source, target, n_permutations=1)).items()}
    assert lost["b"] > 0.05 and max(lost["a"], lost["same"]) < 0.8 * lost["b"]


def test_where_nothing_differs_the_smallest_p_value_of_all_columns_keeps_its_level():
    n_runs, level, alarms, n_columns = 100, 0.2, 0, 3
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(45, n_columns)).round(1) + rng.normal(size=(45, 1)).round(1)
        rows = pd.DataFrame(rows, columns=list("abc"))
        found = differences(rows[:30], rows[30:], method=GaussianRatio(), n_permutations=49, random_state=seed)
        alarms += found.columns[0].p_value <= level
    low, high = binom.interval(0.999, n_runs, level)
    assert low <= alarms <= high


# ---------------------------------------------------------------- each row


def test_the_ratios_are_out_of_fold_and_the_area_is_theirs(pair, found):
    labels = np.repeat([0, 1], [len(rows) for rows in pair])
    ratios = np.concatenate([found.source_ratio, found.target_ratio])
    assert found.auc == pytest.approx(roc_auc_score(labels, ratios)) and found.auc > 0.7
    seen = importance_weights(*pair).ratio
    assert found.auc < roc_auc_score(labels, np.concatenate([seen.transform(rows) for rows in pair]))


def test_rows_that_the_source_hardly_has_lead():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(200, 2)), rng.normal(size=(100, 2))
    target[:10] += 4.0
    found = differences(source, target, n_permutations=1)
    assert set(np.argsort(-found.target_ratio)[:10]) == set(range(10))


def test_other_libraries_give_the_same(pair, found):
    again = differences(*map(polars.from_pandas, pair), n_permutations=199)
    assert again.columns == found.columns and np.array_equal(again.target_ratio, found.target_ratio)
    assert differences(*pair, n_permutations=199).columns == found.columns


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_permutations": 0}, "n_permutations must be an int >= 1"),
        ({"method": "kmn"}, "Did you mean 'kmm'"),
        ({"drop": "agee"}, "Did you mean 'age'"),
        ({"drop": ["age", "size", "kind", "day"]}, "No column is left"),
    ],
)
def test_wrong_settings_are_named(pair, changes, words):
    with pytest.raises(ValueError, match=words):
        differences(*pair, **changes)


# ---------------------------------------------------------------- a stream


@pytest.mark.parametrize("n_rows", [5, 40])
def test_chunks_without_a_change_give_as_many_alarms_as_stated(n_rows):
    n_runs, level, alarms = 80, 0.2, 0
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        monitor = StreamMonitor(draw(60, rng), level=level, n_permutations=49, random_state=seed)
        alarms += monitor.update(draw(n_rows, rng)).p_value <= level
    low, high = binom.interval(0.999, n_runs, level)
    assert low <= alarms <= high


def test_a_chunk_that_changed_is_found_and_its_columns_are_named(pair):
    rng = np.random.default_rng(5)
    monitor = StreamMonitor(pair[0], drop="size", level=0.01)
    quiet, loud = monitor.update(draw(80, rng)), monitor.update(pair[1].head(80), "May")
    assert not quiet.is_alarm and quiet.columns == () and quiet.label == 0 and quiet.n_rows == 80
    assert loud.is_alarm and loud.p_value == 0.001 and set(loud.columns) == {"age", "kind"}
    assert monitor.history == [quiet, loud]
    assert monitor.to_frame()["label"].tolist() == [0, "May"]


def test_a_chunk_with_an_alarm_tells_of_its_columns_once(pair):
    chunk = pair[1].head(80)
    chunk = chunk.assign(kind=chunk["kind"].astype(str).str.upper())
    with pytest.warns(UserWarning, match="differ only in case") as told:
        assert StreamMonitor(pair[0], drop="size").update(chunk).is_alarm
    assert len(told) == 1


def test_two_rows_of_each_table_are_needed(pair):
    with pytest.raises(ValueError, match=f"source has {len(pair[0])} rows and target 1: differences takes at least two"):
        differences(pair[0], pair[1].head(1))


def test_equal_chunks_have_relabelings_of_their_own_and_a_seed_gives_the_same_ones(pair):
    results = []
    for _ in range(2):
        monitor = StreamMonitor(pair[0], n_permutations=199)
        results.append([monitor.update(pair[0].head(30)).p_value for _ in range(3)])
    assert results[0] == results[1] and len(set(results[0])) > 1


def test_an_encoder_of_pooled_samples_does_not_know_which_row_is_whose(pair):
    rows = pd.concat(pair)
    shuffled = rows.sample(frac=1.0, random_state=0)
    encoders = [TableEncoder().fit_samples(some[:200], some[200:], pooled=True) for some in (rows, shuffled)]
    assert encoders[0].columns_ == encoders[1].columns_


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"level": 0.001, "n_permutations": 99}, "level must be from 1 / \\(n_permutations \\+ 1\\), here 0.01"),
        ({"level": 1.0}, "got 1.0"),
        ({"level": "1%"}, "got '1%'"),
        ({"n_permutations": 0}, "n_permutations must be an int"),
        ({"max_rows": "a"}, "max_rows must be an int >= 2"),
    ],
)
def test_a_level_that_can_not_be_kept_is_refused(pair, settings, words):
    with pytest.raises(ValueError, match=words):
        StreamMonitor(pair[0], **settings)


def test_a_chunk_with_other_columns_is_refused_and_not_counted(pair):
    monitor = StreamMonitor(pair[0])
    with pytest.raises(ValueError, match=r"only the source has.* Here the source is the monitor's reference, and the target the"):
        monitor.update(pair[1][["age"]])
    assert monitor.history == []
