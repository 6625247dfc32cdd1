"""The ratio of numbers of neighbors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.neighbors import KDTree

from .._arrays import Array, is_sparse
from .._blocks import row_slices
from ..features import squared_euclidean
from .base import RatioEstimator
from .samples import Samples, row_counts

__all__ = ["NearestNeighborsRatio"]

_TREE_COLUMNS = 3  # beyond as many columns a tree visits every row, and a matrix product is faster
_SLACK = 1e-9  # by which a ball is wider than its radius: the row at its edge, and its ties, are in it despite rounding
_SCALES = (0.5, 1.0, 2.0)  # "auto" averages over these multiples of its number of neighbors
_GRID = 2.0 ** np.arange(-3, 4)  # numbers of neighbors that "cv" tries, as multiples of the default rule's


class NearestNeighborsRatio(RatioEstimator):
    """Target rows in the ball around a row that just holds k source rows, over the source rows in it.

        r(x) = (n_source T(x)) / (n_target S(x)),  S, T = source and target rows within the distance of x's k-th source neighbor

    S(x) is k, or more where several rows are at that distance, so that no ratio is infinite, its relative noise from the source
    is 1 / sqrt(k) everywhere, and none is above n_source / k. By default it is the mean of this over k / 2, k and 2 k, which is
    closer to the truth than the best single k: small balls follow detail, large ones lower the noise.
    Counting k rows of either domain instead leaves few source rows in S where the ratio is large; a quotient of two k-th
    distances has noise from both and is biased where either is sparse.
    A source row that was fitted does not count as its own neighbor in `weights_`; `transform` cannot tell and counts it.
    Distances are Euclidean in the columns as they are: scale columns of different units first.
    On data of few distinct rows the balls have radius 0, and the ratio is that of the frequencies.

    Parameters
    ----------
    n_neighbors : int, {"auto", "cv"} or a sequence of these
        k, in source rows. "auto": the mean of the ratios at k / 2, k and 2 k, k being the share q of the source with
        q n = max(sqrt n, n^(4 / (4 + d)) / 2), n = rows of the smaller domain, d = columns. The second is the best rate for a
        smooth ratio; the first keeps the noise low where d is large. "cv": the best of seven values from 1/8 to 8 times this.
    cv, n_jobs :
        Folds (5 by default) and joblib processes of "cv" and sequences, which maximize
        mean r(target) - mean r(source)^2 / 2 on the rows held out.

    sample_weight: whole numbers are numbers of copies, others are scaled to the effective sample size. CSR rows are taken.

    Attributes
    ----------
    n_neighbors_ : k in use; of "auto" the middle one.
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Raises ValueError where n_neighbors is not an int >= 1, or larger than the source.
    Source: Lima, Cunha, Oyaizu, Frieman, Lin & Sheldon (2008), Estimating the redshift distribution of photometric galaxy
    samples; Kremer, Gieseke, Steenstrup Pedersen & Igel (2015), Nearest neighbor density ratio estimation for large-scale
    applications in astronomy.
    """

    _takes_sparse: ClassVar[bool] = True
    _choosable: ClassVar[tuple[str, ...]] = ("n_neighbors",)

    def __init__(self, *, n_neighbors: int | str | Sequence[int | str] = "auto", cv: Any = None, n_jobs: int | None = None):
        self.n_neighbors = n_neighbors
        self.cv = cv
        self.n_jobs = n_jobs

    # ------------------------------------------------------------ parts

    def _fit(self, samples: Samples) -> Array:
        counts = row_counts(samples)
        self._sizes = float(counts[0].sum()), float(counts[1].sum())
        given = self._chosen("n_neighbors")
        self.n_neighbors_ = self._count(given, samples)
        scales = np.array(_SCALES if isinstance(given, str) else (1.0,))
        self._counted = np.clip(np.round(scales * self.n_neighbors_), 1.0, max(1.0, np.floor(self._sizes[0])))
        rows = [_double(part) for part in (samples.source, samples.target)]
        # Squared distances of huge or tiny rows would leave the range of numbers.
        self._unit = max(_largest(part) for part in rows) or 1.0
        dense = not is_sparse(rows[0]) and rows[0].shape[1] <= _TREE_COLUMNS
        kind = _Tree if dense else _Brute
        self._source, self._target = (kind(part / self._unit, count) for part, count in zip(rows, counts, strict=True))
        return self._quotient(rows[0], np.minimum(1.0, counts[0]))

    def _ratio(self, rows: Array) -> Array:
        return self._quotient(_double(rows), np.zeros(rows.shape[0]))

    def _quotient(self, rows: Any, own: np.ndarray) -> np.ndarray:
        """The ratio (n,) of rows, of whose own source neighbors `own` (n,) do not count."""
        ratio = np.empty(rows.shape[0])
        for at in row_slices(rows.shape[0], self._source.width(int(self._counted.max()))):
            ratio[at] = self._block(rows[at] / self._unit, own[at])
        return ratio

    def _block(self, rows: Any, own: np.ndarray) -> np.ndarray:
        others = self._sizes[0] - own
        radii = self._source.radii(rows, np.minimum(self._counted[:, None], others) + own)
        inside = self._source.masses(rows, radii) - own
        # The one source row there is has no other for a neighbor; its weight is 1 whatever its ratio.
        lonely = others < 0.5 * self._source.least
        share = inside / np.where(lonely, 1.0, others)
        quotients = self._target.masses(rows, radii) / self._sizes[1] / np.where(lonely, 1.0, share)
        return quotients.mean(axis=0)

    def _count(self, given: Any, samples: Samples) -> int:
        n_source = self._sizes[0]
        if isinstance(given, str) and given == "auto":
            return _rule(*self._sizes, samples.source.shape[1])
        if not isinstance(given, int | np.integer) or isinstance(given, bool) or given < 1:
            raise ValueError(f'n_neighbors must be an int >= 1, "auto", "cv" or a sequence of these; got {given!r}.')
        if given > n_source:
            raise ValueError(f"n_neighbors={given} is more than the source's {n_source:.6g} rows: give at most as many.")
        return int(given)

    def _grid(self, name: str, samples: Samples) -> list[int]:
        n_source, n_target = (float(count.sum()) for count in row_counts(samples))
        rule = _rule(n_source, n_target, samples.source.shape[1])
        # A fold keeps at least half of the rows.
        return sorted({int(np.clip(round(rule * multiple), 1, max(1, n_source // 2))) for multiple in _GRID})


class _Index(ABC):
    """Rows (n, d) that count, and balls around other rows."""

    def __init__(self, rows: Any, counts: np.ndarray):
        self.counts = counts
        self.is_plain = bool(np.all(counts == 1.0))
        self.least = float(counts.min())

    @abstractmethod
    def width(self, n_neighbors: int) -> int:
        """Distances held for each row whose balls are sought."""

    @abstractmethod
    def radii(self, rows: Any, masses: np.ndarray) -> np.ndarray:
        """Distances (k, n) within which the nearest rows count for `masses` (k, n) at least."""

    @abstractmethod
    def masses(self, rows: Any, radii: np.ndarray) -> np.ndarray:
        """How much (k, n) the rows within `radii` (k, n) count for."""


class _Tree(_Index):
    def __init__(self, rows: np.ndarray, counts: np.ndarray):
        super().__init__(rows, counts)
        self.tree = KDTree(rows)

    def width(self, n_neighbors: int) -> int:
        return n_neighbors

    def radii(self, rows: np.ndarray, masses: np.ndarray) -> np.ndarray:
        n_sought, n = min(len(self.counts), int(np.ceil(masses.max()))), len(self.counts)
        while True:
            distance, neighbor = self.tree.query(rows, k=n_sought)
            reached = _first_reached(self.counts[neighbor], masses)
            if n_sought == n or np.all(reached < n_sought):
                return distance[np.arange(len(rows)), np.minimum(reached, n_sought - 1)]
            n_sought = min(n, 2 * n_sought)

    def masses(self, rows: np.ndarray, radii: np.ndarray) -> np.ndarray:
        return np.stack([self._mass(rows, radius * (1.0 + _SLACK)) for radius in radii])

    def _mass(self, rows: np.ndarray, radius: np.ndarray) -> np.ndarray:
        if self.is_plain:
            return self.tree.query_radius(rows, radius, count_only=True).astype(np.float64)
        inside = self.tree.query_radius(rows, radius)
        return np.array([self.counts[positions].sum() for positions in inside])


class _Brute(_Index):
    def __init__(self, rows: Any, counts: np.ndarray):
        super().__init__(rows, counts)
        self.rows = rows

    def width(self, n_neighbors: int) -> int:
        return len(self.counts)

    def radii(self, rows: Any, masses: np.ndarray) -> np.ndarray:
        squares = squared_euclidean(rows, self.rows)
        if self.is_plain and np.all(masses == masses[:, :1]):
            places = np.ceil(masses[:, 0]).astype(int) - 1
            return np.sqrt(np.partition(squares, places, axis=1)[:, places].T)
        order = np.argsort(squares, axis=1, kind="stable")
        reached = np.minimum(_first_reached(self.counts[order], masses), len(self.counts) - 1)
        each = np.arange(len(order))
        return np.sqrt(squares[each, order[each, reached]])

    def masses(self, rows: Any, radii: np.ndarray) -> np.ndarray:
        totals = np.empty(radii.shape)
        for at in row_slices(rows.shape[0], len(self.counts)):
            squares = squared_euclidean(rows[at], self.rows)
            # A square from |x|^2 + |y|^2 - 2 x'y has lost the digits of the largest.
            edges = radii[:, at] ** 2 * (1.0 + 2.0 * _SLACK) + 1e-14 * squares.max(axis=1)
            for total, edge in zip(totals[:, at], edges, strict=True):
                total[:] = (squares <= edge[:, None]) @ self.counts
        return totals


def _first_reached(counts: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Columns (k, n) at which the running sums of counts (n, c) reach masses (k, n); c where they do not."""
    # Less than a count: sums of scaled weights are off by rounding.
    sums = np.cumsum(counts, axis=1)
    return np.stack([np.sum(sums < mass[:, None] * (1.0 - 1e-9), axis=1) for mass in masses])


def _rule(n_source: float, n_target: float, d: int) -> int:
    n = max(1.0, min(n_source, n_target))
    share = max(n**0.5, 0.5 * n ** (4.0 / (4.0 + d))) / n
    return int(np.clip(round(share * n_source), 1, max(1, int(n_source))))


def _double(rows: Any) -> Any:
    return rows.astype(np.float64)


def _largest(rows: Any) -> float:
    return float(np.max(np.abs(rows.data if is_sparse(rows) else rows), initial=0.0))
