"""A fitted density ratio at the rows of a Dask collection, partition by partition."""

from __future__ import annotations

from typing import Any

import numpy as np
from dask import delayed
from dask.base import is_dask_collection
from sklearn.utils.validation import check_is_fitted

from .._validation import check_rows
from ..estimators.distributed import portable
from .partitions import check_collection, is_frame, witness

__all__ = ["transform"]


def transform(ratio: Any, X: Any) -> Any:
    """p_target(x) / p_source(x) (n,), lazy, of any fitted density ratio at the rows of the Dask collection X (n, d).

    For a Dask array it returns a Dask array with the same chunks of rows, known or not; for a Dask dataframe a series named
    "ratio" with the same index; for rows in memory ratio.transform(X). Columns are checked now, NaN when a partition is computed.
    """
    if not is_dask_collection(X):
        return ratio.transform(X)
    check_is_fitted(ratio)
    X = check_collection(X, type(ratio).__name__)
    dtype = check_rows(ratio, witness(X), reset=False).dtype
    once = delayed(portable(ratio), traverse=False)
    if is_frame(X):
        return X.map_partitions(_series, once, dtype, meta=("ratio", dtype))
    empty = np.empty(0, dtype=dtype)
    return X.map_blocks(_values, once, dtype, drop_axis=1, dtype=dtype, chunks=(X.chunks[0],), meta=empty)


def _values(block: Any, ratio: Any, dtype: np.dtype) -> np.ndarray:
    return np.asarray(ratio.transform(block), dtype=dtype) if len(block) else np.empty(0, dtype=dtype)


def _series(frame: Any, ratio: Any, dtype: np.dtype) -> Any:
    import pandas

    return pandas.Series(_values(frame, ratio, dtype), index=frame.index, name="ratio")
