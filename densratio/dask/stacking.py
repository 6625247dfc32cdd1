"""Two samples as one Dask collection with its domain labels."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np

from .._columns import with_columns_of
from .partitions import check_collection, is_frame, one_column_chunk

__all__ = ["stack_domains"]


def stack_domains(X_source: Any, X_target: Any) -> tuple[Any, Any]:
    """Stack two samples into one lazy (X, y), source rows first; y is 0 for source and 1 for target rows.

    X_source (n_s, d), X_target (n_t, d): Dask arrays, of known or unknown chunk sizes, or Dask dataframes with the same
    columns, which keep their index; y is then a series named "domain". Raises ValueError for other input and differing columns.
    """
    samples = [check_collection(X, "LSIF") for X in (X_source, X_target)]
    if is_frame(samples[0]) != is_frame(samples[1]):
        raise ValueError("One sample is a Dask dataframe and the other a Dask array: give both as one of these.")
    return _stack_frames(*samples) if is_frame(samples[0]) else _stack_arrays(*samples)


def _stack_arrays(source: da.Array, target: da.Array) -> tuple[da.Array, da.Array]:
    if source.shape[1] != target.shape[1]:
        raise ValueError(
            f"The samples differ in their columns: the source has {source.shape[1]} and the target has {target.shape[1]}."
        )
    X = da.concatenate([source, target], allow_unknown_chunksizes=True)
    y = da.concatenate([_labels(part, domain) for domain, part in enumerate((source, target))], allow_unknown_chunksizes=True)
    return one_column_chunk(X), y


def _labels(X: Any, domain: int) -> Any:
    empty = np.empty(0, dtype=np.int64)
    return X.map_blocks(lambda block: np.full(len(block), domain), drop_axis=1, dtype=np.int64, chunks=(X.chunks[0],), meta=empty)


def _stack_frames(source: Any, target: Any) -> tuple[Any, Any]:
    import dask.dataframe as dd

    frames = [source, with_columns_of(source, target)]
    series = [part.map_partitions(_full_series, domain, meta=("domain", np.int64)) for domain, part in enumerate(frames)]
    return dd.concat(frames), dd.concat(series)


def _full_series(frame: Any, domain: int) -> Any:
    import pandas

    return pandas.Series(domain, index=frame.index, dtype=np.int64, name="domain")
