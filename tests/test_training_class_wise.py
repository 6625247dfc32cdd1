"""Class by class: one step in each class times the ratio of the class frequencies."""

from __future__ import annotations

import copy

import pytest
import torch
from dynamic_cases import N_TRAIN, N_VAL, by_name, classes, new, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from densratio.training.ratio.class_priors import ClassFrequencies

drawn = settings(max_examples=15, deadline=None)


@by_name
@pytest.mark.parametrize("d", [None, 2])
def test_class_by_class_is_one_step_in_each_class_times_the_prior_ratio(name, d):
    if name == "wasserstein" and d is not None:
        pytest.skip("more than one column goes through a potential")
    y, y_val = classes(N_TRAIN, 1), classes(N_VAL, 2)
    joint, apart = new(name, y_train=y, y_val=y_val), {c: new(name) for c in range(3)}
    for step in range(3):
        i, j = torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(step))[:30], torch.arange(N_VAL)
        train, val = uniform(30, step, d, 2.0), uniform(N_VAL, 90 + step, d)
        joint.partial_fit(train, val, i, j)
        for c, reweighter in apart.items():
            at, val_at = y[i] == c, y_val == c
            reweighter.partial_fit(train[at], val[val_at], i[at], j[val_at])
    for c, reweighter in apart.items():
        prior = (y_val == c).double().mean() / (y == c).double().mean()
        # A row that no batch held has the weight 1 of the warm-up.
        met = (y == c) & (joint.weights_ != 1.0)
        assert int(met.sum()) >= int((y == c).sum()) - 1
        torch.testing.assert_close(joint.weights_[met].double(), prior * reweighter.weights_[met].double(), rtol=2e-5, atol=1e-6)


def test_classes_told_with_the_batches_are_those_declared_once_all_were_told():
    y, y_val = classes(N_TRAIN, 1), classes(N_VAL, 2)
    declared, told = new("kmm", y_train=y, y_val=y_val), new("kmm", warmup_steps=1)
    whole = uniform(N_TRAIN, 0, scale=2.0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL)
    told.partial_fit(*whole, y=y, y_val=y_val)
    declared.partial_fit(*whole)
    told.partial_fit(*whole, y=y, y_val=y_val)
    assert torch.equal(declared.weights_, told.weights_)
    assert told.classes.ratio(1) == pytest.approx(float((y_val == 1).double().mean() / (y == 1).double().mean()))


def test_a_class_too_small_in_a_batch_keeps_its_stored_weights_and_is_counted():
    y = torch.tensor([0] * 20 + [1] * 20)
    y_val = torch.tensor([0] * 6 + [1] * 6)
    reweighter = new("kmm", y_train=y, y_val=y_val)
    reweighter.partial_fit(uniform(N_TRAIN, 7, scale=2.0), uniform(N_VAL, 8), torch.arange(N_TRAIN), torch.arange(N_VAL))
    stored = reweighter.weights_.clone()
    i = torch.cat([torch.arange(10), torch.tensor([25])])  # one row of class 1
    reweighter.partial_fit(uniform(11, 0, scale=2.0), uniform(N_VAL, 1), i, torch.arange(N_VAL))
    assert torch.equal(reweighter.weights_[10:], stored[10:]) and not torch.equal(reweighter.weights_[:10], stored[:10])
    assert reweighter.too_small_ == {1: 1}
    j = torch.arange(7)  # one validation row of class 1
    reweighter.partial_fit(uniform(N_TRAIN, 5), uniform(7, 6), torch.arange(N_TRAIN), j)
    assert reweighter.too_small_ == {1: 2} and torch.equal(reweighter.weights_[20:], stored[20:])


def test_a_class_that_no_validation_row_has_gets_the_weight_zero():
    y, y_val = torch.arange(N_TRAIN) % 2, torch.zeros(N_VAL, dtype=torch.int64)
    reweighter = new("kmm", y_train=y, y_val=y_val)
    reweighter.partial_fit(uniform(N_TRAIN, 0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL))
    assert float(reweighter.weights_[y == 1].max()) == 0.0
    assert float(reweighter.weights_.mean()) == pytest.approx(1.0, rel=1e-5)


@drawn
@given(y=st.lists(st.integers(-1, 3), min_size=5, max_size=5), y_val=st.lists(st.integers(-1, 3), min_size=4, max_size=4))
def test_the_prior_ratio_is_of_the_labels_known_so_far(y, y_val):
    frequencies = ClassFrequencies(torch.tensor(y), torch.tensor(y_val))
    train, val = ([label for label in labels if label >= 0] for labels in (y, y_val))
    for label in range(5):
        if label not in train or (label not in val and len(val) < 4):
            assert frequencies.ratio(label) is None
        else:
            assert frequencies.ratio(label) == pytest.approx((val.count(label) / len(val)) / (train.count(label) / len(train)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"y_train": [0] * N_TRAIN}, "both y_train and y_val"),
        (
            {"y_train": [0] * 3, "y_val": [0] * N_VAL},
            r"y_train must hold the class of each row, integers \(40,\); got shape \(3,\)",
        ),
        ({"y_train": [0.5] * N_TRAIN, "y_val": [0] * N_VAL}, "y_train must hold the class"),
        ({"y_train": [0] * N_TRAIN, "y_val": [-1] * N_VAL}, "y_val must hold .* >= 0; got -1"),
        ({"val_refresh": 0}, "val_refresh must be an int >= 1"),
        ({"val_refresh": 4, "val_every": 0}, "val_every must be an int >= 1"),
        ({"val_every": 2}, "val_every=2 needs val_refresh"),
        ({"loss": "mse"}, r"loss must be a function \(prediction, label\) -> one loss a row; got 'mse'"),
        ({"y_train": ["a"] * N_TRAIN, "y_val": ["b"] * N_VAL}, r"y_train must hold .* got texts or other objects"),
        ({"forget": 1.0}, r"forget must be a number in \[0, 1\)"),
        ({"layer": "0", "transformation": lambda *_: None}, "give one of them"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        new("kmm", **params)


@pytest.mark.parametrize("name", ["KMM", "Kliep", "AUTO"])
def test_a_method_is_known_in_capitals_too(name):
    assert str(new(name)) == str(new(name.lower()))


def test_labels_of_one_sample_alone_are_refused():
    with pytest.raises(ValueError, match="both y and y_val"):
        new("kmm").partial_fit(uniform(5, 0), uniform(N_VAL, 1), range(5), range(N_VAL), y=[0] * 5)


@pytest.mark.parametrize("bank", [{}, {"val_refresh": 4}])
@pytest.mark.parametrize("bad", ["losses", "columns", "index"])
def test_a_batch_with_classes_that_is_refused_makes_no_estimate_class_by_class(bank, bad):
    reweighter, twin = (new("kmm", **bank) for _ in range(2))
    for one in (reweighter, twin):
        one.partial_fit(uniform(8, 0), uniform(4, 1), range(8), range(4))
    before = copy.deepcopy(reweighter.state_dict())
    train, val, index = uniform(8, 2), uniform(4, 3), [*range(8)]
    if bad == "losses":
        train[3] = float("nan")
    elif bad == "columns":
        val = torch.ones(4, 2)
    else:
        index[0] = 10**6
    with pytest.raises(ValueError):
        reweighter.partial_fit(train, val, index, range(4), y=[0] * 8, y_val=[0] * 4)
    assert reweighter.classes is None and before.keys() == reweighter.state_dict().keys()
    for one in (reweighter, twin):
        one.partial_fit(uniform(8, 4), uniform(4, 5), range(8), range(4))
    assert torch.equal(reweighter.weights_, twin.weights_)
