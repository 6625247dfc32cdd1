"""Leave-one-out scores of the least-squares ratio where rows count a weight, as `leave_one_out_scores` where each counts once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["weighted_leave_one_out_scores"]


def weighted_leave_one_out_scores(
    source: np.ndarray,
    source_weight: np.ndarray,
    target: np.ndarray,
    target_weight: np.ndarray,
    regularization: Sequence[float],
    *,
    alpha: float = 0.0,
) -> np.ndarray:
    """Scores (len(regularization),), higher is better, of fits that leave out the i-th row of both samples with all its weight.

    source (n, k), target (m, k): features, with weights s (n,) and t (m,) of mean 1; n, m >= 2. With N = min(n, m), x_i and v_i
    the features of the rows left out and r_i(x) = max(0, x'a_i),

        a_i = (H_i + regularization I)^-1 h_i,   h_i = sum_{j != i} t_j v_j / (m - 1),
        H_i = (1 - alpha) sum_{j != i} s_j x_j x_j' / (n - 1) + alpha sum_{j != i} t_j v_j v_j' / (m - 1),
        score = mean_{i <= N}  t_i r_i(v_i) - alpha t_i r_i(v_i)^2 / 2 - (1 - alpha) s_i r_i(x_i)^2 / 2.

    Features scaled by the roots of the weights turn every sum of squares into a plain one; what is linear in the target keeps
    one more root. Weights of one give `leave_one_out_scores`.
    """
    n, m = len(source), len(target)
    root = np.sqrt(target_weight)[:, None]
    source, target = np.sqrt(source_weight)[:, None] * source, root * target
    gram = (1.0 - alpha) / (n - 1) * (source.T @ source) + alpha / (m - 1) * (target.T @ target)
    eigenvalues, vectors = np.linalg.eigh(gram)
    inverse = 1.0 / (np.clip(eigenvalues, 0.0, None)[:, None] + np.asarray(regularization)[None, :])
    linear = ((root * target).sum(axis=0) @ vectors / (m - 1))[:, None] * inverse
    pairs = min(n, m)
    x, v, root = source[:pairs] @ vectors, target[:pairs] @ vectors, root[:pairs]
    xx, xv, vv = (x * x) @ inverse, (x * v) @ inverse, (v * v) @ inverse
    from_x, from_v = x @ linear - root * xv / (m - 1), v @ linear - root * vv / (m - 1)
    # Woodbury: leaving the pair out is a change of rank 2 (1 at alpha = 0), as in `leave_one_out_scores`.
    without_x, without_v = 1.0 - (1.0 - alpha) / (n - 1) * xx, 1.0 - alpha / (m - 1) * vv
    cross = alpha * (1.0 - alpha) / ((n - 1) * (m - 1)) * xv * xv
    determinant = without_x * without_v - cross
    at_x = np.maximum((without_v * from_x + alpha / (m - 1) * xv * from_v) / determinant, 0.0)
    at_v = np.maximum((without_x * from_v + (1.0 - alpha) / (n - 1) * xv * from_x) / determinant, 0.0)
    return np.mean(root * at_v - 0.5 * (1.0 - alpha) * at_x**2 - 0.5 * alpha * at_v**2, axis=0)
