"""The laws of a Euclidean projection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from hypothesis import strategies as st

from .laws import at_most, close, hold, largest, length, short

__all__ = ["PROJECTION_LAWS", "check_projection"]


class Projected(Protocol):
    """Points to project onto a convex set."""

    def points(self, count: int) -> list[np.ndarray]:
        """Points (n,), in the set or not, the same in every call."""

    def project(self, point: np.ndarray) -> np.ndarray:
        """The nearest point of the set."""

    def rivals(self, point: np.ndarray) -> Iterable[np.ndarray]:
        """Points of the set, none of which may be nearer to `point` than its projection."""


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
    for law in (_a_projection_is_feasible, *PROJECTION_LAWS):
        hold(law, cases, max_examples)


def _a_projection_is_feasible(case: _Vectors) -> None:
    for point in case.points(3):
        nearest = case.project(point)
        if not case.is_feasible(nearest):
            raise AssertionError(f"{short(nearest)} is not feasible, projected from {short(point)}")


def _projecting_twice_changes_nothing(case: Projected) -> None:
    for point in case.points(3):
        once = case.project(point)
        close(case.project(once), once, 1e-9 * (1e-3 + largest(once)), "the second projection")


def _projections_come_no_further_apart(case: Projected) -> None:
    v, u = case.points(2)
    p, q = case.project(v), case.project(u)
    rounding = 1e-11 * sum(map(length, (v, u, p, q)))
    at_most(length(p - q), length(v - u) * (1.0 + 1e-9) + rounding, "distance of the projections")


def _no_feasible_point_is_nearer_than_the_projection(case: Projected) -> None:
    """(v - p).(q - p) <= 0 for every feasible q characterizes p as the point of a convex set that is nearest to v."""
    v = case.points(1)[0]
    p = case.project(v)
    for q in case.rivals(v):
        rounding = 1e-8 * length(v - p) * length(q - p) + 1e-11 * (length(v) + length(p)) * (length(v - p) + length(q - p))
        at_most(float((v - p) @ (q - p)), rounding, f"(v - p).(q - p) at v = {short(v)}, p = {short(p)}, q = {short(q)}")


PROJECTION_LAWS = (
    _projecting_twice_changes_nothing, _projections_come_no_further_apart, _no_feasible_point_is_nearer_than_the_projection,
)  # fmt: skip
"""The laws of all projections onto a convex set."""
