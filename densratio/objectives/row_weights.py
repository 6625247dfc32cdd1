"""The feasible set of source weights: bounds, and a mean of 1."""

from __future__ import annotations

from dataclasses import dataclass

from .._arrays import Array, device_of, full_like_row, namespace, running_sum, tiny
from .._validation import check_number
from ..projections import box_sum_range, weighted_box_sum_range
from .base import Problem

__all__ = ["RowProblem", "WeightSet", "check_bounds", "relative", "smoothed_weights"]


def check_bounds(max_weight: float | None, mean_tol: float | str) -> None:
    """Raise ValueError unless max_weight is None or >= 1, and mean_tol is in [0, 1) or "diw"."""
    if max_weight is not None:
        check_number("max_weight", max_weight, "[1, inf]", ", where 1 is the mean of the weights, or None for no bound")
    if mean_tol != "diw":
        check_number("mean_tol", mean_tol, "[0, 1)", ' or "diw"')


def relative(weight: Array | None) -> Array | None:
    """weight (n,) divided by its mean."""
    return None if weight is None else weight / namespace(weight).mean(weight)


@dataclass(frozen=True, eq=False)
class WeightSet:
    """Weights (n,) with 0 <= w <= max_weight and mean 1 within mean_tol, where row i counts counts_i times in the mean.

    counts (n,), > 0, with mean 1; None if each row counts once. mean_tol: a number in [0, 1), or "diw", the published
    (sqrt(n) - 1) / sqrt(n), which hardly constrains the mean.
    """

    n: int
    max_weight: float | None = None
    mean_tol: float | str = 0.0
    counts: Array | None = None

    def ones(self, like: Array) -> Array:
        """Equal weights (n,), in the dtype and on the device of `like`."""
        return namespace(like).ones((self.n,), dtype=like.dtype, device=device_of(like))

    def project(self, coef: Array) -> Array:
        """The point of the set nearest to `coef` (n,)."""
        return self._projected(coef, self.counts)

    def project_counted(self, coef: Array) -> Array:
        """The point of the set nearest to `coef` (n,) in the norm in which row i counts counts_i times, as its copies would."""
        if self.counts is None:
            return self._projected(coef, None)
        root = namespace(coef).sqrt(self.counts)
        return self._projected(coef * root, root, root) / root

    def counted(self, values: Array) -> Array:
        """values (n,), each times the count of its row."""
        return values if self.counts is None else values * self.counts

    def least(self, slope: Array) -> Array:
        """Minimum () of slope . w over the set, for slope (n,)."""
        # The minimizer puts as much weight as the bounds allow on the smallest slopes.
        xp, n = namespace(slope), self.n
        low, high = self.total
        if self.counts is None:
            upper, ordered = self._upper, xp.sort(slope)
            filled = xp.arange(n, dtype=slope.dtype, device=device_of(slope)) * upper
        else:
            rate, upper = slope / self.counts, self.counts * self._uppers(self.counts)
            order = xp.argsort(rate)
            ordered, upper = xp.take(rate, order), xp.take(upper, order)
            filled = running_sum(upper) - upper
        most = xp.minimum(xp.clip(high - filled, min=0.0), full_like_row(slope, 1.0) * upper)
        needed = xp.minimum(xp.clip(low - filled, min=0.0), full_like_row(slope, 1.0) * upper)
        return xp.sum(ordered * xp.where(ordered < 0.0, most, needed))

    def upper(self, like: Array) -> Array:
        """Upper bound (n,) of each weight, in the dtype and on the device of `like`: max_weight, or all the mass on one row."""
        return full_like_row(like, self._upper) if self.counts is None else self._uppers(self.counts)

    @property
    def total(self) -> tuple[float, float]:
        """Range of the sum of the masses."""
        tol = (self.n**0.5 - 1.0) / self.n**0.5 if self.mean_tol == "diw" else float(self.mean_tol)
        return self.n * (1.0 - tol), self.n * (1.0 + tol)

    def _projected(self, point: Array, weight: Array | None, unit: Array | float = 1.0) -> Array:
        """The point p (n,) nearest to `point` with 0 <= p / unit <= max_weight and weight . p in the range of the sum."""
        if weight is None:
            return box_sum_range(point, self._upper, *self.total)
        return weighted_box_sum_range(point, self._uppers(weight * unit) * unit, weight, *self.total)

    @property
    def _upper(self) -> float:
        high = self.total[1]
        return high if self.max_weight is None else min(float(self.max_weight), high)

    def _uppers(self, counts: Array) -> Array:
        """Upper bound (n,) of each weight: max_weight, or all the mass on one row."""
        xp = namespace(counts)
        alone = self.total[1] / xp.clip(counts, min=tiny(counts))
        return alone if self.max_weight is None else xp.clip(alone, max=float(self.max_weight))


class RowProblem(Problem):
    """Base of the problems whose coef is the source weights, constrained to the set `weights`."""

    weights: WeightSet

    def project(self, coef: Array) -> Array:
        return self.weights.project(coef)

    def gap(self, coef: Array, grad: Array) -> Array:
        # By convexity, value(coef) - optimum <= max over feasible v of grad . (coef - v).
        return namespace(coef).sum(grad * coef) - self.weights.least(grad)

    def ratio(self, coef: Array, features: Array) -> Array:
        """Kernel average (n,) of the weights; `features` (n, p) are kernel values at the source rows, also for an explicit map."""
        return smoothed_weights(coef, features, self.weights.counts)


def smoothed_weights(coef: Array, kernel: Array, counts: Array | None = None) -> Array:
    """Kernel average (n,) of the weights `coef` (p,) of the anchors under `kernel` (n, p); 1 far from all anchors.

    This is the Nadaraya-Watson estimator, with anchors counted `counts` (p,) times: its values stay in the range of the weights.
    """
    xp = namespace(coef, kernel)
    floor = tiny(kernel)
    if counts is None:
        return (kernel @ coef + floor) / (xp.sum(kernel, axis=1) + floor)
    return (kernel @ (counts * coef) + floor) / (kernel @ counts + floor)
