"""Kernel mean matching: weights that match the kernel mean of the source to that of the target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from .._arrays import Array, namespace, weighted_mean
from .._blocks import times
from .._validation import check_number
from .base import Objective
from .quadratic import Dense, Quadratic, Root
from .quadratic_problem import QuadraticProblem
from .row_weights import RowProblem, WeightSet, check_bounds, relative

__all__ = ["MaximumMeanDiscrepancy", "MeanMatching"]


@dataclass(frozen=True)
class MaximumMeanDiscrepancy(Objective):
    """F(w) = (w'Kw / 2 - kappa'w) / n + regularization |w|^2 / (2n), kappa_i = (n/m) sum_j k(x_i, v_j).

    MMD^2 = (2/n) F(w) + mean k(v, v') at regularization 0. Source features are the kernel matrix K (n, n) and target
    features the block k(v_j, x_i) (m, n); with `is_factored`, both are explicit maps whose inner products are the kernel.
    max_weight: upper bound on each weight, None for no bound. mean_tol: how far the mean may be from 1, or "diw".
    If the rows count s_i and t_j times: F(w) = (sum_ij s_i s_j w_i w_j K_ij / 2 - sum_i s_i kappa_i w_i + regularization
    sum_i s_i w_i^2 / (2 mean s)) / n with the counts divided by their means, and kappa_i = (n/m) sum_j t_j k(x_i, v_j).
    Source: Huang et al. (2007).
    """

    max_weight: float | None = 1000.0
    mean_tol: float | str = 0.0
    regularization: float = 0.0
    is_factored: bool = False

    anchors: ClassVar[Literal["source", "target"]] = "source"

    def __post_init__(self) -> None:
        check_bounds(self.max_weight, self.mean_tol)
        check_number("regularization", self.regularization, "[0, inf)")

    def problem(
        self, source: Array, target: Array, source_weight: Array | None = None, target_weight: Array | None = None
    ) -> MeanMatching:
        n, xp = source.shape[0], namespace(source)
        if target_weight is not None:
            target_weight = xp.astype(target_weight, target.dtype, copy=False)
        mean = weighted_mean(target, target_weight)
        linear = n * (times(source, mean) if self.is_factored else mean)
        counts, mean_count = None, 1.0
        if source_weight is not None:
            # Counts are divided by their mean. This divides the kernel sums by the square of the mean count and the penalty by
            # the mean count only, so the penalty is divided once more to keep their proportion.
            mean_count = float(xp.mean(source_weight))
            counts = xp.astype(relative(source_weight), linear.dtype, copy=False)
        weights = WeightSet(n, self.max_weight, self.mean_tol, counts)
        matrix = Root(source, is_signed=True) if self.is_factored else Dense(source, is_nonnegative=True)
        return MeanMatching(matrix, linear, self.regularization / mean_count, 1.0 / n, counts, mean_count, weights)

    def for_features(self, is_map: bool) -> MaximumMeanDiscrepancy:
        return replace(self, is_factored=is_map)


@dataclass(frozen=True, eq=False)
class MeanMatching(QuadraticProblem, RowProblem):
    """The squared distance between the kernel means as a function of the source weights, which are in the set `weights`."""

    weights: WeightSet

    beside_ratio: ClassVar[tuple[str, ...]] = ("matrix", "linear")

    def init(self) -> Array:
        return self.weights.ones(self.linear)

    @property
    def quadratic(self) -> Quadratic:  # type: ignore[override]
        """The quadratic in masses: mass = weight times count."""
        upper = self.weights.upper(self.linear)
        return Quadratic(self.matrix, self.linear, self.regularization, self.unit, upper, self.weights.total)

    @property
    def source_map(self) -> Array | None:  # type: ignore[override]
        """(n, k) explicit map of the source rows; None for kernel values."""
        return self.matrix.root if isinstance(self.matrix, Root) else None

    def project_counted(self, coef: Array) -> Array:
        """The feasible coef (n,) nearest to `coef` in the count-weighted norm, equivalent to projecting the copies."""
        return self.weights.project_counted(coef)

    def under(self, objective: MaximumMeanDiscrepancy) -> Self:
        """The problem with the regularization of another objective."""
        return replace(self, regularization=objective.regularization / self.mean_count)
