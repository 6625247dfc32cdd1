"""Exact density ratios as callables: Gaussian mixtures, Student-t distributions, and shifts confined to a subspace."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaln, logsumexp

from .._arrays import to_host
from .._blocks import over_rows

__all__ = ["Embedded", "Mixture", "MixtureRatio", "StudentT", "StudentTRatio", "SubspaceRatio", "TrueRatio", "as_rows"]


def as_rows(X: Any, n_columns: int | None = None) -> np.ndarray:
    """X as finite float64 rows (n, d) on the host. Raises ValueError for another shape, text, NaN or infinity."""
    try:
        rows = np.asarray(to_host(X), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"X must hold numbers: {error}. Encode or drop the other columns.") from None
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"X must be rows (n, d), d >= 1; got shape {rows.shape}. Reshape one column with X.reshape(-1, 1).")
    if n_columns is not None and rows.shape[1] != n_columns:
        raise ValueError(f"X must have the {n_columns} columns of the data that this ratio belongs to; got {rows.shape[1]}.")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=0))
    if len(bad):
        names = list(getattr(X, "columns", []))
        column = repr(names[bad[0]]) if names else bad[0]
        raise ValueError(f"X contains NaN or infinity in column {column}. Drop or impute these rows.")
    return rows


class TrueRatio(ABC):
    """The exact p_target(x) / p_source(x) of rows (n, d) -> (n,) float64, finite rows of any library and dtype.

    It is computed as a logarithm, so it is exact even where both densities underflow; beyond the range of float64 it is 0 or
    infinity. Picklable.
    """

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Number of columns d of its rows."""

    def log(self, X: Any) -> np.ndarray:
        """Natural logarithm (n,) of the ratio of rows (n, d)."""
        rows = as_rows(X, self.n_columns)
        # Squares of huge rows overflow to infinity, the correct limit of every term.
        with np.errstate(over="ignore"):
            return over_rows(self._log, rows, self.n_columns)

    def __call__(self, X: Any) -> np.ndarray:
        log_ratio = self.log(X)
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(log_ratio)

    @abstractmethod
    def _log(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k weights_k N(means_k, scales_k^2 I): weights (K,) >= 0 of sum 1, means (K, d), standard deviations scales (K,)."""

    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Mean (d,) of the mixture."""
        return self.weights @ self.means

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows (n, d)."""
        component = rng.choice(len(self.weights), size=n, p=self.weights)
        return self.means[component] + self.scales[component, None] * rng.standard_normal((n, self.means.shape[1]))

    def log_parts_against(self, rows: np.ndarray, center: np.ndarray, scale: float) -> np.ndarray:
        """Log of each component's density over that of N(center, scale^2 I), without its weight; (K, n)."""
        d = rows.shape[1]
        parts = [
            _quadratic_difference(rows - mean, s, (mean - center) / scale, scale) - d * np.log(s / scale)
            for mean, s in zip(self.means, self.scales, strict=True)
        ]
        return np.stack(parts)

    def without_absent(self) -> Mixture:
        """The same mixture without components of weight 0."""
        kept = self.weights > 0
        return Mixture(self.weights[kept], self.means[kept], self.scales[kept])


@dataclass(frozen=True, eq=False)
class MixtureRatio(TrueRatio):
    """Ratio of two Gaussian mixtures by log-sum-exp; a mixture of one component is a Gaussian."""

    source: Mixture
    target: Mixture

    @property
    def n_columns(self) -> int:
        return self.source.means.shape[1]

    def _log(self, rows: np.ndarray) -> np.ndarray:
        source, target = self.source.without_absent(), self.target.without_absent()
        widest = max(source.scales.max(), target.scales.max())
        # Any center gives the same ratio; one far from the rows would lose digits.
        below, above = (law.log_parts_against(rows, source.mean, widest) for law in (source, target))
        # Without weights, a component that both mixtures share has exactly the same value in both and cancels, however large.
        largest = np.maximum(below.max(axis=0), above.max(axis=0))
        sums = [logsumexp(part - largest, axis=0, b=law.weights[:, None]) for part, law in ((above, target), (below, source))]
        return sums[0] - sums[1]


@dataclass(frozen=True, eq=False)
class StudentT:
    """Multivariate Student-t distribution: `df` degrees of freedom, location (d,), shape matrix scale^2 I."""

    df: float
    location: np.ndarray
    scale: float

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows (n, d)."""
        normal = rng.standard_normal((n, len(self.location)))
        return self.location + self.scale * normal * np.sqrt(self.df / rng.chisquare(self.df, n))[:, None]

    def log_density(self, rows: np.ndarray) -> np.ndarray:
        """Log density (n,) up to the constant -(d/2) log pi + log Gamma(d/2), which cancels in a ratio."""
        d = len(self.location)
        # betaln keeps the digits that a difference of two large gammaln values would lose.
        constant = -betaln(0.5 * self.df, 0.5 * d) - 0.5 * d * np.log(self.df) - d * np.log(self.scale)
        tail = np.logaddexp(0.0, 2.0 * _log_norm(rows - self.location) - 2.0 * np.log(self.scale) - np.log(self.df))
        return constant - 0.5 * (self.df + d) * tail


@dataclass(frozen=True, eq=False)
class StudentTRatio(TrueRatio):
    """Ratio of two multivariate Student-t distributions."""

    source: StudentT
    target: StudentT

    @property
    def n_columns(self) -> int:
        return len(self.source.location)

    def _log(self, rows: np.ndarray) -> np.ndarray:
        return self.target.log_density(rows) - self.source.log_density(rows)


@dataclass(frozen=True, eq=False)
class Embedded:
    """Rows x (n, d) whose coordinates x U (n, k) follow `law`, independent of N(0, I) coordinates orthogonal to U (d, k)."""

    law: Mixture | StudentT
    subspace: np.ndarray

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """n rows (n, d)."""
        # N(0, I) is invariant under rotations, so only the coordinates in the subspace have to be replaced.
        normal = rng.standard_normal((n, len(self.subspace)))
        return normal + (self.law.sample(n, rng) - normal @ self.subspace) @ self.subspace.T


@dataclass(frozen=True, eq=False)
class SubspaceRatio(TrueRatio):
    """The ratio `inner` of the coordinates x U (n, k), U = `subspace` (d, k) with orthonormal columns."""

    inner: MixtureRatio | StudentTRatio
    subspace: np.ndarray

    @property
    def n_columns(self) -> int:
        return len(self.subspace)

    def _log(self, rows: np.ndarray) -> np.ndarray:
        return self.inner.log(rows @ self.subspace)


def _quadratic_difference(moved: np.ndarray, s: float, offset: np.ndarray, scale: float) -> np.ndarray:
    """|u|^2 / 2 - |v|^2 / 2 (n,), v = moved / s and u = moved / scale + offset.

    Computed as (u - v).(u + v) / 2, whose first factor keeps its digits in the tails, where u and v agree; for s = scale it
    is the constant `offset`.
    """
    less, more = (s - scale) / (s * scale), (s + scale) / (s * scale)
    return 0.5 * np.einsum("nd,nd->n", moved * less + offset, moved * more + offset)


def _log_norm(rows: np.ndarray) -> np.ndarray:
    """log |x| of rows (n, d) -> (n,), without overflow of the squares; minus infinity at 0."""
    largest = np.abs(rows).max(axis=1)
    unit = rows / np.where(largest > 0, largest, 1.0)[:, None]
    with np.errstate(divide="ignore"):
        return np.log(largest) + 0.5 * np.log(np.maximum(np.einsum("nd,nd->n", unit, unit), 1.0))
