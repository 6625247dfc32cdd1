"""The ratio of neighbor counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.neighbors import KDTree

from .._arrays import Array, is_sparse
from .._blocks import row_slices
from .._distances import squared_euclidean
from .._validation import check_count
from .base import RatioEstimator
from .samples import Samples, row_counts
from .search import ParameterSearch

__all__ = ["NearestNeighborsRatio"]

_TREE_COLUMNS = 4  # with more columns a tree visits so many rows that comparing all of them is as fast
_SLACK = 1e-9  # relative widening of a ball, so that the row on its boundary and ties are inside despite rounding
_ERROR = 1e-10  # absolute error of a squared distance, per unit of resolution
_SCALES = (0.5, 1.0, 2.0)  # "auto" averages over these multiples of its number of neighbors
_GRID = 2.0 ** np.arange(-3, 4)  # numbers of neighbors that "cv" tries, as multiples of the default


def _numbers(ratio: Any, samples: Samples) -> list[int]:
    n_source, n_target = (float(count.sum()) for count in row_counts(samples))
    rule = _rule(n_source, n_target, samples.source.shape[1])
    # A fold keeps at least half of the rows.
    return sorted({int(np.clip(round(rule * multiple), 1, max(1, n_source // 2))) for multiple in _GRID})


class NearestNeighborsRatio(RatioEstimator):
    """Target rows over source rows in the smallest ball around a row that holds k source rows, in shares of the samples.

        r(x) = (n_source T(x)) / (n_target S(x)),  S, T = source and target rows within the distance of x's k-th source neighbor

    S(x) is k; where many rows are at one distance, it is the nearest to k that a ball holds. So the ratio is about n_source / k
    at most, and its relative noise from the source is 1 / sqrt(k) everywhere. By default the ratio is averaged over k / 2, k and
    2 k, which is more accurate than the best single k: small balls resolve detail, large ones reduce noise.
    Counting k rows of either domain instead would leave few source rows in S where the ratio is large; a quotient of two k-th
    neighbor distances has noise from both samples and is biased where either is sparse.
    In `weights_` a source row does not count as its own neighbor; `transform` cannot recognize it and counts it.
    On data with few distinct rows the balls have radius 0, and the ratio is the quotient of the frequencies.

    Parameters
    ----------
    n_neighbors : int, {"auto", "many", "cv"} or a sequence of these
        k, in source rows. "auto": the mean of the ratios at k / 2, k and 2 k, where k is the share q of the source rows with
        q n = max(sqrt n, n^(4 / (4 + d)) / 2), n = rows of the smaller domain, d = columns. The second term is the optimal rate
        for a smooth ratio; the first limits the noise for large d. "many": the same with q n = min(4 sqrt n, n / 4), which has less
        noise and resolves less in two columns or more. "cv": the best of seven values from 1/8 to 8 times this k.
    cv, n_jobs :
        Folds (5 by default) and joblib processes of "cv" and sequences, which maximize
        mean r(target) - mean r(source)^2 / 2 on held-out rows.

    scale : {"auto", None}
        "auto": Euclidean distances in units of each column's spread, see `DensityRatio`. None: in the columns as they are.

    Whole numbers in sample_weight count as copies; others are scaled to the effective sample size. X may be a CSR matrix.

    Attributes
    ----------
    n_neighbors_ : the k used; for "auto" and "many" the middle one.
    weights_, normalization_, best_params_, cv_results_, n_features_in_, feature_names_in_ : as in `DensityRatio`.

    Raises ValueError if n_neighbors is not an int >= 1, or is larger than the number of source rows.
    Source: Lima, Cunha, Oyaizu, Frieman, Lin & Sheldon (2008), Estimating the redshift distribution of photometric galaxy
    samples; Kremer, Gieseke, Steenstrup Pedersen & Igel (2015), Nearest neighbor density ratio estimation for large-scale
    applications in astronomy.
    """

    _takes_sparse: ClassVar[bool] = True
    _search: ClassVar[ParameterSearch] = ParameterSearch({"n_neighbors": _numbers})
    _merges_copies: ClassVar[bool] = False

    def __init__(
        self,
        *,
        n_neighbors: int | str | Sequence[int | str] = "auto",
        cv: Any = None,
        n_jobs: int | None = None,
        scale: str | None = "auto",
    ):
        self.scale = scale
        self.n_neighbors = n_neighbors
        self.cv = cv
        self.n_jobs = n_jobs

    def _fit(self, samples: Samples) -> Array:
        counts = row_counts(samples)
        self._sizes = float(counts[0].sum()), float(counts[1].sum())
        given = self._chosen("n_neighbors")
        self.n_neighbors_ = self._count(given, samples)
        scales = np.array(_SCALES if isinstance(given, str) else (1.0,))
        self._counted = np.clip(np.round(scales * self.n_neighbors_), 1.0, max(1.0, np.floor(self._sizes[0])))
        rows = [part.astype(np.float64) for part in (samples.source, samples.target)]
        # Squared distances of huge or tiny rows would overflow or underflow; scaled rows are neither.
        self._largest_entry = 1.0 if self._unit is not None else max(_largest(part) for part in rows) or 1.0
        kind = _Brute if is_sparse(rows[0]) or rows[0].shape[1] > _TREE_COLUMNS else _Tree
        # For unscaled columns it is unknown which distances are small.
        resolution = 0.0 if self._unit is None else 1.0
        self._source, self._target = (
            kind(part / self._largest_entry, count, resolution) for part, count in zip(rows, counts, strict=True)
        )
        return self._quotient(rows[0], np.minimum(1.0, counts[0]))

    def _ratio(self, rows: Array) -> Array:
        return self._quotient(rows.astype(np.float64), np.zeros(rows.shape[0]))

    def _quotient(self, rows: Any, own: np.ndarray) -> np.ndarray:
        """The ratio (n,) at rows, leaving out the count `own` (n,) of the row itself among its source neighbors."""
        ratio = np.empty(rows.shape[0])
        for at in row_slices(rows.shape[0], self._source.width(int(self._counted.max()))):
            ratio[at] = self._block(rows[at] / self._largest_entry, own[at])
        return ratio

    def _block(self, rows: Any, own: np.ndarray) -> np.ndarray:
        others = self._sizes[0] - own
        radii, inside = self._balls(rows, np.minimum(self._counted[:, None], others), own)
        # A single source row has no other neighbor; its weight is 1 whatever its ratio.
        lonely = others < 0.5 * self._source.least
        share = inside / np.where(lonely, 1.0, others)
        quotients = self._target.masses(rows, radii) / self._sizes[1] / np.where(lonely, 1.0, share)
        return quotients.mean(axis=0)

    def _balls(self, rows: Any, sought: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radii (k, n) of balls around rows, and the counts of other source rows inside, as close as possible to `sought` (k, n).

        If many rows are at the distance of the last neighbor sought, the ball that ends before them may be closer.
        """
        radii = self._source.radii(rows, sought + own)
        inside = self._source.masses(rows, radii) - own
        for radius, mass, goal in zip(radii, inside, sought, strict=True):
            tied = np.flatnonzero(mass > goal * 1.5)
            if len(tied):
                smaller, held = self._source.inside(rows[tied], radius[tied])
                held = held - own[tied]
                nearer = held * mass[tied] > goal[tied] ** 2
                radius[tied[nearer]], mass[tied[nearer]] = smaller[nearer], held[nearer]
        return radii, inside

    def _count(self, given: Any, samples: Samples) -> int:
        n_source = self._sizes[0]
        if isinstance(given, str) and given in ("auto", "many"):
            return _rule(*self._sizes, samples.source.shape[1], many=given == "many")
        count = check_count("n_neighbors", given, more=', "auto", "many", "cv" or a sequence of these')
        if count > n_source:
            raise ValueError(f"n_neighbors={count} is more than the source's {n_source:.6g} rows: give at most that many.")
        return count


class _Index(ABC):
    """Rows (n, d) with counts, which finds and counts rows in balls around query rows.

    resolution: see `squared_euclidean`.
    """

    def __init__(self, rows: Any, counts: np.ndarray, resolution: float):
        self.rows = rows
        self.resolution = resolution
        self.counts = counts
        self.is_plain = bool(np.all(counts == 1.0))
        self.least = float(counts.min())

    @abstractmethod
    def width(self, n_neighbors: int) -> int:
        """Number of distances in memory per query row."""

    @abstractmethod
    def radii(self, rows: Any, masses: np.ndarray) -> np.ndarray:
        """Smallest radii (k, n) of balls around `rows` that hold counts of at least `masses` (k, n)."""

    @abstractmethod
    def masses(self, rows: Any, radii: np.ndarray) -> np.ndarray:
        """Total counts (k, n) of the rows within `radii` (k, n) of `rows`."""

    def inside(self, rows: Any, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The largest distance (n,) below `radii` (n,) of a row from each of `rows`, and the total count (n,) up to there."""
        nearest, mass = np.empty(len(radii)), np.empty(len(radii))
        for at in row_slices(len(radii), len(self.counts)):
            distances = np.sqrt(squared_euclidean(rows[at], self.rows, self.resolution))
            is_inside = distances < (radii[at] * (1.0 - _SLACK))[:, None]
            nearest[at] = np.max(np.where(is_inside, distances, 0.0), axis=1)
            mass[at] = is_inside @ self.counts
        return nearest, mass


class _Tree(_Index):
    def __init__(self, rows: np.ndarray, counts: np.ndarray, resolution: float):
        super().__init__(rows, counts, resolution)
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
        found = [self.tree.query_radius(rows, radius * (1.0 + _SLACK), count_only=self.is_plain) for radius in radii]
        return np.array(found, float) if self.is_plain else np.array([[self.counts[at].sum() for at in inside] for inside in found])


class _Brute(_Index):
    def width(self, n_neighbors: int) -> int:
        return len(self.counts)

    def radii(self, rows: Any, masses: np.ndarray) -> np.ndarray:
        squares = squared_euclidean(rows, self.rows, self.resolution)
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
            squares = squared_euclidean(rows[at], self.rows, self.resolution)
            # Squares from |x|^2 + |y|^2 - 2 x'y have absolute errors.
            edges = radii[:, at] ** 2 * (1.0 + 2.0 * _SLACK) + _ERROR * self.resolution
            for total, edge in zip(totals[:, at], edges, strict=True):
                is_inside = squares <= edge[:, None]
                total[:] = np.count_nonzero(is_inside, axis=1) if self.is_plain else is_inside @ self.counts
        return totals


def _first_reached(counts: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Columns (k, n) at which the running sums of counts (n, c) reach masses (k, n); c if they do not."""
    # A tolerance below one count: sums of scaled weights are inexact.
    sums = np.cumsum(counts, axis=1)
    return np.stack([np.sum(sums < mass[:, None] * (1.0 - 1e-9), axis=1) for mass in masses])


def _rule(n_source: float, n_target: float, d: int, *, many: bool = False) -> int:
    n = max(1.0, min(n_source, n_target))
    share = (min(4.0 * n**0.5, 0.25 * n) if many else max(n**0.5, 0.5 * n ** (4.0 / (4.0 + d)))) / n
    return int(np.clip(round(share * n_source), 1, max(1, int(n_source))))


def _largest(rows: Any) -> float:
    return float(np.max(np.abs(rows.data if is_sparse(rows) else rows), initial=0.0))
