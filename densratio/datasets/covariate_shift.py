"""Covariate shifts drawn from known distributions, with the exact ratio and an outcome that a linear model can't fit.

The outcome of a row x is the same in both domains: cos(u) + noise * N(0, 1), u = x . e, with e the unit vector along the shift
of the mean from source to target (if the mean does not shift, the first column or the first direction of the subspace). Under
u ~ N(m, s^2) the best line has slope -sin(m) exp(-s^2 / 2) and value cos(m) exp(-s^2 / 2) at u = m, so a linear model fitted
to the source is wrong on the target, and weights correct it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._validation import check_count, check_number, stack_domains
from .checks import generator, numbers
from .true_ratio import Embedded, Mixture, MixtureRatio, StudentT, StudentTRatio, SubspaceRatio, TrueRatio

__all__ = ["LEAST_DF", "Shift", "make_gaussian_shift", "make_heavy_tails", "make_mixture_shift", "make_subspace_shift"]

LEAST_DF = 0.1
"""Degrees of freedom below which draws of a Student-t distribution exceed the range of float64."""
_DF = f"[{LEAST_DF}, inf)"


@dataclass(frozen=True, eq=False)
class Shift:
    """Two stacked samples and their exact ratio; `X, y, ratio = shift` unpacks it.

    X (n, d) float64, source rows first; y (n,), 0 = source and 1 = target; ratio: the exact p_target(x) / p_source(x) of rows
    (n, d) -> (n,). labels (n,): the outcome of each row, a number or a class, or None. subspace (d, k): orthonormal basis of the
    subspace in which the distributions differ, None if it is all or unknown. index: the position of each row in the table it was
    taken from, None if it was drawn.
    """

    X: np.ndarray
    y: np.ndarray
    ratio: TrueRatio
    labels: np.ndarray | None = None
    subspace: np.ndarray | None = None
    index: np.ndarray | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.X, self.y, self.ratio))

    @property
    def X_source(self) -> np.ndarray:  # noqa: N802
        """Source rows (n_source, d)."""
        return self.X[self.y == 0]

    @property
    def X_target(self) -> np.ndarray:  # noqa: N802
        """Target rows (n_target, d)."""
        return self.X[self.y == 1]

    @property
    def labels_source(self) -> np.ndarray | None:
        """Outcomes of the source rows (n_source,)."""
        return None if self.labels is None else self.labels[self.y == 0]

    @property
    def labels_target(self) -> np.ndarray | None:
        """Outcomes of the target rows (n_target,)."""
        return None if self.labels is None else self.labels[self.y == 1]


def make_gaussian_shift(
    n_source: int = 1000,
    n_target: int = 1000,
    n_columns: int = 1,
    *,
    shift: float | ArrayLike = 1.0,
    scale: float = 0.75,
    noise: float = 0.1,
    random_state: int | np.random.Generator = 0,
) -> Shift:
    """Source N(0, I), target N(m, scale^2 I), m = shift e_1 or the vector `shift` (n_columns,).

    With scale < 1 the ratio is at most scale^-d exp(|m|^2 / (2 - 2 scale^2)); with scale = 1 it is exp(m.x - |m|^2 / 2),
    unbounded. E_source[ratio^2] = (scale sqrt(2 - scale^2))^-d exp(|m|^2 / (2 - scale^2)) is finite only for scale <
    sqrt(2), and its inverse is the share of effective source rows: keep scale <= 1, and near 1 if d is large.
    Outcome: see the module. Raises ValueError for sizes below 1, a scale <= 0, a negative noise, or a wrong length of `shift`.
    """
    move = _vector(shift, check_count("n_columns", n_columns))
    ratio = _gaussian_ratio(move, scale)
    return _draw(ratio, ratio.source, ratio.target, move, n_source, n_target, noise, random_state)


def make_mixture_shift(
    n_source: int = 1000,
    n_target: int = 1000,
    n_columns: int = 2,
    *,
    means: ArrayLike | None = None,
    target_means: ArrayLike | None = None,
    source_weights: ArrayLike = (0.8, 0.2),
    target_weights: ArrayLike = (0.2, 0.8),
    scales: float | ArrayLike = 1.0,
    noise: float = 0.1,
    random_state: int | np.random.Generator = 0,
) -> Shift:
    """Gaussian mixtures of components N(means_k, scales_k^2 I) with different weights, and optionally means, in the target.

    means (K, n_columns), by default -2 e_1 and 2 e_1; target_means (K, n_columns), by default the same: then the ratio is at
    most the largest quotient of target weight and source weight. Weights (K,) >= 0 are scaled to sum 1; scales: a number or (K,).
    Outcome: see the module. Raises ValueError for sizes below 1, scales <= 0, a negative noise, or shapes that do not fit.
    """
    n_columns = check_count("n_columns", n_columns)
    two = 2.0 * np.outer([-1.0, 1.0], np.eye(1, n_columns))
    centers = two if means is None else _means("means", means, n_columns)
    target_centers = centers if target_means is None else _means("target_means", target_means, n_columns)
    shares, target_shares = _weights("source_weights", source_weights), _weights("target_weights", target_weights)
    if not len(centers) == len(target_centers) == len(shares) == len(target_shares):
        raise ValueError(
            f"Means and weights must have the same number of components; got {len(centers)} means, {len(target_centers)} target "
            f"means, {len(shares)} source weights and {len(target_shares)} target weights."
        )
    widths = _finite("scales", scales)
    if widths.shape not in ((), (len(centers),)) or widths.min(initial=np.inf) <= 0:
        raise ValueError(f"scales must be a number > 0, or one for each of the {len(centers)} components; got {scales!r}.")
    widths = np.broadcast_to(widths, len(centers)).copy()
    source, target = Mixture(shares, centers, widths), Mixture(target_shares, target_centers, widths)
    return _draw(MixtureRatio(source, target), source, target, target.mean - source.mean, n_source, n_target, noise, random_state)


def make_heavy_tails(
    n_source: int = 1000,
    n_target: int = 1000,
    n_columns: int = 1,
    *,
    df_source: float = 3.0,
    df_target: float = 5.0,
    shift: float | ArrayLike = 1.0,
    scale: float = 1.0,
    noise: float = 0.1,
    random_state: int | np.random.Generator = 0,
) -> Shift:
    """Multivariate Student-t: the source at 0 with shape I, the target at shift e_1 (or the vector `shift`), scale^2 I.

    In the tails the ratio behaves as |x|^(df_source - df_target): it is bounded for df_target >= df_source, and E_source[ratio^2]
    is finite only for 2 df_target > df_source. The mean exists above df 1 and the variance above df 2.
    Outcome: see the module. Raises ValueError for sizes below 1, df below 0.1 (whose draws overflow float64) or infinite,
    a scale <= 0, a negative noise, or a wrong length of `shift`.
    """
    move = _vector(shift, check_count("n_columns", n_columns))
    source = StudentT(check_number("df_source", df_source, _DF), np.zeros_like(move), 1.0)
    target = StudentT(check_number("df_target", df_target, _DF), move, check_number("scale", scale, "(0, inf)"))
    return _draw(StudentTRatio(source, target), source, target, move, n_source, n_target, noise, random_state)


def make_subspace_shift(
    n_source: int = 1000,
    n_target: int = 1000,
    n_columns: int = 20,
    *,
    n_directions: int = 2,
    shift: float | ArrayLike = 1.0,
    scale: float = 0.75,
    noise: float = 0.1,
    random_state: int | np.random.Generator = 0,
) -> Shift:
    """The shift of `make_gaussian_shift` in n_directions random directions of n_columns, and N(0, 1) in all others.

    The coordinates x U (n, k) of a source row are N(0, I), of a target row N(m, scale^2 I), m = shift e_1 or the vector
    `shift` (k,); orthogonal to `subspace` U (d, k), drawn uniformly, both distributions are N(0, I) and the ratio is constant.
    Outcome: see the module. Raises ValueError as `make_gaussian_shift` does, and for more directions than columns.
    """
    n_columns, n_directions = check_count("n_columns", n_columns), check_count("n_directions", n_directions)
    if n_directions > n_columns:
        raise ValueError(f"n_directions must be at most n_columns; got {n_directions} directions in {n_columns} columns.")
    move, rng = _vector(shift, n_directions), generator(random_state)
    inner = _gaussian_ratio(move, scale)
    basis, triangle = np.linalg.qr(rng.standard_normal((n_columns, n_directions)))
    # Householder's sign convention would keep the first columns in one half-space.
    subspace = basis * np.sign(np.diag(triangle))
    direction = subspace @ move if move.any() else subspace[:, 0]
    source, target = (Embedded(law, subspace) for law in (inner.source, inner.target))
    ratio = SubspaceRatio(inner, subspace)
    return replace(_draw(ratio, source, target, direction, n_source, n_target, noise, rng), subspace=subspace)


def _gaussian_ratio(move: np.ndarray, scale: float) -> MixtureRatio:
    wide, one = np.array([check_number("scale", scale, "(0, inf)")]), np.ones(1)
    return MixtureRatio(Mixture(one, np.zeros((1, len(move))), one), Mixture(one, move[None], wide))


def _draw(
    ratio: TrueRatio,
    source: Mixture | StudentT | Embedded,
    target: Mixture | StudentT | Embedded,
    move: np.ndarray,
    n_source: int,
    n_target: int,
    noise: float,
    random_state: int | np.random.Generator,
) -> Shift:
    """Both samples, and the outcome (see the module) along `move` (d,)."""
    n_source, n_target = check_count("n_source", n_source), check_count("n_target", n_target)
    check_number("noise", noise, "[0, inf)", ", the standard deviation of the outcome's noise")
    rng = generator(random_state)
    X, y = stack_domains(source.sample(n_source, rng), target.sample(n_target, rng))
    length = np.linalg.norm(move)
    u = X @ (move / length) if length > 0 else X[:, 0]
    return Shift(X, y, ratio, np.cos(u) + noise * rng.standard_normal(len(u)))


def _finite(name: str, values: ArrayLike) -> np.ndarray:
    array = numbers(name, values)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; got {values!r}.")
    return array


def _vector(shift: float | ArrayLike, n_columns: int) -> np.ndarray:
    """A number times the first unit vector, or a vector (n_columns,) unchanged."""
    array = _finite("shift", shift)
    if array.ndim == 0:
        return array * np.eye(1, n_columns)[0]
    if array.shape != (n_columns,):
        raise ValueError(f"shift must be a number or a vector ({n_columns},); got shape {array.shape}.")
    return array


def _means(name: str, means: ArrayLike, n_columns: int) -> np.ndarray:
    array = _finite(name, means)
    if array.ndim != 2 or array.shape[1] != n_columns:
        raise ValueError(f"{name} must be (K, n_columns) with n_columns={n_columns}; got shape {array.shape}.")
    return array


def _weights(name: str, weights: ArrayLike) -> np.ndarray:
    array = _finite(name, weights)
    if array.ndim != 1 or array.min(initial=0.0) < 0 or not array.sum() > 0:
        raise ValueError(f"{name} must be (K,) numbers >= 0, one of them > 0; got {weights!r}.")
    return array / array.sum()
