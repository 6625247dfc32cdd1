"""What a divergence is: an objective with hyperparameters makes, of two samples, the problem that a solver solves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import Any, ClassVar, Literal, Self

from .._arrays import Array, namespace, weighted_mean
from .likelihood import Likelihood
from .quadratic import Quadratic

__all__ = ["Objective", "Problem", "is_number"]

_OF_PROBLEMS = ("init", "warm_start", "value_and_grad", "curvature", "project", "gap", "ratio")


def is_number(value: object) -> bool:
    """Whether `value` is a real number, which True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


class Problem(ABC):
    """A convex function of `coef` (p,) over a convex set, with the data of the samples in it: all that a solver needs.

    It is frozen: nothing changes it. Where its objective `is_sum` it also has `plus`, `source_mean` and `held_out_score`.
    """

    is_smooth: ClassVar[bool] = True
    gradient_is_affine: ClassVar[bool] = False
    """Whether the gradient at a combination of points is that combination of gradients (quadratic problems)."""
    least_value: ClassVar[float | None] = None
    """A value that the problem never passes and nearly reaches, such as 0 for a distance; None where none is known."""
    source_map: Array | None = None
    """(n_s, k) the source rows' explicit map, where the problem holds it"""
    has_minimizer: bool = False
    """Whether `minimizer` gives the optimum in closed form."""

    @abstractmethod
    def init(self) -> Array:
        """A feasible coef (p,), the start of a cold fit."""

    @abstractmethod
    def value_and_grad(self, coef: Array) -> tuple[Array, Array]:
        """Value () and gradient (p,) at `coef` (p,)."""

    @abstractmethod
    def curvature(self) -> Array:
        """Upper bound () on the Lipschitz constant of the gradient; 1 / it is the first step size.

        Where no bound exists (KLIEP) it is the constant at `init`, from which a solver adapts.
        """

    @abstractmethod
    def project(self, coef: Array) -> Array:
        """The feasible coef (p,) nearest to `coef` in the Euclidean norm."""

    @abstractmethod
    def ratio(self, coef: Array, features: Array) -> Array:
        """Density ratio (n,), >= 0, of rows with `features` (n, k)."""

    def warm_start(self, coef: Array) -> Array:
        """A feasible start from a stored `coef` (p,) that may come from another batch."""
        return self.project(coef)

    def gap(self, coef: Array, grad: Array) -> Array:
        """Upper bound () on value(coef) - optimum, given the gradient there; infinite where none is known."""
        return namespace(coef).full_like(coef[0], float("inf"))

    def residual(self, coef: Array, grad: Array, scale: float | Array = 1.0) -> Array:
        """Largest entry () of |project(coef - scale grad) - coef|: 0 exactly at the optimum of a smooth problem.

        It grows with `scale`. Solvers pass max(1, 1 / curvature), so that a flat problem is not taken for a solved one.
        """
        return namespace(coef).max(namespace(coef).abs(self.project(coef - scale * grad) - coef))

    @property
    def quadratic(self) -> Quadratic | None:
        """The matrix, the vector and the bounds of a quadratic problem; None for any other."""
        return None

    @property
    def likelihood(self) -> Likelihood | None:
        """The sums over rows of a likelihood of mixture proportions; None for any other problem."""
        return None

    def plus(self, other: Self) -> Self:
        """The problem on the rows of both, where the objective `is_sum`."""
        raise ValueError(f"{type(self).__name__} is not made of sums over rows: it needs all rows at once.")

    def under(self, objective: Objective) -> Self:
        """The problem with the hyperparameters of another objective of its kind, on the same sums, where the objective `is_sum`."""
        return self

    def held_out_score(self, coef: Array, held_out: Self) -> Array:
        """`Objective.score` () on the rows of `held_out` of the ratio at coef (p,), of mean 1 over this problem's source rows.

        From the sums alone, where the objective `is_sum`; -inf where the ratio vanishes on the source.
        """
        raise ValueError(f"{type(self).__name__} is not made of sums over rows: it needs all rows at once.")

    def source_mean(self, coef: Array) -> Array:
        """Mean () of the ratio at coef (p,) over the source rows, before any clipping at 0, where the objective `is_sum`."""
        raise ValueError(f"{type(self).__name__} is not made of sums over rows: it needs all rows at once.")

    def signed(self, coef: Array) -> Array:
        """The coefficients (k,) of the features in the ratio: `coef` itself as a rule."""
        return coef

    def minimizer(self) -> Array:
        """The optimum (p,) in closed form, where `has_minimizer`."""
        raise ValueError(f"{type(self).__name__} has no closed form; use projected_gradient.")

    def compact(self) -> Self:
        """The problem as a fitted estimator keeps it: with what `ratio` and `plus` need, and no more."""
        return self.bare()

    def bare(self) -> Self:
        """The problem with what `ratio` needs alone."""
        return self

    def wide(self) -> Self:
        """The same problem with its data in float64, where the device has that."""
        return self

    def to(self, like: Array) -> Self:
        """The bare problem in the library, dtype and device of the array `like`."""
        return self


class Objective(ABC):
    """A divergence between the weighted source and the target, with its hyperparameters, checked when it is made.

    It knows no data, no solver, no estimator, and no array library: `problem` makes of it, and of two samples, what is solved.
    """

    anchors: ClassVar[Literal["source", "target"]]
    """Whose rows `coef` belongs to. "source": coef is the weights of the source rows. "target": ratio = features @ coef."""
    takes: ClassVar[Literal["features", "rows"]] = "features"
    """Whether the samples that `problem` takes are features or the rows themselves."""
    needs_nonnegative_features: ClassVar[bool] = False
    is_sum: ClassVar[bool] = False
    """Whether its problems are made of sums over rows, so that those of two batches add up by `plus`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "value_and_grad" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.value_and_grad belongs to a Problem, which holds the data: write a subclass of "
                "densratio.objectives.Problem with init(), value_and_grad(coef), curvature(), project(coef) and ratio(coef, "
                f"features), and let {cls.__name__}.problem(source, target, source_weight=None, target_weight=None) make it."
            )

    def __getattr__(self, name: str) -> Any:
        if name in _OF_PROBLEMS:
            raise AttributeError(
                f"{type(self).__name__} has no {name}: its problem does, which holds the samples: "
                f"objective.problem(source, target).{name}(...)."
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @abstractmethod
    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> Problem:
        """The problem on two samples, source (n_s, k) and target (n_t, k).

        A row counts source_weight (n_s,) or target_weight (n_t,) times, as so many copies of it would; None: once.
        Raises ValueError for samples that the objective cannot take, and for weights where rows can only count once.
        """

    def for_features(self, is_map: bool) -> Objective:
        """The same divergence on features whose inner products are the kernel (`is_map`), or that are the kernel's values."""
        return self

    def score(
        self,
        source_ratio: Array,
        target_ratio: Array,
        source_weight: Array | None = None,
        target_weight: Array | None = None,
    ) -> Array:
        """Agreement () of the ratio's values on held-out rows (n_s,), (n_t,) with the samples, higher is better.

        By default mean r(target) - mean r(source)^2 / 2, which the true ratio maximizes. Rows count their weight times.
        """
        return weighted_mean(target_ratio, target_weight) - 0.5 * weighted_mean(source_ratio * source_ratio, source_weight)
