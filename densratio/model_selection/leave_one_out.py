"""Closed-form leave-one-out scores of the least-squares ratio: one eigendecomposition for a whole regularization path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .._arrays import Array, eps, full_like_row, namespace, put, weighted_mean, widest_here
from ..objectives.moments import Moments, without_traces

__all__ = ["LEAST_ROWS", "leave_one_out_scores"]

LEAST_ROWS = 1.5  # effective rows of each sample: below, what is left is no sample


def leave_one_out_scores(
    source: Array,
    target: Array,
    regularization: Sequence[float],
    *,
    alpha: float = 0.0,
    nonnegative: bool = True,
    source_weight: Array | None = None,
    target_weight: Array | None = None,
    sums: Sequence[Moments] | None = None,
) -> Array:
    """Scores (len(regularization),) of uLSIF, or RuLSIF if alpha > 0: -J on left-out rows, higher is better.

    source (n, k), target (m, k): features, which count source_weight (n,) and target_weight (m,) times (None: once). sums: of
    all source and all target rows, if these are a sample of them; both counts are at least 2. Each fit leaves out one copy of
    one row, or a row that counts less than once,

        a = (H + regularization I)^-1 h,   H = alpha mean phi phi' over the target + (1 - alpha) over the source,  h = mean phi
        over the target,   score = mean_j r_j(v_j) - alpha r_j(v_j)^2 / 2 - (1 - alpha) / 2 mean_i r_i(x_i)^2,   r(x) = phi(x)'a,

    with r_j from all rows but one copy of v_j, r_i from all but one copy of x_i, and both clipped at 0 where `nonnegative`.
    Leaving a row out is a change of rank 1 of a matrix whose eigenvectors do not depend on the regularization: a score costs
    k (n + m), after k^3 + k^2 (n + m) once for all of them.
    Source: Kanamori, Hido & Sugiyama (2009), who leave out a row of each sample at a time; extended to the relative ratio.
    """
    x, v = without_traces(source), without_traces(target)
    of_source, of_target = sums or (Moments.of(x, source_weight), Moments.of(v, target_weight))
    n, m = of_source.count, of_target.count
    if min(float(n), float(m)) < LEAST_ROWS:
        raise ValueError(
            f"Leave-one-out needs at least two rows of each sample; got {float(n):.6g} source and {float(m):.6g} target rows."
        )
    s, t = (full_like_row(rows, 1.0) if w is None else widest_here(w) for rows, w in ((x, source_weight), (v, target_weight)))
    xp, share, target_share = namespace(x, v), (1.0 - alpha) / (n - 1.0), alpha / (m - 1.0)
    # Without a relative part both matrices have the same eigenvectors.
    without_x = _Path.of(share * of_source.outer + (alpha * of_target.second if alpha else 0.0), regularization)
    without_v = (
        _Path.of((1.0 - alpha) * of_source.second + target_share * of_target.outer, regularization)
        if alpha
        else without_x.scaled((n - 1.0) / n, regularization)
    )
    # A row that counts less than once is left out as a whole.
    out_x, out_v = (xp.clip(count, max=1.0)[:, None] for count in (s, t))
    at_source = without_x.left_out(x, of_target.mean, out_x * share, 0.0)
    at_target = without_v.left_out(v, of_target.total / (m - 1.0), out_v * target_share, out_v / (m - 1.0))
    if nonnegative:
        at_source, at_target = xp.clip(at_source, min=0.0), xp.clip(at_target, min=0.0)
    gain, cost = at_target - 0.5 * alpha * at_target * at_target, 0.5 * (1.0 - alpha) * at_source * at_source
    if sums is None or alpha:
        return weighted_mean(gain, t) - weighted_mean(cost, s)
    # The sample tells only what leaving a row out changes: the means of the fits to all rows follow from their sums.
    of_x, of_v = without_x.coefficients(of_target.mean), without_v.coefficients(of_target.total / (m - 1.0))
    known = of_target.mean @ (without_v.vectors @ of_v) - 0.5 * xp.sum(without_v.eigenvalues[:, None] * of_x * of_x, axis=0)
    at_v, at_x = v @ (without_v.vectors @ of_v), x @ (without_x.vectors @ of_x)
    return known + weighted_mean(gain - at_v, t) - weighted_mean(cost - 0.5 * at_x * at_x, s)


class _Path(NamedTuple):
    """Eigenvalues (k,) and eigenvectors of a matrix G (k, k), and the diagonals (k, L) of (G + regularization I)^-1 in them."""

    eigenvalues: Array
    vectors: Array
    inverse: Array

    @classmethod
    def of(cls, matrix: Array, regularization: Sequence[float]) -> _Path:
        eigenvalues, vectors = namespace(matrix).linalg.eigh(matrix)
        return cls(eigenvalues, vectors, eigenvalues).scaled(1.0, regularization)

    def scaled(self, factor: Array | float, regularization: Sequence[float]) -> _Path:
        """The same of the matrix factor G."""
        xp = namespace(self.vectors)
        eigenvalues = xp.clip(self.eigenvalues, min=0.0) * factor
        shifted = eigenvalues[:, None] + put(list(regularization), eigenvalues)[None, :]
        # Without regularization, directions with eigenvalue 0 are dropped: the minimum-norm solution.
        usable = shifted > xp.max(shifted, axis=0) * (shifted.shape[0] * eps(shifted))
        inverse = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
        return _Path(eigenvalues, self.vectors, inverse)

    def coefficients(self, linear: Array) -> Array:
        """(G + regularization I)^-1 linear (k, L) in the eigenvectors, for linear (k,)."""
        return (linear @ self.vectors)[:, None] * self.inverse

    def left_out(self, rows: Array, linear: Array, share: Array | float, linear_share: Array | float) -> Array:
        """phi'(G + regularization I - share phi phi')^-1 (linear - linear_share phi) (n, L), for phi each row of `rows` (n, k).

        share, linear_share: (n, 1), or one number for all rows.
        """
        # The inverse is diagonal here, so a quadratic form for the whole path is one product of the rows' squares with it.
        turned = rows @ self.vectors
        own = (turned * turned) @ self.inverse
        across = turned @ self.coefficients(linear)
        return (across - linear_share * own) / (1.0 - share * own)
