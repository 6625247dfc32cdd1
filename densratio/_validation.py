"""Validation of inputs: rows, domain labels, sample weights and indices, with all error messages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from math import inf, nextafter
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn.utils import get_tags
from sklearn.utils.validation import column_or_1d, validate_data

from ._arrays import Array, concat_rows, is_sparse, is_tensor, namespace, take_rows, to_host
from ._columns import (
    check_columns,
    check_container,
    check_same_content,
    check_table,
    is_frame,
    is_missing,
    is_polars,
    is_real,
    library_of,
    numbers_of,
    shape_of,
    shown,
    with_columns_of,
)  # fmt: skip
from ._names import did_you_mean

__all__ = [
    "check_count", "check_index", "check_number", "check_rows", "check_sample_weight", "check_two_dimensional", "from_registry",
    "is_number", "ordered_labels", "seed_of", "split_domains", "stack_domains",
]  # fmt: skip

T = TypeVar("T")

_SHOW_STACK = "fit(*stack_domains(X_source, X_target))"
_SOURCE_WORDS, _TARGET_WORDS = {"source", "train", "training"}, {"target", "test", "testing"}
_MOST_COPIES = 2.0**32  # larger whole numbers are no counts of rows


def stack_domains(X_source: Any, X_target: Any) -> tuple[Any, Any]:
    """Join two samples into one (X, y), with y = 0 for source (training) rows and 1 for target (test) rows.

    Source and target rows alternate, so that every block of rows has both, as scikit-learn's default folds need. The rows of each
    sample keep their order: X[y == 0] is the source, and `weights_` are in the order of its rows.
    X_source (n_s, d), X_target (n_t, d): numpy arrays, torch tensors (on one device), scipy sparse rows (returned as CSR), or
    pandas or polars frames with the same columns (returned as frames). Raises ValueError for an empty sample or different columns.
    """
    samples = [_sample(X, name) for X, name in ((X_source, "source"), (X_target, "target"))]
    # Positions in the source rows followed by the target rows, with both spread evenly.
    turns = np.argsort(np.concatenate([(np.arange(n) + 0.5) / n for n in (shape_of(X)[0] for X in samples)]), kind="stable")
    y: Any = (turns >= shape_of(samples[0])[0]).astype(int)
    if any(map(is_tensor, samples)):
        if not all(map(is_tensor, samples)):
            raise ValueError("One sample is a torch tensor and the other is not: pass both as tensors or both as arrays.")
        xp = namespace(samples[0])
        y = xp.asarray(y, device=samples[0].device)
    if all(map(is_frame, samples)):
        return _concat_frames(samples[0], samples[1], turns), y
    if any(map(is_frame, samples)):
        warnings.warn(
            "One sample has column names and the other has none: columns are matched by position, and the names are dropped. Pass "
            "both as frames with the same columns.",
            UserWarning,
            stacklevel=2,
        )
    widths = [shape_of(X)[1] for X in samples]
    if widths[0] != widths[1]:
        raise ValueError(f"The samples differ in their columns: the source has {widths[0]} and the target has {widths[1]}.")
    convert = scipy.sparse.csr_array if any(map(is_sparse, samples)) else np.asarray
    return take_rows(concat_rows(*(X if is_tensor(X) else convert(X) for X in samples)), turns), y


def split_domains(
    estimator: Any, X: Any, y: Any, *, reset: bool, sample_weight: Any = None, is_stream: bool = False, stacked: str = _SHOW_STACK
) -> tuple[Array, np.ndarray, np.ndarray | None]:
    """Checked rows X (n, d), boolean mask of the source rows (n,), and how many rows each counts as (n,) or None.

    y (n,): domain labels. is_stream: whether weights are compared with those of other batches, so that they keep their unit.
    stacked: the call that takes two samples, for the errors on y that is one of them.
    Raises ValueError unless each domain has a row of positive weight.
    """
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None. It is the domain of each row, "
            f"0 = source and 1 = target: {stacked}."
        )
    if getattr(y, "ndim", 1) == 2 and y.shape[1] != 1:
        raise ValueError(
            f"y must be (n,) domain labels, 0 = source and 1 = target; got shape {tuple(y.shape)}. To pass two samples, stack "
            f"them: {stacked}."
        )
    X = check_rows(estimator, X, reset=reset)
    # A second sample with one column looks like a column of labels: say how to pass two samples.
    hint = f" To pass two samples, stack them: {stacked}." if getattr(y, "ndim", 1) == 2 else ""
    labels = _labels(column_or_1d(to_host(check_container(y, "y")), warn=not hint))
    if len(labels) != X.shape[0]:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {X.shape[0]} rows and y has {len(labels)} labels.{hint}"
        )
    is_source = _source_mask(labels, hint)
    weights = check_sample_weight(sample_weight, X.shape[0])
    if weights is not None:
        for name, rows in (("source", is_source), ("target", ~is_source)):
            if not weights[rows].any():
                raise ValueError(f"sample_weight is zero on every {name} row: at least one must be positive.")
        weights = weights if is_stream else _as_counts(weights, is_source)
    return X, is_source, weights


def ordered_labels(values: Sequence[Any]) -> tuple[tuple[Any, Any], str]:
    """(source, target) of two sorted labels, and the reason to warn of that order: "" for 0 and 1, and for the words below.

    "source", "train" and "training" are the source, "target", "test" and "testing" the target; else the smaller is the source.
    """
    first, second = values
    words = [str(value).strip().lower() for value in values]
    if words[0] in _TARGET_WORDS and words[1] in _SOURCE_WORDS:
        return (second, first), ""
    if (words[0] in _SOURCE_WORDS and words[1] in _TARGET_WORDS) or (first, second) == (0, 1):
        return (first, second), ""
    return (first, second), "y holds text, which is sorted" if isinstance(first, str) else "y holds labels other than 0 and 1"


def check_rows(estimator: Any, X: Any, *, reset: bool) -> Array:
    """X (n, d) as a finite floating-point array of its own library; column names and number are checked against the fit's."""
    X = check_container(X)
    check_table(X)
    check_two_dimensional(shape_of(X), "tensor" if is_tensor(X) else "array")
    if is_tensor(X):
        return _check_tensor(estimator, X, reset=reset)
    check_columns(X, type(estimator).__name__)
    names = list(X.columns) if is_frame(X) else []
    sparse = "csr" if get_tags(estimator).input_tags.sparse else False
    # Finiteness is checked below, where the message can name the column.
    X = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False, accept_sparse=sparse)
    X = scipy.sparse.csr_array(X) if is_sparse(X) else X
    _check_finite(X, names, takes_nan=get_tags(estimator).input_tags.allow_nan)
    _check_size(estimator, X, names)
    return X


def check_two_dimensional(shape: Sequence[int], kind: str = "array") -> None:
    """Raise ValueError for rows that are not (n, d)."""
    if len(shape) != 2:
        raise ValueError(
            f"Expected 2D array, got {len(shape)}D {kind} instead: X has shape {tuple(shape)} and must be (n, d). Reshape your "
            "data with X.reshape(-1, 1) if it is one column, or X.reshape(1, -1) if it is one row."
        )


def check_sample_weight(sample_weight: Any, n_rows: int, of: str = " of X") -> np.ndarray | None:
    """sample_weight (n,) as a new array of finite numbers >= 0 on the host, one for each of `n_rows` rows, or None.

    of: completes "row" in messages.
    """
    if sample_weight is None:
        return None
    weights = numbers_of(sample_weight, "sample_weight", f"({n_rows},), one number >= 0 for each row{of}")
    if weights.shape != (n_rows,):
        raise ValueError(f"sample_weight must be ({n_rows},), one number >= 0 for each row{of}; got shape {weights.shape}.")
    is_bad = ~((weights >= 0.0) & np.isfinite(weights))
    if is_bad.any():
        bad = int(np.argmax(is_bad))
        raise ValueError(f"sample_weight must hold finite numbers >= 0; row {bad}{of} has {weights[bad]}.")
    return weights


def _as_counts(weights: np.ndarray, is_source: np.ndarray) -> np.ndarray:
    """Weights (n,) as numbers of rows. Whole numbers are copies; other weights have no unit, and are scaled to sum to the effective
    number of rows, (sum w)^2 / sum w^2 (Kish, 1965). Rows whose weight is lost in the rounding of the sums count 0.
    """
    if weights.max() <= _MOST_COPIES and np.array_equal(weights, np.rint(weights)):
        return weights
    domains = [is_source, ~is_source]
    largest = [weights[rows].max() for rows in domains]
    # If their units are too far apart for one sum, the domains are scaled separately.
    groups = [np.ones_like(is_source)] if max(largest) / _MOST_COPIES <= min(largest) else domains
    counts = np.empty_like(weights)
    for rows in groups:
        # Divided by the largest first: sums of huge or tiny weights would overflow or underflow.
        share = weights[rows] / weights[rows].max()
        share[share < np.finfo(np.float64).eps] = 0.0
        # Sorted, so that the order of the rows does not change the last digit, which a search may amplify.
        ordered = np.sort(share)
        counts[rows] = share * (ordered.sum() / (ordered @ ordered))
    return counts


def check_index(index: Any, n_rows: int, n_declared: int | None, name: str = "index") -> np.ndarray:
    """Row indices (n,) as host integers, one for each of `n_rows` rows and below `n_declared` unless that is None."""
    if index is None:
        raise ValueError(f"{name} must be (n,) integers, the number of each row; got None. Indexed(data_set) numbers the rows.")
    index = np.asarray(to_host(index))
    if index.size == 0:
        index = index.astype(np.int64)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"{name} must be (n,) integers; got shape {index.shape} and dtype {index.dtype}.")
    if len(index) != n_rows:
        raise ValueError(
            f"{name} must have one entry for each row of its batch: the batch has {n_rows} rows and {name} has {len(index)}."
        )
    if len(index) and index.min() < 0:
        raise ValueError(f"{name} must be >= 0; got {index.min()}.")
    if n_declared is not None and len(index) and index.max() >= n_declared:
        raise ValueError(
            f"{name} {index.max()} is out of range: the largest allowed is {n_declared - 1} ({n_declared} rows were declared). "
            "If the set is a part of a larger one, number the rows of the part: Indexed(Subset(...)), not Subset(Indexed(...))."
        )
    return index


def _sample(X: Any, name: str) -> Any:
    X = check_container(X, f"The {name} sample")
    check_table(X, f"The {name} sample")
    shape = shape_of(X)
    if len(shape) == 0:
        raise ValueError(f"The {name} sample must be a table of rows and columns (n, d); got {shown(X)}.")
    if len(shape) != 2:
        raise ValueError(f"The {name} sample must be 2-D (n, d); got {len(shape)}-D. Reshape one column with X.reshape(-1, 1).")
    if shape[0] == 0:
        raise ValueError(f"The {name} sample is empty: it needs at least one row.")
    return X


def _concat_frames(X_source: Any, X_target: Any, turns: np.ndarray) -> Any:
    libraries = [library_of(X) for X in (X_source, X_target)]
    if libraries[0] != libraries[1]:
        raise ValueError(
            f"The source is a {libraries[0]} frame and the target a {libraries[1]} frame: pass both from one library. "
            "X.to_pandas() turns a polars frame into a pandas one."
        )
    X_target = with_columns_of(X_source, X_target)
    check_same_content(X_source, X_target)
    if is_polars(X_source):
        import polars

        return polars.concat([X_source, X_target], how="vertical_relaxed")[turns]
    import pandas

    return pandas.concat([X_source, X_target], ignore_index=True).iloc[turns].reset_index(drop=True)


def _labels(y: Any) -> np.ndarray:
    """Labels (n,), none of them missing; numbers stored as objects become an array of numbers."""
    labels = np.asarray(y)
    is_bad = ~np.isfinite(labels) if labels.dtype.kind == "f" else np.zeros(len(labels), dtype=bool)
    if labels.dtype.kind == "O":
        is_bad = np.array([is_missing(label) for label in labels], dtype=bool)
    if is_bad.any():
        raise ValueError(
            f"Input y contains NaN or infinity: row {np.argmax(is_bad)} has no label. It must hold two domain labels, 0 = source "
            "and 1 = target."
        )
    return labels.astype(np.float64) if labels.dtype.kind == "O" and all(map(is_real, labels)) else labels


def _source_mask(labels: np.ndarray, hint: str) -> np.ndarray:
    try:
        values = np.unique(labels)
    except TypeError:
        raise ValueError(f"y mixes text with other values; it must hold two labels, 0 = source and 1 = target.{hint}") from None
    if len(values) > 2:
        # scikit-learn's checks recognize a two-class estimator by these opening words.
        raise ValueError(
            f"Only binary classification is supported: y must have exactly two values, 0 = source and 1 = target. "
            f"The type of the target is not binary; got {len(values)} values ({', '.join(map(str, values[:5]))}, ...).{hint}"
        )
    if len(values) < 2:
        only = f"one class only ({values[0]})" if len(values) else "no label"
        raise ValueError(
            f"One domain is empty: y must have two values, 0 = source and 1 = target; got {only}. "
            "In cross-validation every fold needs both: cv=StratifiedKFold(5, shuffle=True)."
        )
    (source, target), why = ordered_labels(values.tolist())
    if why:
        warnings.warn(
            f"{why}: {source!r} is taken as the source (training) sample and {target!r} as the target. Pass 0 = source and "
            "1 = target to be explicit.",
            UserWarning,
            stacklevel=2,
        )
    return labels == source


def _check_tensor(estimator: Any, X: Array, *, reset: bool) -> Array:
    xp = namespace(X)
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"Found a tensor of shape {tuple(X.shape)} while a minimum of 1 row and 1 column is required.")
    X = X.detach()
    if X.dtype not in (xp.float32, xp.float64):
        X = xp.astype(X, xp.float32 if X.is_floating_point() else xp.float64)
    if reset:
        estimator.n_features_in_ = X.shape[1]
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} features as "
            "input."
        )
    _check_finite(X, [])
    _check_size(estimator, X, [])
    return X


def _check_size(estimator: Any, X: Array, names: list) -> None:
    """Raise ValueError for columns whose squares would overflow in the dtype of X, unless the estimator scales them first."""
    if getattr(estimator, "scale", None) == "auto" or not getattr(estimator, "_has_units", True) or (is_sparse(X) and not X.nnz):
        return
    xp = namespace(X)
    if is_sparse(X):
        X = abs(X).max(axis=0).toarray().reshape(1, -1)
    largest = xp.max(xp.abs(X), axis=0)
    most = float(xp.finfo(X.dtype).max) ** 0.45
    if bool(xp.max(largest) > most):
        column = int(np.argmax(to_host(largest)))
        label = repr(names[column]) if names else str(column)
        raise ValueError(
            f"Input X has values as large as {float(largest[column]):.1e} in column {label}, and squares of more than {most:.0e} "
            "overflow: put the columns on one scale first, for example with a StandardScaler."
        )


def _check_finite(X: Array, names: list, *, takes_nan: bool = False) -> None:
    if takes_nan and not is_sparse(X):
        X = np.where(np.isnan(X), 0.0, X)
    if is_sparse(X):
        bad = ~np.isfinite(X.data)
        if not bad.any():
            return
        has_nan, counts = bool(np.isnan(X.data).any()), np.bincount(X.indices[bad], minlength=X.shape[1])
        columns = np.flatnonzero(counts)
    else:
        xp = namespace(X)
        if bool(xp.all(xp.isfinite(X))):
            return
        columns = np.flatnonzero(to_host(~xp.all(xp.isfinite(X), axis=0)))
        has_nan = bool(xp.any(xp.isnan(X[:, int(columns[0])])))
    label = f"column {names[columns[0]]!r}" if names else f"column {columns[0]}"
    more = f" and {len(columns) - 1} more" if len(columns) > 1 else ""
    what = "NaN" if has_nan else "infinity"
    raise ValueError(f"Input X contains {what} in {label}{more}. Drop or impute these rows before estimating a ratio.")


def from_registry(what: str, name: Any, registry: dict[str, type[T]], also: tuple[str, ...] = ()) -> type[T]:
    """The entry `name` of a registry. Raises ValueError with the known names if there is none."""
    if not isinstance(name, str) or name not in registry:
        raise ValueError(
            f"{what}={name!r} is not known; use one of {sorted([*registry, *also])}.{did_you_mean(name, [*registry, *also])}"
        )
    return registry[name]


def check_count(name: str, value: Any, least: int = 1, more: str = "") -> int:
    """The value of a parameter as an int >= `least`. Raises ValueError for anything else; more: an addition to the message."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an int >= {least}{more}; got {shown(value)}.")
    return int(value)


def check_number(name: str, value: Any, within: str, more: str = "") -> float:
    """The value of a parameter as a float. Raises ValueError unless it is a number within an interval such as "[0, 1)"."""
    least, largest = _ends(within)
    if not is_number(value) or not least <= value <= largest:
        raise ValueError(f"{name} must be a number in {within}{more}; got {shown(value)}.")
    return float(value)


@cache
def _ends(within: str) -> tuple[float, float]:
    """The least and the largest number in an interval; cached, since steps in a loop check their parameters too."""
    low, high = map(float, within[1:-1].split(","))
    return low if within[0] == "[" else nextafter(low, inf), high if within[-1] == "]" else nextafter(high, -inf)


def is_number(value: Any) -> bool:
    """Whether `value` is a real number; True and False do not count as numbers."""
    return isinstance(value, Real) and not isinstance(value, bool)


def seed_of(random_state: Any) -> int:
    """An int seed from an int >= 0, a RandomState or Generator (which advances), or None (fresh; no global state changes)."""
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    raise ValueError(f"random_state must be an int >= 0, a RandomState, a Generator or None; got {shown(random_state)}.")
