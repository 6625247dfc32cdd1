"""Closed-form leave-one-out scores of the least-squares ratio: one eigendecomposition for a whole regularization path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._arrays import Array, eigh, eps, full_like_row, namespace, put, take_rows, weighted_mean, widest_here
from .._blocks import gram

__all__ = ["LEAST_ROWS", "leave_one_out_scores"]

LEAST_ROWS = 1.5  # effective rows of each sample; with fewer, leaving one out leaves no sample


def leave_one_out_scores(
    source: Array,
    target: Array,
    regularization: Sequence[float],
    *,
    alpha: float = 0.0,
    nonnegative: bool = True,
    source_weight: Array | None = None,
    target_weight: Array | None = None,
    left_out: tuple[Any, Any] | None = None,
) -> Array:
    """Scores (len(regularization),) of uLSIF, or RuLSIF if alpha > 0: -J on left-out rows, higher is better.

    source (n, k), target (m, k): features that count source_weight (n,) and target_weight (m,) times (None: once); both sums
    N and M are at least 2. Each fit leaves out one copy of one row, or a row that counts less than once,

        a = (H + regularization I)^-1 h,   H = alpha mean phi phi' over the target + (1 - alpha) over the source,  h = mean phi
        over the target,   score = mean_j r_j(v_j) - alpha r_j(v_j)^2 / 2 - (1 - alpha) / 2 mean_i r_i(x_i)^2,   r(x) = phi(x)'a,

    with r_j from all rows but one copy of v_j, r_i from all but one copy of x_i, and both clipped at 0 if `nonnegative`.
    Leaving a row out is a change of rank 1 of a matrix whose eigenvectors do not depend on the regularization: a score costs
    k (n + m), after k^3 + k^2 (n + m) once for all of them.

    left_out: positions of the source and target rows to leave out in turn, a random sample of both. They give the mean change of
    the score when a row is left out; the score of the full fit comes from the sums over all rows.
    Source: Kanamori, Hido & Sugiyama (2009), who leave out a row of each sample at a time; extended to the relative ratio.
    """
    x, v = widest_here(source), widest_here(target)
    xp = namespace(x, v)
    s, t = (full_like_row(rows, 1.0) if w is None else widest_here(w) for rows, w in ((x, source_weight), (v, target_weight)))
    n, m = xp.sum(s), xp.sum(t)
    if min(float(n), float(m)) < LEAST_ROWS:
        raise ValueError(
            f"Leave-one-out needs at least two rows of each sample; got {float(n):.6g} source and {float(m):.6g} target rows."
        )
    of_source, total = _gram(x, source_weight), t @ v
    share, target_share = (1.0 - alpha) / (n - 1.0), alpha / (m - 1.0)
    of_target = _gram(v, target_weight) if alpha > 0.0 else 0.0 * of_source
    without_x = _Path.of(share * of_source + alpha / m * of_target, total / m, regularization)
    # Without a relative part both matrices have the same eigenvectors.
    without_v = (
        _Path.of((1.0 - alpha) / n * of_source + target_share * of_target, total / (m - 1.0), regularization)
        if alpha > 0.0
        else without_x.scaled((n - 1.0) / n, m / (m - 1.0), regularization)
    )
    if left_out is not None:
        x, s, v, t = (take_rows(part, rows) for rows, side in zip(left_out, ((x, s), (v, t)), strict=True) for part in side)
    # A row that counts less than once is left out as a whole.
    out_x, out_v = (xp.clip(count, max=1.0)[:, None] for count in (s, t))
    kept_x, at_source = without_x.ratios(x, out_x * share, 0.0)
    kept_v, at_target = without_v.ratios(v, out_v * target_share, out_v / (m - 1.0))
    at_source, at_target = (xp.clip(ratio, min=0.0) if nonnegative else ratio for ratio in (at_source, at_target))
    score = _criterion(at_source, at_target, s, t, alpha)
    if left_out is None:
        return score
    by_x, by_v = without_x.coef, without_v.coef
    gain = total @ by_v / m - 0.5 * alpha * _quadratic(of_target / m, by_v)
    of_all = gain - 0.5 * (1.0 - alpha) * _quadratic(of_source / n, by_x)
    return of_all + score - _criterion(kept_x, kept_v, s, t, alpha)


def _criterion(at_source: Array, at_target: Array, source_weight: Array, target_weight: Array, alpha: float) -> Array:
    """-J (L,) of ratios (n, L) at source rows and (m, L) at target rows."""
    gain = weighted_mean(at_target - 0.5 * alpha * at_target * at_target, target_weight)
    return gain - 0.5 * (1.0 - alpha) * weighted_mean(at_source * at_source, source_weight)


def _quadratic(matrix: Array, columns: Array) -> Array:
    """column' matrix column (L,) of each of the columns (k, L)."""
    return namespace(matrix).sum(columns * (matrix @ columns), axis=0)


def _gram(rows: Array, weight: Array | None) -> Array:
    return namespace(rows).matrix_transpose(rows) @ rows if weight is None else gram(rows, widest_here(weight))


class _Path(NamedTuple):
    """Fits (G + regularization I)^-1 h: eigenvalues (k,) and eigenvectors (k, k) of G, and in them h (k,) and L inverses (k, L)."""

    eigenvalues: Array
    vectors: Array
    linear: Array
    inverse: Array

    @classmethod
    def of(cls, matrix: Array, linear: Array, regularization: Sequence[float]) -> _Path:
        eigenvalues, vectors = eigh(matrix)
        return cls(eigenvalues, vectors, linear @ vectors, eigenvalues).scaled(1.0, 1.0, regularization)

    def scaled(self, factor: Array | float, linear_factor: Array | float, regularization: Sequence[float]) -> _Path:
        """The same of the matrix factor G and the vector linear_factor h."""
        xp = namespace(self.vectors)
        eigenvalues = xp.clip(self.eigenvalues, min=0.0) * factor
        shifted = eigenvalues[:, None] + put(list(regularization), eigenvalues)[None, :]
        # Without regularization, directions with eigenvalue 0 are dropped: the minimum-norm solution.
        usable = shifted > xp.max(shifted, axis=0) * (shifted.shape[0] * eps(shifted))
        inverse = xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
        return _Path(eigenvalues, self.vectors, linear_factor * self.linear, inverse)

    @property
    def coef(self) -> Array:
        """(k, L) the coefficients."""
        return self.vectors @ (self.linear[:, None] * self.inverse)

    def ratios(self, rows: Array, share: Array | float, linear_share: Array | float) -> tuple[Array, Array]:
        """phi'(G + regularization I)^-1 h (n, L) for each row phi of `rows` (n, k), and the same without its part of G and h.

        share, linear_share: (n, 1), or one number for all rows. G loses share phi phi', and h loses linear_share phi.
        """
        # The inverse is diagonal here, so a quadratic form for the whole path is one product of the rows' squares with it.
        turned = rows @ self.vectors
        own, kept = (turned * turned) @ self.inverse, turned @ (self.linear[:, None] * self.inverse)
        return kept, (kept - linear_share * own) / (1.0 - share * own)
