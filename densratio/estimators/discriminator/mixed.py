"""Frames with columns that are not numbers, for classifiers that read them: as rows of objects, and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from ..._columns import holds_categories, is_frame, is_polars
from ..._scale import distinct_of_any_columns
from ..._validation import split_domains

__all__ = ["Schema", "kinds_of_mixed", "reads_columns", "reads_types", "takes_missing"]


class Schema(NamedTuple):
    """Names and types of the columns of a frame."""

    columns: list[Any]
    dtypes: list[Any]
    is_polars: bool

    @classmethod
    def of(cls, X: Any) -> Schema:
        """The schema of a pandas or polars frame."""
        return cls(list(X.columns), [X[name].dtype for name in X.columns], is_polars(X))

    def rows(self, X: Any) -> np.ndarray:
        """The rows (n, d) of a frame as objects."""
        rows = np.empty(X.shape, dtype=object)
        for j, name in enumerate(self.columns):
            rows[:, j] = X[name].to_list()
        return rows

    def split(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any, *, reset: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The rows (n, d) of a frame that an estimator is fitted on, the mask (n,) of the source, and how often each counts."""
        # Labels and weights are checked with rows of zeros.
        zeros = np.zeros((len(X), 1))
        _, is_source, weight = split_domains(type(estimator)(), zeros, y, reset=True, sample_weight=sample_weight)
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return self.rows(X), is_source, weight

    def frame(self, rows: np.ndarray) -> Any:
        """The frame that has these rows."""
        columns = {name: rows[:, j].tolist() for j, name in enumerate(self.columns)}
        if self.is_polars:
            import polars

            return polars.DataFrame(columns, schema=dict(zip(self.columns, self.dtypes, strict=True)))
        import pandas

        return pandas.DataFrame(
            {name: pandas.Series(columns[name], dtype=dtype) for name, dtype in zip(self.columns, self.dtypes, strict=True)}
        )


def reads_columns(classifier: Any, X: Any) -> bool:
    """Whether X is a frame whose columns the classifier reads by name or type: the classifier encodes its categories."""
    if not is_frame(X):
        return False
    first = _first(classifier)
    if hasattr(first, "transformers"):
        return True
    return (reads_types(first) or _tags(first, "categorical", "string")) and any(holds_categories(X[name]) for name in X.columns)


def reads_types(classifier: Any) -> bool:
    """Whether a classifier tells categories by the type of a column, and reads columns of objects as numbers."""
    return getattr(_first(classifier), "categorical_features", None) == "from_dtype"


def _first(classifier: Any) -> Any:
    return classifier.steps[0][1] if hasattr(classifier, "steps") else classifier


def takes_missing(classifier: Any) -> bool:
    """Whether the classifier takes NaN, by the tags of the steps of a Pipeline up to one that imputes or encodes."""
    for _, step in getattr(classifier, "steps", [("", classifier)]):
        if hasattr(step, "transformers"):
            return True
        if not _tags(step, "allow_nan"):
            return False
        if "Imputer" in type(step).__name__ or _tags(step, "categorical"):
            return True
    return True


def kinds_of_mixed(rows: Any) -> np.ndarray:
    """The kind (n,) of each row (n, d): equal rows share a number, and missing values are equal."""
    if rows.dtype.kind == "O":
        rows = np.column_stack([np.unique(column.astype(str), return_inverse=True)[1] for column in rows.T]).astype(np.float64)
    elif isinstance(rows, np.ndarray) and np.isnan(rows).any():
        rows = np.hstack([np.nan_to_num(rows), np.isnan(rows)])
    return distinct_of_any_columns(rows)[1]


def _tags(estimator: Any, *names: str) -> bool:
    return hasattr(estimator, "__sklearn_tags__") and any(getattr(get_tags(estimator).input_tags, name) for name in names)
