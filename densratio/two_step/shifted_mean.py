"""The mean of a loss over the target from labeled source rows: weighted or doubly robust, with its standard error."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold

from .._threads import threads_for
from ..diagnostics.divergence import as_chosen
from .row_losses import RowLosses

__all__ = ["Regressed", "ShiftedMean", "can_refit", "cross_fitted", "refitted", "refitted_means", "shifted_mean"]

_N_FOLDS = 5


class Regressed(NamedTuple):
    """Regression m of the loss: at the source rows (n,), from folds without them, and at the target rows (m,)."""

    source: np.ndarray
    target: np.ndarray

    def at(self, rows: np.ndarray) -> Regressed:
        """The same for a part of the target rows (k,)."""
        return self._replace(target=self.target[rows])


class ShiftedMean(NamedTuple):
    """Estimate of a mean over the target, and its standard error for a known ratio."""

    estimate: float
    standard_error: float


def shifted_mean(losses: np.ndarray, weights: np.ndarray, regressed: Regressed) -> ShiftedMean:
    """mean_target m(x) + sum w (l - m) / sum w, with the jackknife's standard error.

    losses (n,), weights (n,) >= 0. With m = 0 it is the weighted mean. Without row i the estimate changes by the value
    s_i (l_i - m_i - mean) of the influence function, s_i = w_i / sum w, over 1 - s_i. Source: Robins, Rotnitzky & Zhao (1994),
    JASA 89.
    """
    shares = weights / np.sum(weights)
    rest = losses - regressed.source
    middle = np.sum(shares * rest)
    # A row with all the weight has a residual of 0.
    moves = shares * (rest - middle) / np.maximum(1.0 - shares, np.finfo(np.float64).tiny)
    m = len(regressed.target)
    variance = np.sum(moves**2) + np.var(regressed.target, ddof=min(1, m - 1)) / m
    return ShiftedMean(float(np.mean(regressed.target) + middle), float(np.sqrt(variance)))


def cross_fitted(regressor: Any, losses: np.ndarray, source: np.ndarray, target: np.ndarray, seed: int) -> Regressed:
    """Regression of the losses (n,) on the source rows (n, d): out-of-fold at the source rows, and from all folds at the target."""
    if regressor is None:
        regressor = HistGradientBoostingRegressor(max_iter=50, min_samples_leaf=10, random_state=seed)
    at_source, at_target = np.empty(len(source)), np.zeros(len(target))
    folds = list(KFold(min(_N_FOLDS, len(source)), shuffle=True, random_state=seed).split(source))
    with threads_for(*source.shape):
        for kept, held_out in folds:
            # A column without a value in the fold tells nothing of the loss, and many regressors refuse it.
            is_empty = np.isnan(source[kept]).all(axis=0)
            learned, left, new = (np.where(is_empty, 0.0, rows) for rows in (source[kept], source[held_out], target))
            model = clone(regressor).fit(learned, losses[kept])
            at_source[held_out] = model.predict(left)
            at_target += model.predict(new) / len(folds)
    return Regressed(at_source, at_target)


def can_refit(ratio: Any) -> bool:
    """Whether a ratio is an estimator, which can be refitted on other samples, and not a function."""
    return hasattr(ratio, "fit") and hasattr(ratio, "get_params")


def refitted(ratio: Any, X: Any, domain: Any, seed: int = 0, fit_params: dict[str, Any] | None = None) -> Any:
    """A clone of the ratio, with the parameters that its search chose, fitted on X (n, d) with the domains (n,).

    seed replaces a random_state of None. fit_params: more arguments of `fit`, by name.
    """
    fresh = as_chosen(ratio)
    unseeded = [name for name, value in fresh.get_params().items() if name.endswith("random_state") and value is None]
    fresh.set_params(**dict.fromkeys(unseeded, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fresh.fit(X, domain, **(fit_params or {}))


def refitted_means(
    losses: RowLosses,
    regressed: Regressed,
    weights_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Estimates from source and target rows drawn with replacement; the regression is not refitted.

    weights_of(source rows, target rows) -> weights (n,) of all source rows, from the ratio fitted on the drawn rows. Draws of
    source rows that lack one of the metric's classes are repeated. A draw on which no ratio can be fitted, or whose ratio is 0 at
    every row of a class, gives no estimate.
    """
    n, m = len(regressed.source), len(regressed.target)
    for _ in range(n_bootstrap):
        drawn = rng.integers(n, size=n)
        while losses.without_weight(counts := np.bincount(drawn, minlength=n)):
            drawn = rng.integers(n, size=n)
        drawn_target = rng.integers(m, size=m)
        try:
            weights = weights_of(drawn, drawn_target) * counts
        except (ValueError, np.linalg.LinAlgError):
            continue
        if weights.any() and not losses.without_weight(weights):
            of_target = Regressed(regressed.source, regressed.target[drawn_target])
            yield shifted_mean(losses.values(weights), weights, of_target).estimate
