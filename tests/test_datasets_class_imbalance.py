"""Step imbalance: sizes of the classes, which rows stay, and the ratio to a balanced target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densratio.datasets import step_imbalance


@given(
    k=st.integers(1, 8), size=st.integers(1, 30), ratio=st.floats(1.0, 50.0), fraction=st.floats(0.0, 1.0), seed=st.integers(0, 999)
)
def test_large_classes_have_the_size_of_the_smallest_and_small_ones_a_ratio_of_it(k, size, ratio, fraction, seed):
    rng = np.random.default_rng(seed)
    counts = size + rng.integers(0, 5, k)
    labels = rng.permutation(np.repeat(np.arange(k), counts))
    kept = step_imbalance(labels, ratio, fraction, random_state=seed)
    sizes = np.bincount(labels[kept.rows], minlength=k)
    small = max(1, round(counts.min() / ratio))
    assert kept.is_minority.sum() == round(fraction * k)
    assert np.array_equal(sizes, np.where(kept.is_minority, small, counts.min()))
    assert len(np.unique(kept.rows)) == len(kept.rows)
    # The ratio of a target with P(y) = 1/K to the rows kept, whose mean over them is 1.
    assert kept.class_ratio == pytest.approx((1 / k) / (sizes / sizes.sum()))
    assert kept.class_ratio[labels[kept.rows]].mean() == pytest.approx(1.0)


def test_rows_and_classes_are_drawn_by_the_seed():
    labels = np.arange(600) % 6
    one, same, other = (step_imbalance(labels, 10.0, random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.rows, same.rows) and not np.array_equal(one.rows, other.rows)
    drawn = [tuple(step_imbalance(labels, 10.0, random_state=seed).is_minority) for seed in range(20)]
    assert len(set(drawn)) > 5
    # Shuffled: a batch of neighbors has rows of several classes.
    assert len(set(labels[one.rows[:20]])) > 2


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        ([0, 1], {"ratio": 0.5}, r"ratio must be a number in \[1, inf\).*0.5"),
        ([0, 1], {"ratio": float("nan")}, r"ratio must be a number in \[1, inf\).*nan"),
        ([0, 1], {"ratio": 2.0, "fraction": 1.5}, r"fraction must be a number in \[0, 1\].*1.5"),
        ([0, 2], {"ratio": 2.0}, r"classes \[1\] have none"),
        ([0, 1], {"ratio": 2.0, "n_classes": 3}, r"classes \[2\] have none"),
        ([0, 3], {"ratio": 2.0, "n_classes": 3}, "Label 3 is out of range for n_classes=3"),
        ([], {"ratio": 2.0}, "labels must be|Every class needs rows"),
        ([0.0, 1.0], {"ratio": 2.0}, "integers >= 0.*float64"),
        ([0, -1], {"ratio": 2.0}, "integers >= 0"),
    ],
)
def test_an_imbalance_that_cannot_be_drawn_is_refused(labels, options, words):
    with pytest.raises(ValueError, match=words):
        step_imbalance(np.array(labels), **options)
