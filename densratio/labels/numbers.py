"""Wrong numbers in the target of a regression: targets that are unlikely for their row and likely for any other."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, gammaln, logit
from scipy.stats import gaussian_kde
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold, KFold

from ..tables.spelling import numbers_spelled
from .given import label_array
from .held_out import of_all_folds

__all__ = ["NumberModel", "as_targets", "out_of_fold_numbers"]

_LEAST_SPREAD = 0.1  # times the median spread: no row counts as certain
_MOST_CLASSES, _MANY_CLASSES = 50, 0.25  # distinct whole numbers, and their share of the rows, above which they are not classes
_KDE_ROWS, _FIT_ROWS = 1000, 20_000
_WORTH = 1.0  # times ln(n): the gain in log-likelihood that a share of wrong numbers requires
# The parameters: shift, logarithms of the spread below and above, of the tail, power of the given spread, slopes of the spread
# and of its lean along the predictions, logits of the shares of other targets and of far ones.
_BOUNDS = [(-2.0, 2.0), (-4.0, 4.0), (-4.0, 4.0), (-4.0, 4.6), (0.0, 1.5), (-1.0, 1.0), (-1.0, 1.0)]
_LEAST_TAIL, _FIRST_TAILS = 1.5, (3.0, 20.0)  # degrees of freedom
_FIRST_SHARES, _MOST_WRONG = (0.1, 0.01), (0.6, 0.3)
_LIMIT_ROWS, _LEAST_NUMBER = 5000, 0.2  # most rows for limits, and the number of wrong ones that counts as none
_LESS_LIKELY, _DEVIATIONS = 1.35, 1.645  # of limits of 90 %: in log-likelihood, and in standard deviations
_TELLING = 500  # rows that show no fault of the error model
_STEPS, _FARTHER = (1 / 1.05, 1.05), 1.35  # first factor of the shares, down and up, and the growth of its logarithm


class _Rows(NamedTuple):
    """Errors (n,) of the predictions in units of their median; predictors of their spread; log densities of wrong numbers.

    resolution: half the step of the targets.
    """

    error: np.ndarray
    log_spread: np.ndarray
    place: np.ndarray
    log_other: np.ndarray
    log_far: np.ndarray
    is_clean: np.ndarray
    resolution: np.ndarray

    def every(self, k: int) -> _Rows:
        """Each k-th row in the order of the errors."""
        rows = np.argsort(self.error, kind="stable")[k // 2 :: k]
        return _Rows(*(part[rows] for part in self))


def as_targets(labels: Any, kind: str) -> np.ndarray | None:
    """Numbers (n,) float64. For labels that are classes: None if kind is "auto", ValueError if it is "numbers"."""
    try:
        values = label_array(labels)
        if values.dtype.kind == "M":
            raise TypeError("they are dates.")  # numpy makes nanoseconds of them
        texts = [value for value in values.tolist() if isinstance(value, str | bytes)]
        if texts and numbers_spelled(np.array(texts)) is None:
            raise TypeError(f"some are texts or codes, such as {min(texts)!r}.")
        values = values.astype(np.float64)
    except (TypeError, ValueError) as error:
        if kind == "auto":
            return None
        raise ValueError(f"Labels of the kind numbers must be numbers: {error}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"labels must be finite; row {int(np.argmin(np.isfinite(values)))} is not.")
    are_many = len(np.unique(values)) > max(_MOST_CLASSES, _MANY_CLASSES * len(values))
    return values if kind == "numbers" or are_many or (values != np.round(values)).any() else None


def out_of_fold_numbers(
    model: Any, rows: Any, targets: np.ndarray, groups: Any, cv: int, n_deals: int, seed: int, n_jobs: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions (n,) of the targets and of their absolute errors (n,), each a mean over the deals."""
    kind, n_rows = KFold if groups is None else GroupKFold, len(targets)
    dealers = (kind(min(cv, n_rows), shuffle=True, random_state=seed + deal) for deal in range(n_deals))
    deals = [list(dealer.split(targets, groups=groups)) for dealer in dealers]
    trees = HistGradientBoostingRegressor(loss="absolute_error", random_state=seed)

    def predicted_by(learner: Any, values: np.ndarray, label: str) -> np.ndarray:
        return of_all_folds(learner, rows, values, _numbers, deals, label, n_jobs).mean(axis=0)

    predicted = predicted_by(trees if model is None else model, targets, "Folds of the numbers")
    errors = np.abs(targets - predicted)
    spread = predicted_by(trees, errors, "Folds of their errors")
    return predicted, np.maximum(spread, max(_LEAST_SPREAD * float(np.median(errors)), np.finfo(float).tiny))


def _numbers(model: Any, rows: Any) -> np.ndarray:
    return np.ravel(model.predict(rows))


class NumberModel:
    """How right numbers scatter around their predictions, and how many are wrong: from any row, or arbitrary within the range.

    p(y | row) = (1 - a - b) t(y - predicted) + a g(y) + b / range: Student's t with a spread on each side, which follows the given
    spread and the prediction; a kernel estimate g of all targets. All parameters maximize the likelihood of the targets. A share, a
    or b, that gains less than ln(n) in log-likelihood is half a row: if rows say little about the targets, their errors are broad,
    which is no evidence of wrong numbers. The scores are then small, and only rank the rows. Whole numbers are spread by half their
    step.

    targets, predicted, spread (n,): of `out_of_fold_numbers`. is_clean (n,): numbers known to be right.
    Raises ValueError if all targets are equal.
    """

    def __init__(self, targets: np.ndarray, predicted: np.ndarray, spread: np.ndarray, is_clean: np.ndarray):
        self._rows = _in_units(targets, predicted, spread, is_clean)
        self._few = self._rows.every(max(1, len(targets) // _FIT_ROWS))
        self._fits = [_likeliest(self._few, shares, len(targets)) for shares in product((False, True), repeat=2)]

    def scores(self) -> np.ndarray:
        """P(wrong) (n,); 0 for a clean number."""
        return _scores(max(self._fits, key=lambda fit: fit.worth).parameters, self._rows)

    def limits(self) -> tuple[float, float]:
        """Limits of the number of wrong ones, about 90 % likely, if these are the predictions; the sum of the scores is between.

        Both shares move together away from the likeliest ones, and all other parameters follow, until the log-likelihood of the n
        rows falls by 1.35 (1 + n / 500): by as much as for a 90 % interval from 500 rows, however many there are, because errors
        of real models have a Student's t density only roughly. The number also varies for given shares, by Bernoulli draws.
        Source: Miller & Dunson (2019), Robust Bayesian inference via coarsening.
        """
        likeliest = max(self._fits, key=lambda fit: fit.likelihood).parameters
        wrong, own = _scores(likeliest, self._rows), float(self.scores().sum())
        number, noise = float(wrong.sum()), _DEVIATIONS**2 * float((wrong * (1.0 - wrong)).sum())
        rows = self._few.every(max(1, len(self._few.error) // _LIMIT_ROWS))
        fewer, more = (abs(_limit(rows, likeliest, len(wrong), factor) - number) for factor in _STEPS)
        least, most = number - np.hypot(fewer, noise**0.5), number + np.hypot(more, noise**0.5)
        return max(0.0, min(least, own)), min(float((~self._rows.is_clean).sum()), max(most, own))


def _in_units(targets: np.ndarray, predicted: np.ndarray, spread: np.ndarray, is_clean: np.ndarray) -> _Rows:
    if np.ptp(targets) == 0.0:
        raise ValueError("All targets are equal: none of them can be found wrong.")
    # Half the step from a target to the next value: 0.5 for whole numbers, nearly 0 for measured ones.
    values, counts = np.unique(targets, return_counts=True)
    gaps = np.concatenate([[np.inf], np.diff(values), [np.inf]])
    half = 0.5 * float(np.median(np.repeat(np.minimum(gaps[:-1], gaps[1:]), counts)))
    unit = max(1.4826 * float(np.median(np.abs(targets - predicted))), half)
    y = (targets - np.median(targets)) / unit
    log_spread = np.log(np.maximum(spread / unit, max(half / unit, np.finfo(float).tiny)))
    place = predicted - np.median(predicted)
    place = np.clip(place / max(float(place.std()), np.finfo(float).tiny), -3.0, 3.0)
    log_far = np.full(len(y), -np.log(np.ptp(y)))
    error, step = (targets - predicted) / unit, np.full(len(y), half / unit)
    return _Rows(error, log_spread - np.median(log_spread), place, _log_density(y, half / unit), log_far, is_clean, step)


class _Fit(NamedTuple):
    """Log-likelihood, the same minus the worth of the free shares, and the parameters (9,)."""

    likelihood: float
    worth: float
    parameters: np.ndarray


def _likeliest(rows: _Rows, is_free: tuple[bool, ...], n_rows: int) -> _Fit:
    """The most likely parameters; a share that is not free is half a row."""
    half_row = logit(0.5 / n_rows)
    most = [logit(share) if free else half_row for share, free in zip(_MOST_WRONG, is_free, strict=True)]
    bounds = [*_BOUNDS, *((half_row, top) for top in most)]
    first = [logit(share) if free else half_row for share, free in zip(_FIRST_SHARES, is_free, strict=True)]
    starts = [[0.0, 0.0, 0.0, np.log(tail - _LEAST_TAIL), 0.5, 0.0, 0.0, *first] for tail in _FIRST_TAILS]
    found = min((minimize(_loss, start, (rows,), bounds=bounds, method="L-BFGS-B") for start in starts), key=lambda one: one.fun)
    likelihood = -len(rows.error) * float(found.fun)
    return _Fit(likelihood, likelihood - _WORTH * np.log(len(rows.error)) * sum(is_free), found.x)


def _loss(parameters: np.ndarray, rows: _Rows) -> float:
    right, wrong = _log_densities(parameters, rows)
    # A clean number is right whatever the shares are.
    clean = right - np.log1p(-expit(parameters[7:]).sum())
    return -float(np.mean(np.where(rows.is_clean, clean, np.logaddexp(right, wrong))))


def _scores(parameters: np.ndarray, rows: _Rows) -> np.ndarray:
    right, wrong = _log_densities(parameters, rows)
    return np.where(rows.is_clean, 0.0, expit(wrong - right))


def _limit(rows: _Rows, parameters: np.ndarray, n_rows: int, factor: float) -> float:
    """The number of wrong ones among n_rows where the shares, times growing powers of the factor, become too unlikely."""
    most, shares = _LESS_LIKELY * (1.0 / n_rows + 1.0 / _TELLING), expit(parameters[7:])
    last, best, fall = 0.0, np.inf, 0.0
    for power in np.cumsum(_FARTHER ** np.arange(40)) - 1.0:
        moved = shares * factor**power
        if (moved > 1.001 * np.array(_MOST_WRONG)).any():
            break
        bounds = [*_BOUNDS, *((logit(share), logit(share)) for share in moved)]
        found = minimize(_loss, parameters, (rows,), bounds=bounds, method="L-BFGS-B")
        parameters, best = found.x, min(best, found.fun)
        number, before, fall = n_rows * float(_scores(parameters, rows).mean()), fall, found.fun - best
        if fall >= most:
            part = (np.sqrt(most) - np.sqrt(before)) / (np.sqrt(fall) - np.sqrt(before))
            return last + part * (number - last)
        last = number
        if n_rows * moved.sum() < _LEAST_NUMBER:
            return 0.0
    return last


def _log_densities(parameters: np.ndarray, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Log densities (n,) of a right number and of a wrong one, each times its share."""
    shift, below, above, tail, power, slope, lean = parameters[:7]
    other, far = expit(parameters[7:])
    log_width, leaning = power * rows.log_spread + slope * rows.place, lean * rows.place
    error, degrees = rows.error - shift * np.exp(log_width), _LEAST_TAIL + np.exp(tail)
    low, high = (np.hypot(np.exp(log_width + side), rows.resolution) for side in (below - leaning, above + leaning))
    z = error / np.where(error < 0, low, high)
    constant = gammaln((degrees + 1) / 2) - gammaln(degrees / 2) - 0.5 * np.log(degrees * np.pi) + np.log1p(-(other + far))
    right = constant + np.log(2.0 / (low + high)) - (degrees + 1) / 2 * np.log1p(z**2 / degrees)
    return right, np.logaddexp(np.log(other) + rows.log_other, np.log(far) + rows.log_far)


def _log_density(y: np.ndarray, half: float) -> np.ndarray:
    """Log of a kernel estimate (n,) of the density of all targets, from at most 1000 quantiles, not finer than their steps."""
    n_points = min(_KDE_ROWS, len(y))
    points = np.quantile(y, (np.arange(n_points) + 0.5) / n_points)
    density = gaussian_kde(points)
    density.set_bandwidth(np.hypot(density.factor, half / points.std(ddof=1)))
    return np.log(np.maximum(density(y), np.finfo(float).tiny))
