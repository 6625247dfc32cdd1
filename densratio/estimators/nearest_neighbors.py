"""The ratio of neighbor counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.spatial import cKDTree
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
_EVERY = 8  # of every so many values one is partitioned to bound the smallest ones
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
        radii, inside = self._source.balls(rows, sought + own)
        inside = inside - own
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
        """Numbers in memory per query row."""

    @abstractmethod
    def nearest(self, rows: Any, n_sought: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Distances (n, c) of the c >= n_sought nearest rows in ascending order, and their counts (n, c), None if all are 1."""

    @abstractmethod
    def edges(self, radii: np.ndarray) -> np.ndarray:
        """`radii` widened, so that rows on the boundary of a ball are inside despite rounding."""

    @abstractmethod
    def masses(self, rows: Any, radii: np.ndarray) -> np.ndarray:
        """Total counts (k, n) of the rows within `radii` (k, n) of `rows`."""

    def balls(self, rows: Any, masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radii (k, n) of the smallest balls around `rows` that hold counts >= `masses` (k, n), and the counts (k, n) inside."""
        # One row more than sought shows that the ball ends there.
        n, n_sought = len(self.counts), int(np.ceil(masses.max())) + 1
        while True:
            distance, counts = self.nearest(rows, min(n, n_sought))
            sums = np.cumsum(np.ones_like(distance[:1]) if counts is None else counts, axis=1)
            reached = np.stack([_first_reached(sums, mass) for mass in masses])
            n_found = distance.shape[1]
            if n_found == n or np.all(reached < n_found):
                break
            n_sought *= 2
        each = np.arange(len(distance))
        radii = distance[each, np.minimum(reached, n_found - 1)]
        n_inside = np.stack([np.count_nonzero(distance <= edge[:, None], axis=1) for edge in self.edges(radii)])
        inside = sums[0 if counts is None else each, n_inside - 1]
        # Where the last row found is inside, others may be, too.
        at = np.flatnonzero(np.any(n_inside == n_found, axis=0)) if n_found < n else each[:0]
        if len(at):
            inside[:, at] = self.masses(rows[at], radii[:, at])
        return radii, inside

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
        # scikit-learn finds many neighbors in 2/3 of the time if they are not sorted, scipy counts in half of the time.
        self._finder, self._counter = KDTree(rows), cKDTree(rows)
        if rows.shape[1] == 1:
            self._order = np.argsort(rows[:, 0], kind="stable")
            self._sorted = rows[self._order, 0]

    def width(self, n_neighbors: int) -> int:
        return 4 * n_neighbors  # distances, places, both in order

    def nearest(self, rows: np.ndarray, n_sought: int) -> tuple[np.ndarray, np.ndarray | None]:
        if rows.shape[1] == 1:
            return self._nearest_on_a_line(rows[:, 0], n_sought)
        distance, neighbor = self._finder.query(rows, k=n_sought, sort_results=False)
        return _sorted(distance, None if self.is_plain else self.counts[neighbor])

    def _nearest_on_a_line(self, x: np.ndarray, n_sought: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The nearest n_sought of sorted values are neighbors there: bisection finds the first of them for all x (n,) at once."""
        low, high = np.zeros(len(x), int), np.full(len(x), len(self.counts) - n_sought)
        while np.any(low < high):
            middle = (low + high) // 2
            # At low = high = the last start there is no value after the window.
            after = self._sorted[np.minimum(middle + n_sought, len(self._sorted) - 1)]
            is_too_low = (low < high) & (x - self._sorted[middle] > after - x)
            low, high = np.where(is_too_low, middle + 1, low), np.where(is_too_low, high, middle)
        window = low[:, None] + np.arange(n_sought)
        distance = np.abs(x[:, None] - self._sorted[window])
        return _sorted(distance, None if self.is_plain else self.counts[self._order[window]])

    def edges(self, radii: np.ndarray) -> np.ndarray:
        return radii * (1.0 + _SLACK)

    def masses(self, rows: np.ndarray, radii: np.ndarray) -> np.ndarray:
        found = [self._counter.query_ball_point(rows, edge, return_length=self.is_plain) for edge in self.edges(radii)]
        return np.array(found, float) if self.is_plain else np.array([[self.counts[at].sum() for at in inside] for inside in found])


class _Brute(_Index):
    def width(self, n_neighbors: int) -> int:
        return len(self.counts)

    def nearest(self, rows: Any, n_sought: int) -> tuple[np.ndarray, np.ndarray | None]:
        squares = squared_euclidean(rows, self.rows, self.resolution)
        if self.is_plain:
            return np.sqrt(_smallest(squares, n_sought)), None
        return _sorted(np.sqrt(squares), np.broadcast_to(self.counts, squares.shape))

    def edges(self, radii: np.ndarray) -> np.ndarray:
        # Squares from |x|^2 + |y|^2 - 2 x'y have absolute errors.
        return np.sqrt(radii**2 * (1.0 + 2.0 * _SLACK) + _ERROR * self.resolution)

    def masses(self, rows: Any, radii: np.ndarray) -> np.ndarray:
        totals = np.empty(radii.shape)
        for at in row_slices(rows.shape[0], len(self.counts)):
            squares = squared_euclidean(rows[at], self.rows, self.resolution)
            for total, edge in zip(totals[:, at], self.edges(radii[:, at]) ** 2, strict=True):
                is_inside = squares <= edge[:, None]
                total[:] = np.count_nonzero(is_inside, axis=1) if self.is_plain else is_inside @ self.counts
        return totals


def _sorted(distance: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    if counts is None:
        return np.sort(distance, axis=1), None
    order = np.argsort(distance, axis=1, kind="stable")
    return np.take_along_axis(distance, order, axis=1), np.take_along_axis(counts, order, axis=1)


def _smallest(values: np.ndarray, n: int) -> np.ndarray:
    """The n smallest values (b, n) of each row (b, m) in ascending order.

    A partition of every eighth value bounds the n smallest of nearly every row, and only the values below the bound are sorted.
    """
    share = n / _EVERY
    rank = int(share + 4.0 * share**0.5) + 16  # four standard deviations above the expected rank of the n-th smallest
    if 2 * rank > values.shape[1] // _EVERY:
        return np.sort(np.partition(values, n - 1, axis=1)[:, :n], axis=1)
    bound = np.partition(values[:, ::_EVERY], rank, axis=1)[:, rank, None]
    below = np.flatnonzero(values <= bound)
    starts = np.searchsorted(below, np.arange(len(values) + 1) * values.shape[1])
    per_row = np.diff(starts)
    few = np.full((len(values), max(n, per_row.max())), np.inf)
    few[np.arange(few.shape[1]) < per_row[:, None]] = values.ravel()[below]
    few.sort(axis=1)
    for row in np.flatnonzero(per_row < n):
        few[row, :n] = np.sort(np.partition(values[row], n - 1)[:n])
    return few[:, :n]


def _first_reached(sums: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Columns (n,) at which the ascending `sums` (n, c) or (1, c) reach `masses` (n,); c if they do not."""
    # A tolerance below one count: sums of scaled weights are inexact.
    goals = masses * (1.0 - 1e-9)
    return np.searchsorted(sums[0], goals) if len(sums) == 1 else np.sum(sums < goals[:, None], axis=1)


def _rule(n_source: float, n_target: float, d: int, *, many: bool = False) -> int:
    n = max(1.0, min(n_source, n_target))
    share = (min(4.0 * n**0.5, 0.25 * n) if many else max(n**0.5, 0.5 * n ** (4.0 / (4.0 + d)))) / n
    return int(np.clip(round(share * n_source), 1, max(1, int(n_source))))


def _largest(rows: Any) -> float:
    return float(np.max(np.abs(rows.data if is_sparse(rows) else rows), initial=0.0))
