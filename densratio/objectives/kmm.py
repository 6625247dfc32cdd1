"""Kernel mean matching: weights under which the source's kernel mean is the target's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .._arrays import Array, device_of, full_like_row, namespace, tiny
from ..projections import box_sum_range
from .base import Objective

__all__ = ["MaximumMeanDiscrepancy", "WeightedRows", "smoothed_weights"]


class WeightedRows(Objective):
    """Base of the divergences whose coef is the weights of the source rows: 0 <= w <= max_weight, mean 1 within mean_tol."""

    anchors: ClassVar[Literal["source", "target"]] = "source"
    max_weight: float | None = None
    mean_tol: float | str = 0.0

    def __post_init__(self) -> None:
        if self.max_weight is not None and not self.max_weight >= 1.0:
            raise ValueError(f"max_weight must be >= 1, the mean of the weights, or None for no bound; got {self.max_weight!r}.")
        if self.mean_tol != "diw" and (isinstance(self.mean_tol, str) or not 0.0 <= self.mean_tol < 1.0):
            raise ValueError(f'mean_tol must be a number in [0, 1) or "diw"; got {self.mean_tol!r}.')

    def init(self, source: Array, target: Array) -> Array:
        return full_like_row(source, 1.0)

    def project(self, coef: Array, source: Array, target: Array) -> Array:
        n = coef.shape[0]
        low, high = self._mean_range(n)
        return box_sum_range(coef, self._upper(n), n * low, n * high)

    def gap(self, coef: Array, grad: Array, source: Array, target: Array) -> Array:
        # By convexity the value falls by at most max over feasible v of grad . (coef - v); a linear function is least
        # where the smallest gradients carry all the weight that the bounds allow.
        xp, n = namespace(coef), coef.shape[0]
        upper, (low, high) = self._upper(n), self._mean_range(n)
        ordered = xp.sort(grad)
        filled = xp.arange(n, dtype=coef.dtype, device=device_of(grad)) * upper
        amount = xp.clip(n * high - filled, min=0.0, max=upper)
        needed = xp.clip(n * low - filled, min=0.0, max=upper)
        least = xp.sum(ordered * xp.where(ordered < 0.0, amount, needed))
        return xp.sum(grad * coef) - least

    def _upper(self, n: int) -> float:
        high = self._mean_range(n)[1]
        return n * high if self.max_weight is None else min(float(self.max_weight), n * high)

    def _mean_range(self, n: int) -> tuple[float, float]:
        """Least and largest mean of the weights. "diw" is the published (sqrt(n) - 1) / sqrt(n), nearly vacuous."""
        tol = (n**0.5 - 1.0) / n**0.5 if self.mean_tol == "diw" else float(self.mean_tol)
        return 1.0 - tol, 1.0 + tol


def smoothed_weights(coef: Array, kernel: Array) -> Array:
    """Kernel average (n,) of the anchors' weights `coef` (p,) under `kernel` (n, p); 1 where no anchor is near.

    The Nadaraya-Watson model: it never leaves the range of the weights.
    """
    xp = namespace(coef, kernel)
    floor = tiny(kernel)
    return (kernel @ coef + floor) / (xp.sum(kernel, axis=1) + floor)


@dataclass(frozen=True)
class MaximumMeanDiscrepancy(WeightedRows):
    """F(w) = (w'Kw / 2 - kappa'w) / n + regularization |w|^2 / (2n), kappa_i = (n/m) sum_j k(x_i, v_j).

    MMD^2 = (2/n) F(w) + mean k(v, v') at regularization 0. Source features are the kernel matrix K (n, n) and target
    features the block k(v_j, x_i) (m, n); with `is_factored`, both are feature maps whose inner products are the kernel.
    max_weight: upper bound B on each weight, None for none. mean_tol: how far the mean may be from 1, or "diw".
    Source: Huang et al. (2007).
    """

    max_weight: float | None = 1000.0
    mean_tol: float | str = 0.0
    regularization: float = 0.0
    is_factored: bool = False

    gradient_is_affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.regularization < float("inf"):
            raise ValueError(f"regularization must be a finite number >= 0; got {self.regularization!r}.")

    def value_and_grad(self, coef: Array, source: Array, target: Array) -> tuple[Array, Array]:
        n = coef.shape[0]
        curved = self.hessian_times(coef, source)
        linear = self.linear(source, target)
        xp = namespace(coef, source)
        return xp.sum(coef * (0.5 * curved - linear)) / n, (curved - linear) / n

    def curvature(self, source: Array, target: Array) -> Array:
        # The largest row sum of a symmetric matrix bounds its eigenvalues; Z'Z has those of K = ZZ'.
        xp, n = namespace(source), source.shape[0]
        if self.is_factored:
            bound = xp.max(xp.sum(xp.abs(xp.matrix_transpose(source) @ source), axis=1))
        else:
            # A kernel's values are >= 0: no absolute values, which would copy the matrix.
            bound = xp.max(xp.sum(source, axis=1))
        return (bound + self.regularization) / n

    def ratio(self, coef: Array, features: Array) -> Array:
        """Kernel average of the weights; `features` (n, p) are the kernel's values at the source rows in either form."""
        return smoothed_weights(coef, features)

    def summarise(self, source: Array, target: Array) -> tuple[Array, Array]:
        return source, namespace(target).mean(target, axis=0, keepdims=True)

    def hessian_times(self, vector: Array, source: Array) -> Array:
        """(K + regularization I) vector."""
        xp = namespace(vector, source)
        product = source @ (xp.matrix_transpose(source) @ vector) if self.is_factored else source @ vector
        return product + self.regularization * vector if self.regularization else product

    def linear(self, source: Array, target: Array) -> Array:
        """kappa (n,)."""
        xp = namespace(source, target)
        mean_target = xp.mean(target, axis=0)
        return source.shape[0] * (source @ mean_target if self.is_factored else mean_target)
