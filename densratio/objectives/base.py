"""Objective and Problem: a divergence with its hyperparameters makes a problem from two samples, and a solver solves it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar, Literal, Self

from .._arrays import Array, is_floating, map_arrays, namespace, put, to_host, weighted_mean, widest_here
from .._validation import is_number
from .likelihood import Likelihood
from .quadratic import Quadratic, Root

__all__ = ["Objective", "Problem", "SumProblem", "is_number"]

_OF_PROBLEMS = ("init", "warm_start", "value_and_grad", "curvature", "project", "gap", "ratio")


class Problem(ABC):
    """A convex function of `coef` (p,) over a convex set. It holds the data of the samples, so it is all that a solver needs.

    A problem is immutable.
    """

    is_smooth: ClassVar[bool] = True
    gradient_is_affine: ClassVar[bool] = False
    """Whether the gradient is an affine function of coef, as in quadratic problems."""
    least_value: ClassVar[float | None] = None
    """A lower bound on the value that is nearly attained, such as 0 for a distance; None if none is known."""
    source_map: Array | None = None
    """(n_s, k) explicit feature map of the source rows, if the problem holds it"""
    quadratic: Quadratic | None = None
    """The matrix, the vector and the bounds of a quadratic problem; None for any other."""
    likelihood: Likelihood | None = None
    """The sums over rows of a likelihood of mixture proportions; None for any other problem."""
    has_minimizer: bool = False
    """Whether the method `minimizer()` returns the optimum (p,) in closed form."""
    beside_ratio: ClassVar[tuple[str, ...]] = ()
    """The fields that `ratio` does not need, for problems that are dataclasses: `bare` leaves no rows in their arrays."""

    @abstractmethod
    def init(self) -> Array:
        """A feasible coef (p,) from which a cold fit starts."""

    @abstractmethod
    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        """Value () and gradient (p,) at `coef` (p,)."""

    def grad(self, coef: Array) -> Array:
        """Gradient (p,) at `coef` (p,), for steps that do not need the value."""
        return self.value_and_grad(coef)[1]

    @abstractmethod
    def curvature(self) -> Array:
        """Upper bound () on the Lipschitz constant of the gradient; its reciprocal is the first step size.

        Where no bound exists (KLIEP), it is the local constant at `init`, and the solver adapts the step size from there.
        """

    @abstractmethod
    def project(self, coef: Array) -> Array:
        """The feasible coef (p,) nearest to `coef` in the Euclidean norm."""

    @abstractmethod
    def ratio(self, coef: Array, features: Array) -> Array:
        """Density ratio (n,), >= 0, at rows whose features are `features` (n, k)."""

    def warm_start(self, coef: Array) -> Array:
        """A feasible start from a stored `coef` (p,), possibly of another batch."""
        return self.project(coef)

    def gap(self, coef: Array, grad: Array) -> Array:
        """Upper bound () on value(coef) - optimum, from the gradient at coef; infinite if none is known."""
        return namespace(coef).full_like(coef[0], float("inf"))

    def residual(self, coef: Array, grad: Array, scale: float | Array = 1.0) -> Array:
        """Largest entry () of |project(coef - scale grad) - coef|: 0 exactly at the optimum of a smooth problem.

        It grows with `scale`. Solvers pass max(1, 1 / curvature), so that a small gradient alone does not count as convergence.
        """
        return namespace(coef).max(namespace(coef).abs(self.project(coef - scale * grad) - coef))

    def bare(self) -> Self:
        """The problem reduced to what `ratio` needs."""
        parts = {name: map_arrays(getattr(self, name), _without_rows) for name in self.beside_ratio}
        return replace(self, **parts) if parts else self  # type: ignore[type-var]

    def wide(self) -> Self:
        """The same problem with its data in float64, if the device supports it."""
        # A tall root may be in single precision: its products widen it block by block.
        return map_arrays(self, lambda x: widest_here(x) if is_floating(x) else x, keeps=Root)

    def to(self, like: Array) -> Self:
        """The bare problem in the library, dtype and device of the array `like`."""
        return map_arrays(self, lambda x: put(to_host(x), like))


def _without_rows(array: Array) -> Array:
    """A new array with no rows, for an array (n, ...); scalars unchanged."""
    return namespace(array).zeros_like(array[:0]) if array.ndim else array


class SumProblem(Problem):
    """A problem made of sums over rows: the problems of two batches add up, so blocks, streams and clusters can share the work."""

    @abstractmethod
    def plus(self, other: Self) -> Self:
        """The problem on the rows of both problems."""

    @classmethod
    def without_each(cls, parts: Sequence[Self]) -> list[Self]:
        """For each of at least two parts, the problem on the rows of all others."""
        return [reduce(lambda a, b: a.plus(b), [*parts[:k], *parts[k + 1 :]]) for k in range(len(parts))]

    @abstractmethod
    def under(self, objective: Objective) -> Self:
        """The problem on the same sums with the hyperparameters of another objective of the same class."""

    @abstractmethod
    def compact(self) -> SumProblem:
        """The problem as a fitted estimator stores it: reduced to what `ratio` and `plus` need."""

    @abstractmethod
    def source_mean(self, coef: Array) -> Array:
        """Mean () over the source rows of the ratio at coef (p,), before clipping at 0."""

    @abstractmethod
    def signed(self, coef: Array) -> Array:
        """The coefficients (k,) of the features in the ratio, of either sign."""

    @abstractmethod
    def held_out_score(self, coef: Array, held_out: Self) -> Array:
        """`Objective.score` () of the ratio at coef (p,) on the rows of `held_out`.

        The ratio is scaled to mean 1 over this problem's source rows. Computed from the sums; -inf if the ratio is 0 on them.
        """


class Objective(ABC):
    """A divergence between the weighted source and the target, with its hyperparameters, which are checked on construction.

    It holds no data and knows no solver, estimator or array library: `problem` combines it with two samples into a `Problem`.
    """

    anchors: ClassVar[Literal["source", "target"]]
    """The sample whose rows `coef` belongs to. "source": coef is the source weights. "target": ratio = features @ coef."""
    takes: ClassVar[Literal["features", "rows"]] = "features"
    """Whether `problem` takes the features of the samples or the rows themselves."""
    needs_nonnegative_features: bool = False
    """Whether its coefficients are >= 0, so that features of either sign would make it depend on their arbitrary signs."""
    is_sum: ClassVar[bool] = False
    """Whether its problems are of the kind `SumProblem`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "value_and_grad" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.value_and_grad belongs to a Problem, which holds the data. Write a subclass of "
                "densratio.objectives.Problem with init(), value_and_grad(coef), curvature(), project(coef) and ratio(coef, "
                f"features), and return it from {cls.__name__}.problem(source, target, source_weight=None, target_weight=None)."
            )

    def __getattr__(self, name: str) -> Any:
        if name in _OF_PROBLEMS:
            raise AttributeError(
                f"{type(self).__name__} has no {name}; its problem, which holds the samples, has it: "
                f"objective.problem(source, target).{name}(...)."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @abstractmethod
    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Problem:
        """The problem on two samples, source (n_s, k) and target (n_t, k).

        source_weight (n_s,) and target_weight (n_t,): how often each row counts, equivalent to that many copies; None: once.
        Raises ValueError for samples that the objective cannot handle, and for weights if it does not support them.
        """

    def for_features(self, is_map: bool) -> Objective:
        """The same divergence for features of an explicit map (`is_map`), or for kernel values at centers."""
        return self

    def score(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Array:
        """Score () of the ratio's values at held-out source (n_s,) and target (n_t,) rows; higher is better.

        By default mean r(target) - mean r(source)^2 / 2, which the true ratio maximizes. The means are weighted.
        """
        return weighted_mean(target_ratio, target_weight) - 0.5 * weighted_mean(source_ratio * source_ratio, source_weight)
