"""A table in partitions: X, its domain labels and its weights split alike, and sums over them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import dask.array as da
import numpy as np
from dask import delayed
from dask.base import is_dask_collection

from .._validation import check_rows

__all__ = ["Block", "Partitions", "check_collection", "is_frame", "one_column_chunk", "witness"]

T = TypeVar("T")
S = TypeVar("S")
_FAN_IN = 8  # number of results merged in one task, so that no machine holds those of all partitions
_SHOW_STACK = "X, y = densratio.dask.stack_domains(X_source, X_target)"


class Block(NamedTuple):
    """One partition: rows (n, d) in the dtype of the fit, labels (n,) or None if one is missing, sample_weight (n,) or None."""

    number: int
    rows: np.ndarray
    labels: Any
    weight: np.ndarray | None


class Partitions(NamedTuple):
    """The partitions of X, y and sample_weight as lazy blocks (X, y, sample_weight or None), in the order of the rows."""

    blocks: list[tuple[Any, Any, Any]]
    dtype: np.dtype
    columns: list[Any] | None
    """Column names of a dataframe."""

    @classmethod
    def of(cls, ratio: Any, X: Any, y: Any, sample_weight: Any) -> Partitions:
        """From X (n, d), y (n,), sample_weight (n,) or None, all Dask; sets the column names of the unfitted `ratio`.

        Raises ValueError for input that is not Dask, text columns, and partitions that do not match.
        """
        X = check_collection(X, type(ratio).__name__)
        sides = [_check_side(side, name, X) for side, name in ((y, "y"), (sample_weight, "sample_weight"))]
        dtype = check_rows(ratio, witness(X), reset=True).dtype
        x_parts = _delayed_parts(X)
        y_parts, weight_parts = ([None] * len(x_parts) if side is None else _delayed_parts(side) for side in sides)
        blocks = list(zip(x_parts, y_parts, weight_parts, strict=True))
        return cls(blocks, dtype, list(X.columns) if is_frame(X) else None)

    def reduce(self, summarize: Callable[[Block, S], T], merge: Callable[[T, T], T], shared: S) -> T:
        """Merge summarize(block, shared) over all partitions, in order and as a tree, in one pass."""
        once = delayed(shared, traverse=False)
        parts = [delayed(_summarize)(summarize, i, *block, self.dtype, once) for i, block in enumerate(self.blocks)]
        while len(parts) > 1:
            parts = [delayed(functools.reduce)(merge, parts[i : i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
        return parts[0].compute()


def is_frame(X: Any) -> bool:
    """Whether X is a Dask dataframe."""
    return is_dask_collection(X) and hasattr(X, "columns")


def check_collection(X: Any, name: str) -> Any:
    """X as a Dask dataframe, or as a Dask array (n, d) of numpy blocks that hold whole rows.

    name: of the estimator to suggest for rows in memory. Raises ValueError for other input.
    """
    if is_frame(X):
        return X
    if not isinstance(X, da.Array):
        kind = f"{type(X).__module__.split('.')[0]}.{type(X).__name__}"
        raise ValueError(
            f"X must be a Dask array (n, d) or a Dask dataframe; got {kind}. For rows in memory use {name}().fit(X, y); to split "
            "them use dask.array.from_array(X, chunks=(100_000, -1))."
        )
    if X.ndim != 2 or np.isnan(X.shape[1]):
        raise ValueError(f"Expected 2D array (n, d) with a known number of columns; got a Dask array of shape {X.shape}.")
    if not isinstance(X._meta, np.ndarray):
        raise ValueError(
            f"The blocks of X must be numpy arrays; got {type(X._meta).__name__}. Convert them, e.g. X.map_blocks(lambda b: "
            "b.toarray()) for sparse blocks."
        )
    return one_column_chunk(X)


def one_column_chunk(X: da.Array) -> da.Array:
    """The Dask array X (n, d) in blocks of whole rows."""
    return X if X.numblocks[1] == 1 else X.rechunk({1: -1})


def witness(X: Any) -> Any:
    """A one-row table in memory with the columns and dtypes of a Dask collection, for input validation."""
    # The second row of Dask's example data may hold missing values in nullable columns.
    return X._meta_nonempty.iloc[:1] if is_frame(X) else np.zeros((1, X.shape[1]), dtype=X.dtype)


def _check_side(side: Any, name: str, X: Any) -> Any:
    """y or sample_weight (n,), partitioned like X."""
    if side is None and name == "sample_weight":
        return None
    if not is_dask_collection(side) or getattr(side, "ndim", 1) != 1:
        got = f"a {side.ndim}-D collection" if is_dask_collection(side) else type(side).__name__
        hint = f" To pass two samples, stack them: {_SHOW_STACK}." if name == "y" else ""
        raise ValueError(f"{name} must be a Dask array or series (n,), split as X is; got {got}.{hint}")
    if isinstance(side, da.Array) and isinstance(X, da.Array):
        known = not np.isnan([*side.chunks[0], *X.chunks[0]]).any()
        if known and side.shape[0] != X.shape[0]:
            raise ValueError(f"X has {X.shape[0]} rows and {name} has {side.shape[0]}: they must have the same length.")
        if known:
            return side.rechunk((X.chunks[0],))
    n_blocks, n_expected = (z.numblocks[0] if isinstance(z, da.Array) else z.npartitions for z in (side, X))
    if n_blocks != n_expected:
        raise ValueError(
            f"X has {n_expected} partitions and {name} has {n_blocks}: they must be partitioned alike. Give columns of one Dask "
            "dataframe, arrays with known chunk sizes (X.compute_chunk_sizes() computes them), or two samples by "
            f"{_SHOW_STACK}."
        )
    return side


def _delayed_parts(collection: Any) -> list[Any]:
    # Optimization may merge the Parquet partitions of X and y differently; unoptimized, they also share one read.
    parts = collection.to_delayed(optimize_graph=False)
    return parts.ravel().tolist() if isinstance(parts, np.ndarray) else list(parts)


def _summarize(summarize: Callable, number: int, x: Any, y: Any, weight: Any, dtype: np.dtype, shared: Any) -> Any:
    labels = np.asarray(y)
    misses = bool(y.isna().any()) if hasattr(y, "isna") else labels.dtype.kind == "f" and not np.all(np.isfinite(labels))
    weight = None if weight is None else _numbers(weight, np.float64)
    return summarize(Block(number, _numbers(x, dtype), None if misses else labels, weight), shared)


def _numbers(part: Any, dtype: Any) -> np.ndarray:
    return part.to_numpy(dtype=dtype, na_value=np.nan) if hasattr(part, "to_numpy") else np.asarray(part, dtype=dtype)
