"""Discriminator lets its classifier see what it takes: missing values, text and categories of frames."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from densratio import Discriminator, stack_domains

RNG = np.random.default_rng(0)
SHARES = {"source": [0.5, 0.3, 0.2], "target": [0.2, 0.3, 0.5]}
TRUTH = {kind: t / s for kind, s, t in zip("abc", *SHARES.values(), strict=True)}


def frames(as_category=False, n=1500):
    """Two frames whose text column has known shares, and a column of noise."""
    made = []
    for shares in SHARES.values():
        frame = pd.DataFrame({"kind": RNG.choice(list("abc"), n, p=shares), "noise": RNG.normal(size=n)})
        made.append(frame.astype({"kind": pd.CategoricalDtype(list("abcd"))}) if as_category else frame)
    return made


def filled():
    of_text = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder())
    return make_pipeline(make_column_transformer((of_text, ["kind", "empty"]), remainder=StandardScaler()), LogisticRegression())


def encoded():
    one_hot = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(make_column_transformer((one_hot, ["kind"]), remainder=StandardScaler()), LogisticRegression())


TREES = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=3, random_state=0)
CASES = {
    "categories": (TREES, lambda frame: frame.astype({"kind": pd.CategoricalDtype(list("abcd"))})),
    "text": (encoded(), lambda frame: frame),
    "polars": (encoded(), pl.from_pandas),
    "encoder alone": (make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), lambda frame: frame[["kind"]]),
    "some": ([encoded(), encoded()], lambda frame: frame),
}


@pytest.mark.parametrize("case", CASES)
def test_the_ratio_of_categories_is_the_quotient_of_their_shares(case):
    classifier, convert = CASES[case]
    source, target = map(convert, frames())
    ratio = Discriminator(classifier).fit(*stack_domains(source, target))
    at = convert(pd.DataFrame({"kind": list("abc"), "noise": np.zeros(3)}))
    np.testing.assert_allclose(ratio.transform(at), list(TRUTH.values()), rtol=0.25)
    found = ratio.transform(source)
    kinds = np.asarray(source["kind"])
    for kind, truth in TRUTH.items():
        assert np.average(found[kinds == kind]) == pytest.approx(truth, rel=0.15)
        assert np.average(ratio.weights_[kinds == kind]) == pytest.approx(truth, rel=0.15)
    assert ratio.weights_.dtype == np.float64 and ratio.weights_.mean() == pytest.approx(1.0)
    assert np.isfinite(ratio.score(*stack_domains(source, target)))
    assert np.array_equal(pickle.loads(pickle.dumps(ratio)).transform(source), found)


def test_encoding_inside_the_classifier_is_encoding_by_hand():
    source, target = frames()
    X, y = stack_domains(source, target)
    weight, cv = RNG.integers(1, 4, len(y)), StratifiedKFold(3, shuffle=True, random_state=0)
    inside = Discriminator(encoded(), cv=cv).fit(X, y, sample_weight=weight)
    by_hand = X.assign(**{kind: (X["kind"] == kind).astype(float) for kind in "abc"}).drop(columns="kind")
    scale = make_column_transformer((StandardScaler(), ["noise"]), remainder="passthrough")
    outside = Discriminator(make_pipeline(scale, LogisticRegression()), cv=cv).fit(by_hand, y, sample_weight=weight)
    np.testing.assert_allclose(inside.weights_, outside.weights_, rtol=1e-3)


def test_a_new_category_and_a_missing_one_get_a_ratio():
    source, target = frames()
    ratio = Discriminator(encoded()).fit(*stack_domains(source, target))
    found = ratio.transform(pd.DataFrame({"kind": ["new", None], "noise": [0.0, 0.0]}))
    assert np.all(np.isfinite(found)) and np.all(found > 0.0)


@pytest.mark.parametrize("as_frame", [False, True])
def test_missing_values_are_left_to_a_classifier_that_takes_them(as_frame):
    source, target = RNG.normal(size=(1500, 2)), RNG.normal(size=(1500, 2))
    source[RNG.random(1500) < 0.2, 0] = np.nan
    target[RNG.random(1500) < 0.6, 0] = np.nan
    put = (lambda rows: pd.DataFrame(rows, columns=["a", "b"])) if as_frame else np.asarray
    ratio = Discriminator(TREES).fit(*stack_domains(put(source), put(target)))
    missing = np.isnan(source[:, 0])
    assert ratio.weights_[missing].mean() == pytest.approx(3.0, rel=0.15)
    assert ratio.weights_[~missing].mean() == pytest.approx(0.5, rel=0.15)
    with pytest.raises(ValueError, match="contains infinity"):
        Discriminator(TREES).fit(np.where(np.isnan(source), np.inf, source), np.arange(1500) % 2)


@pytest.mark.parametrize("put", [np.asarray, pd.DataFrame, pl.DataFrame, pl.from_pandas], ids=["array", "ints", "nan", "null"])
def test_a_column_of_numbers_without_a_value_changes_nothing(put):
    """Nor does one whose only values are in rows that a fold holds out."""
    rows = RNG.normal(size=(300, 3))
    rows[:, 1] = np.nan
    rows[:1, 2], rows[1:, 2] = 5.0, np.nan
    named = (lambda rows: put(pd.DataFrame(rows, columns=list("abc")))) if put is pl.from_pandas else put
    y, new = np.arange(300) % 2, np.nan_to_num(rows, nan=7.0)
    trees = HistGradientBoostingClassifier(max_iter=9, categorical_features="from_dtype", early_stopping=False)
    ratio, plain = (Discriminator(trees, cv=StratifiedKFold(3)).fit(X, y) for X in (named(rows), rows[:, :1]))
    np.testing.assert_allclose(ratio.weights_, plain.weights_, rtol=1e-9)
    np.testing.assert_allclose(ratio.transform(named(new)), plain.transform(rows[:, :1]), rtol=1e-9)


def test_what_the_classifier_does_not_take_is_refused_with_its_column():
    source, target = frames()
    X, y = stack_domains(source, target)
    for classifier in ("cv", LogisticRegression(), [LogisticRegression(), encoded()]):
        with pytest.raises(ValueError, match="Column 'kind' holds text or categories"):
            Discriminator(classifier).fit(X, y)
    rows = X[["noise"]].to_numpy(copy=True)
    rows[3] = np.nan
    for classifier in ("cv", LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(ValueError, match="contains NaN in column 0"):
            Discriminator(classifier).fit(rows, y)


def test_other_columns_than_those_of_the_fit_are_refused():
    source, target = frames()
    ratio = Discriminator(encoded()).fit(*stack_domains(source, target))
    with pytest.raises(ValueError, match="feature names should match"):
        ratio.transform(source[["noise", "kind"]])


def test_a_column_of_texts_without_a_value_is_left_to_the_encoder():
    X, y = stack_domains(*(frame.assign(empty=pd.Series([None] * len(frame), dtype=object)) for frame in frames(n=150)))
    found = Discriminator(filled()).fit(X, y).weights_
    np.testing.assert_allclose(found, Discriminator(encoded()).fit(X[["kind", "noise"]], y).weights_, rtol=0.01)
