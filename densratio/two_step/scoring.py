"""Importance-weighted validation: a metric on held-out source rows, weighted by the ratio, estimates the metric on the target."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from sklearn.metrics import get_scorer, get_scorer_names, make_scorer

from .._columns import check_container
from .._names import did_you_mean
from .reach import takes_any_name, takes_sample_weight
from .weights import check_ratio, name_of, row_weights

__all__ = ["ImportanceWeightedScorer", "importance_weighted_score", "make_iw_scorer"]

_LOSS_ENDINGS = ("_error", "_loss", "_deviance")


class ImportanceWeightedScorer:
    """scorer(estimator, X, y): estimates a metric on the target from source rows with weights w_i = r(x_i).

        sum_i w_i loss_i / sum_i w_i  ->  E_target[loss]

    Self-normalized: the weights have mean 1 over the given rows, so the scale of the ratio cancels. The estimate is consistent,
    with a bias of order 1/n and less variance than mean(w loss), and a metric keeps its range (an accuracy stays in [0, 1]).
    Greater is better, as for every scorer, so losses are negated. Source: Sugiyama, Krauledat, Mueller (2007), JMLR 8.
    Built by `make_iw_scorer`.
    """

    def __init__(self, ratio: Any, scoring: Any = None):
        check_ratio(ratio)
        self.ratio = ratio
        self.scoring = scoring
        self._score = _estimator_score if scoring is None else _weightable_scorer(scoring)

    def __call__(self, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The score of a fitted estimator on rows X (n, d) of the source; sample_weight (n,) multiplies the weights."""
        weights = row_weights(self.ratio, X, sample_weight=sample_weight)
        return self._score(estimator, X, check_container(y, "y"), sample_weight=weights)

    def __repr__(self) -> str:
        return f"make_iw_scorer({self.ratio!r}, {self.scoring!r})"

    def _accept_sample_weight(self) -> bool:
        # scikit-learn calls this on each of several scorers if fit gets a sample_weight.
        return True


def make_iw_scorer(ratio: Any, scoring: Any = None) -> ImportanceWeightedScorer:
    """A scorer for GridSearchCV, cross_val_score or cross_validate that estimates the metric on the target (see the class).

    ratio: a fitted density ratio or a callable, as for ImportanceWeighted. scoring: None for the estimator's own score; a
    scorer's name; a scorer (estimator, X, y, sample_weight); or a metric (y_true, y_pred, sample_weight), named as in
    sklearn.metrics: one ending in _error, _loss or _deviance is a loss, one ending in _score is not.
    Raises ValueError for a metric that takes no sample_weight, or whose name does not say whether greater is better.
    """
    return ImportanceWeightedScorer(ratio, scoring)


def importance_weighted_score(estimator: Any, X: Any, y: Any, ratio: Any, scoring: Any = None, sample_weight: Any = None) -> float:
    """Estimate of a fitted estimator's metric on the target, from source rows X (n, d), y (n,) that it was not fitted on.

    Arguments and errors as in `make_iw_scorer`; greater is better.
    """
    return make_iw_scorer(ratio, scoring)(estimator, X, y, sample_weight)


def _estimator_score(estimator: Any, X: Any, y: Any, *, sample_weight: Any) -> float:
    _check_takes_weights(estimator.score, f"The score of {type(estimator).__name__}")
    return estimator.score(X, y, sample_weight=sample_weight)


def _weightable_scorer(scoring: Any) -> Callable[..., float]:
    if not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(
            f"scoring must be None, a scorer's name, a scorer or a metric; got {type(scoring).__name__}. For several metrics make "
            "one scorer each: {name: make_iw_scorer(ratio, name) for name in names}."
        )
    if isinstance(scoring, ImportanceWeightedScorer):
        raise ValueError("scoring is already importance-weighted; weighting it again would use the squared ratio.")
    scorer: Any = scorer_of(scoring) if isinstance(scoring, str) else scoring
    if _is_metric(scorer):
        scorer = _scorer_of_metric(scorer)
    metric = getattr(scorer, "_score_func", scorer)
    _check_takes_weights(metric, f"The metric {name_of(metric)}")
    return scorer


def scorer_of(name: str) -> Any:
    """scikit-learn's scorer with this name. Raises ValueError with the names like it."""
    if name not in get_scorer_names():
        raise ValueError(
            f"scoring={name!r} is no scorer of scikit-learn.{did_you_mean(name, get_scorer_names())} "
            "sklearn.metrics.get_scorer_names() lists them."
        )
    return get_scorer(name)


def _is_metric(scoring: Any) -> bool:
    """Whether a callable takes (y_true, y_pred) rather than a scorer's (estimator, X, y)."""
    if hasattr(scoring, "_score_func"):
        return False
    first, *rest = signature(scoring).parameters.values()
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    n_required = sum(p.kind in positional and p.default is Parameter.empty for p in (first, *rest))
    return first.name != "estimator" and n_required < 3


def _scorer_of_metric(metric: Any) -> Any:
    for name in get_scorer_names():
        scorer = get_scorer(name)
        # scikit-learn's own scorer knows the metric's sign and whether it takes probabilities.
        if getattr(scorer, "_score_func", None) is metric and not scorer._kwargs:
            return scorer
    name = name_of(metric)
    if name.endswith(_LOSS_ENDINGS):
        return make_scorer(metric, greater_is_better=False)
    if name.endswith("_score"):
        return make_scorer(metric)
    raise ValueError(
        f"The name of the metric {name} does not say whether greater is better. Pass make_scorer({name}, greater_is_better=True), "
        "or False for a loss."
    )


def _check_takes_weights(method: Any, what: str) -> None:
    if not takes_sample_weight(method) and not takes_any_name(method):
        raise ValueError(f"{what} takes no sample_weight, so it can't be importance-weighted; use a metric that does.")
