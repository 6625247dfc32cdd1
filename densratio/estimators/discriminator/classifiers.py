"""The default classifiers of Discriminator: linear, quadratic and kernel logistic regression."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._arrays import is_sparse, take_rows
from ..._scale import distinct_of_any_columns
from ...features import Nystroem

__all__ = ["Landmarks", "LightTails", "Standardized", "default_classifiers"]

_DENSE_SOLVE = 1000  # columns beyond which a Newton step costs more than many of a quasi-Newton method
_MOST_PRODUCTS = 1000
_HEAVY = 4.0  # kurtosis of a column whose values are replaced by scores, 3 being that of a Gaussian one, and three standard errors
_KNOTS = 1000  # values that a fitted map of a column keeps
_OFTEN, _OTHERS, _APART = 10.0, 20, 3.0  # times the mean count of so many other values; standard errors between the domains
_ATOMS, _ALL_ATOMS = 3, 10  # most atoms of a column, and of all columns
_FAR = 1e100  # standard deviations
_LARGEST = float(np.finfo(np.float64).max) / 4.0  # differences of smaller values are finite
_ROUNDED = float(np.finfo(np.float32).eps)


class Standardized(StandardScaler):
    """`StandardScaler` of columns in any unit, whose squares may be too large or too small for a number.

    A constant column is 0 in all rows; in unseen rows it would otherwise count in its own units.
    """

    scale_: Any
    mean_: Any

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Standardized:
        """Learn from rows X (n, d), dense or CSR."""
        X = X if is_sparse(X) else np.asarray(X)
        largest = abs(X).max(axis=0)
        largest = largest.toarray().reshape(-1) if is_sparse(X) else largest
        # Powers of two, by which division is exact, and whose reciprocals are finite.
        unit = np.exp2(np.maximum(np.frexp(largest)[1] - 1.0, -1000.0))
        super().fit(X.multiply(1.0 / unit).tocsr() if is_sparse(X) else X / unit, y, sample_weight)
        varies: np.ndarray = self.scale_ == np.sqrt(self.var_)
        self.scale_ = np.where(varies, self.scale_ * unit, np.inf)
        self.mean_ = None if self.mean_ is None else self.mean_ * unit
        return self

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """The columns (n, d) in standard deviations, dense ones clipped so that their products are finite."""
        if is_sparse(X):
            return super().transform(X, copy)
        with np.errstate(over="ignore"):
            ends = [self.mean_ + sign * _FAR * self.scale_ for sign in (-1.0, 1.0)]
        return super().transform(np.clip(np.asarray(X), *ends), copy)


class _Column(NamedTuple):
    """The map of a column: values (k,) and their scores (k,), or None if it stays; atoms (a,), and the value that replaces them.

    near (a,): the distance up to which a value counts as the atom, such as one that was rounded to single precision.
    """

    map: tuple[np.ndarray, np.ndarray] | None
    atoms: np.ndarray
    near: np.ndarray
    middle: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The column (n,) and the indicators of its atoms, (n, 1 + a)."""
        with np.errstate(over="ignore"):
            is_atom = np.abs(x[:, None] - self.atoms) <= self.near
        mapped = x if self.map is None else _scored(x, *self.map)
        return np.column_stack([np.where(is_atom.any(axis=1), self.middle, mapped), is_atom])


class LightTails(TransformerMixin, BaseEstimator):
    """Columns with heavy tails as normal scores: the Gaussian quantile of the share of rows below a value. Other columns stay.

    Atoms are values that many rows share while few rows share any other value, such as -999 for no answer or the 0 of no purchase.
    If the share of an atom differs between the domains it gets a 0/1 column, and the mean of the other values replaces it. Among
    the ranks of all values an atom and its neighbors would be close, and so would their ratios.

    A ratio does not depend on the units of a column, nor on an increasing map of it. Products and kernels of standardized columns
    do, and a few extreme values then decide the fit. The tails are heavy if the kurtosis within the domains is over 4 plus three
    standard errors, sqrt(24 / n); a Gaussian column stays, because its log ratio is a polynomial. Between values of the fit the
    scores are linear, beyond them constant.
    Attribute: maps_, the map of each column, of at most 1000 values.
    Source: the scores are those of van der Waerden (1952), Order tests for the two-sample problem and their power.
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LightTails:
        """Learn from rows X (n, d) of domains y (n,), which count sample_weight (n,) times."""
        X = np.clip(validate_data(self, X, dtype=np.float64), -_LARGEST, _LARGEST)
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        y = np.zeros(len(X)) if y is None else np.asarray(y)
        # A row that counts 0 times has no score.
        X, y, weight = (values[weight > 0.0] for values in (X, y, weight))
        domains = [y == label for label in np.unique(y)]
        heaviest = _HEAVY + 3.0 * (24.0 / weight.sum()) ** 0.5
        atoms = [_atoms(x, weight, domains) for x in X.T]
        least = sorted([_APART, *(apart for found in atoms for apart, _ in found)], reverse=True)[:_ALL_ATOMS][-1]
        kept = [np.array([value for apart, value in found if apart >= least]) for found in atoms]
        self.maps_ = [_mapped(x, weight, domains, own, heaviest) for x, own in zip(X.T, kept, strict=True)]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The columns (n, d + a), those with heavy tails as scores; the columns of the a atoms follow those of their values."""
        check_is_fitted(self)
        X = np.clip(validate_data(self, X, dtype=np.float64, reset=False), -_LARGEST, _LARGEST)
        return np.column_stack([found(x) for x, found in zip(X.T, self.maps_, strict=True)])


def _mapped(x: np.ndarray, weight: np.ndarray, domains: list[np.ndarray], atoms: np.ndarray, heaviest: float) -> _Column:
    """The map of a column (n,) with these atoms."""
    with np.errstate(over="ignore"):
        # An atom ends halfway to the nearest other value of the fit.
        near = np.array([min(_ROUNDED * abs(atom), np.abs(x[x != atom] - atom).min() / 2.0) for atom in atoms])
    rest = ~np.isin(x, atoms)
    x, weight, domains = x[rest], weight[rest], [at[rest] for at in domains]
    found = _scores(x, weight) if _kurtosis(x, weight, domains) > heaviest else None
    if not len(atoms):
        return _Column(found, atoms, near, 0.0)
    return _Column(found, atoms, near, float(weight / weight.sum() @ (x if found is None else _scored(x, *found))))


def _atoms(x: np.ndarray, weight: np.ndarray, domains: list[np.ndarray]) -> list[tuple[float, float]]:
    """For each atom of values (n,) the difference of its share between two domains in standard errors, and the atom."""
    values, kind = np.unique(x, return_inverse=True)
    counts = np.array([np.bincount(kind[at], weight[at], len(values)) for at in domains])
    total, sizes = counts.sum(axis=0), counts.sum(axis=1)
    found, left = [], total.sum()
    for others, at in zip(range(len(values) - 1, _OTHERS - 1, -1), np.argsort(-total, kind="stable")[:_ATOMS], strict=False):
        left -= total[at]
        if total[at] < _OFTEN * left / others:
            break
        share = total[at] / total.sum()
        error = (share * (1.0 - share) * (1.0 / sizes).sum()) ** 0.5
        found.append((float(np.ptp(counts[:, at] / sizes) / error), float(values[at])))
    return [each for each in found if each[0] > _APART]


def _kurtosis(values: np.ndarray, weight: np.ndarray, domains: list[np.ndarray]) -> float:
    """Kurtosis of weighted values (n,) within the domains, a mean by their weights; 0 where they are constant."""
    total = 0.0
    for at in filter(np.any, domains):
        share = weight[at] / weight[at].sum()
        centered = values[at] - share @ values[at]
        largest = float(np.abs(centered).max())
        if largest > 0.0:
            # In units of the largest, whose powers are finite.
            square = (centered / largest) ** 2
            total += weight[at].sum() * float(share @ square**2) / float(share @ square) ** 2
    return total / weight.sum()


def _scored(x: np.ndarray, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Scores of x (n,), linear between values (k,). np.interp multiplies by slopes, which overflow between tiny values."""
    below = np.searchsorted(values, x, side="right").clip(1, len(values) - 1) - 1
    with np.errstate(over="ignore"):
        part = (x - values[below]) / (values[below + 1] - values[below])
    return scores[below] + part.clip(0.0, 1.0) * (scores[below + 1] - scores[below])


def _scores(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values (k,), ascending, and their scores (k,), at most _KNOTS of them evenly spaced in the scores."""
    found, kind = np.unique(values, return_inverse=True)
    count = np.bincount(kind, weight)
    scores = ndtri((np.cumsum(count) - 0.5 * count) / count.sum())
    if len(found) > _KNOTS:
        kept = np.unique(np.searchsorted(scores, np.linspace(scores[0], scores[-1], _KNOTS)).clip(max=len(found) - 1))
        found, scores = found[kept], scores[kept]
    return found, scores


class Landmarks(TransformerMixin, BaseEstimator):
    """Nystroem map of the Gaussian kernel with landmarks drawn from the distinct rows, so that copies have no effect.

    gamma: in 1 / (data units)^2, None for 1 / (2 sqrt(d)), which suits d standardized columns that vary. n_landmarks: largest
    number.
    Attribute: map_, the fitted features.
    """

    def __init__(self, *, gamma: float | None = None, n_landmarks: int = 100):
        self.gamma = gamma
        self.n_landmarks = n_landmarks

    def fit(self, X: Any, y: Any = None) -> Landmarks:
        """Draw the landmarks. X (n, d)."""
        X = validate_data(self, X, dtype=np.float64)
        first, _ = distinct_of_any_columns(X)
        drawn = take_rows(X, first[np.random.default_rng(0).permutation(len(first))[: self.n_landmarks]])
        d = max(1, int(np.count_nonzero(np.ptp(X, axis=0))))
        gamma = 0.5 / d**0.5 if self.gamma is None else float(self.gamma)
        self.map_ = Nystroem(gamma=gamma, n_centers=len(drawn)).fit(drawn, drawn[:0], anchors="source")
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Features (n, k) of the rows X (n, d), k the number of landmarks."""
        check_is_fitted(self)
        return self.map_(validate_data(self, X, dtype=np.float64, reset=False))


def default_classifiers(n_columns: int, *, is_sparse: bool) -> list[Pipeline]:
    """Linear, quadratic and kernel logistic regression of standardized columns, simplest first.

    The log ratio of two Gaussians is linear if they share a covariance and quadratic otherwise; the kernel fits any smooth ratio.
    Columns with heavy tails enter by their normal scores, see `LightTails`.
    CSR rows get only the linear one, which keeps them sparse. The quadratic one is left out if it has more than 1000 columns.
    """
    if is_sparse:
        return [make_pipeline(Standardized(with_mean=False), _logistic(_DENSE_SOLVE + 1))]
    classifiers = [make_pipeline(LightTails(), Standardized(), _logistic(n_columns))]
    n_products = n_columns * (n_columns + 3) // 2
    if n_products <= _MOST_PRODUCTS:
        products = PolynomialFeatures(2, include_bias=False)
        classifiers.append(make_pipeline(LightTails(), Standardized(), products, _logistic(n_products)))
    kernel = Landmarks()
    classifiers.append(make_pipeline(LightTails(), Standardized(), kernel, _logistic(kernel.n_landmarks)))
    return classifiers


def _logistic(n_columns: int) -> LogisticRegression:
    # A tight tolerance, so that a row that counts k times gives the same result as k copies.
    solver = "newton-cholesky" if n_columns <= _DENSE_SOLVE else "lbfgs"
    return LogisticRegression(solver=solver, tol=1e-6, max_iter=1000)
