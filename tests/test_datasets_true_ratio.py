"""What every maker of a shift returns, its ratio as a callable, and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from shift_cases import DRAWN, MAKERS, TABLES, by_drawn, by_maker

from densratio.datasets import (
    Shift,
    make_gaussian_shift,
    make_heavy_tails,
    make_mixture_shift,
    make_selection_bias,
    make_subspace_shift,
)

# ---------------------------------------------------------------- what every maker returns


@by_maker
def test_a_shift_unpacks_into_rows_domains_and_ratio_and_names_the_rest(name):
    shift = MAKERS[name](n_source=30, n_target=40)
    X, y, ratio = shift
    assert isinstance(shift, Shift) and X is shift.X and y is shift.y and ratio is shift.ratio
    assert X.dtype == np.float64 and X.shape[0] == 70 and y.dtype == np.int64
    assert np.bincount(y).tolist() == [30, 40]
    assert_array_equal(shift.X_source, X[y == 0]), assert_array_equal(shift.X_target, X[y == 1])
    assert_array_equal(shift.labels_source, shift.labels[y == 0])
    assert_array_equal(shift.labels_target, shift.labels[y == 1])
    assert shift.labels.shape == (70,) and len(shift.X_source) == len(shift.labels_source) == 30
    assert ratio(X).shape == (70,) and ratio(X).dtype == np.float64 and ratio.n_columns == X.shape[1]
    assert (shift.subspace is not None) == name.startswith("subspace")
    assert (shift.index is not None) == (name in TABLES)


@by_maker
def test_the_same_seed_gives_the_same_shift_and_another_seed_another(name):
    one, same, seeded = (MAKERS[name](random_state=seed) for seed in (7, 7, np.random.default_rng(7)))
    for shift in (same, seeded):
        assert_array_equal(one.X, shift.X)
        assert_array_equal(one.labels, shift.labels)
        assert_array_equal(one.ratio(one.X), shift.ratio(one.X))
    other = MAKERS[name](random_state=8)
    assert other.X.shape != one.X.shape or not np.array_equal(one.X, other.X)


@by_maker
def test_a_generator_goes_on_where_it_was(name):
    rng = np.random.default_rng(7)
    first, second = MAKERS[name](random_state=rng), MAKERS[name](random_state=rng)
    assert first.X.shape != second.X.shape or not np.array_equal(first.X, second.X)


@by_maker
def test_the_global_random_state_is_neither_read_nor_moved(name):
    before = np.random.get_state()  # noqa: NPY002
    MAKERS[name]()
    after = np.random.get_state()  # noqa: NPY002
    assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


@by_maker
def test_a_shift_survives_pickling(name):
    shift = MAKERS[name]()
    again = pickle.loads(pickle.dumps(shift))
    assert_array_equal(again.ratio(again.X), shift.ratio(shift.X))


@by_drawn
def test_one_row_of_each_sample_is_enough(name):
    shift = DRAWN[name](n_source=1, n_target=1)
    assert np.isfinite(shift.ratio(shift.X)).all() and shift.X.shape[0] == 2


# ---------------------------------------------------------------- the ratio as a callable


@by_maker
def test_the_ratio_takes_frames_tensors_single_precision_and_no_rows(name):
    torch = pytest.importorskip("torch")
    shift = MAKERS[name]()
    rows = shift.X[:7].astype(np.float32)
    expected = shift.ratio(rows.astype(np.float64))
    for given_rows in (rows, pd.DataFrame(rows), torch.as_tensor(rows), rows.tolist()):
        assert_allclose(shift.ratio(given_rows), expected, rtol=1e-12)
    assert shift.ratio(shift.X[:0]).shape == (0,)
    assert_allclose(shift.ratio(np.repeat(rows, 3, axis=0)), np.repeat(expected, 3), rtol=1e-12)


@by_maker
def test_the_ratio_is_the_same_in_blocks(name, monkeypatch):
    shift = MAKERS[name]()
    whole = shift.ratio(shift.X)
    monkeypatch.setattr("densratio._blocks.BLOCK", 7)
    assert_allclose(shift.ratio(shift.X), whole, rtol=1e-13)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(3), r"X must be rows \(n, d\), d >= 1; got shape \(3,\)"),
        (np.zeros((3, 0)), r"got shape \(3, 0\)"),
        (np.zeros((3, 3)), "X must have the 2 columns of the data that this ratio belongs to; got 3"),
        ([["a", "b"]], "X must hold numbers"),
        ([[0.0, np.nan]], "X contains NaN or infinity in column 1"),
        (pd.DataFrame({"age": [1.0, -np.inf], "sex": [1.0, np.nan]}), "X contains NaN or infinity in column 'age'"),
    ],
)
def test_rows_that_the_ratio_cannot_take_are_refused_in_words(rows, message):
    with pytest.raises(ValueError, match=message):
        make_mixture_shift(2, 2).ratio(rows)


# ---------------------------------------------------------------- errors


TABLE = np.arange(20.0).reshape(10, 2)
ERRORS = {
    "no source row": (lambda: make_gaussian_shift(0, 5), "n_source must be an int >= 1; got 0"),
    "a negative target": (lambda: make_mixture_shift(5, -1), "n_target must be an int >= 1; got -1"),
    "half a row": (lambda: make_heavy_tails(2.5, 5), "n_source must be an int >= 1; got 2.5"),
    "a truth for a size": (lambda: make_heavy_tails(5, True), "n_target must be an int >= 1; got True"),
    "no column": (lambda: make_gaussian_shift(5, 5, 0), "n_columns must be an int >= 1; got 0"),
    "no direction": (lambda: make_subspace_shift(n_directions=0), "n_directions must be an int >= 1; got 0"),
    "too many directions": (lambda: make_subspace_shift(5, 5, 3, n_directions=4), "at most n_columns; got 4 directions in 3"),
    "a negative scale": (lambda: make_gaussian_shift(scale=-1.0), r"scale must be a number in \(0, inf\); got -1.0"),
    "no scale": (lambda: make_subspace_shift(scale=0.0), r"scale must be a number in \(0, inf\); got 0.0"),
    "scale not a number": (lambda: make_heavy_tails(scale=np.nan), r"scale must be a number in \(0, inf\); got nan"),
    "two scales": (lambda: make_gaussian_shift(scale=[1.0, 2.0]), r"scale must be a number in \(0, inf\)"),
    "a long shift": (lambda: make_gaussian_shift(shift=[1.0, 2.0]), r"a vector \(1,\); got shape \(2,\)"),
    "an endless shift": (lambda: make_heavy_tails(shift=np.inf), "shift must be finite; got inf"),
    "negative noise": (lambda: make_gaussian_shift(noise=-0.1), r"noise must be a number in \[0, inf\).*got -0.1"),
    "df": (lambda: make_heavy_tails(df_source=0.01), r"df_source must be a number in \[0.1, inf\); got 0.01"),
    "infinite df": (lambda: make_heavy_tails(df_target=np.inf), r"df_target must be a number in \[0.1, inf\); got inf"),
    "means of other columns": (
        lambda: make_mixture_shift(means=[[0.0], [1.0]]),
        r"means must be \(K, n_columns\) with n_columns=2; got shape \(2, 1\)",
    ),
    "target means": (lambda: make_mixture_shift(target_means=[0.0, 1.0]), r"target_means must be \(K, n_columns\)"),
    "components": (lambda: make_mixture_shift(means=np.zeros((3, 2))), "same number of components; got 3 means, 3 target"),
    "negative weights": (lambda: make_mixture_shift(source_weights=[-1, 2]), r"source_weights must be \(K,\) numbers >= 0"),
    "no weight": (lambda: make_mixture_shift(target_weights=[0, 0]), "target_weights must be .* one of them > 0"),
    "mixture scales": (lambda: make_mixture_shift(scales=[1.0, 0.0]), "scales must be a number > 0, or one for each of the 2"),
    "many mixture scales": (lambda: make_mixture_shift(scales=[1.0, 1.0, 1.0]), "one for each of the 2 components"),
    "an unknown kind": (lambda: make_selection_bias(kind="age"), r"'age' is not known; use one of \['distance', 'feature'\]"),
    "labels alone": (lambda: make_selection_bias(labels=[0, 1]), "labels were passed without X"),
    "labels of another length": (lambda: make_selection_bias(TABLE, [0, 1]), r"labels must be \(10,\).*got shape \(2,\)"),
    "a column out of range": (lambda: make_selection_bias(TABLE, column=2), "column must be a position from 0 to 1; got 2"),
    "an unknown name": (
        lambda: make_selection_bias(pd.DataFrame(TABLE, columns=["a", "b"]), column="c"),
        r"from 0 to 1 or one of \['a', 'b'\]; got 'c'",
    ),
    "a probability of none": (lambda: make_selection_bias(probabilities=(0.0, 1.0)), r"two numbers in \(0, 1\].*no ratio"),
    "three probabilities": (lambda: make_selection_bias(probabilities=(0.1, 0.2, 0.3)), "two numbers in"),
    "a low threshold": (lambda: make_selection_bias(TABLE, threshold=-1.0), "All values of column 0 are > -1: pass a threshold"),
    "a constant column": (lambda: make_selection_bias(np.ones((9, 1))), "All values of column 0 are <= 1: pass a threshold"),
    "a negative strength": (lambda: make_selection_bias(kind="distance", strength=-1.0), "strength must be .*; got -1.0"),
    "too large a target": (lambda: make_selection_bias(TABLE, n_target=10), r"from 1 to 9 \(X has 10 rows\); got 10"),
    "no target": (lambda: make_selection_bias(TABLE, n_target=0), "n_target must be an integer from 1 to 9"),
    "too large a source": (
        lambda: make_selection_bias(TABLE, probabilities=(1, 1), n_source=6),
        r"n_source must be an integer from 1 to 5 \(5 of 5 candidates were kept\); got 6",
    ),
    "nothing kept": (lambda: make_selection_bias(TABLE, probabilities=(1e-9, 1e-9)), "None of the 5 candidate rows was kept"),
    "one row": (lambda: make_selection_bias([[1.0]]), "X must have at least 2 rows, one for each sample; got 1"),
    "a hole in the table": (lambda: make_selection_bias([[1.0], [np.nan]]), "NaN or infinity in column 0"),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_every_mistake_is_refused_in_words(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
