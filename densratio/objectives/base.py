"""What a divergence is to a solver and to an estimator: a convex function of coefficients over a feasible set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import ClassVar, Literal

from .._arrays import Array, namespace, weighted_mean

__all__ = ["Objective", "is_number"]


def is_number(value: object) -> bool:
    """Whether `value` is a real number; True and False are none here."""
    return isinstance(value, Real) and not isinstance(value, bool)


class Objective(ABC):
    """A divergence between the weighted source and the target, to be minimised over `coef` (p,).

    Every method takes the features of the two samples: source (n_s, k), target (n_t, k). An objective holds
    hyperparameters alone, checked when it is made; it knows no solver, no estimator, and no array library.
    """

    anchors: ClassVar[Literal["source", "target"]]
    """Whose rows `coef` belongs to. "source": coef is the weights of the source rows. "target": ratio = features @ coef."""
    takes: ClassVar[Literal["features", "rows"]] = "features"
    """Whether source and target are features or the rows themselves."""
    needs_nonnegative_features: ClassVar[bool] = False
    gradient_is_affine: ClassVar[bool] = False
    """Whether the gradient at a combination of points is that combination of gradients (quadratic objectives)."""
    is_smooth: ClassVar[bool] = True

    @abstractmethod
    def init(self, source: Array, target: Array) -> Array:
        """A feasible coef (p,), the start of a cold fit. Raises ValueError for samples that the objective cannot take."""

    @abstractmethod
    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        """Value () and gradient (p,) at `coef` (p,)."""

    @abstractmethod
    def curvature(self, source: Array, target: Array) -> Array:
        """Upper bound () on the Lipschitz constant of the gradient; 1 / it is the first step size.

        Where no bound exists (KLIEP) it is the constant at `init`, from which a solver adapts.
        """

    @abstractmethod
    def project(self, coef: Array, source: Array, target: Array) -> Array:
        """The feasible coef (p,) nearest to `coef` in the Euclidean norm."""

    @abstractmethod
    def ratio(self, coef: Array, features: Array) -> Array:
        """Density ratio (n,), >= 0, of rows with `features` (n, k)."""

    def warm_start(self, coef: Array, source: Array, target: Array) -> Array:
        """A feasible start from a stored `coef` (p,) that may come from another batch."""
        return self.project(coef, source, target)

    def summarise(self, source: Array, target: Array) -> tuple[Array, Array]:
        """Smaller samples (n_s', k), (n_t', k) with the same value, gradient and feasible set at every coef."""
        return source, target

    def weighted(self, source_weight: Array | None, target_weight: Array | None) -> Objective:
        """The same objective for rows that count source_weight (n_s,) and target_weight (n_t,) times, as so many copies would.

        Raises ValueError where rows can only count once.
        """
        raise ValueError(f"{type(self).__name__} takes no sample_weight: each row counts once.")

    def gap(self, coef: Array, grad: Array, source: Array, target: Array) -> Array:
        """Upper bound () on value(coef) - optimum, given the gradient there; infinite where none is known."""
        return namespace(coef).full_like(coef[0], float("inf"))

    def score(
        self,
        source_ratio: Array,
        target_ratio: Array,
        source_weight: Array | None = None,
        target_weight: Array | None = None,
    ) -> Array:
        """Agreement () of the ratio's values on held-out rows (n_s,), (n_t,) with the samples, higher is better.

        By default mean r(target) - mean r(source)^2 / 2, which the true ratio maximises. Rows count their weight times.
        """
        return weighted_mean(target_ratio, target_weight) - 0.5 * weighted_mean(source_ratio * source_ratio, source_weight)
