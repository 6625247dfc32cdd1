"""Tables in memory and on Dask, and what their fits share."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from sklearn.base import clone

pytest.importorskip("dask.array")
import dask
import dask.array as da

import densratio
from densratio.estimators import base, density_ratio, objective_of
from densratio.estimators.solve import Assembly


@pytest.fixture(autouse=True)
def on_one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def samples(n_source=400, n_target=300, d=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_source, d)), rng.normal(0.5, 0.8, size=(n_target, d))


def table(n_source=400, n_target=300, d=2, seed=0):
    """X, y and weights in memory, the domains mixed; some rows count 0 times."""
    rng = np.random.default_rng(seed + 1)
    X, y = densratio.stack_domains(*samples(n_source, n_target, d, seed))
    order = rng.permutation(len(y))
    return X[order], y[order], rng.integers(0, 4, len(y)).astype(float)


def split(X, y, weight=None, chunks=None):
    """The same as Dask arrays, in uneven chunks, an empty one among them and one of the columns apart."""
    n = len(y)
    chunks = (n // 5, 0, n // 2, 1, n - n // 5 - n // 2 - 1) if chunks is None else chunks
    sides = [None if side is None else da.from_array(side, chunks=(chunks,)) for side in (y, weight)]
    return da.from_array(X, chunks=(chunks, (1,) * X.shape[1])), *sides


def unknown(array):
    """The same array, its chunk sizes not known."""
    return array[da.from_array(np.ones(len(array), dtype=bool), chunks=array.chunks[0])]


def with_features_of(model, ratio, X, y, weight=None):
    """`ratio` fitted in memory with the scale, centers and bandwidth of a fitted DaskRatio, which has them from its sample."""
    ratio = clone(ratio)
    features = mock.patch.object(density_ratio, "assemble", lambda ratio, samples: Assembly(objective_of(ratio), model.features_))
    with features, mock.patch.object(base.Scale, "between", lambda *samples: model.ratio_._unit):
        return ratio.fit(X, y, weight)
