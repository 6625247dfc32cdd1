"""The one place that knows numpy from torch, over array-api-compat."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from array_api_compat import array_namespace, is_numpy_array, is_torch_array
from array_api_compat import device as device_of

Array = Any
_NAMESPACES: dict[type, Any] = {}

__all__ = [
    "Array",
    "cholesky_solver",
    "device_of",
    "eps",
    "full_like_row",
    "has_float64",
    "is_tensor",
    "namespace",
    "put",
    "tiny",
    "to_device",
    "to_host",
    "widest",
]


def namespace(*arrays: Array) -> Any:
    """Array-API namespace of `arrays`, which are of one library. Remembered by type: a step asks dozens of times."""
    kind = type(arrays[0])
    if kind not in _NAMESPACES:
        # numpy itself has the standard's functions, but for `descending`; the wrappers cost a step a fifth of its time.
        _NAMESPACES[kind] = np if is_numpy_array(arrays[0]) else array_namespace(*arrays)
    return _NAMESPACES[kind]


def is_tensor(x: Any) -> bool:
    """Whether `x` is a torch tensor, told without importing torch."""
    return "torch" in sys.modules and is_torch_array(x)


def eps(x: Array) -> float:
    """Rounding unit of the dtype of `x`."""
    return float(namespace(x).finfo(x.dtype).eps)


def tiny(x: Array) -> float:
    """A positive number far below every meaningful one, whose reciprocal is still finite in the dtype of `x`."""
    return float(namespace(x).finfo(x.dtype).smallest_normal) ** 0.8


def to_host(x: Array) -> Any:
    """`x` as a numpy array; a tensor is detached and brought to the CPU first."""
    if is_tensor(x):
        return x.detach().cpu().numpy()
    return x if is_numpy_array(x) else np.asarray(x)


def put(x: Any, like: Array) -> Array:
    """`x` (numpy array or python scalar) in the namespace, dtype and device of `like`."""
    return namespace(like).asarray(x, dtype=like.dtype, device=device_of(like))


def to_device(x: Any, device: str) -> Array:
    """numpy `x` as a torch tensor on `device`: the one door through which `device=` reaches torch."""
    try:
        import torch
    except ImportError:
        raise ImportError(f'device="{device}" needs torch: pip install "densratio-toolkit[torch]"') from None
    try:
        tensor = torch.as_tensor(x)
        return tensor.to(device, torch.float32) if device.startswith("mps") else tensor.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device="{device}" is not usable here ({str(error).splitlines()[0]}); try device="cpu"') from None


def has_float64(x: Array) -> bool:
    """Whether the device of `x` computes in double precision; Apple's does not."""
    return not (is_tensor(x) and x.device.type == "mps")


def widest(x: Array) -> Array:
    """`x` in float64, for factorisations that single precision would break."""
    xp = namespace(x)
    return xp.astype(x, xp.float64, copy=False)


def cholesky_solver(matrix: Array) -> Callable[[Array], Array]:
    """The map from r (n,) to the solution of matrix x = r, for a positive definite matrix (n, n); NaN where it is not."""
    if is_numpy_array(matrix):
        try:
            factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            return lambda r: np.full_like(r, np.nan)
        return lambda r: scipy.linalg.cho_solve(factor, r, check_finite=False)
    xp = namespace(matrix)
    if is_tensor(matrix):
        # cholesky_ex reports failure in a tensor rather than by an exception, which would wait for the device.
        lower, info = xp.linalg.cholesky_ex(matrix)
        lower = xp.where(info == 0, lower, xp.full_like(lower, float("nan")))
        return lambda r: xp.cholesky_solve(r[:, None], lower)[:, 0]
    try:
        inverse = xp.linalg.inv(xp.linalg.cholesky(matrix))
    except np.linalg.LinAlgError:
        return lambda r: xp.full_like(r, float("nan"))
    return lambda r: xp.matrix_transpose(inverse) @ (inverse @ r)


def full_like_row(x: Array, value: float) -> Array:
    """A vector with one entry `value` for each row of `x`, on its device and in its dtype."""
    return namespace(x).full((x.shape[0],), value, dtype=x.dtype, device=device_of(x))
