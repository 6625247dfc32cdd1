"""Two samples with their known ratio or weights, and hypothesis strategies that draw them, awkward kinds included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["KINDS", "MOST_COLUMNS", "MOST_ROWS", "Problem", "draw_problem", "gaussian_shift", "problems"]

MOST_ROWS, MOST_COLUMNS = 40, 4
"""Largest sizes that the laws draw by default."""


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """Two samples, source (n_s, d) and target (n_t, d), with their ratio or optimal weights if known.

    ratio: the exact density ratio of rows, (n, d) -> (n,), or None. weights: weights (n_s,) of mean 1 that are optimal for
    every divergence, or None. call: the expression that draws the problem again, and its repr.
    """

    source: np.ndarray
    target: np.ndarray
    seed: int
    call: str
    ratio: Callable[[np.ndarray], np.ndarray] | None = None
    weights: np.ndarray | None = None

    def __repr__(self) -> str:
        return self.call

    @property
    def rng(self) -> np.random.Generator:
        """A new generator for other draws of a law, with the same seed each time."""
        return np.random.default_rng([self.seed, 1])


def gaussian_shift(n_source: int, n_target: int, n_columns: int = 1, *, shift: float = 0.5, seed: int = 0) -> Problem:
    """Source N(0, I) and target N(shift e_1, I), with the exact ratio exp(shift x_1 - shift^2 / 2)."""
    rng = np.random.default_rng(seed)
    source, target = rng.standard_normal((n_source, n_columns)), rng.standard_normal((n_target, n_columns))
    target[:, 0] += shift
    call = f"gaussian_shift({n_source}, {n_target}, {n_columns}, shift={shift}, seed={seed})"
    return Problem(source, target, seed, call, ratio=lambda x: np.exp(shift * x[:, 0] - 0.5 * shift**2))


def _with(problem: Problem, transform: Callable[[np.ndarray], np.ndarray]) -> Problem:
    return replace(problem, source=transform(problem.source), target=transform(problem.target), ratio=None)


KINDS: dict[str, Callable[[Problem], Problem]] = {
    "shift": lambda p: p,
    "equal": lambda p: replace(p, target=p.source.copy(), ratio=None, weights=np.ones(len(p.source))),
    "one_source_row": lambda p: replace(p, source=p.source[:1]),
    "one_target_row": lambda p: replace(p, target=p.target[:1]),
    "few_source_rows": lambda p: replace(p, source=p.source[: 1 + len(p.source) // 10]),
    "few_target_rows": lambda p: replace(p, target=p.target[: 1 + len(p.target) // 10]),
    "duplicate_rows": lambda p: _with(p, np.round),
    "constant_column": lambda p: _with(p, lambda rows: np.column_stack([rows[:, :-1], np.full(len(rows), 3.0)])),
    "one_value": lambda p: _with(p, lambda rows: np.full_like(rows, 3.0)),
    "huge": lambda p: _with(p, lambda rows: 1e6 * rows),
    "tiny": lambda p: _with(p, lambda rows: 1e-6 * rows),
    "mixed_scales": lambda p: _with(p, lambda rows: rows * np.logspace(-6.0, 6.0, rows.shape[1])),
    "offset": lambda p: _with(p, lambda rows: 1e3 + rows),
    "heavy_tails": lambda p: _with(p, lambda rows: rows**5),
    "far_apart": lambda p: replace(p, target=p.target + 50.0, ratio=None),
}
"""Kinds of problems: each transforms a Gaussian mean shift."""


def draw_problem(kind: str, n_source: int, n_target: int, n_columns: int = 1, seed: int = 0) -> Problem:
    """The problem of this kind, see `KINDS`, with at most these sizes: a pure function of its arguments."""
    _check_kinds([kind])
    problem = KINDS[kind](gaussian_shift(n_source, n_target, n_columns, seed=seed))
    return replace(problem, call=f"draw_problem({kind!r}, {n_source}, {n_target}, {n_columns}, seed={seed})")


def _check_kinds(kinds: Sequence[str]) -> None:
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds must be a list of some of {list(KINDS)}; got {kinds!r}.")


def problems(
    kinds: Sequence[str] = tuple(KINDS), *, n_rows: tuple[int, int] = (1, 200), n_columns: tuple[int, int] = (1, MOST_COLUMNS)
) -> SearchStrategy[Problem]:
    """Hypothesis strategy of problems: a kind, sizes within these bounds, and a seed from which numpy draws the rows.

    A failing example shrinks to the first of `kinds`, the fewest rows and columns, and seed 0.
    """
    _check_kinds(kinds)
    rows = st.integers(*n_rows)
    return st.builds(draw_problem, st.sampled_from(list(kinds)), rows, rows, st.integers(*n_columns), st.integers(0, 2**16))
