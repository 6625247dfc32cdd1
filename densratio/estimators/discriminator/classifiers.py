"""The default classifiers of Discriminator: linear, quadratic and kernel logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._arrays import take_rows
from ..._scale import distinct_of_any_columns
from ...features import Nystroem

__all__ = ["Landmarks", "Standardized", "default_classifiers"]

_DENSE_SOLVE = 1000  # columns beyond which a Newton step costs more than many of a quasi-Newton method
_MOST_PRODUCTS = 1000


class Standardized(StandardScaler):
    """`StandardScaler` by which a column that does not vary is 0 in all rows: in unseen ones it would count in its own units."""

    scale_: Any

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Standardized:
        """Learn from rows X (n, d), as `fit` does."""
        super().partial_fit(X, y, sample_weight)
        varies: np.ndarray = self.scale_ == np.sqrt(self.var_)
        self.scale_ = np.where(varies, self.scale_, np.inf)
        return self


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
    CSR rows get only the linear one, which keeps them sparse. The quadratic one is left out if it has more than 1000 columns.
    """
    if is_sparse:
        return [make_pipeline(Standardized(with_mean=False), _logistic(_DENSE_SOLVE + 1))]
    classifiers = [make_pipeline(Standardized(), _logistic(n_columns))]
    n_products = n_columns * (n_columns + 3) // 2
    if n_products <= _MOST_PRODUCTS:
        products = PolynomialFeatures(2, include_bias=False)
        classifiers.append(make_pipeline(Standardized(), products, _logistic(n_products)))
    kernel = Landmarks()
    classifiers.append(make_pipeline(Standardized(), kernel, _logistic(kernel.n_landmarks)))
    return classifiers


def _logistic(n_columns: int) -> LogisticRegression:
    # A tight tolerance, so that a row that counts k times gives the same result as k copies.
    solver = "newton-cholesky" if n_columns <= _DENSE_SOLVE else "lbfgs"
    return LogisticRegression(solver=solver, tol=1e-6, max_iter=1000)
