"""What the paper's benchmark trains on: problems by the name of their shift, schedules, and accuracy by the size of classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_cases import DIGITS, TINY, experiment, session

from benchmarks.paper.problems import draw
from benchmarks.paper.session import decay_of
from benchmarks.paper.settings import Experiment
from benchmarks.paper.shifts import Shift, shift_of
from benchmarks.paper.tables import class_row
from densratio.datasets import INPUT_NOISE, input_noise, instance_dependent_noise


@given(n_val=st.integers(2, 200), rate=st.floats(0.0, 1.0), seed=st.integers(0, 50))
@settings(max_examples=10)
def test_the_three_samples_of_label_noise_share_no_row_and_only_training_labels_are_wrong(n_val, rate, seed):
    problem = draw(DIGITS, experiment(f"symmetric:{rate}", n_val), seed)
    truth = {image.tobytes(): label for image, label in zip(DIGITS.inputs, DIGITS.labels, strict=True)}
    samples = [(problem.x, problem.y), (problem.x_val, problem.y_val), (problem.x_test, problem.y_test)]
    assert [len(x) for x, _ in samples] == [1797 - n_val - 100, n_val, 100]
    assert len({image.tobytes() for x, _ in samples for image in x}) == len(truth)
    right = [np.array([truth[image.tobytes()] == label for image, label in zip(x, y, strict=True)]) for x, y in samples]
    assert np.array_equal(~right[0], problem.is_off) and right[1].all() and right[2].all()


def test_under_a_class_prior_shift_validation_is_balanced_and_rows_of_large_classes_are_off():
    problem = draw(DIGITS, experiment("class_prior:10", 50), 0)
    assert np.bincount(problem.y_val).tolist() == [5] * 10
    counts = np.bincount(problem.y)
    large = np.bincount(problem.y, problem.is_off) / counts
    assert sorted(large.tolist()) == [0.0] * 5 + [1.0] * 5
    assert counts[large == 0].max() * 10 == pytest.approx(counts[large == 1].min(), abs=5)


def test_labels_that_people_gave_take_the_place_of_the_true_ones_in_training_rows_alone():
    given = (DIGITS.labels + (np.arange(len(DIGITS.labels)) % 3 == 0)) % 10
    data, chosen = DIGITS._replace(given={"worse": given}), experiment("human:worse")
    truth = {image.tobytes(): pair for image, *pair in zip(DIGITS.inputs, DIGITS.labels, given, strict=True)}
    problem = draw(data, chosen, 0)
    of_train = np.array([truth[image.tobytes()] for image in problem.x])
    assert np.array_equal(problem.y, of_train[:, 1]) and np.array_equal(problem.is_off, of_train[:, 0] != of_train[:, 1])
    assert [truth[image.tobytes()][0] for image in problem.x_val] == problem.y_val.tolist()
    noisy = draw(data, experiment("human:worse+noisy_val"), 0)
    assert [truth[image.tobytes()][1] for image in noisy.x_val] == noisy.y_val.tolist()
    with pytest.raises(ValueError, match="human:best needs human labels of that name; the data has worse"):
        draw(data, experiment("human:best"), 0)
    with pytest.raises(ValueError, match="has none; give --human-labels FILE"):
        draw(DIGITS, chosen, 0)


def test_noise_that_depends_on_features_is_followed_by_another(monkeypatch):
    alone, both = (draw(DIGITS, experiment(shift), 0) for shift in ("pmd_I:0.3", "pmd_I:0.3+symmetric:0.3"))
    n = len(alone.y)
    assert abs(alone.is_off.mean() - 0.3) < 5 * (0.3 * 0.7 / n) ** 0.5
    # A row stays right if neither changes it, or the second brings it back: 0.7 x 0.7 + 0.3 x 0.3 / 9.
    assert abs(both.is_off.mean() - 0.5) < 5 * (0.5 * 0.5 / n) ** 0.5


def test_noise_along_directions_of_the_input_is_that_of_the_library_and_is_followed_by_another():
    clean, alone, both = (draw(DIGITS, experiment(shift), 3) for shift in ("symmetric:0", "instance:0.3", "instance:0.3+pair:0.3"))
    own = instance_dependent_noise(clean.y, clean.x, 0.3, n_classes=10, random_state=3)
    assert np.array_equal(alone.y, own.labels) and np.array_equal(alone.is_off, own.is_flipped)
    moved = (both.y - alone.y) % 10
    assert set(moved) == {0, 1} and abs(moved.mean() - 0.3) < 5 * (0.3 * 0.7 / len(moved)) ** 0.5
    assert np.array_equal(both.is_off, both.y != clean.y)


def test_an_open_set_row_keeps_its_label_and_gets_an_input_of_other_data():
    outside = np.full((7, 1, 8, 8), 9.0, dtype=np.float32)
    problem = draw(DIGITS._replace(outside=outside), experiment("open_set:0.25"), 0)
    plain = draw(DIGITS, experiment("symmetric:0"), 0)
    assert np.array_equal(problem.y, plain.y) and problem.is_off.sum() == round(0.25 * len(plain.y))
    assert (problem.x[problem.is_off] == 9.0).all() and np.array_equal(problem.x[~problem.is_off], plain.x[~problem.is_off])
    with pytest.raises(ValueError, match="open_set needs inputs of other data: give --outside"):
        draw(DIGITS, experiment("open_set:0.25"), 0)


@pytest.mark.parametrize("kind", INPUT_NOISE)
def test_noise_of_inputs_is_that_of_the_library_and_keeps_the_labels(kind):
    plain = draw(DIGITS, experiment("symmetric:0"), 3)
    problem, both = (draw(DIGITS, experiment(shift), 3) for shift in (f"{kind}:0.25", f"symmetric:0.5+{kind}:0.25"))
    own = input_noise(plain.x, kind, 0.25, random_state=3_000_003)
    assert np.array_equal(problem.x, own.inputs) and np.array_equal(problem.is_off, own.is_changed)
    assert np.array_equal(problem.y, plain.y) and np.array_equal(problem.x_val, plain.x_val)
    assert np.array_equal(both.is_off, own.is_changed | (both.y != plain.y))


@pytest.mark.parametrize(
    "text",
    [
        "pmd_IV:0.2", "pmd_I:2", "instance:1.5", "instance:0.3+pmd_I:0.2", "symmetric:0.1+pair:0.1", "human:", "keep:0",
        "noisy_val:1", "zoom:1.75", "zoom:0.1+crop:0.1", "long_tail:0.5", "",
    ],
)  # fmt: skip
def test_a_shift_that_is_not_known_is_told_what_is(text):
    with pytest.raises(
        ValueError, match=r"must be kind:rate with a kind in symmetric, .*pmd_III, instance, covariate, .*crop or open_set"
    ):
        shift_of(text)


def test_labels_of_people_are_not_drawn_too():
    with pytest.raises(ValueError, match="not both"):
        shift_of("human:worse+pmd_I:0.2")
    assert shift_of("pmd_II:0.35+symmetric:0.3+noisy_val") == Shift(("symmetric", 0.3), ("II", 0.35), noisy_val=True)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("quarters", [1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3]),
        ("at:3/5", [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        ("at:6:0.01", [1, 1, 1, 1, 1, 1, 0.01, 0.01]),
        ("linear", [1 - k / 8 for k in range(8)]),
        ("cosine", [(1 + np.cos(np.pi * k / 8)) / 2 for k in range(8)]),
        ("cosine:3", [1, 0.75, 0.25, 1, 0.75, 0.25, 1, 0.75]),
    ],
)
def test_a_schedule_multiplies_the_rate(schedule, factors):
    assert [decay_of(schedule, 8)(epoch) for epoch in range(8)] == pytest.approx(factors)


@pytest.mark.parametrize("schedule", ["steps", "at:", "cosine:0", "cosine:x", "at:3/x", "at:3:y", "quarter"])
def test_an_unknown_schedule_is_told_what_is(schedule):
    with pytest.raises(ValueError, match="constant, quarters, linear, cosine, at:80/100"):
        decay_of(schedule, 8)


def test_momentum_and_decay_are_those_of_the_setting():
    setting = TINY._replace(optimizer="momentum", learning_rate=0.1, weight_decay=5e-4)
    group = session("uniform", setting=setting).optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 5e-4)


def test_accuracy_by_the_size_of_classes_counts_test_rows():
    confusion = np.array([[8, 2, 0], [1, 3, 0], [3, 2, 0]])
    run = {"identity": {"layer": "losses"}, "confusion": confusion.tolist(), "class_sizes": [101, 20, 19]}
    row = class_row("uniform", [run, run])
    assert (row["many, > 100"], row["medium, 20 to 100"], row["few, < 20"]) == ("80.00", "75.00", "0.00")
    assert row["most often"] == "class 2 taken for 0: 3 rows"
    large = class_row("uniform", [run | {"class_sizes": [101, 200, 300]}])
    assert large == {"method": "Uniform", "most often": "class 2 taken for 0: 3 rows"}
    assert class_row("uniform", [run, run | {"confusion": None}]) is None


def test_a_share_of_the_training_rows_is_kept_as_for_methods_that_hold_rows_out():
    whole, kept = (draw(DIGITS, experiment(shift), 3) for shift in ("symmetric:0.2", "symmetric:0.2+keep:0.9"))
    assert len(kept.x) == round(0.9 * len(whole.x)) and np.array_equal(kept.x, whole.x[: len(kept.x)])
    assert np.array_equal(kept.x_val, whole.x_val) and np.array_equal(kept.x_test, whole.x_test)


def test_validation_rows_join_the_training_rows_where_that_is_asked():
    apart = draw(DIGITS, experiment(), 0)
    joined = draw(DIGITS, Experiment("digits", "symmetric:0.4", TINY, 100, val_in_train=True), 0)
    assert np.array_equal(joined.x, np.concatenate([apart.x, apart.x_val]))
    assert np.array_equal(joined.y, np.concatenate([apart.y, apart.y_val])) and not joined.is_off[-100:].any()
