"""Pearson divergence of two projected samples, and its gradient in the projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ..._arrays import exp_of_negative
from ..._distances import squared_euclidean
from ..._threads import few_threads
from ...features import NO_TRACE

__all__ = ["ProjectedDivergence", "gaussian"]


def gaussian(rows: np.ndarray, centers: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-gamma |x - c|^2) (n, b) of rows (n, k) and centers (b, k), at least exp(-NO_TRACE)."""
    return exp_of_negative(gamma * squared_euclidean(rows, centers, 1.0 / gamma), NO_TRACE)


@dataclass(frozen=True)
class ProjectedDivergence:
    """Relative Pearson divergence of the projected samples, estimated by least squares with Gaussian kernels.

    With phi the kernels exp(-gamma |U'(x - c_l)|^2), H = alpha mean_t phi phi' + (1 - alpha) mean_s phi phi' and h = mean_t phi,

        PE(U) = max_a  h'a - a'Ha / 2 - regularization |a|^2 / 2 - 1/2  =  h'a / 2 - 1/2   at a = (H + regularization I)^-1 h.

    As a is the maximizer, its own derivative drops out of the gradient in U. alpha = 0 is the Pearson divergence; a larger alpha
    reduces the influence of single rows with a large ratio.
    source (n, d), target (m, d), centers (b, d); source_weight (n,), target_weight (m,) >= 0; gamma > 0 in
    1 / (data units)^2, regularization > 0, alpha in [0, 1).
    Source: Sugiyama et al. (2011), Direct density-ratio estimation with dimensionality reduction via least-squares
    hetero-distributional subspace analysis; Yamada et al. (2013) for alpha.
    """

    source: np.ndarray
    source_weight: np.ndarray
    target: np.ndarray
    target_weight: np.ndarray
    centers: np.ndarray
    gamma: float
    regularization: float
    alpha: float = 0.0

    def solve(self, basis: np.ndarray) -> tuple[np.ndarray, float]:
        """The coefficients a (b,) in the subspace U = `basis` (d, k), and the unpenalized divergence h'a - a'Ha / 2 - 1/2."""
        coef, linear, second, _, _ = self._solution(basis)
        return coef, float(linear @ coef - 0.5 * coef @ second @ coef - 0.5)

    def value_and_grad(self, basis: np.ndarray) -> tuple[float, np.ndarray]:
        """PE(U) and its gradient (d, k) at U = `basis` (d, k); for orthonormal columns PE depends only on their span."""
        coef, linear, _, at_source, at_target = self._solution(basis)
        from_target = self.target_weight / self.target_weight.sum() * (1.0 - self.alpha * (at_target @ coef))
        from_source = -(1.0 - self.alpha) * self.source_weight / self.source_weight.sum() * (at_source @ coef)
        slope = self._pull(self.target, at_target, from_target, coef, basis)
        slope += self._pull(self.source, at_source, from_source, coef, basis)
        return float(0.5 * linear @ coef - 0.5), -2.0 * self.gamma * slope

    def _solution(self, basis: np.ndarray) -> tuple[np.ndarray, ...]:
        centers = self.centers @ basis
        at_source, at_target = (gaussian(rows @ basis, centers, self.gamma) for rows in (self.source, self.target))
        weights = self.source_weight / self.source_weight.sum(), self.target_weight / self.target_weight.sum()
        linear = weights[1] @ at_target
        second = (1.0 - self.alpha) * (at_source.T @ (weights[0][:, None] * at_source))
        if self.alpha > 0.0:
            second += self.alpha * (at_target.T @ (weights[1][:, None] * at_target))
        shifted = second + self.regularization * np.eye(len(linear))
        with few_threads(len(linear)):
            coef = scipy.linalg.solve(shifted, linear, assume_a="pos", check_finite=False)
        return coef, linear, second, at_source, at_target

    def _pull(
        self, rows: np.ndarray, features: np.ndarray, row_weight: np.ndarray, coef: np.ndarray, basis: np.ndarray
    ) -> np.ndarray:
        """sum_il row_weight_i coef_l features_il (x_i - c_l)(x_i - c_l)' U, (d, k)."""
        pairs = features * row_weight[:, None] * coef[None, :]
        at_rows, at_centers = rows @ basis, self.centers @ basis
        towards = rows.T @ (np.sum(pairs, axis=1)[:, None] * at_rows - pairs @ at_centers)
        return towards + self.centers.T @ (np.sum(pairs, axis=0)[:, None] * at_centers - pairs.T @ at_rows)
