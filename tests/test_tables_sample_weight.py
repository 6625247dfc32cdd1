"""importance_weights of source rows that have weights already: counts are copies, others have no unit, and the product counts."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin

from densratio import GaussianRatio, importance_weights
from densratio.tables import TableEncoder

seeds = st.integers(0, 2**16)
# test_laws_of_tables.py holds the law on tables of each estimator; here it is the columns.
few = settings(max_examples=3, deadline=None)


def pair(n, m, seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(n, 2)), rng.normal(0.3, 0.9, size=(m, 2))
    return tuple(pd.DataFrame(rows, columns=["a", "b"]) for rows in (source, target))


@pytest.mark.parametrize(
    ("method", "n"), [("auto", 40), ("auto", 130), ("kmm", 60), ("kliep", 60), ("gaussian", 60), ("discriminator", 60)]
)
@few
@given(seed=seeds)
def test_a_weight_of_k_is_k_copies(method, n, seed):
    source, target = pair(n, 120, seed)
    counts = np.random.default_rng(seed).integers(0, 4, n)
    counts[:2] = 1
    copies = np.repeat(np.arange(n), counts)
    weighted = importance_weights(source, target, method=method, sample_weight=counts)
    copied = importance_weights(source.iloc[copies], target, method=method)
    total = np.bincount(copies, copied.weights, minlength=n)
    np.testing.assert_allclose(weighted.weights, total / total.mean(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weighted.ratio.transform(target), copied.ratio.transform(target), rtol=1e-6, atol=1e-9)


def mixed(n, seed):
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n) ** 3)
    kind = rng.choice(["a", "b", "c", "d", "e", None], n, p=[0.4, 0.3, 0.1, 0.06, 0.04, 0.1])
    return pd.DataFrame({"amount": amount, "kind": kind, "is_new": rng.random(n) < 0.4, "size": rng.normal(size=n)})


@pytest.mark.parametrize("method", ["auto", "discriminator", "lsif", "kliep", "spectral", "kde"])
@few
@given(seed=seeds)
def test_a_weight_of_k_is_k_copies_in_a_table_with_gaps_and_categories(method, seed):
    source, target = mixed(70, seed), mixed(60, seed + 1)
    counts = np.random.default_rng(seed).integers(0, 4, 70)
    counts[:2] = 1
    copies = np.repeat(np.arange(70), counts)
    weighted = importance_weights(source, target, method=method, sample_weight=counts)
    copied = importance_weights(source.iloc[copies], target, method=method)
    assert [(use.fill, use.levels, use.n_rest) for use in weighted.columns] == [
        (use.fill, use.levels, use.n_rest) for use in copied.columns
    ]
    total = np.bincount(copies, copied.weights, minlength=70)
    np.testing.assert_allclose(weighted.weights, total / total.mean(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(weighted.ratio.transform(target), copied.ratio.transform(target), rtol=1e-5, atol=1e-7)


@few
@given(seed=seeds, unit=st.sampled_from([1e-9, 0.01, 7.3, 1e12]), flatten=st.sampled_from([0.0, 0.5, 1.0]))
def test_other_weights_have_no_unit_and_the_product_with_the_ratio_is_returned(seed, unit, flatten):
    source, target = pair(80, 70, seed)
    given_weights = np.random.default_rng(seed).gamma(2.0, size=80)
    one, other = (
        importance_weights(source, target, method=GaussianRatio(), sample_weight=factor * given_weights, flatten=flatten)
        for factor in (1.0, unit)
    )
    np.testing.assert_allclose(other.weights, one.weights, rtol=1e-9)
    product = given_weights * one.ratio.transform(source) ** flatten
    np.testing.assert_allclose(one.weights, product / product.mean(), rtol=1e-9)
    assert one.diagnosis.effective_sample_size == pytest.approx(one.weights.sum() ** 2 / (one.weights**2).sum())


def test_weights_that_undo_a_selection_leave_the_ratio_of_the_population():
    rng = np.random.default_rng(0)
    everyone = rng.normal(size=(20_000, 1))
    chance = 1.0 / (1.0 + np.exp(-everyone[:, 0]))
    asked = rng.random(20_000) < 0.2 * chance
    source, target = (pd.DataFrame(rows, columns=["a"]) for rows in (everyone[asked], rng.normal(0.5, 1.0, size=(2000, 1))))
    ratio = importance_weights(source, target, method="gaussian", sample_weight=1.0 / chance[asked]).ratio
    x = np.linspace(-1.5, 1.5, 7)
    true = np.exp(0.5 * x - 0.125)
    np.testing.assert_allclose(ratio.transform(pd.DataFrame({"a": x})), true, rtol=0.1)
    plain = importance_weights(source, target, method="gaussian").ratio.transform(pd.DataFrame({"a": x}))
    assert np.abs(np.log(plain / true)).max() > 0.3


def test_equal_weights_change_nothing_and_the_library_of_the_source_stays():
    source, target = pair(60, 50, 1)
    plain, weighted = (importance_weights(source, target, sample_weight=w) for w in (None, pd.Series(np.ones(60))))
    np.testing.assert_allclose(weighted.weights, plain.weights, rtol=1e-12)
    assert weighted.weights.index.equals(source.index)
    series = importance_weights(*map(polars.from_pandas, (source, target)), sample_weight=polars.Series(np.ones(60))).weights
    assert isinstance(series, polars.Series)


def test_whole_numbers_of_people_are_told_to_be_copies():
    source, target = pair(120, 100, 3)
    people = np.random.default_rng(3).integers(500, 2500, 120)
    with pytest.warns(UserWarning, match=re.escape(f"120 rows are taken for {people.sum()}. If they say how many people")):
        importance_weights(source, target, method="kmm", sample_weight=people)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        importance_weights(source, target, method="kmm", sample_weight=people / people.mean())
        importance_weights(source, target, method="kmm", sample_weight=np.arange(120) % 5)


class Unweighted(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.weights_ = np.ones(int((y == 0).sum()))
        return self

    def transform(self, X):
        return np.ones(len(X))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sample_weight": np.ones(9)}, "sample_weight must be (20,), one number >= 0 for each row of the source; got shape (9,)"),
        ({"sample_weight": -np.ones(20)}, "finite numbers >= 0; row 0 of the source has -1.0"),
        ({"sample_weight": np.zeros(20)}, "sample_weight is 0 in every source row"),
        ({"sample_weight": np.ones(20), "method": Unweighted()}, "Unweighted is no density ratio whose fit takes sample_weight"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(arguments, words):
    source, target = pair(20, 20, 0)
    with pytest.raises(ValueError, match=re.escape(words)):
        importance_weights(source, target, **({"encoder": TableEncoder()} | arguments))
