"""Errors for input that can't be read as rows of real numbers: tables outside memory, missing or complex values, other columns."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ._arrays import is_sparse, is_tensor, to_host

__all__ = [
    "DAY", "TIMES", "check_columns", "check_container", "check_no_fractions", "check_none_missing", "check_same_content",
    "check_table", "holds_categories", "is_frame", "is_missing", "is_polars", "is_real", "is_series", "library_of", "number_of",
    "numbers_of", "shape_of", "shown", "warn_of_order", "with_a_value", "with_columns_of",
]  # fmt: skip

_DASK = """{name} is a Dask collection, and would be loaded into memory as a whole. Fit it with Dask:
    from densratio import LSIF
    from densratio.dask import DaskRatio, stack_domains
    X, y = stack_domains(X_source, X_target)
    DaskRatio(LSIF()).fit(X, y)
If it fits into memory, pass X.compute()."""

DAY = 86_400e6
"""Microseconds of a day."""
_KINDS = dict.fromkeys("mM", "dates or times") | {"c": "complex numbers"} | dict.fromkeys("US", "text or categories")


_WITH_TEXT = {
    "LabelShiftRatio": (
        "    from sklearn.linear_model import LogisticRegression\n",
        "    LabelShiftRatio(make_pipeline(encode, LogisticRegression(max_iter=1000))).fit(X, y, labels=labels)",
    ),
    "RatioOutlierDetector": (
        "",
        "    make_pipeline(encode, RatioOutlierDetector()).fit(X)\n"
        "With new rows: RatioOutlierDetector().fit(encode.fit_transform(X), new=encode.transform(new)).",
    ),
}
"""Imports and last lines of code that fits an estimator to text; other estimators are the last step of a Pipeline."""


def is_frame(X: Any) -> bool:
    """Whether X is a table with named columns."""
    return hasattr(X, "columns")


def library_of(x: Any) -> str:
    """The package of the class of x."""
    return type(x).__module__.split(".")[0]


def is_polars(X: Any) -> bool:
    """Whether X is from polars."""
    return library_of(X) == "polars"


def is_series(X: Any) -> bool:
    """Whether X is one column of a library of frames."""
    return type(X).__name__ == "Series"


def shape_of(X: Any) -> tuple[int, ...]:
    """The shape of an array, a frame or a list of rows."""
    return tuple(X.shape) if hasattr(X, "shape") else np.asarray(X).shape


def check_container(X: Any, name: str = "X") -> Any:
    """X, if it may hold rows of real numbers in memory; Arrow arrays, and masked arrays without missing values, as plain arrays.

    Raises ValueError for Dask collections, lazy frames, Arrow tables, structured, masked and complex arrays.
    """
    if hasattr(X, "__dask_graph__"):
        raise ValueError(_DASK.format(name=name))
    if type(X).__name__ == "LazyFrame":
        raise ValueError(f"{name} is a LazyFrame, whose rows are not known yet: pass its rows, X.collect().")
    if library_of(X) == "pyarrow":
        if hasattr(X, "to_pylist") and hasattr(X, "type"):  # one column
            return np.asarray(X)
        raise ValueError(f"{name} is a pyarrow {type(X).__name__}: pass it as a frame, X.to_pandas().")
    if getattr(getattr(X, "dtype", None), "names", None):
        raise ValueError(f"{name} is a structured array with the fields {list(X.dtype.names)}: pass it as pandas.DataFrame(X).")
    if X.is_complex() if is_tensor(X) else getattr(getattr(X, "dtype", None), "kind", "") == "c":
        raise ValueError(
            f"Complex data not supported: {name} holds complex numbers. Give the real and the imaginary part as columns of their "
            "own, X.real and X.imag."
        )
    if isinstance(X, np.ma.MaskedArray):
        return _unmasked(X, name)
    return np.asarray(X) if isinstance(X, np.matrix) else X


def _unmasked(X: Any, name: str) -> np.ndarray:
    masked = np.ma.getmaskarray(X)
    if masked.any():
        where = f"column {np.flatnonzero(masked.any(axis=0))[0]}" if masked.ndim == 2 else f"row {np.flatnonzero(masked)[0]}"
        subject = name if name.startswith("The ") else f"Input {name}"
        raise ValueError(f"{subject} contains missing (masked) values in {where}. Drop or impute these rows.")
    return X.data


def check_table(X: Any, name: str = "X") -> None:
    """Raise ValueError for one column, and for dicts, with the code that makes a frame of it."""
    if is_series(X):
        raise ValueError(f"{name} is a {library_of(X)} Series, one column: pass a frame of it, with to_frame().")
    is_of_dicts = isinstance(X, list | tuple) and len(X) > 0 and isinstance(X[0], dict)
    # scipy's DOK matrix is a dict, too.
    if is_of_dicts or (isinstance(X, dict) and not is_sparse(X)):
        raise ValueError(
            f"{name} is a {'list of dicts' if is_of_dicts else 'dict'}: pass a frame of it, with pandas.DataFrame(...)."
        )


def numbers_of(values: Any, name: str, needed: str) -> np.ndarray:
    """Values as a new float64 array on the host. Raises ValueError for anything but numbers; `needed` completes the message."""
    values = to_host(check_container(values, name))
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        odd = next((value for value in np.ravel(np.asarray(values, dtype=object)) if not _is_number(value)), values)
        raise ValueError(f"{name} must be {needed}; got {shown(odd)}.") from None


def shown(value: Any) -> str:
    """A value in a message: its repr, or its type if that is long."""
    text = repr(value)
    if len(text) <= 80 and "\n" not in text:
        return text
    shape = getattr(value, "shape", None)
    return f"{type(value).__name__}" + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def warn_of_order(rows: Any, values: Any, names: tuple[str, str], stacklevel: int) -> None:
    """Warn if a pandas column of values (n,) has the index of a frame of rows (n, d) in another order. names: of both."""
    if library_of(rows) != "pandas" or library_of(values) != "pandas" or len(rows) != len(values):
        return
    index, other = rows.index, values.index
    if index.is_unique and other.is_unique and not index.equals(other) and index.isin(other).all():
        warnings.warn(
            f"{names[1]} has the index of {names[0]} in another order, and rows are matched by position. To match by the index, "
            f"pass {names[1]}.loc[{names[0]}.index].",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def check_columns(X: Any, estimator: str) -> None:
    """Raise ValueError for columns of X without real numbers, with code that turns them into numbers.

    estimator: the name of the class to be fitted.
    """
    if not is_frame(X):
        _check_texts(X)
        return
    names = list(X.columns)
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise ValueError(f"X has several columns called {twice[0]!r}: give each a name of its own.")
    kinds = {name: kind for name in names if (kind := _kind(X[name])) is not None}
    texts = [name for name, kind in kinds.items() if kind == "text or categories"]
    if texts:
        raise ValueError(_text_message(texts, estimator))
    for name, kind in kinds.items():
        raise ValueError(f"Column {name!r} holds {kind}, and a density ratio needs numbers. {_remedy(X, name, kind)}")


def is_real(value: Any) -> bool:
    """Whether an entry of a column of Python objects is a real number."""
    return isinstance(value, Real | np.bool_) or type(value).__name__ == "Decimal"


def is_missing(value: Any) -> bool:
    """Whether an entry of a column of Python objects stands for a missing value."""
    is_float = isinstance(value, float | np.floating)
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (is_float and value != value)


def number_of(value: Any) -> float:
    """A real number as a float; one beyond the largest is infinite."""
    try:
        return float(value)
    except OverflowError:
        return np.copysign(np.inf, 1.0 if value > 0 else -1.0)


def _days_since_1970(value: Any) -> float:
    if hasattr(value, "to_timestamp"):
        value = value.to_timestamp()
    if getattr(value, "tzinfo", None) is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return float(np.datetime64(value, "us").astype(np.int64) / DAY)


def _share_of_the_day(value: datetime.time) -> float:
    return (value.hour * 3600 + value.minute * 60 + value.second) / 86_400 + value.microsecond / DAY


TIMES: dict[str, tuple[Callable[[Any], bool], Callable[[Any], float]]] = {
    "dates": (
        lambda value: isinstance(value, datetime.date | np.datetime64) or type(value).__name__ == "Period",
        _days_since_1970,
    ),
    "durations": (lambda value: isinstance(value, datetime.timedelta), lambda value: value / datetime.timedelta(days=1)),
    "times": (lambda value: isinstance(value, datetime.time), _share_of_the_day),
}
"""Kinds of times among Python objects: the test for one value, and its number, in days; UTC if it has a time zone."""


def with_a_value(X: Any, *, of_objects: bool = False) -> Any:
    """Rows (n, d) for a model to learn from, with 0 in all rows of a column of numbers that has none: boosting refuses it empty.

    A constant column does not matter to the model, whatever values new rows have in it. of_objects: whether columns of objects hold
    numbers, too; a model that encodes categories needs them as they are.
    """
    if is_frame(X):
        empty = [name for name in X.columns if _takes_zero(X[name].dtype, of_objects) and all(map(is_missing, X[name]))]
        if not empty:
            return X
        if is_polars(X):
            return X.with_columns(**dict.fromkeys(empty, 0.0))
        X = X.copy()
        X[empty] = 0.0
        return X
    if not isinstance(X, np.ndarray) or X.dtype.kind != "f":
        return X
    is_empty = np.isnan(X).all(axis=0)
    return np.where(is_empty, 0.0, X) if is_empty.any() else X


def _takes_zero(dtype: Any, of_objects: bool) -> bool:
    is_numeric = getattr(dtype, "kind", "") in tuple("fiu") or (hasattr(dtype, "is_numeric") and dtype.is_numeric())
    return is_numeric or (of_objects and str(dtype) in ("object", "Null"))


def check_none_missing(values: np.ndarray, name: str, what: str = "label", row: str = "row") -> None:
    """Raise ValueError if values (n,) contain None or NaN; row, what: words of the message, such as "row" and "label"."""
    missing = [place for place, value in enumerate(values.tolist()) if is_missing(value)]
    if missing:
        found = f"{len(missing)} have none, the first is {row} {missing[0]}"
        raise ValueError(f"{name} must hold a {what} for each {row}; {found}. Leave these rows out.")


def check_no_fractions(labels: np.ndarray) -> None:
    """Raise ValueError if class labels (n,) contain fractions."""
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ValueError("labels hold fractions, and classes are needed: pass whole numbers or text, such as bins of the target.")


def with_columns_of(X_source: Any, X_target: Any) -> Any:
    """The frame X_target with its columns in the order of X_source. Raises ValueError if the names differ."""
    names, others = list(X_source.columns), list(X_target.columns)
    if names == others:
        return X_target
    only = {
        side: [name for name in mine if name not in theirs]
        for side, mine, theirs in (("source", names, others), ("target", others, names))
    }
    if any(only.values()):
        facts = ", ".join(f"only the {side} has {some}" for side, some in only.items() if some)
        raise ValueError(f"The samples differ in their columns: {facts}.")
    return X_target[names]


def check_same_content(X_source: Any, X_target: Any) -> None:
    """Raise ValueError if a column of two frames, in one order, holds numbers in one and text or dates in the other."""
    for j, name in enumerate(X_source.columns):
        columns = [X.iloc[:, j] if hasattr(X, "iloc") else X[:, j] for X in (X_source, X_target)]
        mine, theirs = (_kind(column) or "numbers" for column in columns)
        if mine != theirs and not any(all(map(is_missing, column)) for column in columns):
            raise ValueError(
                f"Column {name!r} holds {mine} in the source and {theirs} in the target: convert one of them, so that both hold "
                "the same kind of value."
            )


def holds_categories(column: Any) -> bool:
    """Whether a column of a frame holds text or non-numeric categories."""
    return _kind(column) == "text or categories"


def _kind(column: Any) -> str | None:
    """What a column holds instead of real numbers, or None."""
    if getattr(column.dtype, "kind", "") in tuple("fiub"):
        return None
    values = np.asarray(column)
    if values.dtype.kind in tuple("fiub") and values.ndim == 1:
        return None
    if values.dtype.kind in _KINDS:
        return _KINDS[values.dtype.kind]
    # polars converts a column of arrays to a table.
    other = column[0] if values.ndim > 1 else next((v for v in values if not is_real(v) and not is_missing(v)), None)
    return None if other is None else _kind_of_value(other)


def _kind_of_value(value: Any) -> str:
    if isinstance(value, str):
        return "text or categories"
    if isinstance(value, complex | np.complexfloating):
        return "complex numbers"
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta) or type(value).__name__ == "Period":
        return "dates or times"
    return f"values of type {type(value).__name__}"


def _text_message(names: Sequence[Any], estimator: str) -> str:
    many = len(names) > 1
    imports, fit = _WITH_TEXT.get(estimator, ("", f"    make_pipeline(encode, {estimator}()).fit(X, y)"))
    needs = "RatioOutlierDetector" if estimator == "RatioOutlierDetector" else "a density ratio"
    shown = ", ".join(repr(name) for name in names[:5])
    return (
        f"Column{'s' if many else ''} {shown}{', ...' if len(names) > 5 else ''} hold{'' if many else 's'} text or categories, and "
        f"{needs} needs numbers. Drop or encode {'them' if many else 'it'}, in both samples at once:\n"
        f"    from densratio import {estimator}\n"
        "    from sklearn.compose import make_column_transformer\n"
        f"{imports}"
        "    from sklearn.pipeline import make_pipeline\n"
        "    from sklearn.preprocessing import OneHotEncoder, StandardScaler\n"
        '    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)\n'
        f"    encode = make_column_transformer((one_hot, {list(names)}), remainder=StandardScaler())\n"
        f"{fit}"
    )


def _remedy(X: Any, name: Any, kind: str) -> str:
    if kind == "complex numbers":
        return "Give the real and the imaginary part as columns of their own."
    if kind != "dates or times":
        return "Drop it, or split it into columns of numbers."
    if is_polars(X):
        code = f"import polars\n    X = X.with_columns(polars.col({name!r}).to_physical())"
    elif getattr(X[name].dtype, "kind", "") == "m":
        code = f"X[{name!r}] = X[{name!r}].dt.total_seconds()"
    else:
        at = f"pandas.to_datetime(X[{name!r}].astype(str))" if X[name].dtype.kind == "O" else f"X[{name!r}]"
        code = f"import pandas\n    at = {at}\n    X[{name!r}] = (at - at.min()).dt.total_seconds()"
    return f"Drop it, or turn it into numbers in the stacked X:\n    {code}"


def _check_texts(X: Any) -> None:
    """Raise ValueError for an array with text that is not a number."""
    if is_sparse(X) or getattr(getattr(X, "dtype", None), "kind", "") not in tuple("OUS"):
        return
    for place, value in np.ndenumerate(X):
        if isinstance(value, str) and not _is_number(value):
            raise ValueError(
                f"X holds text, {str(value)!r} in column {place[-1]}, and a density ratio needs numbers. Pass a frame with a "
                "column for each kind of value, or encode the text first."
            )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
