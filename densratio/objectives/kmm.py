"""Kernel mean matching: weights under which the source's kernel mean is the target's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from .._arrays import Array, device_of, full_like_row, namespace, tiny, weighted_mean
from ..projections import box_sum_range, weighted_box_sum_range
from .base import Objective, is_number
from .row_blocks import gram, times, transposed_times

__all__ = ["MaximumMeanDiscrepancy", "WeightedRows", "smoothed_weights"]


class WeightedRows(Objective):
    """Base of the divergences whose coef is the weights of the source rows: 0 <= w <= max_weight, mean 1 within mean_tol.

    A source row that counts s_i times enters every sum s_i times: the mean is sum s_i w_i / n, the mass of a row s_i w_i / n.
    source_weight (n_s,), target_weight (n_t,): these counts, of mean 1, made by `weighted`; None where each row counts once.
    """

    anchors: ClassVar[Literal["source", "target"]] = "source"
    max_weight: float | None = None
    mean_tol: float | str = 0.0
    source_weight: Array | None = None
    target_weight: Array | None = None

    def __post_init__(self) -> None:
        if self.max_weight is not None and not (is_number(self.max_weight) and self.max_weight >= 1.0):
            raise ValueError(f"max_weight must be >= 1, the mean of the weights, or None for no bound; got {self.max_weight!r}.")
        if self.mean_tol != "diw" and (isinstance(self.mean_tol, str) or not 0.0 <= self.mean_tol < 1.0):
            raise ValueError(f'mean_tol must be a number in [0, 1) or "diw"; got {self.mean_tol!r}.')

    def weighted(self, source_weight: Array | None, target_weight: Array | None) -> Self:
        counts = [None if w is None else w / namespace(w).mean(w) for w in (source_weight, target_weight)]
        return replace(self, source_weight=counts[0], target_weight=counts[1])  # type: ignore[type-var]

    def init(self, source: Array, target: Array) -> Array:
        # In the dtype of the target: a tall source may be held in single precision alone.
        xp = namespace(source, target)
        return xp.ones((source.shape[0],), dtype=target.dtype, device=device_of(target))

    def project(self, coef: Array, source: Array, target: Array) -> Array:
        return self._projected(coef, self.source_weight)

    def project_counted(self, coef: Array) -> Array:
        """The feasible coef (n,) nearest to `coef` where row i counts source_weight_i times in the distance too, as copies do."""
        if self.source_weight is None:
            return self._projected(coef, None)
        root = namespace(coef).sqrt(self.source_weight)
        return self._projected(coef * root, root, root) / root

    def counted(self, values: Array) -> Array:
        """values (n,) of the source rows, each times the count of its row."""
        return values if self.source_weight is None else values * self.source_weight

    def gap(self, coef: Array, grad: Array, source: Array, target: Array) -> Array:
        # By convexity the value falls by at most max over feasible v of grad . (coef - v); a linear function is least
        # where the smallest gradients carry all the weight that the bounds allow.
        xp, n = namespace(coef), coef.shape[0]
        low, high = self._mean_range(n)
        if self.source_weight is None:
            upper, ordered = self._upper(n), xp.sort(grad)
            filled = xp.arange(n, dtype=coef.dtype, device=device_of(grad)) * upper
        else:
            rate, upper = grad / self.source_weight, self.source_weight * self._uppers(self.source_weight)
            order = xp.argsort(rate)
            ordered, upper = xp.take(rate, order), xp.take(upper, order)
            filled = xp.cumulative_sum(upper) - upper
        amount = xp.minimum(xp.clip(n * high - filled, min=0.0), full_like_row(grad, 1.0) * upper)
        needed = xp.minimum(xp.clip(n * low - filled, min=0.0), full_like_row(grad, 1.0) * upper)
        least = xp.sum(ordered * xp.where(ordered < 0.0, amount, needed))
        return xp.sum(grad * coef) - least

    def _projected(self, point: Array, weight: Array | None, unit: Array | float = 1.0) -> Array:
        """The point p (n,) nearest to `point` with 0 <= p / unit <= max_weight and weight . p in the range of the sum."""
        n = point.shape[0]
        low, high = self._mean_range(n)
        if weight is None:
            return box_sum_range(point, self._upper(n), n * low, n * high)
        return weighted_box_sum_range(point, self._uppers(weight * unit) * unit, weight, n * low, n * high)

    def _upper(self, n: int) -> float:
        high = self._mean_range(n)[1]
        return n * high if self.max_weight is None else min(float(self.max_weight), n * high)

    def _uppers(self, counts: Array) -> Array:
        """Largest weight (n,) that each row can have: max_weight, or all the mass on that row."""
        xp, n = namespace(counts), counts.shape[0]
        alone = n * self._mean_range(n)[1] / xp.clip(counts, min=tiny(counts))
        return alone if self.max_weight is None else xp.clip(alone, max=float(self.max_weight))

    def _mean_range(self, n: int) -> tuple[float, float]:
        """Least and largest mean of the weights. "diw" is the published (sqrt(n) - 1) / sqrt(n), nearly vacuous."""
        tol = (n**0.5 - 1.0) / n**0.5 if self.mean_tol == "diw" else float(self.mean_tol)
        return 1.0 - tol, 1.0 + tol


def smoothed_weights(coef: Array, kernel: Array, counts: Array | None = None) -> Array:
    """Kernel average (n,) of the anchors' weights `coef` (p,) under `kernel` (n, p); 1 where no anchor is near.

    The Nadaraya-Watson model, in which an anchor counts `counts` (p,) times: it never leaves the range of the weights.
    """
    xp = namespace(coef, kernel)
    floor = tiny(kernel)
    if counts is None:
        return (kernel @ coef + floor) / (xp.sum(kernel, axis=1) + floor)
    return (kernel @ (counts * coef) + floor) / (kernel @ counts + floor)


@dataclass(frozen=True)
class MaximumMeanDiscrepancy(WeightedRows):
    """F(w) = (w'Kw / 2 - kappa'w) / n + regularization |w|^2 / (2n), kappa_i = (n/m) sum_j k(x_i, v_j).

    MMD^2 = (2/n) F(w) + mean k(v, v') at regularization 0. Source features are the kernel matrix K (n, n) and target
    features the block k(v_j, x_i) (m, n); with `is_factored`, both are feature maps whose inner products are the kernel.
    max_weight: upper bound B on each weight, None for none. mean_tol: how far the mean may be from 1, or "diw".
    With rows that count s_i and t_j times, all of mean 1: F(w) = (sum_ij s_i s_j w_i w_j K_ij / 2 - sum_i s_i kappa_i w_i
    + regularization sum_i s_i w_i^2 / 2) / n and kappa_i = (n/m) sum_j t_j k(x_i, v_j).
    Source: Huang et al. (2007).
    """

    max_weight: float | None = 1000.0
    mean_tol: float | str = 0.0
    regularization: float = 0.0
    is_factored: bool = False
    source_weight: Array | None = field(default=None, compare=False, repr=False)
    target_weight: Array | None = field(default=None, compare=False, repr=False)

    gradient_is_affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.regularization) and 0.0 <= self.regularization < float("inf")):
            raise ValueError(f"regularization must be a finite number >= 0; got {self.regularization!r}.")

    def weighted(self, source_weight: Array | None, target_weight: Array | None) -> Self:
        if source_weight is None:
            return super().weighted(source_weight, target_weight)
        # Of counts of mean 1 the kernel's sums are smaller than those of copies by the square of the mean count, and the
        # penalty by the mean count: it is scaled to keep the proportion.
        mean = float(namespace(source_weight).mean(source_weight))
        return replace(super().weighted(source_weight, target_weight), regularization=self.regularization / mean)

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        n, xp = coef.shape[0], namespace(coef, source)
        pull, slope = self._pull_and_slope(coef, source, target)
        # Half of w'(Kw + regularization w) - kappa'w is half of the slope's product with w less half of kappa's.
        return 0.5 * (xp.sum(self.counted(coef) * slope) - pull) / n, self.counted(slope) / n

    def count_slope(self, coef: Array, source: Array, target: Array) -> Array:
        """n dF/dw_i / s_i (n,) = (K (s w) - kappa + regularization w)_i: the slope along one count of each row."""
        return self._pull_and_slope(coef, source, target)[1]

    def curvature(self, source: Array, target: Array) -> Array:
        return self._curvature(source, target, in_counts=False)

    def count_curvature(self, source: Array, target: Array) -> Array:
        """`curvature` where row i counts s_i times in the norms too, as copies do."""
        return self._curvature(source, target, in_counts=True)

    def ratio(self, coef: Array, features: Array) -> Array:
        """Kernel average of the weights; `features` (n, p) are the kernel's values at the source rows in either form."""
        return smoothed_weights(coef, features, self.source_weight)

    def summarise(self, source: Array, target: Array) -> tuple[Array, Array]:
        return source, self._mean_target(target)[None, :]

    def linear(self, source: Array, target: Array) -> Array:
        """kappa (n,)."""
        mean = self._mean_target(target)
        return source.shape[0] * (times(source, mean) if self.is_factored else mean)

    def _pull_and_slope(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        """kappa's product with the counted weights (), and `count_slope` (n,)."""
        xp, n, mass = namespace(coef, source), coef.shape[0], self.counted(coef)
        mean = self._mean_target(target)
        if self.is_factored:
            moment = transposed_times(source, mass)
            pull, slope = n * xp.sum(mean * moment), times(source, moment - n * mean)
        else:
            pull, slope = n * xp.sum(mean * mass), source @ mass - n * mean
        return pull, slope + self.regularization * coef if self.regularization else slope

    def _curvature(self, source: Array, target: Array, *, in_counts: bool) -> Array:
        # The largest row sum of a symmetric matrix bounds its eigenvalues; Z'Z has those of K = ZZ'.
        xp, n = namespace(source), source.shape[0]
        ones = xp.ones((n,), dtype=target.dtype, device=device_of(target))
        counts = ones if self.source_weight is None else xp.astype(self.source_weight, target.dtype, copy=False)
        outer = ones if in_counts else counts
        if self.is_factored:
            return (xp.max(xp.sum(xp.abs(gram(source, counts * outer)), axis=1)) + xp.max(outer) * self.regularization) / n
        # A kernel's values are >= 0: no absolute values, which would copy the matrix.
        sums = xp.sum(source, axis=1) if self.source_weight is None else source @ counts
        return xp.max(outer * (sums + self.regularization)) / n

    def _mean_target(self, target: Array) -> Array:
        """Mean target feature; a single row is that mean already (see `summarise`)."""
        if self.target_weight is None or target.shape[0] == 1:
            return weighted_mean(target, None)
        return weighted_mean(target, namespace(target).astype(self.target_weight, target.dtype, copy=False))
