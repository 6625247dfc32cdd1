"""Time series are read as they were written, and files that are none are refused."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from densratio.datasets import load_labelled, load_time_series

HEAD = "#where it is from\n@problemName toy\n@univariate true\n@data\n"


def written(path, series, labels):
    rows = [",".join(map(repr, row.tolist())) + f":{label}" for row, label in zip(series, labels, strict=True)]
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


@given(series=arrays(np.float32, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_series_and_classes_are_those_of_the_file(tmp_path, series):
    labels = [f"class {number % 2}" for number in range(len(series))]
    data = load_time_series(written(tmp_path / "toy_TRAIN.ts", series, labels))
    assert np.array_equal(data.inputs, series) and data.inputs.dtype == np.float32
    assert [data.class_names[label] for label in data.labels] == labels and data.test is None


def test_the_test_file_beside_is_the_test_split(tmp_path):
    written(tmp_path / "toy_TEST.ts", np.ones((2, 3)), ["a", "b"])
    written(tmp_path / "toy_TRAIN.ts", np.zeros((3, 3)), ["a", "b", "b"])
    data = load_labelled(f"time_series:{tmp_path / 'toy_TRAIN.ts'}")
    assert data.test[0].tolist() == np.ones((2, 3)).tolist() and data.test[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("1,2:a\n1:b", "in each line the same number of numbers"),
        ("1,x:a", "could not convert string to float: 'x'"),
        ("1,2", "in each line the same number of numbers"),
        ("1,?:a", "in each line the same number of numbers"),
        ("1,nan:a", "it holds gaps or infinite ones"),
        ("", "it holds no series"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path, body, words):
    path = tmp_path / "toy.ts"
    path.write_text(HEAD + body)
    with pytest.raises(ValueError, match=words):
        load_time_series(path)


@pytest.mark.parametrize(("series", "labels"), [(np.ones((2, 4)), ["a", "b"]), (np.ones((2, 3)), ["a", "c"])])
def test_a_test_file_of_another_kind_is_refused(tmp_path, series, labels):
    written(tmp_path / "toy_TRAIN.ts", np.zeros((2, 3)), ["a", "b"])
    written(tmp_path / "toy_TEST.ts", series, labels)
    with pytest.raises(ValueError, match=r"has other classes than .*, or series of another length"):
        load_time_series(tmp_path / "toy_TRAIN.ts")
