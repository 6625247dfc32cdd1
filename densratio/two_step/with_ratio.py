"""WithRatio: base of models with a fitted ratio: clones keep it, and its parameters cannot be set."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from sklearn.base import MetaEstimatorMixin
from sklearn.utils import Tags, get_tags

from .._estimator import Estimator

__all__ = ["WithRatio", "first_of", "fitted_attribute"]


def first_of(estimator: Any) -> Any:
    """The estimator, or the first of several."""
    return estimator[0] if isinstance(estimator, list | tuple) else estimator


def fitted_attribute(name: str, doc: str) -> property:
    """The attribute of the fitted estimator inside, or of the first of several."""
    return property(lambda self: getattr(first_of(self._fitted_inside()), name), doc=doc)


class WithRatio(MetaEstimatorMixin, Estimator):
    """Base of models with the parameters `estimator`, one or several, and `ratio`, a fitted ratio or a function."""

    _sealed: ClassVar[Mapping[str, str]] = {
        "ratio": "the ratio is already fitted, so no weight would change. Fit one ratio for each value and pass their transforms: "
        '{"ratio": [KLIEP(gamma=g).fit(X, domain).transform for g in gammas]}.'
    }

    estimator: Any
    ratio: Any

    n_features_in_ = fitted_attribute("n_features_in_", "Number of columns seen in fit.")
    feature_names_in_ = fitted_attribute("feature_names_in_", "Names of the columns seen in fit, where X was a frame.")

    @abstractmethod
    def _fitted_inside(self) -> Any:
        """The fitted estimator, or several of one kind. Raises NotFittedError before `fit`."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; those of `estimator` as estimator__name. Those of the fitted ratio are not listed."""
        return {name: value for name, value in super().get_params(deep).items() if not name.startswith("ratio__")}

    def __sklearn_clone__(self) -> Any:
        # Cloning would unfit the ratio, so it is passed on uncloned.
        without_ratio = copy.copy(self)
        without_ratio.ratio = None
        cloned = super(WithRatio, without_ratio).__sklearn_clone__()
        cloned.ratio = self.ratio
        return cloned

    def __sklearn_tags__(self) -> Tags:
        tags = copy.deepcopy(get_tags(first_of(self.estimator)))
        if hasattr(self.ratio, "__sklearn_tags__"):
            seen_by_ratio = get_tags(self.ratio).input_tags
            tags.input_tags.sparse &= seen_by_ratio.sparse
            tags.input_tags.allow_nan &= seen_by_ratio.allow_nan
        tags.array_api_support = False
        return tags
