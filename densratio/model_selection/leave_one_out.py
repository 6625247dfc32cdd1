"""Closed-form leave-one-out scores of the least-squares ratio: one eigendecomposition for a whole regularization path."""

from __future__ import annotations

from collections.abc import Sequence

from .._arrays import Array, eps, namespace, widest_here

__all__ = ["leave_one_out_scores"]


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

    source (n, k), target (m, k): features; n, m >= 2. The i-th of N = min(n, m) fits leaves out the i-th row of both samples,

        a_i = (H_i + regularization I)^-1 h_i,   H_i = alpha mean phi phi' over the target + (1 - alpha) over the source,
        score = mean_i  r_i(v_i) - alpha r_i(v_i)^2 / 2 - (1 - alpha) r_i(x_i)^2 / 2,   r_i(x) = phi(x)'a_i,

    with r_i clipped at 0 where `nonnegative`. Leaving a pair out is a change of rank 2 (rank 1 at alpha = 0) of a matrix whose
    eigenvectors do not depend on the regularization: a score costs k N, after k^3 + k^2 (n + m) once for all of them.

    Rows may have weights of mean 1, source_weight (n,) and target_weight (m,): a row is then left out with all its weight,
    sums are divided by n - 1 and m - 1, and the row's terms of the score are weighted alike.
    Source: Kanamori, Hido & Sugiyama (2009), extended to the relative ratio.
    """
    source, target = widest_here(source), widest_here(target)
    xp, n, m = namespace(source, target), source.shape[0], target.shape[0]
    if min(n, m) < 2:
        raise ValueError(f"Leave-one-out needs at least two rows of each sample; got {n} source and {m} target rows.")
    # Features scaled by the square roots of the weights turn weighted squares into plain ones; terms linear in the target need
    # one more factor of the root.
    root = xp.ones_like(target[:, :1])
    if source_weight is not None:
        source = source * xp.sqrt(widest_here(source_weight))[:, None]
    if target_weight is not None:
        root = xp.sqrt(widest_here(target_weight))[:, None]
        target = target * root
    # With one row left out, the mean is over one row less.
    gram_source = (1.0 - alpha) / (n - 1) * (xp.matrix_transpose(source) @ source)
    gram = gram_source + alpha / (m - 1) * (xp.matrix_transpose(target) @ target) if alpha > 0.0 else gram_source
    eigenvalues, vectors = xp.linalg.eigh(gram)
    eigenvalues = xp.clip(eigenvalues, min=0.0)
    pairs = min(n, m)
    x, v = source[:pairs, :] @ vectors, target[:pairs, :] @ vectors
    total = xp.sum(root * target, axis=0) @ vectors
    inverse = xp.stack([_inverse(eigenvalues + strength, eps(source)) for strength in regularization], axis=1)
    shares = (1.0 - alpha) / (n - 1), alpha / (m - 1)
    at_source, at_target = _held_out_ratios(x, v, total / (m - 1), inverse, *shares, root[:pairs, :] / (m - 1))
    if nonnegative:
        at_source, at_target = xp.clip(at_source, min=0.0), xp.clip(at_target, min=0.0)
    squares = (1.0 - alpha) * at_source * at_source + alpha * at_target * at_target
    return xp.mean(root[:pairs, :] * at_target - 0.5 * squares, axis=0)


def _inverse(shifted: Array, rounding: float) -> Array:
    # Without regularization, directions with eigenvalue 0 are dropped: the minimum-norm solution.
    xp = namespace(shifted)
    usable = shifted > xp.max(shifted) * (shifted.shape[0] * rounding)
    return xp.where(usable, 1.0 / xp.where(usable, shifted, xp.ones_like(shifted)), xp.zeros_like(shifted))


def _held_out_ratios(
    x: Array, v: Array, linear: Array, inverse: Array, source_share: float, target_share: float, linear_share: Array
) -> tuple[Array, Array]:
    """r_i(x_i), r_i(v_i) (N, L) of the fits without row i, in the eigenbasis, for each of the L columns of `inverse` (k, L).

    With B = diag(1 / inverse) that fit is (B - source_share x_i x_i' - target_share v_i v_i')^-1 (linear - linear_share_i v_i).
    """
    # B^-1 is diagonal, so a quadratic form for the whole path is one product of the rows' squares with its diagonals.
    xx, xv, vv = (x * x) @ inverse, (x * v) @ inverse, (v * v) @ inverse
    # x_i' and v_i' times B^-1 times the right-hand side.
    from_x = x @ (linear[:, None] * inverse) - linear_share * xv
    from_v = v @ (linear[:, None] * inverse) - linear_share * vv
    # Woodbury: the ratios (r_x, r_v) solve (I - G S)(r_x, r_v) = (from_x, from_v), G = [[xx, xv], [xv, vv]], S the shares.
    a, b = 1.0 - source_share * xx, -target_share * xv
    c, d = -source_share * xv, 1.0 - target_share * vv
    determinant = a * d - b * c
    return (d * from_x - b * from_v) / determinant, (a * from_v - c * from_x) / determinant
