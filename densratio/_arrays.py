"""All code that distinguishes numpy from torch, on top of array-api-compat."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from array_api_compat import array_namespace, is_numpy_array, is_torch_array
from array_api_compat import device as _device

from ._threads import few_threads, threads_to_factor

Array = Any
_NAMESPACES: dict[type, Any] = {}

__all__ = [
    "Array",
    "are_alike",
    "cholesky_solver",
    "clipped_at_zero",
    "concat_rows",
    "dense",
    "device_of",
    "eigh",
    "eps",
    "exp_of_negative",
    "full_like_row",
    "has_float64",
    "host_numbers",
    "is_floating",
    "is_numpy_array",
    "is_sparse",
    "is_tensor",
    "map_arrays",
    "namespace",
    "put",
    "running_sum",
    "shifted_block",
    "take_rows",
    "tiny",
    "to_device",
    "to_host",
    "usable_device",
    "waits_for",
    "weighted_mean",
    "widest",
    "widest_here",
]


def namespace(*arrays: Array) -> Any:
    """Array-API namespace of `arrays`, which are of one library. Cached by type: a step needs it dozens of times."""
    kind = type(arrays[0])
    if kind not in _NAMESPACES:
        # numpy has all functions of the standard except `descending`; the wrappers would take a fifth of the time of a step.
        _NAMESPACES[kind] = np if is_numpy_array(arrays[0]) or is_sparse(arrays[0]) else array_namespace(*arrays)
    return _NAMESPACES[kind]


def is_tensor(x: Any) -> bool:
    """Whether `x` is a torch tensor, without importing torch."""
    return "torch" in sys.modules and is_torch_array(x)


def clipped_at_zero(x: Array) -> Array:
    """max(x, 0) of a temporary array, in place for numpy: a second large array costs more than the arithmetic."""
    return np.maximum(x, 0.0, out=x) if is_numpy_array(x) else namespace(x).clip(x, min=0.0)


def exp_of_negative(x: Array, most: float | None = None) -> Array:
    """exp(-min(x, most)) of a temporary array, in place for numpy."""
    if is_numpy_array(x):
        x = x if most is None else np.minimum(x, most, out=x)
        return np.exp(np.negative(x, out=x), out=x)
    return namespace(x).exp(-(x if most is None else namespace(x).clip(x, max=most)))


def device_of(x: Array) -> Any:
    """The device of `x`; "cpu" for sparse rows."""
    return "cpu" if is_sparse(x) else _device(x)


def are_alike(x: Array, y: Array) -> bool:
    """Whether two arrays have the same library, dtype and device, as required in one operation."""
    return is_tensor(x) == is_tensor(y) and x.dtype == y.dtype and device_of(x) == device_of(y)


def is_sparse(x: Any) -> bool:
    """Whether `x` is a scipy sparse matrix or array."""
    return scipy.sparse.issparse(x)


def take_rows(rows: Array, keep: Any) -> Array:
    """The rows of `rows` (n, ...) at the integer positions `keep` (k,) from the host, on the device of `rows`."""
    if is_sparse(rows):
        return rows[keep]
    xp = namespace(rows)
    return xp.take(rows, xp.asarray(keep, dtype=xp.int64, device=device_of(rows)), axis=0)


def concat_rows(first: Array, second: Array) -> Array:
    """The rows of both samples, dense or CSR, of the same library."""
    if is_sparse(first):
        return scipy.sparse.csr_array(scipy.sparse.vstack([first, second]))
    return namespace(first, second).concat([first, second])


def is_floating(x: Array) -> bool:
    """Whether `x` holds real floating-point numbers."""
    return namespace(x).isdtype(x.dtype, "real floating")


def eps(x: Array) -> float:
    """Rounding unit of the dtype of `x`."""
    return float(namespace(x).finfo(x.dtype).eps)


def tiny(x: Array) -> float:
    """A positive number below all meaningful values, whose reciprocal is finite in the dtype of `x`."""
    return float(namespace(x).finfo(x.dtype).smallest_normal) ** 0.8


def waits_for(device: Any) -> bool:
    """Whether the host would wait for a value on this torch device. "meta" holds no values: a step that runs there never waits."""
    return device.type in ("cuda", "meta")


def to_host(x: Array) -> Any:
    """`x` as a numpy array; a tensor is detached and copied to the CPU first. Sparse rows stay sparse."""
    if is_tensor(x):
        return x.detach().cpu().numpy()
    return x if is_numpy_array(x) or is_sparse(x) else np.asarray(x)


def host_numbers(x: Array) -> Any:
    """A copy of `x` in float64 as a numpy array, or as sparse rows."""
    return to_host(x).astype(np.float64)


def dense(x: Array) -> Array:
    """`x` as a dense array, if it is sparse."""
    return x.toarray() if is_sparse(x) else x


def put(x: Any, like: Array) -> Array:
    """`x` (numpy array or Python scalar) as an array in the library, dtype and device of `like`."""
    return namespace(like).asarray(x, dtype=like.dtype, device=device_of(like))


def running_sum(x: Array, axis: int = 0) -> Array:
    """Cumulative sums along an axis, in the shape of `x`.

    Under torch.use_deterministic_algorithms a GPU raises an error for its own cumulative sum of floats; it then takes log2(n)
    additions of the whole array.
    """
    xp = namespace(x)
    return _doubled_sum(x, axis) if xp is not np and _must_be_deterministic(x) else xp.cumulative_sum(x, axis=axis)


def _must_be_deterministic(x: Array) -> bool:
    return is_tensor(x) and x.device.type == "cuda" and sys.modules["torch"].are_deterministic_algorithms_enabled()


def _doubled_sum(x: Array, axis: int) -> Array:
    sums, step, n = x.movedim(axis, 0), 1, x.shape[axis]
    while step < n:
        sums = namespace(x).concat([sums[:step], sums[step:] + sums[:-step]])
        step *= 2
    return sums.movedim(0, axis)


def to_device(x: Any, device: str) -> Array:
    """numpy `x` as a torch tensor on `device`; the only use of the parameter `device`. ImportError without torch."""
    try:
        import torch
    except ImportError:
        raise ImportError(f'device="{device}" needs torch: pip install "densratio-toolkit[torch]"') from None
    try:
        tensor = torch.as_tensor(x)
        return tensor.to(device, torch.float32) if device.startswith("mps") else tensor.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device="{device}" is not usable here ({str(error).splitlines()[0]}); try device="cpu"') from None


def usable_device(device: Any) -> Any:
    """The torch.device of a name such as "cuda". Raises ValueError for one that is unknown or absent; ImportError without torch."""
    return to_device(np.zeros(1, dtype=np.float32), str(device)).device


def has_float64(x: Array) -> bool:
    """Whether the device of `x` supports float64; Apple's MPS does not."""
    return not (is_tensor(x) and x.device.type == "mps")


def weighted_mean(x: Array, weight: Array | None) -> Array:
    """Weighted mean over the rows of `x` (n, ...); the plain mean if `weight` (n,) is None."""
    xp = namespace(x)
    if weight is None:
        return xp.mean(x, axis=0)
    return xp.tensordot(weight, x, axes=1) / xp.sum(weight)


def widest(x: Array) -> Array:
    """`x` in float64, for factorizations that would fail in single precision."""
    xp = namespace(x)
    return xp.astype(x, xp.float64, copy=False)


def widest_here(x: Array) -> Array:
    """`x` in float64 if its device supports it, otherwise unchanged."""
    return widest(x) if has_float64(x) else x


def cholesky_solver(matrix: Array, *, overwrites: bool = False) -> Callable[[Array], Array]:
    """The map from r (n,) to the solution of matrix x = r, for a positive definite matrix (n, n); NaN if it is not.

    overwrites: whether the matrix may be overwritten.
    """
    if is_numpy_array(matrix):
        try:
            # The transpose of a C-ordered matrix is in the order of LAPACK, so no copy is made.
            with threads_to_factor(len(matrix)):
                factor = scipy.linalg.cho_factor(matrix.T, lower=True, overwrite_a=overwrites, check_finite=False)
        except scipy.linalg.LinAlgError:
            return lambda r: np.full_like(r, np.nan)
        return lambda r: scipy.linalg.cho_solve(factor, r, check_finite=False)
    xp = namespace(matrix)
    if is_tensor(matrix):
        # cholesky_ex reports failure in a tensor; raising an exception would wait for the device.
        lower, info = xp.linalg.cholesky_ex(matrix)
        lower = xp.where(info == 0, lower, xp.full_like(lower, float("nan")))
        return lambda r: xp.cholesky_solve(r[:, None], lower)[:, 0]
    try:
        inverse = xp.linalg.inv(xp.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return lambda r: xp.full_like(r, float("nan"))
    return lambda r: xp.matrix_transpose(inverse) @ (inverse @ r)


def eigh(matrix: Array) -> tuple[Array, Array]:
    """Ascending eigenvalues (n,) and eigenvectors, the columns (n, n), of a symmetric matrix (n, n)."""
    with few_threads(len(matrix)) if is_numpy_array(matrix) else nullcontext():
        values, vectors = namespace(matrix).linalg.eigh(matrix)
    return values, vectors


def full_like_row(x: Array, value: float) -> Array:
    """A vector (n,) filled with `value` for x (n, ...), in its dtype and on its device."""
    return namespace(x).full((x.shape[0],), value, dtype=x.dtype, device=device_of(x))


def shifted_block(matrix: Array, rows: Array, diagonal: Array) -> Array:
    """The block (k, k) of a square matrix at rows and columns `rows` (k,), plus diag(diagonal), diagonal (k,)."""
    if is_numpy_array(matrix):
        block = matrix[np.ix_(rows, rows)] if len(rows) < len(matrix) else matrix.copy()
        block.flat[:: len(rows) + 1] += diagonal
        return block
    xp = namespace(matrix)
    block = xp.take(xp.take(matrix, rows, axis=0), rows, axis=1)
    return block + xp.eye(block.shape[0], dtype=block.dtype, device=device_of(block)) * diagonal


def map_arrays(tree: Any, function: Callable[[Array], Array], keeps: type | tuple[type, ...] = ()) -> Any:
    """`tree` with function(array) for each array in it: in tuples, in fields of dataclasses, and in their contents.

    Instances of `keeps` stay unchanged.
    """
    if isinstance(tree, keeps):
        return tree
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{field.name: map_arrays(getattr(tree, field.name), function, keeps) for field in fields(tree)})
    if isinstance(tree, tuple):
        parts = [map_arrays(part, function, keeps) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return function(tree) if is_tensor(tree) or is_numpy_array(tree) or hasattr(tree, "__array_namespace__") else tree
