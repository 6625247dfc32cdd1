"""Objects that stay unchanged if a call fails: `unchanged_on_error`, and parameters that are all set or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from sklearn.base import BaseEstimator

__all__ = ["Estimator", "unchanged_on_error"]


@contextmanager
def unchanged_on_error(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an object if the block raises an error."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class Estimator(BaseEstimator):
    """scikit-learn's estimator, whose parameters are all set, or none if a name is unknown."""

    _sealed: ClassVar[Mapping[str, str]] = {}
    """Names of parameters whose own parameters can't be set, and why not."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, nested ones as owner__name. A name that can't be set raises ValueError and changes none."""
        known = self.get_params()
        with unchanged_on_error(self):
            for name in params:
                owner, inside, _ = name.partition("__")
                if inside and owner in self._sealed:
                    raise ValueError(f"{name} can't be set: {self._sealed[owner]}")
                if name not in known and not (inside and owner in params):
                    super().set_params(**{name: params[name]})
            return super().set_params(**params)
