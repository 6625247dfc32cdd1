"""Whether sample weights reach every part of an estimator that learns from y: by inspection, or by fits on a few rows."""

from __future__ import annotations

import copy
import functools
import warnings
from contextlib import AbstractContextManager
from inspect import Parameter, signature
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.feature_selection import RFE, RFECV, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils import _safe_indexing

__all__ = [
    "asking_for_weights",
    "changes_with_weights",
    "few_rows",
    "is_settled",
    "learners",
    "routed",
    "searches",
    "takes_any_name",
    "takes_sample_weight",
    "unweighted_learners",
    "wrapped_by",
]  # fmt: skip

_MOST_ROWS = 20  # of each class, or in all for a regressor
_HANDS_ON = (GridSearchCV, RandomizedSearchCV, RFE, TransformedTargetRegressor)
"""Wrappers of one learner whose fit passes all its parameters on."""
_SCORE_COLUMNS = (RFECV, SequentialFeatureSelector)  # selectors of columns that score held-out rows


def takes_sample_weight(method: Any) -> bool:
    """Whether a callable has a parameter called sample_weight."""
    return "sample_weight" in signature(method).parameters


def takes_any_name(method: Any) -> bool:
    """Whether a callable takes arbitrary keyword arguments."""
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in signature(method).parameters.values())


def wrapped_by(estimator: Any) -> Any:
    """The estimator that a wrapper fits, or None."""
    return getattr(estimator, "estimator", getattr(estimator, "regressor", None))


def learners(estimator: Any) -> dict[str, Any]:
    """The innermost predictors of a nested estimator by parameter name; the estimator itself, as "", if nothing is nested in it."""
    params = estimator.get_params(deep=True)
    # A frozen estimator is not fitted, nor is any part of it.
    frozen = tuple(f"{name}__" for name, part in params.items() if isinstance(part, FrozenEstimator))
    parts = {name: part for name, part in params.items() if _is_predictor(part) and not name.startswith(frozen)}
    return {name: part for name, part in parts.items() if not any(n.startswith(f"{name}__") for n in parts)} or {"": estimator}


def is_settled(estimator: Any) -> bool:
    """Whether inspection shows that the weights reach the learner.

    True for a predictor with a parameter sample_weight, for bagging, which draws rows by the weights, for a Pipeline that ends in
    one of these and has no other learner, and for a wrapper that passes all parameters of its fit on to one of these.
    """
    if hasattr(estimator, "steps"):
        *before, (_, last) = estimator.steps
        return is_settled(last) and not any(_selects_by_learner(step) for _, step in before)
    # RFECV takes weights by metadata routing alone.
    if isinstance(estimator, _HANDS_ON) and not isinstance(estimator, RFECV):
        return is_settled(wrapped_by(estimator))
    if isinstance(estimator, BaggingClassifier | BaggingRegressor):
        bagged = estimator.estimator
        # Bagging passes the drawn rows on as sample_weight, which a nested estimator may lose.
        return bagged is None or not takes_sample_weight(bagged.fit) or is_settled(bagged)
    # A FrozenEstimator learns nothing.
    return list(learners(estimator)) == [""] and _is_predictor(estimator) and takes_sample_weight(estimator.fit)


def searches(estimator: Any) -> list[Any]:
    """The parameter searches in a nested estimator, itself included."""
    parts = [estimator, *estimator.get_params(deep=True).values()]
    return [part for part in parts if hasattr(part, "refit") and hasattr(part, "scoring") and not isinstance(part, type)]


def unweighted_learners(estimator: Any, X: Any, y: Any, rows: np.ndarray, names: list[str]) -> list[str]:
    """The learners that get no weights from a fit on `rows` (k,) with sample weights under `names`. Raises what the fit raises.

    Each learner becomes an instance of a subclass that records the arguments of its fit.
    """
    seen: dict[str, list[bool]] = {}
    model = clone(estimator)
    observed = {name: _observed(learner, name, seen) for name, learner in learners(model).items()}
    model = observed[""] if "" in observed else model.set_params(**observed)
    # Records in another process are lost.
    model.set_params(**{name: None for name in model.get_params() if name.rpartition("__")[2] == "n_jobs"})
    weights = np.linspace(0.5, 1.5, len(rows))
    with warnings.catch_warnings(), joblib.parallel_config(backend="sequential"):
        warnings.simplefilter("ignore")
        model.fit(_safe_indexing(X, rows), _safe_indexing(y, rows), **dict.fromkeys(names, weights))
    return [name for name, given in seen.items() if not all(given)] if seen else list(observed)


def changes_with_weights(estimator: Any, X: Any, y: Any, rows: np.ndarray, names: list[str]) -> bool:
    """Whether weights change the predictions, from fits on `rows` (k,) taken twice, with two values of y each."""
    once, other = (np.asarray(_safe_indexing(y, order)) for order in (rows, rows[::-1]))
    X, y = _safe_indexing(X, np.concatenate([rows, rows])), np.concatenate([once, other])
    first, found = np.repeat([1.9, 0.1], len(rows)), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for weights in (first, first, first[::-1]):
            model = clone(estimator)
            seeds = {name: 0 for name in model.get_params() if name.endswith("random_state")}
            model.set_params(**seeds).fit(X, y, **dict.fromkeys(names, weights))
            found.append(np.asarray(getattr(model, "predict_proba", model.predict)(X)))
    # Predictions that change from fit to fit would prove nothing.
    return np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def routed() -> AbstractContextManager:
    """A block in which scikit-learn's metadata routing is enabled."""
    return sklearn.config_context(enable_metadata_routing=True)


def asking_for_weights(estimator: Any) -> Any:
    """A clone whose predictors and searches request sample_weight in fit and score, and whose other parts decline it."""
    model = clone(estimator)
    with routed():
        for part in [model, *model.get_params(deep=True).values()]:
            for request, asks in (("set_fit_request", _is_predictor(part)), ("set_score_request", True)):
                if hasattr(part, request) and takes_sample_weight(getattr(part, request)):
                    getattr(part, request)(sample_weight=asks)
        selectors = [part for part in [model, *model.get_params(deep=True).values()] if isinstance(part, _SCORE_COLUMNS)]
        for selector in selectors:
            if isinstance(selector, RFECV) and selector.scoring is None:
                # Its default metric can't be asked for weights.
                selector.scoring = "accuracy" if is_classifier(selector.estimator) else "r2"
        for search in [*searches(model), *selectors]:
            search.scoring = _asking_scoring(search.scoring)
    return model


def _selects_by_learner(step: Any) -> bool:
    """Whether a classifier or regressor is in a step before the last of a Pipeline, as in a selector of columns."""
    parts = [step, *step.get_params(deep=True).values()] if hasattr(step, "get_params") else []
    return any(_is_predictor(part) and (is_classifier(part) or is_regressor(part)) for part in parts)


def _asking_scoring(scoring: Any) -> Any:
    """The metrics of a search, with a request for sample_weight if they take it."""
    if isinstance(scoring, str):
        scoring = get_scorer(scoring)
    elif isinstance(scoring, list | tuple | set):
        scoring = {name: name for name in scoring}
    if isinstance(scoring, dict):
        return {name: _asking_scoring(one) for name, one in scoring.items()}
    if hasattr(scoring, "set_score_request"):
        return copy.deepcopy(scoring).set_score_request(sample_weight=scoring._accept_sample_weight())
    return scoring


def few_rows(estimator: Any, y: Any) -> np.ndarray:
    """Positions of the first rows, of each class for a classifier."""
    labels = np.asarray(y)
    if not is_classifier(estimator):
        return np.arange(min(len(labels), _MOST_ROWS))
    kind = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    return np.sort(np.concatenate([np.flatnonzero(kind == number)[:_MOST_ROWS] for number in range(kind.max() + 1)]))


def _is_predictor(part: Any) -> bool:
    return hasattr(part, "fit") and hasattr(part, "predict") and not isinstance(part, type | FrozenEstimator)


def _observed(learner: Any, name: str, seen: dict[str, list[bool]]) -> Any:
    kind = type(learner)
    of_fit = signature(kind.fit)

    # Wrappers look for sample_weight in the signature of fit.
    @functools.wraps(kind.fit)
    def observed_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = of_fit.bind(self, *args, **kwargs).arguments.get("sample_weight", kwargs.get("sample_weight"))
        seen.setdefault(name, []).append(given is not None)
        return kind.fit(self, *args, **kwargs)

    observed = clone(learner)
    observed.__class__ = type(kind.__name__, (kind,), {"fit": observed_fit})
    return observed
