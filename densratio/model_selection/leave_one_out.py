"""Closed-form leave-one-out scores of the least-squares ratio: one eigendecomposition for a whole regularization path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .._arrays import Array, eps, full_like_row, namespace, widest_here
from .._blocks import gram

__all__ = ["LEAST_ROWS", "leave_one_out_scores"]

_TRACE = 1e-75  # features below it change no score, and products of them are slow to compute
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
) -> Array:
    """Scores (len(regularization),) of uLSIF, or RuLSIF if alpha > 0: -J on left-out rows, higher is better.

    source (n, k), target (m, k): features, which count source_weight (n,) and target_weight (m,) times (None: once); both sums
    N and M are at least 2. Each fit leaves out one copy of one row, or
    a row that counts less than once,

        a = (H + regularization I)^-1 h,   H = alpha mean phi phi' over the target + (1 - alpha) over the source,  h = mean phi
        over the target,   score = mean_j r_j(v_j) - alpha r_j(v_j)^2 / 2 - (1 - alpha) / 2 mean_i r_i(x_i)^2,   r(x) = phi(x)'a,

    with r_j from all rows but one copy of v_j, r_i from all but one copy of x_i, and both clipped at 0 where `nonnegative`.
    Leaving a row out is a change of rank 1 of a matrix whose eigenvectors do not depend on the regularization: a score costs
    k (n + m), after k^3 + k^2 (n + m) once for all of them.
    Source: Kanamori, Hido & Sugiyama (2009), who leave out a row of each sample at a time; extended to the relative ratio.
    """
    x, v = _without_traces(source), _without_traces(target)
    xp = namespace(x, v)
    s, t = (full_like_row(rows, 1.0) if w is None else widest_here(w) for rows, w in ((x, source_weight), (v, target_weight)))
    n, m = xp.sum(s), xp.sum(t)
    if min(float(n), float(m)) < LEAST_ROWS:
        raise ValueError(
            f"Leave-one-out needs at least two rows of each sample; got {float(n):.6g} source and {float(m):.6g} target rows."
        )
    of_source = _gram(x, source_weight)
    total = xp.matrix_transpose(v) @ t
    share, target_share = (1.0 - alpha) / (n - 1.0), alpha / (m - 1.0)
    of_target = _gram(v, target_weight) if alpha > 0.0 else 0.0 * of_source
    without_x = _Path.of(share * of_source + alpha / m * of_target, regularization)
    # A row that counts less than once is left out as a whole.
    out_x, out_v = (xp.clip(count, max=1.0)[:, None] for count in (s, t))
    at_source = without_x.left_out(x, total / m, out_x * share, 0.0)
    # Without a relative part both matrices have the same eigenvectors.
    without_v = (
        _Path.of((1.0 - alpha) / n * of_source + target_share * of_target, regularization)
        if alpha > 0.0
        else without_x.scaled((n - 1.0) / n, regularization)
    )
    at_target = without_v.left_out(v, total / (m - 1.0), out_v * target_share, out_v / (m - 1.0))
    if nonnegative:
        at_source, at_target = xp.clip(at_source, min=0.0), xp.clip(at_target, min=0.0)
    gain = t @ (at_target - 0.5 * alpha * at_target * at_target) / m
    return gain - 0.5 * (1.0 - alpha) * (s @ (at_source * at_source)) / n


def _without_traces(features: Array) -> Array:
    """Features (n, k) in float64, with 0 for traces."""
    xp, wide = namespace(features), widest_here(features)
    return wide * xp.astype(xp.abs(wide) > _TRACE, wide.dtype)


def _gram(rows: Array, weight: Array | None) -> Array:
    return namespace(rows).matrix_transpose(rows) @ rows if weight is None else gram(rows, widest_here(weight))


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
        diagonals = [_inverse(eigenvalues + strength, eps(eigenvalues)) for strength in regularization]
        return _Path(eigenvalues, self.vectors, xp.stack(diagonals, axis=1))

    def left_out(self, rows: Array, linear: Array, share: Array | float, linear_share: Array | float) -> Array:
        """phi'(G + regularization I - share phi phi')^-1 (linear - linear_share phi) (n, L), for phi each row of `rows` (n, k).

        share, linear_share: (n, 1), or one number for all rows.
        """
        # The inverse is diagonal here, so a quadratic form for the whole path is one product of the rows' squares with it.
        turned = rows @ self.vectors
        own = (turned * turned) @ self.inverse
        across = turned @ ((linear @ self.vectors)[:, None] * self.inverse)
        return (across - linear_share * own) / (1.0 - share * own)


def _inverse(shifted: Array, rounding: float) -> Array:
    # Without regularization, directions with eigenvalue 0 are dropped: the minimum-norm solution.
    xp = namespace(shifted)
    usable = shifted > xp.max(shifted) * (shifted.shape[0] * rounding)
    return xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))
