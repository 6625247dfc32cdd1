"""A column beside the rows, labels or weights: as an Arrow or polars column it does what a pandas Series does, everywhere."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from densratio import (
    KLIEP,
    LSIF,
    GaussianRatio,
    ImportanceWeighted,
    LabelShiftRatio,
    NoisyLabelClassifier,
    WeightedConformal,
    diagnose,
    find_label_issues,
    importance_weighted_score,
    importance_weights,
    label_issues_from_probabilities,
    make_iw_scorer,
    stack_domains,
    tame_weights,
    target_performance,
    weight_intervals,
)
from densratio.diagnostics import effective_sample_size, pareto_k

RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 2))
DOMAIN, WEIGHT = np.arange(N) % 2, RNG.integers(1, 4, N)
Y = ((X[:, 0] > 0.0) ^ (RNG.random(N) < 0.1)).astype(int)
WORDS, PROBA = np.array(["no", "yes"])[Y], RNG.dirichlet(np.ones(2), N)
MODEL, RATIO = LogisticRegression().fit(X, Y), LSIF(random_state=0).fit(X, DOMAIN)
SOURCE = DOMAIN == 0
TARGET_ROWS = X[~SOURCE]


def weighted(column):
    model = ImportanceWeighted(LogisticRegression(), RATIO).fit(X, column(WORDS), sample_weight=column(WEIGHT))
    return np.append(model.predict_proba(X), model.score(X, column(WORDS)))


def learned(column):
    model = NoisyLabelClassifier(max_iter=2).fit(X, column(WORDS), sample_weight=column(WEIGHT), clean=column(np.arange(5)))
    return np.append(model.predict_proba(X), model.score(X, column(WORDS), sample_weight=column(WEIGHT)))


def shifted(column):
    return LabelShiftRatio(LogisticRegression()).fit(X, column(DOMAIN), labels=column(WORDS[SOURCE])).predict_proba(X)


def issues(column):
    given = {"clean": column(np.arange(5)), "groups": column(np.arange(N) // 2), "cv": 2, "n_repeats": 1}
    return find_label_issues(X, column(WORDS), model=LogisticRegression(), random_state=0, **given)["score"]


def conformal(column):
    return np.stack(WeightedConformal(Ridge(), RATIO, random_state=0).fit(X, column(X[:, 1])).predict_interval(X))


USES = {
    "fit": lambda c: LSIF(random_state=0).fit(X, c(DOMAIN), sample_weight=c(WEIGHT)).weights_,
    "score": lambda c: RATIO.score(X, c(DOMAIN), sample_weight=c(WEIGHT)),
    "partial_fit": lambda c: KLIEP(random_state=0).partial_fit(X, c(DOMAIN), sample_weight=c(WEIGHT)).transform(X),
    "importance_weights": lambda c: np.asarray(
        importance_weights(X[SOURCE], TARGET_ROWS, method="lsif", sample_weight=c(WEIGHT[SOURCE]), random_state=0).weights
    ),
    "ImportanceWeighted": weighted,
    "importance_weighted_score": lambda c: importance_weighted_score(MODEL, X, c(Y), RATIO, sample_weight=c(WEIGHT)),
    "make_iw_scorer": lambda c: make_iw_scorer(RATIO)(MODEL, X, c(Y), sample_weight=c(WEIGHT)),
    "target_performance": lambda c: target_performance(
        MODEL, RATIO, X[SOURCE], c(Y[SOURCE]), TARGET_ROWS, metric="accuracy", n_bootstrap=0
    ).estimate,
    "target_performance of chunks": lambda c: [
        one.estimate
        for one in target_performance(
            MODEL, RATIO, X[SOURCE], c(Y[SOURCE]), TARGET_ROWS, metric="accuracy", n_bootstrap=0,
            chunks=c(np.arange(len(TARGET_ROWS)) // 15),
        )
    ],
    "diagnose": lambda c: diagnose(RATIO, X, c(DOMAIN), weights=c(WEIGHT[SOURCE]), n_permutations=9, random_state=0).largest_weight,
    "weight_intervals": lambda c: weight_intervals(LSIF(random_state=0), X, c(DOMAIN), n_replicas=20, random_state=0).lower,
    "tame_weights": lambda c: tame_weights(c(WEIGHT), "truncate").weights,
    "effective_sample_size": lambda c: effective_sample_size(c(WEIGHT)),
    "pareto_k": lambda c: pareto_k(c(WEIGHT)),
    "LabelShiftRatio": shifted,
    "NoisyLabelClassifier": learned,
    "find_label_issues": issues,
    "label_issues_from_probabilities": lambda c: label_issues_from_probabilities(c(WORDS), PROBA)["score"],
    "WeightedConformal": conformal,
}  # fmt: skip
COLUMNS = {
    "Arrow": pa.array,
    "Arrow, of parts": lambda values: pa.chunked_array([values[:3], values[3:]]),
    "Arrow, of a dictionary": lambda values: pa.array(values).dictionary_encode(),
    "polars": pl.Series,
}


@pytest.mark.parametrize("use", USES)
def test_a_column_of_another_library_does_what_a_series_does(use):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(USES[use](pd.Series), dtype=float)
        for column in COLUMNS.values():
            np.testing.assert_array_equal(np.asarray(USES[use](column), dtype=float), expected)


def test_gaps_of_an_arrow_column_are_named_as_those_of_a_series():
    gaps = [1.0, None, *([1.0] * (N - 2))]
    for column in (pd.Series, pa.array):
        with pytest.raises(ValueError, match="sample_weight must hold finite numbers >= 0; row 1 of X has nan"):
            LSIF().fit(X, DOMAIN, sample_weight=column(gaps))
    for column in (pd.Series, pa.array):
        with pytest.raises(ValueError, match="labels must hold a label for each row; 1 have none, the first is row 2"):
            find_label_issues(X, column(["a", "b", None, *(["a"] * (N - 3))]))


FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"], index=np.arange(60) + 7)
WEIGHTS = pd.Series(1.0 + 0.01 * np.arange(60), index=FRAME.index)
CLASSES = (FRAME["a"] > 0).astype(int)
BY_POSITION = {
    "sample_weight": lambda turn: importance_weights(FRAME, FRAME + 0.3, sample_weight=turn(WEIGHTS), method=GaussianRatio()),
    "labels": lambda turn: find_label_issues(FRAME, turn(CLASSES), model=LogisticRegression(), n_repeats=1),
    "y": lambda turn: target_performance(
        LogisticRegression().fit(FRAME, CLASSES), lambda rows: np.ones(len(rows)), FRAME, turn(CLASSES), FRAME, metric="accuracy"
    ),
}


@pytest.mark.parametrize("name", BY_POSITION)
def test_a_column_whose_index_is_in_another_order_is_told(name):
    told = f"^{name} has the index of .* in another order.* pass {name}.loc"
    with pytest.warns(UserWarning, match=told):
        BY_POSITION[name](lambda column: column[::-1])
    # The same order, another index, and copies of a name say nothing about the order.
    for turn in (pd.Series, lambda column: column[::-1].reset_index(drop=True), lambda column: column.set_axis(np.zeros(60))):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", told)
            BY_POSITION[name](turn)


def test_target_rows_that_the_ratio_does_not_take_are_named():
    ratio = LSIF().fit(*stack_domains(FRAME, FRAME + 0.3))
    gaps = FRAME.mask(FRAME["a"] > 1.0)
    with pytest.raises(ValueError, match=r"contains NaN in columns? 'a'.* Here X is X_target"):
        target_performance(Ridge().fit(FRAME, WEIGHTS), ratio, FRAME, WEIGHTS, gaps, metric="mean_squared_error", n_bootstrap=2)
