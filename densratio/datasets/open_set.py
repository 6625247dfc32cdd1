"""Open-set noise: some rows get the input of a class that the labels do not know, and keep their label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["OpenSet", "open_set", "open_set_rows"]


class OpenSet(NamedTuple):
    """inputs (n, ...) after the replacement, is_replaced (n,) bool, outside_rows (n,): the row taken from outside, else -1."""

    inputs: np.ndarray
    is_replaced: np.ndarray
    outside_rows: np.ndarray


def open_set(
    inputs: Any,
    rate: float,
    outside_inputs: Any,
    *,
    random_state: int | np.random.Generator = 0,
) -> OpenSet:
    """Replace the inputs of round(rate * n) rows, drawn at random, by inputs from outside; the labels are not touched.

    inputs (n, ...); outside_inputs (m, ...) of the same shape and dtype, rows of classes that are not among the labels.
    Raises ValueError where they differ, or for a rate outside [0, 1]. For data sets read item by item: `open_set_rows`.
    Source: Wang et al. (2018), Iterative learning with open-set noisy labels.
    """
    inputs, outside_inputs = np.asarray(inputs), np.asarray(outside_inputs)
    shapes = (inputs.shape, outside_inputs.shape)
    if () in shapes or shapes[0][1:] != shapes[1][1:] or inputs.dtype != outside_inputs.dtype:
        raise ValueError(
            "Inputs from outside must have the shape and dtype of a row of inputs, and its scale; "
            f"got {outside_inputs.shape} {outside_inputs.dtype} for {inputs.shape} {inputs.dtype}."
        )
    rows = open_set_rows(len(inputs), rate, len(outside_inputs), random_state=random_state)
    is_replaced, replaced = rows >= 0, inputs.copy()
    replaced[is_replaced] = outside_inputs[rows[is_replaced]]
    return OpenSet(replaced, is_replaced, rows)


def open_set_rows(n: int, rate: float, n_outside: int, *, random_state: int | np.random.Generator = 0) -> np.ndarray:
    """For each of n rows, the row of `n_outside` outside ones that replaces it, -1 where it stays (n,) int64.

    round(rate * n) rows are replaced. No outside row is taken once more before all have been taken as often.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"The rate of replaced rows must be in [0, 1]; got {rate}.")
    n_replaced = round(rate * n)
    if n_replaced and n_outside < 1:
        raise ValueError(f"{n_replaced} rows are to be replaced, but there are no inputs from outside.")
    rng = np.random.default_rng(random_state)
    rows = np.full(n, -1, dtype=np.int64)
    rows[rng.permutation(n)[:n_replaced]] = np.resize(rng.permutation(n_outside), n_replaced)
    return rows
