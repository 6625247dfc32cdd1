"""The classifiers that a discriminator tries: logistic regressions, linear, quadratic and of a kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._arrays import take_rows
from ...features import Nystroem
from ..samples import kinds_of

__all__ = ["Landmarks", "default_classifiers"]

_DENSE_SOLVE = 1000  # columns beyond which a Newton step costs more than many of a quasi-Newton method
_MOST_PRODUCTS = 1000


class Landmarks(TransformerMixin, BaseEstimator):
    """Nystroem's map of the Gaussian kernel at landmarks drawn from the distinct rows: copies of a row change nothing.

    gamma: in 1 / (data units)^2, None for 1 / (2 sqrt(d)), which suits d standardized columns; n_landmarks: the most to draw.
    Fitted: map_, the features.
    """

    def __init__(self, *, gamma: float | None = None, n_landmarks: int = 100):
        self.gamma = gamma
        self.n_landmarks = n_landmarks

    def fit(self, X: Any, y: Any = None) -> Landmarks:
        """Draw the landmarks. X (n, d)."""
        X = validate_data(self, X, dtype=np.float64)
        first, _ = kinds_of(X)
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

    The ratio of two Gaussians of one covariance is log-linear, of any two log-quadratic, and the kernel takes any smooth one.
    CSR rows have the linear one alone, which leaves them sparse; so many columns that their products pass 1000, no quadratic.
    """
    if is_sparse:
        return [make_pipeline(StandardScaler(with_mean=False), _logistic(_DENSE_SOLVE + 1))]
    classifiers = [make_pipeline(StandardScaler(), _logistic(n_columns))]
    n_products = n_columns * (n_columns + 3) // 2
    if n_products <= _MOST_PRODUCTS:
        products = PolynomialFeatures(2, include_bias=False)
        classifiers.append(make_pipeline(StandardScaler(), products, _logistic(n_products)))
    kernel = Landmarks()
    classifiers.append(make_pipeline(StandardScaler(), kernel, _logistic(kernel.n_landmarks)))
    return classifiers


def _logistic(n_columns: int) -> LogisticRegression:
    # A tight tolerance: a row that counts k times is to give what its k copies give.
    solver = "newton-cholesky" if n_columns <= _DENSE_SOLVE else "lbfgs"
    return LogisticRegression(solver=solver, tol=1e-6, max_iter=1000)
