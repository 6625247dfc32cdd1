"""Sums over rows of features and their outer products, exact under any split of the rows."""

from __future__ import annotations

from dataclasses import dataclass

from .._arrays import Array, namespace, widest_here

__all__ = ["Moments"]

_FEW = 4  # largest rows per column at which products with the rows are cheaper than outer products


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows of features (n, k) that count `weight` (n,) times; the sums of two batches add up.

    A batch of few rows keeps its rows, and their outer products are computed on demand.
    """

    count: Array
    """() sum of the weights"""
    total: Array
    """(k,) sum of the weighted features"""
    products: Array | None
    """(k, k) sum of the weighted outer products, in float64 if the device supports it; None if `rows` are stored"""
    rows: Array | None = None
    """(n, k) the rows, if they are few and count once"""

    @classmethod
    def of(cls, features: Array, weight: Array | None = None) -> Moments:
        """The sums of one batch."""
        if weight is None and features.shape[0] <= _FEW * features.shape[1]:
            xp = namespace(features)
            return cls(xp.sum(xp.ones_like(features[:, 0])), xp.sum(features, axis=0), None, features)
        features = widest_here(features)
        xp = namespace(features)
        count = xp.ones_like(features[:, 0]) if weight is None else widest_here(weight)
        weighted = features if weight is None else features * count[:, None]
        return cls(xp.sum(count), xp.sum(weighted, axis=0), xp.matrix_transpose(weighted) @ features)

    def plus(self, other: Moments) -> Moments:
        """The sums over both batches."""
        wide = [(widest_here(m.count), widest_here(m.total), m.outer) for m in (self, other)]
        return Moments(*(mine + theirs for mine, theirs in zip(*wide, strict=True)))

    def minus(self, part: Moments) -> Moments:
        """The sums minus those of a part."""
        return Moments(self.count - part.count, self.total - part.total, self.outer - part.outer)

    def compact(self) -> Moments:
        """The sums without the rows."""
        return Moments(widest_here(self.count), widest_here(self.total), self.outer) if self.products is None else self

    @property
    def outer(self) -> Array:
        """(k, k) sum of the weighted outer products."""
        if self.products is not None:
            return self.products
        rows = widest_here(self.rows)
        return namespace(rows).matrix_transpose(rows) @ rows

    @property
    def mean(self) -> Array:
        """(k,) mean of the features."""
        return self.total / self._divisor

    @property
    def second(self) -> Array:
        """(k, k) mean of the outer products."""
        return self.outer / self._divisor

    @property
    def _divisor(self) -> Array:
        # An empty sample has sums 0, and its means are defined as 0.
        return namespace(self.count).where(self.count > 0.0, self.count, namespace(self.count).ones_like(self.count))
