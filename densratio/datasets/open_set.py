"""Open-set noise: some rows keep their label but get an input of a class that is not among the labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._validation import check_count, check_number
from .checks import generator

__all__ = ["OpenSet", "open_set", "open_set_rows"]


class OpenSet(NamedTuple):
    """inputs (n, ...) after the replacement, is_replaced (n,) bool, outside_rows (n,): the outside row used, or -1."""

    inputs: np.ndarray
    is_replaced: np.ndarray
    outside_rows: np.ndarray


def open_set(inputs: Any, rate: float, outside_inputs: Any, *, random_state: int | np.random.Generator = 0) -> OpenSet:
    """Replace the inputs of round(rate * n) rows, drawn at random, by outside inputs; the labels do not change.

    inputs (n, ...); outside_inputs (m, ...) of the same shape and dtype, rows of classes that are not among the labels.
    Raises ValueError if they differ, or for a rate outside [0, 1]. For data sets read item by item use `open_set_rows`.
    Source: Wang et al. (2018), Iterative learning with open-set noisy labels.
    """
    inputs, outside_inputs = np.asarray(inputs), np.asarray(outside_inputs)
    shapes = (inputs.shape, outside_inputs.shape)
    if () in shapes or shapes[0][1:] != shapes[1][1:] or inputs.dtype != outside_inputs.dtype:
        raise ValueError(
            "outside_inputs must have the shape, dtype and scale of the rows of inputs; "
            f"got {outside_inputs.shape} {outside_inputs.dtype} for {inputs.shape} {inputs.dtype}."
        )
    rows = open_set_rows(len(inputs), rate, len(outside_inputs), random_state=random_state)
    is_replaced, replaced = rows >= 0, inputs.copy()
    replaced[is_replaced] = outside_inputs[rows[is_replaced]]
    return OpenSet(replaced, is_replaced, rows)


def open_set_rows(n: int, rate: float, n_outside: int, *, random_state: int | np.random.Generator = 0) -> np.ndarray:
    """For each of n rows, which of `n_outside` outside rows replaces it, or -1 if it stays; (n,) int64.

    round(rate * n) rows are replaced. Outside rows are reused only after all have been used equally often.
    """
    check_number("rate", rate, "[0, 1]")
    n, n_outside = check_count("n", n, 0), check_count("n_outside", n_outside, 0)
    n_replaced = round(rate * n)
    if n_replaced and n_outside < 1:
        raise ValueError(f"{n_replaced} rows are to be replaced, but there are no outside inputs.")
    rng = generator(random_state)
    rows = np.full(n, -1, dtype=np.int64)
    rows[rng.permutation(n)[:n_replaced]] = np.resize(rng.permutation(n_outside), n_replaced)
    return rows
