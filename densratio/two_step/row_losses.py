"""Metrics that are means over rows, as one value per row; and AUC, linearized into such values."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import sklearn.metrics
from scipy.special import xlogy

from .._arrays import to_host
from .._columns import check_container, is_missing, shown
from .._names import did_you_mean
from .weights import name_of

__all__ = ["RowLosses", "class_probabilities", "row_losses"]


class RowLosses(NamedTuple):
    """A metric on n rows: with v = `values(weights)` (n,), sum w v / sum w is the weighted metric.

    name: of the metric. bounds: the least and the largest value that the metric can have. kinds: (n,) the classes that the metric
    compares with each other, or None.
    """

    name: str
    bounds: tuple[float, float]
    values: Callable[[np.ndarray], np.ndarray]
    kinds: np.ndarray | None = None

    def without_weight(self, weights: np.ndarray) -> list[Any]:
        """The kinds without a row of positive weight (n,): if there is one, the metric has no value."""
        kinds = [] if self.kinds is None else np.unique(self.kinds).tolist()
        return [kind for kind in kinds if not weights[self.kinds == kind].any()]

    def unit(self, n_rows: int) -> float:
        """1; or the power of two below the largest value of n_rows rows, if its square or single precision can't hold it."""
        largest = float(np.max(np.abs(self.values(np.ones(n_rows)))))
        is_extreme = largest > 0.0 and not 1.0 / _LARGE < largest < _LARGE
        return math.ldexp(1.0, math.frexp(largest)[1] - 1) if is_extreme else 1.0

    def in_units(self, unit: float) -> RowLosses:
        """The metric over a unit > 0."""
        low, high = self.bounds
        return RowLosses(self.name, (low / unit, high / unit), lambda weights: self.values(weights) / unit, self.kinds)

    @property
    def negated(self) -> RowLosses:
        """The metric times -1."""
        low, high = self.bounds
        return RowLosses(f"neg_{self.name}", (-high, -low), lambda weights: -self.values(weights), self.kinds)

    @property
    def as_loss(self) -> RowLosses:
        """The metric if less of it is better, otherwise negated; a function of the caller's own is a loss, whatever its name."""
        is_own = self.bounds == (-_INFINITE, _INFINITE)
        is_score = (self.name.removeprefix("neg_") in _SCORES) != self.name.startswith("neg_")
        return self.negated if is_score and not is_own else self


_PERCENT_FLOOR = np.finfo(np.float64).eps  # scikit-learn's divisor for y = 0
_INFINITE = float("inf")
_LARGE = 1e30  # single precision, in which boosting works, ends at 3e38

_OF_CLASSES: dict[str, tuple[Callable[[Any, Any], np.ndarray], float]] = {
    "accuracy": (lambda y, p: _are_equal(y, p), 1.0),
    "zero_one_loss": (lambda y, p: 1.0 - _are_equal(y, p), 1.0),
}
_OF_NUMBERS: dict[str, tuple[Callable[[Any, Any], np.ndarray], float]] = {
    "mean_squared_error": (lambda y, p: (y - p) ** 2, _INFINITE),
    "mean_absolute_error": (lambda y, p: np.abs(y - p), _INFINITE),
    "mean_absolute_percentage_error": (lambda y, p: np.abs(y - p) / np.maximum(np.abs(y), _PERCENT_FLOOR), _INFINITE),
    "mean_squared_log_error": (lambda y, p: (np.log1p(y) - np.log1p(p)) ** 2, _INFINITE),
    "mean_pinball_loss": (lambda y, p: 0.5 * np.abs(y - p), _INFINITE),
    "mean_poisson_deviance": (lambda y, p: 2.0 * (xlogy(y, y / p) - y + p), _INFINITE),
    "mean_gamma_deviance": (lambda y, p: 2.0 * (np.log(p / y) + y / p - 1.0), _INFINITE),
}
_OF_PROBABILITIES = ("log_loss", "brier")
_NAMES = sorted([*_OF_CLASSES, *_OF_NUMBERS, *_OF_PROBABILITIES, "roc_auc"])
_SCORES = ("accuracy", "roc_auc")
_ALIASES = {"accuracy_score": "accuracy", "brier_score": "brier", "brier_score_loss": "brier", "roc_auc_score": "roc_auc"}


def row_losses(metric: Any, model: Any, X: Any, y: Any) -> RowLosses:
    """The row values of a metric for a fitted model on rows X (n, d), y (n,).

    metric: a name or function of sklearn.metrics, a scorer's name ("neg_..." is negated), or a function (y_true, y_pred) ->
    values (n,). Raises ValueError for a metric that is not a mean over rows, and for a model without the predictions it needs.
    """
    if not isinstance(metric, str) and not callable(metric):
        raise ValueError(f"metric must be a name or a function (y_true, y_pred) -> values of the rows (n,); got {shown(metric)}.")
    if isinstance(model, type):
        raise ValueError(f"model must be a fitted estimator; got the class {model.__name__}: {model.__name__}(...).fit(X, y).")
    if not hasattr(model, "predict"):
        raise ValueError(f"model must be a fitted estimator, with a method predict; got {shown(model)}.")
    y = np.asarray(to_host(check_container(y, "y")))
    y = y.ravel() if y.shape[1:] == (1,) else y
    _check_known(y)
    if hasattr(metric, "_score_func"):
        metric = _of_scorer(metric)
    if callable(metric) and not str(getattr(metric, "__module__", "")).startswith("sklearn.metrics"):
        return _of_function(metric, y, _predictions(model, X, len(y)))
    given = metric if isinstance(metric, str) else metric.__name__
    name = _ALIASES.get(given.removeprefix("neg_"), given.removeprefix("neg_"))
    if name not in _NAMES:
        raise _no_mean(given)
    losses = _named(name, model, X, y)
    return losses.negated if given.startswith("neg_") else losses


def _of_scorer(scorer: Any) -> str:
    """The name of the metric in a scorer of scikit-learn, "neg_..." if it negates a loss."""
    function, name = scorer._score_func, name_of(scorer._score_func)
    known = _ALIASES.get(name, name)
    # These metrics take probabilities or scores, whatever the scorer would ask the model for.
    is_other = known in (*_OF_PROBABILITIES, "roc_auc") and scorer._response_method == "predict"
    if scorer._kwargs or is_other or not str(getattr(function, "__module__", "")).startswith("sklearn.metrics"):
        instead = f"metric={known!r} if that is meant, or " * (known in _NAMES)
        raise ValueError(
            f"The scorer of {_shown(function)} has options or a function of its own: pass {instead}a function (y_true, y_pred) -> "
            "values of the rows (n,)."
        )
    return name if scorer._sign > 0 else f"neg_{name}"


def _named(name: str, model: Any, X: Any, y: np.ndarray) -> RowLosses:
    if y.ndim > 1 and name in (*_OF_PROBABILITIES, "roc_auc"):
        raise ValueError(
            f"The metric {name!r} takes one label for each row; y has shape {y.shape}. Pass a model and y of one column."
        )
    if name == "roc_auc":
        return _auc(model, X, y)
    if name in _OF_PROBABILITIES:
        return _of_probabilities(name, model, X, y)
    predictions = _predictions(model, X, len(y))
    if predictions.size != y.size:
        raise ValueError(f"y has shape {y.shape} and the predictions of the model have {predictions.shape}: they must be alike.")
    if name in _OF_CLASSES and y.dtype.kind == "f" and (y != np.rint(y)).any():
        raise ValueError(
            f"The metric {name!r} compares classes, and y holds fractions. Numbers have 'mean_squared_error' and others."
        )
    function, most = (_OF_CLASSES | _OF_NUMBERS)[name]
    if name in _OF_NUMBERS:
        y, predictions = _numbers(y, name), _numbers(predictions, name).reshape(y.shape)
    # scikit-learn says what is wrong with labels of two types, and with numbers that the metric does not admit.
    getattr(sklearn.metrics, "accuracy_score" if name in _OF_CLASSES else name)(y, predictions)
    values = function(y, predictions)
    return _constant(name, (0.0, most), values if values.ndim == 1 else np.mean(values, axis=1))


def _of_function(metric: Callable[[Any, Any], Any], y: np.ndarray, predictions: np.ndarray) -> RowLosses:
    name = _shown(metric)
    values = np.asarray(to_host(metric(y, predictions)))
    if values.shape != (len(y),) or values.dtype.kind not in "fiub":
        has_columns = values.shape[:1] == (len(y),) and values.ndim == 2
        mean = "np.mean((y - p) ** 2, axis=1)" if has_columns else "(y - p) ** 2"
        raise ValueError(
            f"The metric {name} must return one number for each row, shape ({len(y)},), whose mean is the metric; got shape "
            f"{values.shape}, dtype {values.dtype}. For a mean squared error: metric=lambda y, p: {mean}."
        )
    return _constant(name, (-_INFINITE, _INFINITE), values)


def _shown(metric: Any) -> str:
    """The name of a function, with the arguments that a partial one binds; "metric" for a lambda."""
    name = name_of(metric).replace("<lambda>", "metric")
    if not isinstance(metric, partial):
        return name
    bound = [*map(reprlib.repr, metric.args), *(f"{key}={reprlib.repr(value)}" for key, value in metric.keywords.items())]
    return f"{name}({', '.join(bound)})"


def class_probabilities(name: str, model: Any, X: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K) by the model, and whether the label of each row is each class (n, K), for the metric of this name.

    Raises ValueError for a model without probabilities, and for labels that are no class of it.
    """
    if not hasattr(model, "predict_proba"):
        raise ValueError(
            f"The metric {name!r} needs probabilities, and {type(model).__name__} has no predict_proba. Fit "
            f"CalibratedClassifierCV({type(model).__name__}()) instead, or use metric='accuracy'."
        )
    p = np.asarray(to_host(model.predict_proba(X)), dtype=np.float64)
    return p, _is_class(name, y, np.asarray(model.classes_))


def _of_probabilities(name: str, model: Any, X: Any, y: np.ndarray) -> RowLosses:
    p, is_class = class_probabilities(name, model, X, y)
    if name == "log_loss":
        p = np.clip(p, np.finfo(p.dtype).eps, 1.0 - np.finfo(p.dtype).eps)
        return _constant(name, (0.0, _INFINITE), -np.log(np.sum(is_class * p, axis=1)))
    squares = np.sum((p - is_class) ** 2, axis=1)
    # With two classes scikit-learn counts one of them.
    return _constant(name, *(((0.0, 1.0), squares / 2.0) if p.shape[1] == 2 else ((0.0, 2.0), squares)))


def _auc(model: Any, X: Any, y: np.ndarray) -> RowLosses:
    classes = np.asarray(getattr(model, "classes_", np.unique(y)))
    if len(classes) != 2 or len(np.unique(y)) != 2:
        raise ValueError(
            f"'roc_auc' needs two classes, both of them in y; the model has {len(classes)} and y has {len(np.unique(y))}. For one "
            "class against the rest, pass a model and y of two classes."
        )
    scores, is_positive = _scores(model, X), _is_class("roc_auc", y, classes)[:, 1]
    values = partial(_auc_values, scores, is_positive)
    return RowLosses("roc_auc", (0.0, 1.0), values, classes[is_positive.astype(int)])


def _is_class(name: str, y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Whether the label of each row is each class (n, K) of the model. Raises ValueError for labels that are no class of it."""
    is_class = y[:, None] == classes[None, :]
    if not is_class.any(axis=1).all():
        unknown = y.tolist()[np.argmin(is_class.any(axis=1))]
        raise ValueError(
            f"y holds the class {unknown!r}, which the model was not fitted on, and {name!r} has no value there; the model's "
            f"classes are {classes.tolist()}."
        )
    return is_class


def _check_known(y: np.ndarray) -> None:
    is_gap = np.array([is_missing(label) for label in y.ravel().tolist()], dtype=bool).reshape(y.shape)
    rows = np.flatnonzero(is_gap.reshape(len(y), -1).any(axis=1))
    if len(rows):
        raise ValueError(f"y has no label in {len(rows)} of {len(y)} rows, first in row {rows[0]}: leave these out of X and y.")


def _scores(model: Any, X: Any) -> np.ndarray:
    for name in ("decision_function", "predict_proba"):
        if hasattr(model, name):
            scores = np.asarray(to_host(getattr(model, name)(X)), dtype=np.float64)
            return scores if scores.ndim == 1 else scores[:, 1]
    raise ValueError(f"'roc_auc' needs scores, and {type(model).__name__} has neither decision_function nor predict_proba.")


def _auc_values(scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC plus its influence function (n,), whose weighted mean is the weighted AUC; NaN if a class has no weight.

    A positive of score s: (F-(s) - AUC) / P(positive), with F- the share of the negatives below, ties counted half; a negative:
    (1 - F+(s) - AUC) / P(negative). Source: DeLong, DeLong & Clarke-Pearson (1988), Biometrics 44, with weights.
    """
    shares = weights / np.sum(weights)
    masses = [np.sum(shares[kind]) for kind in (is_positive, ~is_positive)]
    if min(masses) <= 0.0:
        return np.full(len(scores), np.nan)
    wins = np.empty(len(scores))
    wins[is_positive] = _share_below(scores[is_positive], scores[~is_positive], shares[~is_positive])
    wins[~is_positive] = 1.0 - _share_below(scores[~is_positive], scores[is_positive], shares[is_positive])
    auc = np.sum(shares[is_positive] * wins[is_positive]) / masses[0]
    return auc + (wins - auc) / np.where(is_positive, masses[0], masses[1])


def _share_below(at: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the weight on `scores` below each value of `at`; ties count half."""
    order = np.argsort(scores)
    total = np.concatenate([[0.0], np.cumsum(weights[order])])
    below, up_to = (total[np.searchsorted(scores[order], at, side=side)] for side in ("left", "right"))
    return 0.5 * (below + up_to) / total[-1]


def _constant(name: str, bounds: tuple[float, float], values: np.ndarray) -> RowLosses:
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise ValueError(f"The metric {name} is {values[row]} at row {row}: it has no mean. Check y and the model there.")
    return RowLosses(name, bounds, lambda weights: values)


def _predictions(model: Any, X: Any, n_rows: int) -> np.ndarray:
    predictions = np.asarray(to_host(model.predict(X)))
    if len(predictions) != n_rows:
        raise ValueError(f"The model predicts {len(predictions)} rows, and y has {n_rows}.")
    return predictions


def _are_equal(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    is_equal = np.asarray(y == predictions.reshape(y.shape))
    return np.asarray(is_equal.reshape(len(y), -1).all(axis=1), dtype=np.float64)


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"The metric {name!r} needs numbers, and y or the predictions are {values.dtype}. Classes have "
                         "'accuracy', 'log_loss' and 'brier'.") from None  # fmt: skip


def _no_mean(name: str) -> ValueError:
    if "root_mean_squared" in name:
        return ValueError(
            f"{name!r} is the root of a mean, not a mean over rows: estimate 'mean_squared_error' and take the roots of "
            "`estimate` and `interval`."
        )
    if hasattr(sklearn.metrics, name) or name in sklearn.metrics.get_scorer_names():
        return ValueError(
            f"{name!r} is not a mean over rows, so no weighted mean estimates it on the target. Use one of {', '.join(_NAMES)} "
            "(by its influence function), or a function (y_true, y_pred) -> values of the rows (n,)."
            f"{did_you_mean(name, _NAMES)}"
        )
    return ValueError(f"There is no metric {name!r}.{did_you_mean(name, _NAMES)} Known are {', '.join(_NAMES)}.")
