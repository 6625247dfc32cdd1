"""weight_intervals: its replicas against fits on copied rows, its intervals against quantiles by hand."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from scipy.stats import binom
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from densratio import LSIF, GaussianRatio, weight_intervals
from densratio.datasets import make_gaussian_shift
from densratio.two_step import WeightIntervals

ULSIF = LSIF(nonnegative=False, random_state=0, n_centers=None)


def shift(n=40, seed=0):
    return make_gaussian_shift(n, n + 3, n_columns=2, shift=0.7, scale=0.9, random_state=seed)


def drawn(n_source, n_target, n_replicas, seed):
    """The rows of the source and of the target that each replica draws."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(n_source, size=n_source), rng.integers(n_target, size=n_target)) for _ in range(n_replicas)]


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
@pytest.mark.parametrize("ratio", [GaussianRatio(), ULSIF], ids=["gaussian", "lsif"])
def test_replicas_are_fits_on_the_drawn_rows_as_copies(ratio, seed):
    data = shift(seed=seed)
    found = weight_intervals(ratio, data.X, data.y, n_replicas=3, random_state=seed)
    for replica, (source, target) in zip(found.replicas, drawn(40, 43, 3, seed), strict=True):
        X = np.concatenate([data.X_source[source], data.X_target[target]])
        fresh = type(ratio)(**ratio.get_params()).fit(X, np.repeat([0, 1], [40, 43]))
        np.testing.assert_allclose(replica, fresh.transform(data.X_source), rtol=1e-8, atol=1e-8)


def test_the_ends_are_quantiles_of_the_replicas_and_the_weights_those_of_the_fit():
    data = shift()
    found = weight_intervals(GaussianRatio(), data.X, data.y, confidence=0.8, n_replicas=50, random_state=1)
    assert found.replicas.shape == (50, 40) and found.confidence == 0.8
    np.testing.assert_allclose(found.weights, GaussianRatio().fit(data.X, data.y).weights_, rtol=1e-12)
    np.testing.assert_allclose([found.lower, found.upper], np.quantile(found.replicas, [0.1, 0.9], axis=0), rtol=1e-12)
    wider = weight_intervals(GaussianRatio(), data.X, data.y, confidence=0.95, n_replicas=50, random_state=1)
    assert (wider.lower <= found.lower).all() and (wider.upper >= found.upper).all()


def test_on_gaussian_samples_the_gaussian_ratios_intervals_hold_the_true_weight():
    row_is_held = []
    for seed in range(25):
        data = shift(60, seed)
        found = weight_intervals(GaussianRatio(), data.X, data.y, n_replicas=40, random_state=seed)
        row_is_held.append(found.lower[0] <= data.ratio(data.X_source)[0] <= found.upper[0])
    assert np.sum(row_is_held) >= binom.ppf(1e-3, 25, 0.9)


def test_one_random_state_gives_one_result_with_any_number_of_jobs():
    data = shift()
    with parallel_config(backend="threading"):
        first, again, other = (
            weight_intervals(ULSIF, data.X, data.y, n_replicas=4, random_state=seed, n_jobs=jobs)
            for seed, jobs in ((3, 1), (3, 2), (4, 1))
        )
    np.testing.assert_array_equal(first.replicas, again.replicas)
    assert not np.array_equal(first.replicas, other.replicas)


def test_what_the_search_chose_on_all_rows_holds_in_every_replica():
    data = shift()
    searched = LSIF(nonnegative=False, random_state=0, gamma=[0.1, 1.0, 3.0], regularization="cv", n_centers=None)
    chosen = searched.fit(data.X, data.y).best_params_
    found, fixed = (
        weight_intervals(ratio, data.X, data.y, n_replicas=4, random_state=0)
        for ratio in (searched, LSIF(nonnegative=False, random_state=0, n_centers=None, **chosen))
    )
    np.testing.assert_allclose(found.replicas, fixed.replicas, rtol=1e-10)


def test_a_pipeline_and_a_frame_with_words_for_domains():
    data = shift()
    plain = weight_intervals(GaussianRatio(), data.X, data.y, n_replicas=5, random_state=0)
    frame, words = pandas.DataFrame(data.X, columns=["a", "b"]), np.where(data.y == 0, "train", "test")
    piped = weight_intervals(make_pipeline(StandardScaler(), GaussianRatio()), frame, words, n_replicas=5, random_state=0)
    # Gaussians do not depend on the units of the columns.
    np.testing.assert_allclose(piped.replicas, plain.replicas, rtol=1e-6)
    np.testing.assert_array_equal(plain.to_frame().to_numpy(), np.stack([plain.weights, plain.lower, plain.upper], axis=1))


def test_the_summary_says_how_many_and_how_wide():
    ends = np.array([0.5, 1.0]), np.array([1.0, 2.5])
    found = WeightIntervals(np.array([0.7, 1.3]), *ends, replicas=np.ones((7, 2)), confidence=0.9)
    assert repr(found) == "weights of 2 source rows from 0.7 to 1.3; 90 % intervals of median width 1 (7 replicas)"


def test_ten_rows_are_enough():
    data = make_gaussian_shift(5, 5, random_state=0)
    for ratio in (GaussianRatio(), LSIF(nonnegative=False, random_state=0)):
        found = weight_intervals(ratio, data.X, data.y, random_state=0)
        assert np.isfinite(found.replicas).all() and (found.lower <= found.upper).all()


class Unweighted(BaseEstimator):
    def fit(self, X, y):
        return self

    def transform(self, X):
        return np.ones(len(X))


@pytest.mark.parametrize(
    ("ratio", "changes", "words"),
    [
        (GaussianRatio(), {"n_replicas": 0}, "n_replicas must be an int >= 2"),
        (GaussianRatio(), {"n_replicas": 1.5}, "n_replicas must be an int >= 2"),
        (GaussianRatio(), {"confidence": 95}, r"confidence must be a number in \(0, 1\)"),
        (np.ones_like, {}, "ratio must be a density ratio"),
        (GaussianRatio, {}, "ratio must be a density ratio"),
        (Unweighted(), {}, "Unweighted is no density ratio whose fit takes sample_weight"),
        (make_pipeline(StandardScaler(), Unweighted()), {}, "Unweighted is no density ratio whose fit takes sample_weight"),
        (GaussianRatio(), {"X": np.full((83, 2), np.nan)}, "NaN"),
        (GaussianRatio(), {"y": np.zeros(83)}, "One domain is empty"),
        (GaussianRatio(), {"y": np.zeros(3)}, "inconsistent numbers of samples"),
    ],
)
def test_what_gives_no_intervals_is_refused(ratio, changes, words):
    data = shift()
    with pytest.raises(ValueError, match=words):
        weight_intervals(ratio, **({"X": data.X, "y": data.y} | changes))
