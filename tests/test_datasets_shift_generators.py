"""Shifts with their truth attached: groups of classes, noise by the features, long tails and open sets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import truncnorm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from densratio.datasets import (
    ASYMMETRIC,
    PMD_TYPES,
    feature_dependent_noise,
    flip_probabilities,
    input_noise,
    instance_dependent_noise,
    label_noise,
    long_tail,
    make_gaussian_shift,
    make_heavy_tails,
    make_mixture_shift,
    make_selection_bias,
    make_subspace_shift,
    open_set,
    open_set_rows,
    out_of_fold_posteriors,
    step_imbalance,
    transition_matrix,
)
from densratio.datasets.label_noise import CIFAR100_COARSE, next_of_group

seeds = st.integers(0, 999)
by_type = pytest.mark.parametrize("kind", sorted(PMD_TYPES))

# ---------------------------------------------------------------- asymmetric noise of CIFAR-100

# coarse_labels of the rows of each fine class 0..99, as CIFAR-100's own files have them.
COARSE_OF_FINE = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]


def test_the_coarse_classes_of_cifar100_are_those_of_its_files():
    assert [len(group) for group in CIFAR100_COARSE.values()] == [5] * 20
    number = {name: i for i, name in enumerate(sorted(sum(CIFAR100_COARSE.values(), ())))}
    assert len(number) == 100 and list(CIFAR100_COARSE) == sorted(CIFAR100_COARSE)
    coarse = {number[name]: c for c, group in enumerate(CIFAR100_COARSE.values()) for name in group}
    assert [coarse[fine] for fine in range(100)] == COARSE_OF_FINE


def test_the_map_of_cifar100_goes_once_around_each_coarse_class_in_rising_order():
    mapping = ASYMMETRIC["cifar100"]
    assert sorted(mapping) == sorted(mapping.values()) == list(range(100))
    for c in range(20):
        fine = [i for i in range(100) if COARSE_OF_FINE[i] == c]
        assert [mapping[i] for i in fine] == fine[1:] + fine[:1]


def test_noise_of_cifar100_stays_in_the_coarse_class():
    labels, coarse = np.arange(2000) % 100, np.array(COARSE_OF_FINE)
    noisy = label_noise(labels, "asymmetric", 0.4, mapping=ASYMMETRIC["cifar100"])
    assert 0.3 < noisy.is_flipped.mean() < 0.5
    assert np.array_equal(coarse[noisy.labels], coarse[labels])
    assert next_of_group([("b", "a"), ("d", "c", "e")]) == {0: 1, 1: 0, 2: 3, 3: 4, 4: 2}


# ---------------------------------------------------------------- noise by the features


def problem(n, k, seed, sharpness=2.0):
    rng = np.random.default_rng(seed)
    posteriors = np.exp(sharpness * rng.normal(size=(n, k)))
    return rng.integers(0, k, n), posteriors / posteriors.sum(axis=1, keepdims=True)


def brute_force(posterior, kind):
    second, first = sorted(posterior)[-2:]
    d = first - second
    return {"I": -(d * d) / 2 + 0.5, "II": 1 - d * d * d, "III": 1 - d**3 / 3 - d**2 / 3 - d / 3}[kind]


@by_type
@given(n=st.integers(1, 60), k=st.integers(2, 6), rate=st.floats(0.0, 1.0), seed=seeds)
def test_each_row_flips_with_the_scaled_probability_of_its_type_clamped_at_one(kind, n, k, rate, seed):
    posteriors = problem(n, k, seed)[1]
    chances = np.array([brute_force(row, kind) for row in posteriors])
    found = flip_probabilities(posteriors, kind, rate)
    low, high = 0.0, 2.0 / chances.min()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * chances, 1).mean() < rate else (low, middle)
    assert found == pytest.approx(np.minimum(high * chances, 1.0), rel=1e-6, abs=1e-9)
    assert found.mean() == pytest.approx(rate, abs=1e-9) and found.min() >= 0 and found.max() <= 1


@by_type
def test_the_smaller_the_margin_the_likelier_the_flip(kind):
    margins = np.linspace(0.0, 0.9, 10)
    posteriors = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    found = flip_probabilities(posteriors, kind, 0.3)
    assert all(later < earlier for earlier, later in pairwise(found))


def test_a_rate_is_reached_up_to_the_share_of_rows_that_can_flip_and_refused_above():
    posteriors = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.75, 0.25]])
    assert flip_probabilities(posteriors, "II", 0.5).tolist() == [0.0, 0.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"0\.51 cannot be reached: only 2 of 4 rows"):
        flip_probabilities(posteriors, "II", 0.51)
    assert flip_probabilities(np.array([[1.0, 0.0]]), "I", 0.0).tolist() == [0.0]


@by_type
@given(k=st.integers(2, 5), rate=st.floats(0.0, 1.0), seed=seeds)
def test_a_label_moves_to_the_second_class_from_the_first_and_to_the_first_from_all_others(kind, k, rate, seed):
    labels, posteriors = problem(80, k, seed)
    kept = labels.copy()
    noisy = feature_dependent_noise(labels, posteriors, kind, rate, random_state=seed)
    first, second = np.argsort(-posteriors, axis=1)[:, :2].T
    assert np.array_equal(labels, kept) and noisy.labels.dtype == labels.dtype
    assert np.array_equal(noisy.is_flipped, noisy.labels != labels)
    moved = noisy.is_flipped
    assert np.array_equal(noisy.labels[moved], np.where(labels == first, second, first)[moved])


@by_type
@given(k=st.integers(2, 5), rate=st.floats(0.0, 1.0), seed=seeds)
def test_the_transition_is_the_mean_of_the_rows_and_its_flips_are_the_rate(kind, k, rate, seed):
    labels, posteriors = problem(80, k, seed)
    transition = feature_dependent_noise(labels, posteriors, kind, rate).transition
    probability, first, second = flip_probabilities(posteriors, kind, rate), *np.argsort(-posteriors, axis=1)[:, :2].T
    expected = np.eye(k)
    for c in set(labels):
        rows = np.zeros((80, k))
        for i in np.flatnonzero(labels == c):
            rows[i, c] += 1 - probability[i]
            rows[i, second[i] if first[i] == c else first[i]] += probability[i]
        expected[c] = rows[labels == c].mean(axis=0)
    assert transition == pytest.approx(expected, abs=1e-12)
    counts = np.bincount(labels, minlength=k)
    assert counts @ (1 - np.diag(transition)) / 80 == pytest.approx(rate, abs=1e-9)


def test_flips_are_drawn_with_the_probability_of_each_row():
    labels, posteriors = problem(40, 4, 0)
    probability = flip_probabilities(posteriors, "III", 0.35)
    generator, n = np.random.default_rng(0), 4000
    share = np.mean(
        [feature_dependent_noise(labels, posteriors, "III", 0.35, random_state=generator).is_flipped for _ in range(n)], axis=0
    )
    assert (np.abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / n)).all()


@pytest.mark.parametrize("second", ["symmetric", "asymmetric"])
def test_hybrid_noise_is_the_one_noise_after_the_other_and_compares_with_the_labels_given(second):
    labels, posteriors = problem(20_000, 3, 1)
    mapping = {0: 2} if second == "asymmetric" else None
    first = feature_dependent_noise(labels, posteriors, "I", 0.35, random_state=5)
    both = feature_dependent_noise(labels, posteriors, "I", 0.35, then=(second, 0.3), mapping=mapping, random_state=5)
    assert np.array_equal(both.is_flipped, both.labels != labels)
    assert both.transition == pytest.approx(first.transition @ transition_matrix(second, 0.3, 3, mapping))
    drawn = np.zeros((3, 3))
    np.add.at(drawn, (first.labels, both.labels), 1)
    # The second noise is independent of the first: 20,000 rows have a standard error below 0.006 in each class.
    assert drawn / drawn.sum(axis=1, keepdims=True) == pytest.approx(transition_matrix(second, 0.3, 3, mapping), abs=0.03)
    counts = np.zeros((3, 3))
    np.add.at(counts, (labels, both.labels), 1)
    assert counts / counts.sum(axis=1, keepdims=True) == pytest.approx(both.transition, abs=0.03)


def test_posteriors_in_single_precision_are_taken():
    posteriors = torch.softmax(torch.randn(500, 100, generator=torch.Generator().manual_seed(0)), dim=1)
    assert flip_probabilities(posteriors, "II", 0.4).mean() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("labels", "posteriors", "kind", "rate", "words"),
    [
        ([0, 1], [[0.6, 0.4], [0.5, 0.5]], "IV", 0.3, r"'IV' is not known; use one of \['I', 'II', 'III'\]"),
        ([0, 1], [[0.6, 0.4], [0.5, 0.5]], "I", 1.3, r"rate must be a number in \[0, 1\]; got 1.3"),
        ([0, 1], [[0.6, 0.4], [0.5, 0.5]], "I", float("nan"), r"rate must be a number in \[0, 1\]; got nan"),
        ([0, 1], [[0.6, 0.4], [2.0, -1.0]], "I", 0.3, r"sum to 1; row 1 has the smallest entry -1.0.*softmax"),
        ([0, 1], [[0.6, 0.3], [0.5, 0.5]], "I", 0.3, r"sum to 1; row 0 has"),
        ([0, 1], [[0.6, 0.4], [np.nan, 0.5]], "I", 0.3, r"sum to 1; row 1 has"),
        ([0, 0], [[1.0], [1.0]], "I", 0.3, r"\(n, K\) with n >= 1 and K >= 2; got shape \(2, 1\)"),
        ([0, 2], [[0.6, 0.4], [0.5, 0.5]], "I", 0.3, "Label 2 is out of range for n_classes=2"),
        ([0], [[0.6, 0.4], [0.5, 0.5]], "I", 0.3, "2 rows for 1 labels"),
        ([0, 1], [[1.0, 0.0], [0.0, 1.0]], "III", 0.1, "0.1 cannot be reached: only 0 of 2 rows"),
    ],
)
def test_noise_by_the_features_that_cannot_be_drawn_is_refused(labels, posteriors, kind, rate, words):
    with pytest.raises(ValueError, match=words):
        feature_dependent_noise(np.array(labels), np.array(posteriors), kind, rate)


def test_a_then_that_is_no_noise_is_refused_as_label_noise_does():
    labels, posteriors = problem(10, 3, 0)
    with pytest.raises(ValueError, match="'pears' is not known"):
        feature_dependent_noise(labels, posteriors, "I", 0.3, then=("pears", 0.3))


# ---------------------------------------------------------------- noise along random directions


def instances(n, d, k, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, k, n), rng.normal(size=(n, d))


@given(d=st.integers(1, 4), k=st.integers(2, 5), rate=st.floats(0.0, 1.0), seed=seeds)
def test_the_chances_of_a_row_are_those_of_its_class_directions(d, k, rate, seed):
    labels, inputs = instances(30, d, k, seed)
    found = instance_dependent_noise(labels, inputs, rate, n_classes=k, random_state=seed)
    rng = np.random.default_rng(seed)
    q = truncnorm.rvs(-rate / 0.1, (1 - rate) / 0.1, rate, 0.1, 30, random_state=rng)
    directions = [rng.standard_normal((d, k)) for _ in range(k)]
    expected, counts = np.eye(k), np.bincount(labels, minlength=k)
    expected[counts > 0] = 0.0
    for x, y, flip in zip(inputs, labels, q, strict=True):
        powers = [0.0 if j == y else np.exp(x @ directions[y][:, j]) for j in range(k)]
        expected[y] += [1 - flip if j == y else flip * power / sum(powers) for j, power in enumerate(powers)] / counts[y]
    np.testing.assert_allclose(found.transition, expected, atol=1e-12)
    assert np.array_equal(found.is_flipped, found.labels != labels) and found.labels.dtype == labels.dtype


def test_rows_flip_as_often_as_their_chances_say_and_alike_ones_to_one_class():
    labels, images = np.zeros(4000, dtype=int), np.full((4000, 1, 2, 2), 20.0)
    noisy = instance_dependent_noise(labels, images, 0.4, n_classes=5, random_state=0)
    target = np.argmax(noisy.transition[0, 1:]) + 1
    assert noisy.transition[0, target] == pytest.approx(0.4, abs=0.005)  # softmax of 40 times normal numbers
    assert (noisy.labels == target).mean() == pytest.approx(0.4, abs=4 * np.sqrt(0.24 / 4000))
    assert set(noisy.labels.tolist()) == {0, int(target)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 1.2}, r"rate must be a number in \[0, 1\]"),
        ({"spread": 0.0}, r"spread must be a number in \(0, inf\)"),
        ({"labels": np.zeros(4, dtype=int)}, "n_classes must be an int >= 2"),
        ({"inputs": np.ones((3, 2))}, "each of the 4 labels"),
        ({"inputs": np.full((4, 2), np.nan)}, "finite numbers"),
    ],
)
def test_noise_along_directions_says_what_it_needs(change, words):
    given = {"labels": np.array([0, 1, 0, 1]), "inputs": np.ones((4, 2)), "rate": 0.2} | change
    with pytest.raises(ValueError, match=words):
        instance_dependent_noise(**given)


# ---------------------------------------------------------------- posteriors out of fold


def test_the_posteriors_of_a_row_come_from_the_other_folds():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 3], 20)
    X = rng.normal(size=(60, 4)) + y[:, None]
    found = out_of_fold_posteriors(X.reshape(60, 2, 2), y, LogisticRegression(), n_folds=4, n_classes=5, random_state=3)
    assert found.shape == (60, 5) and found.sum(axis=1) == pytest.approx(np.ones(60)) and (found[:, [2, 4]] == 0).all()
    seed = int(np.random.default_rng(3).integers(2**31))
    for train, test in StratifiedKFold(4, shuffle=True, random_state=seed).split(X, y):
        expected = LogisticRegression().fit(X[train], y[train]).predict_proba(X[test])
        assert found[np.ix_(test, [0, 1, 3])] == pytest.approx(expected)


def test_posteriors_by_default_learn_classes_that_lie_apart():
    y = np.arange(120) % 3
    # Columns of scales that a classifier without standardization would not converge on.
    X = (np.eye(3)[y] + np.random.default_rng(0).normal(0.0, 0.1, (120, 3))) * [1e-4, 1.0, 1e4]
    assert np.array_equal(out_of_fold_posteriors(X, y).argmax(axis=1), y)


@pytest.mark.parametrize(("y", "words"), [([0] * 9 + [1] * 3, r"5 folds; classes \[1\] have fewer"), ([0.5] * 12, "integers >= 0")])
def test_labels_that_have_no_folds_are_refused(y, words):
    with pytest.raises(ValueError, match=words):
        out_of_fold_posteriors(np.zeros((12, 2)), np.array(y))


# ---------------------------------------------------------------- long tail


@given(k=st.integers(1, 8), size=st.integers(1, 400), factor=st.floats(1.0, 500.0), seed=seeds)
def test_classes_of_one_size_keep_a_geometric_share_of_it(k, size, factor, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(k), size))
    kept = long_tail(labels, factor, random_state=seed)
    sizes = np.bincount(labels[kept.rows], minlength=k)
    assert sizes[0] == size and len(np.unique(kept.rows)) == len(kept.rows)
    exact = np.array([size * factor ** (-c / max(k - 1, 1)) for c in range(k)])
    assert np.array_equal(sizes, np.maximum(np.floor(exact + 1e-9), 1))
    assert kept.class_ratio == pytest.approx((1 / k) / (sizes / sizes.sum()))
    assert np.array_equal(kept.is_minority, sizes < sizes.mean())


@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=6), factor=st.floats(1.0, 100.0))
def test_classes_of_different_sizes_keep_the_longest_tail_that_they_have_rows_for(counts, factor):
    k, labels = len(counts), np.repeat(np.arange(len(counts)), counts)
    sizes = np.bincount(labels[long_tail(labels, factor).rows], minlength=k)
    tails = {n0: [max(1, int(n0 * factor ** (-c / (k - 1)) + 1e-9)) for c in range(k)] for n0 in range(1, max(counts) + 2)}
    assert sizes.tolist() == tails[sizes[0]] and (sizes <= counts).all()
    # One row more for class 0 would ask some class for more than it has, before rounding down.
    assert any((sizes[0] + 1) * factor ** (-c / (k - 1)) > counts[c] for c in range(k))


def test_a_long_tail_of_cifar10_is_the_published_one():
    labels = np.repeat(np.arange(10), 5000)
    sizes = np.bincount(labels[long_tail(labels, 100.0).rows])
    assert sizes.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert long_tail(labels, 100.0).is_minority.tolist() == [False] * 3 + [True] * 7


@pytest.mark.parametrize(
    ("labels", "factor", "words"),
    [
        ([0, 1], 0.01, r"must be a number in \[1, inf\), the largest class over the smallest; got 0.01"),
        ([0, 1], float("nan"), r"must be a number in \[1, inf\), the largest class over the smallest; got nan"),
        ([0, 1], float("inf"), r"must be a number in \[1, inf\), the largest class over the smallest; got inf"),
        ([0, 2], 2.0, r"classes \[1\] have none"),
        ([0.0, 1.0], 2.0, "integers >= 0.*float64"),
    ],
)
def test_a_long_tail_that_cannot_be_drawn_is_refused(labels, factor, words):
    with pytest.raises(ValueError, match=words):
        long_tail(np.array(labels), factor)


# ---------------------------------------------------------------- open set


@given(n=st.integers(0, 60), m=st.integers(1, 30), rate=st.floats(0.0, 1.0), seed=seeds)
def test_replaced_rows_have_inputs_from_outside_each_taken_as_often_as_the_others(n, m, rate, seed):
    inputs, outside = np.arange(2.0 * n).reshape(n, 2), -1 - np.arange(2.0 * m).reshape(m, 2)
    given_inputs = inputs.copy()
    shifted = open_set(inputs, rate, outside, random_state=seed)
    assert np.array_equal(inputs, given_inputs) and shifted.is_replaced.sum() == round(rate * n)
    assert np.array_equal(shifted.is_replaced, shifted.outside_rows >= 0)
    assert np.array_equal(shifted.inputs[~shifted.is_replaced], inputs[~shifted.is_replaced])
    assert np.array_equal(shifted.inputs[shifted.is_replaced], outside[shifted.outside_rows[shifted.is_replaced]])
    often = np.bincount(shifted.outside_rows[shifted.is_replaced], minlength=m)
    assert often.max() - often.min() <= 1
    assert np.array_equal(shifted.outside_rows, open_set_rows(n, rate, m, random_state=seed))


@pytest.mark.parametrize(
    ("outside", "rate", "words"),
    [
        (np.zeros((3, 5)), 0.5, r"shape, dtype and scale.*\(3, 5\) float64 for \(4, 2\) float64"),
        (np.zeros((3, 2), dtype=np.uint8), 0.5, r"shape, dtype and scale.*uint8 for"),
        (np.zeros(()), 0.5, "shape, dtype and scale"),
        (np.zeros((3, 2)), 1.5, r"in \[0, 1\]; got 1.5"),
        (np.zeros((0, 2)), 0.5, "2 rows are to be replaced"),
    ],
)
def test_an_open_set_that_cannot_be_drawn_is_refused(outside, rate, words):
    with pytest.raises(ValueError, match=words):
        open_set(np.zeros((4, 2)), rate, outside)


# ---------------------------------------------------------------- seeds

DATA = np.random.default_rng(0).normal(size=(300, 3))
LABELS, POSTERIORS = np.arange(300) % 3, problem(300, 3, 0)[1]
GENERATORS = {
    "symmetric": lambda seed: label_noise(LABELS, "symmetric", 0.5, random_state=seed).labels,
    "feature dependent": lambda seed: feature_dependent_noise(LABELS, POSTERIORS, "II", 0.4, random_state=seed).labels,
    "hybrid": lambda seed: feature_dependent_noise(LABELS, POSTERIORS, "I", 0.4, then=("pair", 0.3), random_state=seed).labels,
    "out of fold": lambda seed: out_of_fold_posteriors(DATA, LABELS, random_state=seed),
    "step": lambda seed: step_imbalance(LABELS, 5.0, random_state=seed).rows,
    "long tail": lambda seed: long_tail(LABELS, 5.0, random_state=seed).rows,
    "open set": lambda seed: open_set(DATA, 0.3, DATA, random_state=seed).inputs,
    "input noise": lambda seed: input_noise(DATA, "covariate", 0.3, random_state=seed).inputs,
    "open set rows": lambda seed: open_set_rows(300, 0.3, 50, random_state=seed),
    "gaussian": lambda seed: make_gaussian_shift(50, 50, random_state=seed).X_source,
    "heavy tails": lambda seed: make_heavy_tails(50, 50, random_state=seed).X_source,
    "mixture": lambda seed: make_mixture_shift(50, 50, random_state=seed).X_source,
    "subspace": lambda seed: make_subspace_shift(50, 50, random_state=seed).X_source,
    "selection": lambda seed: make_selection_bias(random_state=seed).X_source,
}


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_a_shift_follows_its_random_state_and_leaves_the_global_ones_alone(name):
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    one, same, other = (GENERATORS[name](seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert np.array_equal(one, GENERATORS[name](np.random.default_rng(0)))
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(torch_before, torch.get_rng_state())
