"""Objects that a failing call leaves as they were: `unchanged_on_error`, and parameters that are all set or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from sklearn.base import BaseEstimator

__all__ = ["Estimator", "unchanged_on_error"]


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Give an object the attributes back that it had, if what is done to it raises an error."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class Estimator(BaseEstimator):
    """scikit-learn's estimator, whose parameters are all set or, where one has an unknown name, none."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name. An unknown name raises ValueError and changes none, in estimators inside neither."""
        known = self.get_params()
        with unchanged_on_error(self):
            for name in params:
                owner, inside, _ = name.partition("__")
                if name not in known and not (inside and owner in params):
                    super().set_params(**{name: params[name]})
            return super().set_params(**params)
