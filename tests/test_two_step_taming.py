"""Tamed weights: each formula by brute force, exact effective rows, and a bias that stays within its bound."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.base import clone
from sklearn.linear_model import Ridge

from densratio import ImportanceWeighted, importance_weights, tame_weights
from densratio.diagnostics import effective_sample_size, pareto_k

WEIGHTS = hnp.arrays(np.float64, st.integers(2, 60), elements=st.sampled_from([0.0]) | st.floats(1e-3, 1e3)).filter(np.any)
ONE_AMOUNT = ["truncate", "flatten", "overlap"]
METHODS = ["pareto", *ONE_AMOUNT]


def heavy(n, seed=0, spread=1.5):
    return np.exp(spread * np.random.default_rng(seed).standard_normal(n))


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize(
    ("method", "amount", "formula"),
    [
        ("truncate", 2.5, lambda w: np.minimum(w, 2.5)),
        ("truncate", None, lambda w: np.minimum(w, np.sqrt(len(w)))),
        ("flatten", 0.3, lambda w: w**0.3),
        ("flatten", None, np.sqrt),
        ("overlap", 0.2, lambda w: w / (0.2 * w + 0.8)),
        ("overlap", None, lambda w: w / (0.5 * w + 0.5)),
    ],
)
def test_an_amount_enters_as_its_formula_says(method, amount, formula):
    raw = heavy(50)
    expected = formula(raw / raw.mean())
    tamed = tame_weights(7.0 * raw, method, amount=amount)
    np.testing.assert_allclose(tamed.weights, expected / expected.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        (1.0 / np.arange(1, 101), [0.1813156982293996, 0.08449739583167856, 0.03204025446391783, 0.01010575180608734]),
        (np.arange(1.0, 101) ** -0.5, [0.053754196562653594, 0.03918779365722276, 0.02194882385843898, 0.011884132061388386]),
        (np.exp(np.linspace(0, 3, 100) ** 1.5 / 2), [0.033911962885108234] * 2 + [0.029982110706690695, 0.016393552446537764]),
    ],
)
def test_pareto_smoothing_gives_what_arviz_gives(weights, shares):
    # From arviz-stats 0.8.0, psislw(-log(weights))[0]: the first, second, sixth and twentieth largest.
    np.testing.assert_allclose(np.sort(tame_weights(weights).weights)[::-1][[0, 1, 5, 19]] / 100, shares, rtol=1e-10)


@pytest.mark.parametrize("k", [-0.3, 0.3, 0.8])
def test_smoothing_hardly_moves_a_tail_that_is_pareto_and_has_its_expected_quantiles(k):
    n, n_tail = 2500, 150
    tail = 1.0 + scipy.stats.genpareto(k).ppf((np.arange(n_tail) + 0.5) / n_tail)
    body = np.linspace(0.01, 1.0, n - n_tail)
    tamed = tame_weights(np.r_[body, tail])
    # The prior draws k by at most 10 / (150 + 10) of its distance to 0.5.
    assert tamed.moved < 0.06 * abs(k - 0.5) + 0.01
    smooth = tamed.weights[-n_tail:]
    assert (np.diff(smooth) >= 0.0).all() and smooth[0] > tamed.weights[-n_tail - 1]


def test_equal_weights_of_the_tail_stay_equal_and_rows_have_no_order():
    weights = np.repeat(heavy(40), 3)
    tamed = tame_weights(weights).weights
    assert [len(set(part)) for part in tamed.reshape(40, 3).tolist()] == [1] * 40
    order = np.random.default_rng(1).permutation(120)
    np.testing.assert_allclose(tame_weights(weights[order]).weights, tamed[order], rtol=1e-12)


# ---------------------------------------------------------------- effective rows


@given(WEIGHTS, st.sampled_from(ONE_AMOUNT), st.floats(0.0, 1.0))
@example(np.ones(13), "truncate", 0.5)
def test_the_effective_rows_that_are_asked_for_are_what_the_weights_count_as(weights, method, part):
    low, high = effective_sample_size(weights), float(np.count_nonzero(weights))
    aim = min(low + part * (high - low), high)
    tamed = tame_weights(weights, method, effective_rows=aim)
    shares = tamed.weights / tamed.weights.sum()
    assert 1.0 / np.sum(shares**2) == pytest.approx(aim, rel=1e-6)
    assert tamed.effective_rows == pytest.approx((low, aim), rel=1e-6)


@given(WEIGHTS, st.sampled_from(ONE_AMOUNT), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_more_taming_never_counts_as_fewer_rows(weights, method, one, other):
    raw = weights / weights.mean()
    scale = raw.max() if method == "truncate" else 1.0
    mild, strong = sorted([one, other], reverse=method != "overlap")
    rows = [tame_weights(weights, method, amount=scale * amount).effective_rows[1] for amount in (mild, strong)]
    assert effective_sample_size(weights) <= rows[0] * (1 + 1e-9) and rows[0] <= rows[1] * (1 + 1e-9)


@pytest.mark.parametrize("method", ONE_AMOUNT)
def test_weights_that_count_as_enough_rows_are_left_as_they_are(method):
    raw = heavy(100, spread=0.3)
    tamed = tame_weights(raw, method, effective_rows=20)
    np.testing.assert_allclose(tamed.weights, raw / raw.mean(), rtol=1e-12)
    assert tamed.moved < 1e-12


# ---------------------------------------------------------------- what any taming owes


@given(WEIGHTS, st.sampled_from(METHODS), st.integers(0, 99))
def test_tamed_weights_have_mean_one_keep_zeros_and_order_and_move_a_mean_within_the_bound(weights, method, seed):
    tamed = tame_weights(weights, method)
    assert tamed.weights.mean() == pytest.approx(1.0) and ((tamed.weights == 0.0) == (weights == 0.0)).all()
    rank = np.argsort(weights, kind="stable")
    assert (np.diff(tamed.weights[rank]) >= -1e-12 * tamed.weights.max()).all()
    values = np.random.default_rng(seed).uniform(-2.0, 5.0, len(weights))
    moved = abs(np.average(values, weights=tamed.weights) - np.average(values, weights=weights))
    assert moved <= tamed.moved * np.ptp(values) + 1e-12
    assert tamed.pareto_k == pytest.approx((pareto_k(weights), pareto_k(tamed.weights)), nan_ok=True, rel=1e-6)
    assert tamed.largest == pytest.approx((weights.max() / weights.mean(), tamed.weights.max()))


@pytest.mark.parametrize("method", METHODS)
def test_equal_weights_stay_equal(method):
    np.testing.assert_allclose(tame_weights(np.full(30, 3.0), method).weights, 1.0, rtol=1e-12)


def test_the_repr_says_before_and_after():
    text = repr(tame_weights(heavy(500), "flatten", effective_rows=300))
    assert text.startswith("500 weights tamed by 'flatten', amount=") and "-> 300.0 effective rows" in text
    assert "% of the weight moved to other rows" in text and "amount" not in repr(tame_weights(heavy(500)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"method": "trim"}, "method must be one of"),
        ({"amount": 0.5}, '"pareto" has nothing to choose'),
        ({"effective_rows": 9}, '"pareto" has nothing to choose'),
        ({"method": "flatten", "amount": 1.5}, "amount of 'flatten' must be a number from 0 to 1; got 1.5"),
        ({"method": "flatten", "amount": True}, "got True"),
        ({"method": "truncate", "amount": 0.0}, "amount of 'truncate' must be a number > 0"),
        ({"method": "overlap", "amount": 0.5, "effective_rows": 3}, "Give amount or effective_rows, not both"),
        ({"method": "overlap", "effective_rows": 21}, "at most the number of positive weights, 20; got 21"),
        ({"method": "overlap", "effective_rows": "9"}, "effective_rows must be a number"),
        ({"weights": [0.0, 0.0]}, "All weights are 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        tame_weights(**({"weights": heavy(20)} | arguments))


# ---------------------------------------------------------------- where weights are made


def two_frames():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=120)}), pd.DataFrame({"a": rng.normal(1.5, 0.7, 100)})


def test_importance_weights_are_tamed_and_say_so():
    source, target = two_frames()
    raw = importance_weights(source, target)
    tame = partial(tame_weights, method="truncate", effective_rows=80)
    tamed = importance_weights(source, target, tame=tame)
    np.testing.assert_array_equal(tamed.weights, tame(raw.weights).weights)
    assert tamed.diagnosis.effective_sample_size == pytest.approx(80.0) and raw.taming is None
    assert repr(tamed.taming) in repr(tamed) and "tamed by &#x27;truncate&#x27;" in tamed._repr_html_()
    half = importance_weights(source, target, flatten=0.5)
    both = importance_weights(source, target, flatten=0.5, tame="pareto")
    np.testing.assert_array_equal(both.weights, tame_weights(half.weights).weights)


def test_importance_weighted_tames_the_weights_of_the_rows_of_its_fit():
    source, _ = two_frames()
    X, base = source.to_numpy(), np.arange(120) % 3

    def ratio(rows):
        return np.exp(2.0 * rows[:, 0])

    model = ImportanceWeighted(Ridge(), ratio, tame=partial(tame_weights, method="overlap", amount=0.3))
    weights = clone(model).fit(X, X[:, 0] ** 2).weights_
    np.testing.assert_allclose(weights, tame_weights(ratio(X), "overlap", amount=0.3).weights, rtol=1e-12)
    based = model.fit(X, X[:, 0] ** 2, sample_weight=base).weights_
    assert based.sum() == pytest.approx(base.sum()) and (based[base == 0] == 0.0).all()


@pytest.mark.parametrize("tame", ["trim", 0.5, np.sqrt])
def test_a_taming_that_is_none_is_named(tame):
    with pytest.raises(ValueError, match=r"method must be one of|tame must be a method of tame_weights"):
        importance_weights(*two_frames(), tame=tame)
