"""Sums over rows of features: what the quadratic divergences ask of a sample, exact under any split of its rows."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays import Array, namespace, widest_here

__all__ = ["Moments", "rows_with", "symmetric_root"]


class Moments(NamedTuple):
    """Sums over the rows of features (n, k) that count `weight` (n,) each; adding those of two batches is those of both."""

    count: Array
    """() sum of the weights."""
    total: Array
    """(k,) sum of the weighted features."""
    outer: Array
    """(k, k) sum of the weighted outer products."""

    @classmethod
    def of(cls, features: Array, weight: Array | None = None) -> Moments:
        """The sums of one batch, in double precision where the device has it."""
        features = widest_here(features)
        xp = namespace(features)
        weighted = features if weight is None else features * widest_here(weight)[:, None]
        count = xp.ones_like(features[:, 0]) if weight is None else widest_here(weight)
        return cls(xp.sum(count), xp.sum(weighted, axis=0), xp.matrix_transpose(weighted) @ features)

    def plus(self, other: Moments) -> Moments:
        """The sums over both batches."""
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def mean(self) -> Array:
        """(k,) mean of the features."""
        return self.total / self.count

    @property
    def second(self) -> Array:
        """(k, k) mean of the outer products."""
        return self.outer / self.count


def symmetric_root(second: Array) -> Array:
    """Rows R (k, k) whose mean outer product R'R / k is `second` (k, k); the same whatever the order of the rows summed."""
    xp, k = namespace(second), second.shape[0]
    eigenvalues, vectors = xp.linalg.eigh(second)
    scale = xp.sqrt(k * xp.clip(eigenvalues, min=0.0))
    return (vectors * scale[None, :]) @ xp.matrix_transpose(vectors)


def rows_with(mean: Array, second: Array) -> Array:
    """Rows (2k, k) with this mean (k,) and this mean outer product (k, k): the mean plus and minus a root of the covariance."""
    xp = namespace(mean, second)
    # The root's rows have mean square covariance over k of them; over the 2k of both signs it is the same.
    spread = symmetric_root(second - mean[:, None] * mean[None, :])
    return xp.concat([mean[None, :] + spread, mean[None, :] - spread])
