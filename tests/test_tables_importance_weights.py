"""importance_weights: the same weights from tables of any library, a known ratio recovered, and what belongs to the weights."""

from __future__ import annotations

import datetime
import pickle
import re

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from densratio import KLIEP, KMM, LSIF, ImportanceWeighted, StackedRatio, importance_weights, stack_domains
from densratio.estimators import ESTIMATORS
from densratio.tables import TableEncoder
from densratio.tables.automatic import automatic

SHARES = {"a": 0.3, "b": 0.6, "c": 1.0, "d": 0.2}


def draw(n, rng):
    """Rows of all kinds, independent of each other: what a person has."""
    return pd.DataFrame(
        {
            "age": rng.normal(40.0, 10.0, n),
            "income": rng.normal(0.0, 1e4, n),
            "gaps": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
            "kind": rng.choice(list("abcd"), n, p=[0.4, 0.3, 0.2, 0.1]),
            "is_new": rng.random(n) < 0.3,
            "when": pd.Timestamp("2020-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 300, n), "D"),
            "place": [f"place {k}" for k in rng.zipf(1.6, n).clip(max=300)],
        }
    )


def chance(frame):
    """The chance with which a row is taken into the target: the true ratio, up to a constant."""
    of_kind = frame["kind"].map(SHARES).to_numpy(dtype=float)
    return of_kind * np.where(frame["gaps"].isna(), 1.0, 0.4) / (1.0 + np.exp(-0.15 * (frame["age"].to_numpy() - 40.0)))


def drawn_pair(n, seed):
    rng = np.random.default_rng(seed)
    pool = draw(14 * n, rng)
    target = pool[rng.random(len(pool)) < chance(pool)][:n]
    return draw(n, rng).set_index(np.arange(n) * 3 + 7), target


@pytest.fixture(scope="module")
def pair():
    return drawn_pair(300, 0)


@pytest.fixture(scope="module")
def weighed(pair):
    # The quickest method, where any would do.
    return importance_weights(*pair, method="kmm")


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


# ---------------------------------------------------------------- right weights


@pytest.mark.parametrize("seed", [0, 1])
def test_a_ratio_of_categories_gaps_and_numbers_at_once_is_recovered_better_than_by_a_classifier(seed):
    n = 1000
    source, target = drawn_pair(n, seed)
    result = importance_weights(source, target)
    truth = chance(source)
    assert correlation(result.weights, truth) > 0.95
    assert np.array_equal(result.ratio.transform(source), result.weights)
    X, y = (result.ratio[0].transform(pd.concat([source, target])), np.repeat([0, 1], n))
    odds = make_pipeline(LogisticRegression(max_iter=1000)).fit(X / X.std(axis=0), y).predict_proba(X / X.std(axis=0))[:n]
    assert correlation(odds[:, 1] / odds[:, 0], truth) < correlation(result.weights, truth)


def test_of_short_tables_it_is_kernel_mean_matching_and_of_longer_ones_a_stack_with_it(pair):
    short = [frame[:99] for frame in pair]
    assert np.array_equal(importance_weights(*short).weights, importance_weights(*short, method="kmm").weights)
    assert isinstance(automatic(*[csr_array((200, 1))] * 2, seed=0), KMM)
    for sizes, folds in (((100, 100), 5), ((9000, 1001), 2)):
        stack = automatic(*(np.arange(1.0 * n)[:, None] for n in sizes), seed=0)
        assert isinstance(stack, StackedRatio) and isinstance(stack.estimators["kernel"], KMM) and stack.cv == folds


@pytest.mark.parametrize("n", [60, 6000])
@pytest.mark.parametrize("values", [["f", "m", "x"], [1.0, 2.0, 3.0]])
def test_few_values_get_the_quotient_of_their_frequencies_however_many_rows_have_them(n, values):
    source, target = (pd.DataFrame({"a": np.repeat(values, [n * c for c in counts])}) for counts in ((1, 1, 1), (1, 0, 2)))
    weights = importance_weights(source, target).weights.to_numpy()
    np.testing.assert_allclose(weights[[0, n, 2 * n]], [1.0, 0.0, 2.0], atol=0.05)


def test_a_shift_of_one_measurement_beside_categories_is_nearly_as_well_known_as_by_logistic_regression():
    errors = []
    for seed in range(2):
        draw, n = np.random.default_rng(seed), 2000
        source, target = (pd.DataFrame(draw.normal(size=(n, 6)), columns=list("abcdef")) for _ in range(2))
        target["a"] += 1.0
        for frame in (source, target):
            frame["kind"] = draw.choice(list("wxyz"), n)
        truth = np.exp(source["a"]).to_numpy()
        numbers = [frame.drop(columns="kind").to_numpy() for frame in (source, target)]
        odds = np.exp(LogisticRegression().fit(np.concatenate(numbers), np.repeat([0, 1], n)).decision_function(numbers[0]))
        weights = importance_weights(source, target).weights.to_numpy()
        errors.append([np.mean((w / w.mean() - truth / truth.mean()) ** 2) for w in (weights, odds)])
    ours, logistic = np.mean(errors, axis=0)
    assert ours < 3.0 * logistic


def test_a_column_of_categories_gets_the_quotient_of_the_frequencies():
    counts = {"a": (50, 10), "b": (30, 30), None: (20, 60)}
    source, target = (pd.DataFrame({"k": [k for k, c in counts.items() for _ in range(c[i])]}) for i in (0, 1))
    result = importance_weights(source, target, method=KMM(regularization=0.0))
    expected = [counts[None if pd.isna(k) else k][1] / counts[None if pd.isna(k) else k][0] for k in source["k"]]
    assert result.weights.to_numpy() == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 2**31), st.integers(10, 60))
def test_a_sample_against_itself_has_weights_near_one(seed, n):
    frame = draw(n, np.random.default_rng(seed))
    assert importance_weights(frame, frame).weights.to_numpy() == pytest.approx(1.0, abs=1e-3)


def test_ten_rows_are_enough():
    source, target = drawn_pair(10, 0)
    weights = importance_weights(source, target).weights
    assert len(weights) == 10 and weights.mean() == pytest.approx(1.0) and (weights >= 0.0).all()


@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.integers(-5000, 5000), st.permutations(range(4)))
def test_units_origins_and_the_names_of_levels_do_not_matter(factor, offset, days, order):
    def renamed(frame):
        levels = dict(zip("abcd", np.array(list("abcd"))[list(order)], strict=True))
        moved = {"age": frame["age"] * factor + offset, "when": frame["when"] + pd.Timedelta(days=days)}
        return frame.assign(kind=frame["kind"].map(levels), **moved)

    source, target = drawn_pair(40, 3)
    weights = importance_weights(source, target).weights
    again = importance_weights(renamed(source), renamed(target)).weights
    assert again.to_numpy() == pytest.approx(weights.to_numpy(), abs=1e-6)


# ---------------------------------------------------------------- any library


AS = {
    "polars": (polars.from_pandas, polars.Series, lambda w: w.to_numpy()),
    "pyarrow": (lambda f: pyarrow.Table.from_pandas(f, preserve_index=False), pyarrow.Array, lambda w: w.to_numpy()),
    "arrays of objects": (lambda f: f.to_numpy(dtype=object), np.ndarray, lambda w: w),
    "pandas, nullable": (lambda f: f.convert_dtypes(), pd.Series, lambda w: w.to_numpy()),
    "pandas, categories": (lambda f: f.astype({"kind": "category", "place": "category"}), pd.Series, lambda w: w.to_numpy()),
    "batch of Arrow": (
        lambda f: pyarrow.RecordBatch.from_pandas(f, preserve_index=False),
        pyarrow.Array,
        lambda w: w.to_numpy(),
    ),
    "polars, categories": (
        lambda f: polars.from_pandas(f).with_columns(polars.col("kind", "place").cast(polars.Categorical)),
        polars.Series,
        lambda w: w.to_numpy(),
    ),
    "arrow's dictionaries": (
        lambda f: pyarrow.Table.from_pandas(f.astype({"kind": "category", "place": "category"}), preserve_index=False),
        pyarrow.Array,
        lambda w: w.to_numpy(),
    ),
}


@pytest.mark.parametrize("library", AS)
def test_tables_of_every_library_give_the_same_weights_as_a_column_of_their_own(library, pair, weighed):
    convert, kind, back = AS[library]
    result = importance_weights(*map(convert, pair), method="kmm")
    assert isinstance(result.weights, kind)
    assert np.array_equal(back(result.weights), weighed.weights.to_numpy())
    assert np.array_equal(result.ratio.transform(convert(pair[1])), weighed.ratio.transform(pair[1]))


def test_samples_of_two_libraries_go_together(pair, weighed):
    result = importance_weights(pair[0], polars.from_pandas(pair[1]), method="kmm")
    assert result.weights.equals(weighed.weights)


def test_the_weights_of_a_pandas_frame_have_its_index_in_its_order(pair, weighed):
    source, target = pair
    assert weighed.weights.index.equals(source.index)
    shuffled = source.sample(frac=1.0, random_state=0)
    again = importance_weights(shuffled, target[target.columns[::-1]], method="kmm").weights
    assert again[source.index].to_numpy() == pytest.approx(weighed.weights.to_numpy(), abs=1e-6)


def test_an_array_of_numbers_gives_an_array():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(60, 2)), rng.normal(0.5, 1.0, (50, 2))
    weights = importance_weights(source, target).weights
    assert isinstance(weights, np.ndarray) and weights.shape == (60,)
    texts = importance_weights(source.astype(str), target.astype(str)).weights
    assert np.array_equal(texts, weights)


@given(st.integers(0, 2**31))
def test_dates_are_the_same_in_whatever_way_they_are_stored(seed):
    rng = np.random.default_rng(seed)
    days = [datetime.datetime(2020, 1, 1) + datetime.timedelta(days=int(k)) for k in rng.integers(0, 99, 40)]
    stored = [
        pd.DataFrame({"d": days}),
        pd.DataFrame({"d": [day.date() for day in days]}),
        pd.DataFrame({"d": pd.to_datetime(days).to_period("D")}),
        pd.DataFrame({"d": pd.to_datetime(days).tz_localize("UTC").tz_convert("Asia/Tokyo")}),
        polars.DataFrame({"d": days}),
        polars.DataFrame({"d": [day.date() for day in days]}),
        pyarrow.table({"d": pyarrow.array(days, pyarrow.timestamp("ns", "America/Lima"))}),
        np.array(days, dtype="datetime64[s]")[:, None],
    ]
    numbers = [TableEncoder().fit_samples(table, table).transform(table) for table in stored]
    assert [np.array_equal(number, numbers[0]) for number in numbers] == [True] * len(stored)
    assert numbers[0][:, 0].tolist() == [(day - datetime.datetime(1970, 1, 1)).days for day in days]


# ---------------------------------------------------------------- what comes with the weights


def test_transform_at_the_source_gives_the_weights(pair, weighed):
    assert isinstance(weighed.ratio, Pipeline)
    assert np.array_equal(weighed.ratio.transform(pair[0]), weighed.weights.to_numpy())


def test_the_ratio_takes_new_rows_with_gaps_and_categories_that_were_never_seen(pair, weighed):
    new = pair[1].head(5).assign(kind=["e", None, "a", "b", "c"], is_new=None, income=np.nan, place="nowhere")
    ratio = weighed.ratio.transform(new.assign(more=1))
    assert ratio.shape == (5,) and np.isfinite(ratio).all() and (ratio >= 0.0).all()


def test_a_clone_of_the_pipeline_fits_to_the_same_ratio_and_a_copy_by_pickle_is_the_same(pair, weighed):
    for frames in (pair, [polars.from_pandas(frame) for frame in pair]):
        again = clone(weighed.ratio).fit(*stack_domains(*frames))
        assert np.array_equal(again.transform(frames[0]), weighed.weights.to_numpy())
    copied = pickle.loads(pickle.dumps(weighed))
    assert copied.weights.equals(weighed.weights) and copied.columns == weighed.columns and repr(copied) == repr(weighed)


def test_the_pipeline_trains_a_model_on_the_frame_as_it_is(pair, weighed):
    source, _ = pair
    labels = source["income"] * 1e-4 + source["age"]
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["kind"]), ("passthrough", ["age"]))
    model = ImportanceWeighted(make_pipeline(encode, Ridge()), weighed.ratio).fit(source, labels)
    plain = Ridge().fit(encode.fit_transform(source), labels, sample_weight=weighed.weights)
    assert model.predict(source) == pytest.approx(plain.predict(encode.transform(source)), rel=1e-9)


def test_the_result_is_frozen_and_says_all_in_text_and_html(pair, weighed):
    with pytest.raises(AttributeError):
        weighed.weights = 1
    text, html = repr(weighed), weighed._repr_html_()
    assert text.startswith("Importance weights of 300 source rows for 300 target rows, by KMM\n")
    for words in ("gaps: numbers, a 0/1 column for gaps", "kind: one-hot: 'a', 'b', 'c', 'd'", "when: days since 1970"):
        assert words in text
        assert words.split(": ", 1)[1].replace("'", "&#x27;") in html
    assert str(weighed.diagnosis) in text and weighed.diagnosis._repr_html_() in html
    assert max(map(len, text.splitlines())) <= 110
    assert "<script>" not in importance_weights(*(frame[["age"]].set_axis(["<script>"], axis=1) for frame in pair))._repr_html_()


def test_the_diagnosis_names_columns_and_levels(weighed):
    names = [column.name for column in weighed.diagnosis.balance]
    assert names == [name for use in weighed.columns for name in use.encoded_names]
    assert {"gaps", "gaps (missing)", "kind=a", "is_new=True", "place=(other)"} <= set(names)


def test_a_long_table_is_cut_short_in_the_repr():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 33)))
    result = importance_weights(frame, frame)
    assert "and 3 more columns" in repr(result) and "and 3 more columns" in result._repr_html_()


# ---------------------------------------------------------------- method and encoder


@pytest.mark.parametrize("method", sorted(set(ESTIMATORS) - {"stacked"}))
def test_every_method_weighs_a_mixed_table(method):
    result = importance_weights(*drawn_pair(40, 0), method=method)
    assert type(result.ratio[-1]) is ESTIMATORS[method]
    assert np.isfinite(result.weights).all() and result.weights.mean() == pytest.approx(1.0)


def test_a_given_density_ratio_is_cloned_and_a_named_one_gets_the_seed(pair):
    given_ratio = KLIEP(gamma=0.5, n_centers=20)
    result = importance_weights(*pair, method=given_ratio)
    assert result.ratio[-1].get_params() == given_ratio.get_params() and not hasattr(given_ratio, "weights_")
    assert importance_weights(*pair, method="LSIF", random_state=5).ratio[-1].random_state == 5


def test_another_encoder_is_fitted_on_both_samples(pair):
    encoder = make_column_transformer((OneHotEncoder(sparse_output=False), ["kind"]), ("passthrough", ["age"]))
    result = importance_weights(*pair, encoder=encoder, method=LSIF())
    assert np.array_equal(result.ratio.transform(pair[0]), result.weights.to_numpy()) and result.columns == ()
    assert "onehotencoder__kind_a" in repr(result)
    # One-hot columns in CSR form, and one without names.
    for other in (OneHotEncoder(), FunctionTransformer(lambda frame: frame.to_numpy())):
        few = [frame[["kind"]] if isinstance(other, OneHotEncoder) else frame[["age"]] for frame in pair]
        result = importance_weights(*few, encoder=other)
        assert np.array_equal(result.ratio.transform(few[0]), result.weights.to_numpy())
    small = importance_weights(*pair, encoder=TableEncoder("age", max_levels=2))
    assert [use.levels for use in small.columns if use.name == "kind"] == [("a", "b")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "kmn"}, "got 'kmn'. Did you mean 'kmm'?"),
        ({"method": KLIEP}, "such as KMM()"),
        ({"encoder": OneHotEncoder}, "unfitted transformer"),
        ({"encoder": TableEncoder(), "drop": "age"}, "TableEncoder(drop=...)"),
        ({"drop": ["aeg"]}, "neither sample has a column 'aeg'. Did you mean 'age'?"),
        ({"encoder": TableEncoder(max_levels=0)}, "max_levels must be an int >= 1; got 0"),
    ],
)
def test_a_wrong_argument_is_named(pair, arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        importance_weights(*pair, **arguments)
