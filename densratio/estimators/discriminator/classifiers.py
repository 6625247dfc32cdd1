"""The default classifiers of Discriminator: linear, quadratic and kernel logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._arrays import take_rows
from ..._scale import distinct_of_any_columns
from ...features import Nystroem

__all__ = ["Landmarks", "LightTails", "Standardized", "default_classifiers"]

_DENSE_SOLVE = 1000  # columns beyond which a Newton step costs more than many of a quasi-Newton method
_MOST_PRODUCTS = 1000
_HEAVY = 4.0  # kurtosis of a column whose values are replaced by scores, 3 being that of a Gaussian one, and three standard errors
_KNOTS = 1000  # values that a fitted map of a column keeps


class Standardized(StandardScaler):
    """`StandardScaler` by which a column that does not vary is 0 in all rows: in unseen ones it would count in its own units."""

    scale_: Any

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Standardized:
        """Learn from rows X (n, d), as `fit` does."""
        super().partial_fit(X, y, sample_weight)
        varies: np.ndarray = self.scale_ == np.sqrt(self.var_)
        self.scale_ = np.where(varies, self.scale_, np.inf)
        return self


class LightTails(TransformerMixin, BaseEstimator):
    """Columns with heavy tails as normal scores: the Gaussian quantile of the share of rows below a value. Others stay.

    A ratio does not depend on the units of a column, nor on any increasing map of it; products and kernels of standardized columns
    do, and a few far values then decide the fit. The tails are heavy if the kurtosis within the domains is over 4 and three
    standard errors, sqrt(24 / n); a Gaussian column stays, because its log ratio is a polynomial. Between values of the fit the
    scores are linear, beyond them constant.
    Attribute: maps_, for each column the values and their scores, at most 1000 of each, or None where it stays.
    Source: the scores are those of van der Waerden (1952), Order tests for the two-sample problem and their power.
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> LightTails:
        """Learn from rows X (n, d) of domains y (n,), which count sample_weight (n,) times."""
        X = validate_data(self, X, dtype=np.float64)
        weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        y = np.zeros(len(X)) if y is None else np.asarray(y)
        # A row that counts 0 times has no score.
        X, y, weight = (values[weight > 0.0] for values in (X, y, weight))
        domains = [y == label for label in np.unique(y)]
        heaviest = _HEAVY + 3.0 * (24.0 / weight.sum()) ** 0.5
        self.maps_ = [_scores(x, weight) if _kurtosis(x, weight, domains) > heaviest else None for x in X.T]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The columns (n, d), those with heavy tails as scores."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.column_stack([x if found is None else _scored(x, *found) for x, found in zip(X.T, self.maps_, strict=True)])


def _kurtosis(values: np.ndarray, weight: np.ndarray, domains: list[np.ndarray]) -> float:
    """Kurtosis of weighted values (n,) within the domains, a mean by their weights; 0 where they are constant."""
    total = 0.0
    for at in domains:
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

    gamma: in 1 / (data units)^2, None for 1 / (2 sqrt(d)), which suits d standardized columns. n_landmarks: largest number.
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
        gamma = 0.5 / X.shape[1] ** 0.5 if self.gamma is None else float(self.gamma)
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
