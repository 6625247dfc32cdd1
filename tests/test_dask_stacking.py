"""Dask collections transformed and stacked, lazily and as in memory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

pytest.importorskip("dask.array")
pd = pytest.importorskip("pandas")
dd = pytest.importorskip("dask.dataframe")
import dask.array as da  # noqa: E402
from dask_cases import (  # noqa: E402
    on_one_thread,  # noqa: F401
    samples,
    split,
    table,
    unknown,
)

from densratio import KLIEP, KMM, LSIF, Wasserstein  # noqa: E402
from densratio.dask import DaskRatio, stack_domains, transform  # noqa: E402

# ---------------------------------------------------------------- transform


def test_transform_keeps_the_chunks_of_an_array_known_or_not():
    X, y, _ = table()
    model = DaskRatio(LSIF(random_state=0)).fit(*split(X, y))
    expected = LSIF(random_state=0).fit(X, y).transform(X)
    known = split(X, y)[0]
    lazy = model.transform(known)
    assert isinstance(lazy, da.Array) and lazy.chunks == (known.chunks[0],) and lazy.dtype == np.float64
    np.testing.assert_allclose(lazy.compute(), expected, atol=1e-10)
    assert np.isnan(model.transform(unknown(known)).shape[0])
    np.testing.assert_allclose(model.transform(unknown(known)).compute(), expected, atol=1e-10)
    np.testing.assert_allclose(model.transform(X), expected, atol=1e-10)


def test_transform_of_a_frame_is_a_series_with_its_index():
    X, y, _ = table()
    frame = pd.DataFrame(X, columns=["a", "b"], index=np.arange(len(X)) * 3)
    lazy = dd.from_pandas(frame, npartitions=4)
    model = DaskRatio(KLIEP(random_state=0)).fit(lazy, dd.from_pandas(pd.Series(y, index=frame.index), npartitions=4))
    ratio = model.transform(lazy)
    assert ratio.name == "ratio" and ratio.divisions == lazy.divisions
    pd.testing.assert_index_equal(ratio.compute().index, frame.index)
    np.testing.assert_allclose(ratio.compute(), KLIEP(random_state=0).fit(frame, y).transform(frame), atol=1e-10)
    empty = model.transform(lazy[lazy["a"] > 1e9]).compute()
    assert len(empty) == 0 and empty.dtype == np.float64


@pytest.mark.parametrize("ratio", [KMM(), Wasserstein()], ids=lambda ratio: type(ratio).__name__)
def test_any_ratio_fitted_in_memory_serves_partitions(ratio):
    X, y, _ = table(60, 40, d=1)
    fitted = ratio.fit(X, y)
    np.testing.assert_allclose(transform(fitted, split(X, y)[0]).compute(), fitted.transform(X))


def test_transform_checks_what_it_can_before_anything_is_computed():
    X, y, _ = table()
    frame = dd.from_pandas(pd.DataFrame(X, columns=["a", "b"]), npartitions=2)
    model = DaskRatio(LSIF(random_state=0))
    with pytest.raises(NotFittedError):
        model.transform(frame)
    with pytest.raises(NotFittedError):
        transform(LSIF(), frame)
    model.fit(frame, dd.from_pandas(pd.Series(y), npartitions=2))
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(frame[["a"]])
    with pytest.raises(ValueError, match="X has 3 features, but LSIF is expecting 2"):
        DaskRatio(LSIF(random_state=0)).fit(*split(X, y)).transform(da.zeros((4, 3)))
    lazy = model.transform(frame.assign(b=frame["b"].where(frame["b"] > 0.0)))
    with pytest.raises(ValueError, match="NaN in column 'b'"):
        lazy.compute()


# ---------------------------------------------------------------- stacking


def test_stacked_arrays_are_the_source_followed_by_the_target():
    source, target = samples(50, 30)
    expected = np.concatenate([source, target]), np.repeat([0, 1], [50, 30])
    for change in (lambda array: array, unknown):
        stacked = stack_domains(*(change(da.from_array(part, chunks=(20, 1))) for part in (source, target)))
        assert stacked[0].numblocks == (5, 1) and stacked[1].dtype == np.int64
        for lazy, here in zip(stacked, expected, strict=True):
            assert np.array_equal(lazy.compute(), here)


@pytest.mark.parametrize("first", [0, -100, 20], ids=["the same index", "target before source", "overlapping"])
def test_stacked_frames_keep_their_index_and_the_source_comes_first(first):
    source, target = samples(50, 30)
    source, target = pd.DataFrame(source, columns=["a", "b"]), pd.DataFrame(target, columns=["a", "b"])
    target.index = target.index + first
    X, y = stack_domains(dd.from_pandas(source, npartitions=3), dd.from_pandas(target[["b", "a"]], npartitions=2))
    assert X.npartitions == y.npartitions == 5
    pd.testing.assert_frame_equal(X.compute(), pd.concat([source, target]))
    assert y.compute().tolist() == [0] * 50 + [1] * 30 and y.name == "domain"


def test_samples_that_do_not_stack_are_errors_in_words():
    array, frame = da.zeros((4, 2)), dd.from_pandas(pd.DataFrame({"a": [1.0], "b": [2.0]}), npartitions=1)
    with pytest.raises(ValueError, match="the source has 2 and the target has 3"):
        stack_domains(array, da.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"only the source has \['b'\], only the target has \['c'\]"):
        stack_domains(frame, frame.rename(columns={"b": "c"}))
    with pytest.raises(ValueError, match="give both as one of these"):
        stack_domains(array, frame)
    with pytest.raises(ValueError, match=r"must be a Dask array.*got numpy.ndarray"):
        stack_domains(array, np.zeros((4, 2)))
