"""The search for the subspace in which two whitened samples differ most: analytic starts, ascent, restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from scipy.optimize import minimize

from ...features import Gaussian
from ...model_selection.leave_one_out import LEAST_ROWS, leave_one_out_scores
from ..samples import WeightedRows
from .divergence import ProjectedDivergence, gaussian

__all__ = ["Choice", "Search", "Whitening", "ascend"]

_EVERY = 15  # ascent steps between choices of the kernel
_FIRST = 1.0 / 32.0  # length of the first step of an ascent
_SLOPE = 1e-5  # slope of the divergence per radian below which an ascent ends
_MEDIAN_ROWS = 100
_FARTHEST = 1e50  # largest whitened entry, so that fourth powers do not overflow
_REACH = 10.0  # spreads from the center beyond which a row counts as at that distance in the moments that starts compare
_TIE = 1e-3  # weight of the term that decides between directions with equal differences, as with few rows
# Least gain of a step, and of the leave-one-out score by a round. Further steps along a flat divergence learn its curvature from
# differences of nearly equal slopes: each would magnify rounding a hundred times.
_ENOUGH = 1e-4


class Whitening(NamedTuple):
    """The affine map of rows (n, d) to whitened rows (n, r): (x * factor - center) @ matrix."""

    factor: np.ndarray
    center: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, source: WeightedRows, target: WeightedRows, most: float = np.inf) -> Whitening:
        """The map after which the mean covariance of both domains about their midpoint is I; constant directions are dropped.

        Entries beyond `most` count as `most` in the covariance, so that a few far rows do not shrink all others to a point.
        """
        largest = np.maximum(*(np.max(np.abs(np.clip(domain.rows, -most, most)), axis=0) for domain in (source, target)))
        factor = np.where(largest > 1e-300, 1.0 / np.where(largest > 1e-300, largest, 1.0), 0.0)
        rows = [np.clip(domain.rows, -most, most) * factor for domain in (source, target)]
        center: np.ndarray = 0.5 * sum(domain.mean(x) for domain, x in zip((source, target), rows, strict=True))  # type: ignore[assignment]
        moved = [x - center for x in rows]
        spread = np.sqrt(0.5 * sum(d.mean(x * x) for d, x in zip((source, target), moved, strict=True)))
        inverse = np.where(spread > 1e-14, 1.0 / np.where(spread > 1e-14, spread, 1.0), 0.0)
        unit = [x * inverse for x in moved]
        pooled = 0.5 * sum(domain.second(x) for domain, x in zip((source, target), unit, strict=True))
        eigenvalues, vectors = scipy.linalg.eigh(pooled)
        varies = eigenvalues > 1e-12 * max(eigenvalues[-1], 1e-300)
        return cls(factor, center, inverse[:, None] * vectors[:, varies] / np.sqrt(eigenvalues[varies]))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return np.clip((rows.astype(np.float64) * self.factor - self.center) @ self.matrix, -_FARTHEST, _FARTHEST)

    def subspace(self, basis: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """Orthonormal columns (d, k) that span U = `basis` (r, k) in the original columns, of which a row is `unit` (d,)."""
        directions = (self.factor / unit)[:, None] * (self.matrix @ basis)
        return np.linalg.qr(directions / np.max(np.abs(directions), axis=0, initial=1e-300))[0]


class Choice(NamedTuple):
    """The bandwidth and regularization with the highest leave-one-out score, and that score."""

    gamma: float
    regularization: float
    score: float


def ascend(
    criterion: ProjectedDivergence, basis: np.ndarray, max_iter: int, enough: float = 1e-9
) -> tuple[np.ndarray, list[float]]:
    """Ascend on the Grassmann manifold from U = `basis` (d, k), by L-BFGS with the QR retraction.

    Returns the orthonormal basis (d, k) and the nondecreasing values of the criterion, starting with the first. It ends after
    max_iter steps, where a step gains less than `enough`, or where the divergence is flat.
    """
    # The first step of scipy has length 1 in its variables. From a far point the next would be found by the difference of two
    # values that agree in nearly all digits, and rounding would choose it.
    latest, values = 0.0, []

    def negative(flat: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal latest
        unit, triangle = np.linalg.qr(flat.reshape(basis.shape))
        latest, slope = criterion.value_and_grad(unit)
        # The criterion depends only on the span, so the component of the gradient within it is rounding.
        slope = slope - unit @ (unit.T @ slope)
        return -latest, -np.linalg.solve(triangle, slope.T).T.ravel()

    values.append(criterion.value_and_grad(basis)[0])
    result = minimize(
        negative, basis.ravel() / _FIRST, jac=True, method="L-BFGS-B", callback=lambda _: values.append(latest),
        options={"maxiter": max_iter, "maxfun": 3 * max_iter, "ftol": enough, "gtol": _SLOPE * _FIRST},
    )  # fmt: skip
    return np.linalg.qr(result.x.reshape(basis.shape))[0], values


@dataclass(frozen=True)
class Search:
    """The search: whitened samples in a rotation-invariant order, kernel centers and grids.

    gammas, regularizations: candidates of `choose`, gammas as numbers or rules (multiples of the median rule if
    `gammas_are_relative`); alpha: see `ProjectedDivergence`.
    """

    source: WeightedRows
    target: WeightedRows
    centers: np.ndarray
    gammas: Sequence[Any]
    gammas_are_relative: bool
    regularizations: Sequence[float]
    alpha: float

    def best(self, n_components: int, max_iter: int, n_restarts: int, rng: np.random.Generator) -> tuple[np.ndarray, Choice, int]:
        """The basis (r, n_components) with the highest leave-one-out score, its kernel, and the total number of ascent steps."""
        r = self.source.rows.shape[1]
        if n_components >= r:
            return np.eye(r), self.choose(np.eye(r)), 0
        found = [self._climbed(start, max_iter) for start in self._starts(n_components)]
        for _ in range(n_restarts if max_iter else 0):
            winner = max(found, key=lambda f: f[1].score)
            found.append(self._climbed(self._redrawn(*winner[:2], rng), max_iter))
        basis, choice, _ = max(found, key=lambda f: f[1].score)
        return basis, choice, sum(steps for _, _, steps in found)

    def choose(self, basis: np.ndarray) -> Choice:
        """The kernel in the subspace U = `basis` with the highest leave-one-out score; a single candidate needs no score."""
        source, target, centers = (rows @ basis for rows in (self.source.rows, self.target.rows, self.centers))
        widths = self._widths(source, target)
        sizes = self.source.weight.sum(), self.target.weight.sum()
        if len(widths) == len(self.regularizations) == 1 and min(sizes) < LEAST_ROWS:
            return Choice(widths[0], self.regularizations[0], 0.0)
        if min(sizes) < LEAST_ROWS:
            raise ValueError(
                f"Leave-one-out needs at least two rows of each sample; got {sizes[0]:.6g} source and {sizes[1]:.6g} target rows. "
                "Give gamma and regularization as numbers or rules instead."
            )
        best = Choice(np.nan, np.nan, -np.inf)
        for gamma in widths:
            features = [gaussian(rows, centers, gamma) for rows in (source, target)]
            scores = leave_one_out_scores(
                features[0],
                features[1],
                self.regularizations,
                alpha=self.alpha,
                source_weight=self.source.weight,
                target_weight=self.target.weight,
            )
            top = int(np.argmax(scores))
            if scores[top] > best.score:
                best = Choice(gamma, float(self.regularizations[top]), float(scores[top]))
        return best

    def criterion(self, choice: Choice, alpha: float) -> ProjectedDivergence:
        """The divergence with this kernel."""
        return ProjectedDivergence(*self.source, *self.target, self.centers, choice.gamma, choice.regularization, alpha)

    def _widths(self, source: np.ndarray, target: np.ndarray) -> list[float]:
        weights = self.source.weight, self.target.weight
        if self.gammas_are_relative:
            median = self._median(source, target)
            return [factor * median for factor in self.gammas]
        return [float(Gaussian(gamma=gamma).bandwidth(source, target, *weights)) for gamma in self.gammas]

    def _median(self, source: np.ndarray, target: np.ndarray) -> float:
        """The bandwidth of the median rule on a subsample: the search needs it often, but only roughly."""
        some = slice(_MEDIAN_ROWS)
        return float(Gaussian().bandwidth(source[some], target[some], self.source.weight[some], self.target.weight[some]))

    def _climbed(self, basis: np.ndarray, max_iter: int) -> tuple[np.ndarray, Choice, int]:
        choice, steps = self.choose(basis), 0
        while steps < max_iter:
            basis, values = ascend(self.criterion(choice, self.alpha), basis, min(_EVERY, max_iter - steps), _ENOUGH)
            before, choice = choice, self.choose(basis)
            steps += max(1, len(values) - 1)
            if choice.score - before.score < _ENOUGH:
                break
        return basis, choice, steps

    def _starts(self, k: int) -> list[np.ndarray]:
        """Bases in which first or second moments differ most, and in which a narrower kernel gains most."""
        domains = [_within_reach(domain) for domain in (self.source, self.target)]
        means = [domain.mean(domain.rows) for domain in domains]
        covariances = [domain.second(domain.rows - mean) for domain, mean in zip(domains, means, strict=True)]
        identity = np.eye(len(means[0]))
        sliced = sum((identity - covariance) @ (identity - covariance) for covariance in covariances)
        # The mean of x x' / (1 + |x|^2), summed over the domains, differs by direction where covariances do not.
        by_content = np.sum([d.second(d.rows / np.sqrt(1.0 + np.sum(d.rows**2, axis=1))[:, None]) for d in domains], axis=0)
        towards = means[1] - means[0]
        length = np.linalg.norm(towards)
        across = identity - np.outer(towards, towards) / length**2 if length > 0.0 else identity
        change = across @ (covariances[1] - covariances[0]) @ across
        # The shift of the mean comes first, before all changes of the covariance orthogonal to it.
        first = towards[:, None] / length if length > 0.0 else np.empty((len(towards), 0))
        rest = _top(_without_ties(change @ change, across @ by_content @ across), k - first.shape[1])
        moved = np.linalg.qr(np.column_stack([first, rest]))[0]
        return [_top(_without_ties(sliced, by_content), k), moved, _top(_without_ties(self._gain(identity), by_content), k)]

    def _gain(self, basis: np.ndarray) -> np.ndarray:
        """Symmetric matrix (k, k): the gain of a narrower kernel along each direction in the subspace U = `basis`."""
        source, target = self.source.rows @ basis, self.target.rows @ basis
        slope = self.criterion(Choice(self._median(source, target), 0.1, 0.0), self.alpha).value_and_grad(basis)[1]
        return 0.5 * (basis.T @ slope + slope.T @ basis)

    def _redrawn(self, basis: np.ndarray, choice: Choice, rng: np.random.Generator) -> np.ndarray:
        """The basis with its direction of least gain redrawn at random."""
        kept = basis @ _top(self._gain(basis), basis.shape[1] - 1)
        # A random combination of rows rotates with the data; a random vector would not.
        rows = self.source.rows
        draw = rows.T @ (rng.standard_normal(len(rows)) * self.source.weight)
        return np.linalg.qr(np.column_stack([kept, draw]))[0]


def _within_reach(domain: WeightedRows) -> WeightedRows:
    """The rows (n, d), with far ones moved toward the center: in moments with a far row all others would be lost to rounding."""
    reach, norm = _REACH * np.sqrt(domain.rows.shape[1]), np.linalg.norm(domain.rows, axis=1)
    return WeightedRows(domain.rows * (reach / np.maximum(norm, reach))[:, None], domain.weight)


def _without_ties(matrix: np.ndarray, by_content: np.ndarray) -> np.ndarray:
    """A symmetric matrix (d, d) whose equal eigenvalues, of directions that rounding would choose, a small part tells apart."""
    return matrix + _TIE * np.linalg.norm(matrix) * by_content


def _top(matrix: np.ndarray, k: int) -> np.ndarray:
    """Eigenvectors (d, k) of the k largest eigenvalues of a symmetric matrix."""
    return scipy.linalg.eigh(matrix)[1][:, ::-1][:, :k]
