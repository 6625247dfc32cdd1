"""The laws of a Euclidean projection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from .laws import close, hold, largest, nearest, no_expansion, short

__all__ = ["check_projection"]


@dataclass(frozen=True, eq=False, repr=False)
class _Vectors:
    """Points to project, reproducible from a seed; `rivals` are points of the set."""

    project: Callable[[np.ndarray], np.ndarray]
    is_feasible: Callable[[np.ndarray], bool]
    member: Callable[[np.random.Generator, int], np.ndarray] | None
    size: int
    scale: float
    decimals: int
    seed: int

    def __repr__(self) -> str:
        return f"points of size {self.size}, scale {self.scale:g}, {self.decimals} decimals, seed {self.seed}"

    def points(self, count: int) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return [np.round(self.scale * rng.standard_normal(self.size), self.decimals) for _ in range(count)]

    def rivals(self, point: np.ndarray) -> Iterator[np.ndarray]:
        rng, nearest = np.random.default_rng([self.seed, 1]), self.project(point)
        for other in self.points(8)[1:]:
            yield self.project(other)
        # Points between the projection and the point: if a projection stops inside the set, some of them are feasible.
        yield from (between for t in (1e-3, 0.1, 1.0) if self.is_feasible(between := nearest + t * (point - nearest)))
        if self.member is not None:
            yield from (self.member(rng, self.size) for _ in range(8))


def check_projection(
    project: Callable[[np.ndarray], np.ndarray],
    is_feasible: Callable[[np.ndarray], bool],
    *,
    member: Callable[[np.random.Generator, int], np.ndarray] | None = None,
    sizes: tuple[int, int] = (1, 60),
    max_examples: int | None = None,
) -> None:
    """Check the laws of a Euclidean projection (n,) -> (n,) onto a convex set: feasible, idempotent, nonexpansive, nearest.

    is_feasible: whether a point (n,) is in the set, up to rounding. member: (rng, n) -> a point of the set, drawn without
    `project`, so that "nearest" is tested against the whole set. sizes: smallest and largest n. The points are float64 with
    scales 1e-3 to 1e3, some rounded to few decimals so that ties and exact zeros occur.
    """
    cases = st.builds(
        _Vectors, st.just(project), st.just(is_feasible), st.just(member), st.integers(*sizes),
        st.sampled_from([1.0, 1e-3, 10.0, 1e3]), st.sampled_from([0, 1, 15]), st.integers(0, 2**16),
    )  # fmt: skip
    for law in (_a_projection_is_feasible, _projecting_twice_changes_nothing, _projections_come_no_further_apart,
                _no_feasible_point_is_nearer_than_the_projection):  # fmt: skip
        hold(law, cases, max_examples)


def _a_projection_is_feasible(case: _Vectors) -> None:
    for point in case.points(3):
        nearest = case.project(point)
        if not case.is_feasible(nearest):
            raise AssertionError(f"{short(nearest)} is not feasible, projected from {short(point)}")


def _projecting_twice_changes_nothing(case: _Vectors) -> None:
    for point in case.points(3):
        once = case.project(point)
        close(case.project(once), once, 1e-9 * (1e-3 + largest(once)), "the second projection")


def _projections_come_no_further_apart(case: _Vectors) -> None:
    first, second = case.points(2)
    no_expansion(first, second, case.project(first), case.project(second))


def _no_feasible_point_is_nearer_than_the_projection(case: _Vectors) -> None:
    point = case.points(1)[0]
    nearest(point, case.project(point), case.rivals(point))
