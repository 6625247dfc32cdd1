"""Checks of the arguments of data generators: a kind by name, arrays of numbers, and a seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .._arrays import to_host
from .._names import did_you_mean
from .._validation import shown

__all__ = ["check_kind", "generator", "numbers"]


def check_kind(what: str, kind: Any, known: Iterable[str]) -> str:
    """`kind`, if it is one of the names `known`; a ValueError that begins with `what` and lists them otherwise."""
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(f"{what} {shown(kind)} is not known; use one of {list(known)}.{did_you_mean(kind, known)}")
    return kind


def numbers(name: str, values: Any) -> np.ndarray:
    """`values` as an array of float64. Raises ValueError for anything but real numbers, or for rows of different lengths."""
    try:
        return np.asarray(to_host(values), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must hold real numbers, in rows of one length; got {shown(values)}.") from error


def generator(random_state: Any) -> np.random.Generator:
    """The Generator of an int seed, or a Generator itself; None for a new seed. Raises ValueError for anything else."""
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise ValueError(f"random_state must be an int >= 0, a Generator or None; got {shown(random_state)}.") from error
