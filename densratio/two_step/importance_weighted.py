"""ImportanceWeighted: a scikit-learn estimator fitted under covariate shift, with weights from a fitted density ratio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._columns import check_container
from .fit_params import fit_weighted
from .weights import row_weights
from .with_ratio import WithRatio, fitted_attribute

__all__ = ["ImportanceWeighted"]


def _wrapped_has(method: str) -> Callable[[Any], bool]:
    def check(self: ImportanceWeighted) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), method)
        return True

    return check


def _handed_on(name: str, doc: str) -> Any:
    def method(self: ImportanceWeighted, X: Any) -> Any:
        return getattr(self._fitted_inside(), name)(X)

    method.__name__, method.__doc__ = name, doc
    return available_if(_wrapped_has(name))(method)


class ImportanceWeighted(WithRatio):
    """Fit an estimator for the target on source rows, each weighted by the density ratio.

        minimize  sum_i w_i loss(f(x_i), y_i),   w_i = r(x_i)^flatten / mean,   r(x) = p_target(x) / p_source(x)

    The weights are a function of x, so a clone that is fitted on a fold weights the rows of that fold: cross-validation,
    grid search, learning curves and bagging stay valid. Source: Shimodaira (2000), J. Stat. Plan. Inference 90.

        X, domain = stack_domains(X_train, X_target)
        model = ImportanceWeighted(Ridge(), KLIEP().fit(X, domain)).fit(X_train, y_train)

    Parameters
    ----------
    estimator : a classifier or regressor, a Pipeline included, whose fit takes sample_weight
        It is cloned, not fitted itself. The weights reach all parts that learn from y, by parameter names or by metadata routing;
        for nested estimators where this cannot be seen, fits on a few rows check it. With routing enabled, your own requests count.
    ratio : fitted density ratio, or callable from rows (n, d) to ratios (n,)
        Shared by clones, never fitted or copied. It sees the X passed to `fit`, so wrap ImportanceWeighted around a Pipeline
        instead of making it a step. To search over ratios pass their transforms: {"ratio": [a.transform, b.transform]}.
    flatten : float in [0, 1]
        Exponent of the ratio: 1 for full weights (unbiased), 0 for a plain fit; in between, less variance at the cost of some bias.
    tame : None, method of `tame_weights`, or function of weights
        Makes the weights in `fit` less extreme: "pareto", or a partial `tame_weights` with an amount.

    Attributes
    ----------
    estimator_ : the fitted estimator.
    weights_ : (n,) weights of the fit, mean 1; with sample_weight in fit, their sum is that of sample_weight.
    classes_, n_features_in_, feature_names_in_ : from estimator_, if it has them.

    Raises
    ------
    ValueError
        In fit: a ratio that is not fitted, or returns NaN, infinity, a negative number or the wrong length; weights all 0 (no
        overlap); flatten outside [0, 1]; an estimator with a part that learns without sample_weight.
    """

    def __init__(self, estimator: Any, ratio: Any, flatten: float = 1.0, tame: Any = None):
        self.estimator = estimator
        self.ratio = ratio
        self.flatten = flatten
        self.tame = tame

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> ImportanceWeighted:
        """Fit a clone of `estimator` on X (n, d), y with the ratio as weights. sample_weight (n,) multiplies them."""
        weights = row_weights(self.ratio, X, flatten=self.flatten, tame=self.tame, sample_weight=sample_weight)
        self.estimator_ = fit_weighted(clone(self.estimator), X, check_container(y, "y"), weights)
        self.weights_ = weights
        return self

    predict = _handed_on("predict", "The wrapped estimator's predictions at the rows of X (n, d).")
    predict_proba = _handed_on("predict_proba", "The wrapped estimator's class probabilities (n, n_classes).")
    predict_log_proba = _handed_on("predict_log_proba", "The wrapped estimator's log class probabilities (n, n_classes).")
    decision_function = _handed_on("decision_function", "The wrapped estimator's decision values.")
    transform = _handed_on("transform", "The wrapped estimator's transform of X (n, d).")

    @available_if(_wrapped_has("score"))
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The wrapped estimator's unweighted score on these rows; `make_iw_scorer` estimates the score on the target."""
        fitted = self._fitted_inside()
        return fitted.score(X, y) if sample_weight is None else fitted.score(X, y, sample_weight=sample_weight)

    classes_ = fitted_attribute("classes_", "Class labels of a wrapped classifier.")

    def _fitted_inside(self) -> Any:
        check_is_fitted(self, "estimator_")
        return self.estimator_
