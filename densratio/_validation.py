"""The border guard: every input error and its words."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d, validate_data

from ._arrays import Array, is_tensor, namespace, to_host

__all__ = ["check_index", "check_rows", "split_domains", "stack_domains"]

_SHOW_STACK = "fit(*stack_domains(X_source, X_target))"


def stack_domains(X_source: Any, X_target: Any) -> tuple[Any, Any]:
    """Two samples as one (X, y) with y = 0 for source (training) and 1 for target (test) rows, source rows first.

    X_source (n_s, d), X_target (n_t, d): numpy arrays, torch tensors (on one device), or pandas or polars frames with the
    same columns, which stay frames. Raises ValueError for an empty sample or columns that differ.
    """
    n_source, n_target = (_n_rows(X, name) for X, name in ((X_source, "source"), (X_target, "target")))
    y = np.repeat([0, 1], [n_source, n_target])
    if is_tensor(X_source) or is_tensor(X_target):
        if not (is_tensor(X_source) and is_tensor(X_target)):
            raise ValueError("One sample is a torch tensor and the other is not: give both as tensors or both as arrays.")
        _same_width(X_source.shape[1], X_target.shape[1])
        xp = namespace(X_source)
        return xp.concat([X_source, X_target]), xp.asarray(y, device=X_source.device)
    if hasattr(X_source, "columns") and hasattr(X_target, "columns"):
        return _concat_frames(X_source, X_target), y
    arrays = [np.asarray(X) for X in (X_source, X_target)]
    _same_width(arrays[0].shape[1], arrays[1].shape[1])
    return np.concatenate(arrays), y


def split_domains(estimator: Any, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array, Any]:
    """Checked (source rows, target rows, boolean source mask) of X (n, d) and domain labels y (n,)."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None. It is the domain of each row, "
            f"0 = source and 1 = target: {_SHOW_STACK}."
        )
    if getattr(y, "ndim", 1) == 2 and y.shape[1] != 1:
        raise ValueError(
            f"y must be (n,) domain labels, 0 = source and 1 = target; got shape {tuple(y.shape)}. To fit on two samples, stack "
            f"them: {_SHOW_STACK}."
        )
    X = check_rows(estimator, X, reset=reset)
    # A second sample of one column looks like labels in a column: say how to give two samples.
    hint = f" To fit on two samples, stack them: {_SHOW_STACK}." if getattr(y, "ndim", 1) == 2 else ""
    labels = np.asarray(column_or_1d(to_host(y), warn=not hint))
    if len(labels) != X.shape[0]:
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {X.shape[0]} rows and y has {len(labels)} labels.{hint}"
        )
    is_source = _source_mask(labels, hint)
    xp = namespace(X)
    mask = xp.asarray(is_source, device=X.device) if is_tensor(X) else is_source
    return X[mask], X[~mask], is_source


def check_rows(estimator: Any, X: Any, *, reset: bool) -> Array:
    """X (n, d) as a finite floating array in its own library, with its column names or count checked against the fit's."""
    if is_tensor(X):
        return _check_tensor(estimator, X, reset=reset)
    names = list(getattr(X, "columns", []))
    # Finiteness is checked here rather than there so that the message can name the column.
    X = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False)
    _check_finite(X, names)
    return X


def check_index(index: Any, n_rows: int, n_declared: int | None, name: str = "index") -> np.ndarray:
    """Row numbers (n,) as host integers, one for each of `n_rows` rows and below `n_declared` where that is known."""
    index = np.asarray(to_host(index))
    if index.size == 0:
        index = index.astype(np.int64)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"{name} must be (n,) integers; got shape {index.shape} and dtype {index.dtype}.")
    if len(index) != n_rows:
        raise ValueError(f"{name} must name each row of its batch once: the batch has {n_rows} rows and {name} has {len(index)}.")
    if len(index) and index.min() < 0:
        raise ValueError(f"{name} must be >= 0; got {index.min()}.")
    if n_declared is not None and len(index) and index.max() >= n_declared:
        raise ValueError(
            f"{name} {index.max()} is out of range: the largest allowed is {n_declared - 1} ({n_declared} rows were declared)."
        )
    return index


def _n_rows(X: Any, name: str) -> int:
    shape = getattr(X, "shape", None)
    if shape is None:
        shape = np.shape(X)
    if len(shape) != 2:
        raise ValueError(f"The {name} sample must be 2-D (n, d); got {len(shape)}-D. Reshape one column with X.reshape(-1, 1).")
    if shape[0] == 0:
        raise ValueError(f"The {name} sample is empty: it needs at least one row.")
    return int(shape[0])


def _same_width(n_source: int, n_target: int) -> None:
    if n_source != n_target:
        raise ValueError(f"The samples differ in their columns: the source has {n_source} and the target has {n_target}.")


def _concat_frames(X_source: Any, X_target: Any) -> Any:
    source_names, target_names = list(X_source.columns), list(X_target.columns)
    if source_names != target_names:
        missing = [str(c) for c in source_names if c not in target_names]
        extra = [str(c) for c in target_names if c not in source_names]
        if missing or extra:
            raise ValueError(f"The samples differ in their columns: only the source has {missing}, only the target has {extra}.")
        X_target = X_target[source_names]
    if type(X_source).__module__.split(".")[0] == "polars":
        import polars

        return polars.concat([X_source, X_target], how="vertical_relaxed")
    import pandas

    return pandas.concat([X_source, X_target], ignore_index=True)


def _source_mask(labels: np.ndarray, hint: str) -> np.ndarray:
    if labels.dtype.kind == "f" and not np.all(np.isfinite(labels)):
        raise ValueError("Input y contains NaN or infinity; it must hold two domain labels, 0 = source and 1 = target.")
    values = np.unique(labels)
    if len(values) > 2:
        # The opening words are those by which scikit-learn's checks know a two-class estimator.
        raise ValueError(
            f"Only binary classification is supported: y must have exactly two values, 0 = source and 1 = target. "
            f"The type of the target is not binary; got {len(values)} values ({', '.join(map(str, values[:5]))}, ...).{hint}"
        )
    if len(values) < 2:
        only = f"one class only ({values[0]})" if len(values) else "no label"
        raise ValueError(
            f"One domain is empty: y must have two values, 0 = source and 1 = target; got {only}. "
            "In cross-validation give every fold both: cv=StratifiedKFold(5, shuffle=True)."
        )
    return labels == values[0]


def _check_tensor(estimator: Any, X: Array, *, reset: bool) -> Array:
    xp = namespace(X)
    if X.ndim != 2:
        raise ValueError(f"Expected 2D array (n, d), got {X.ndim}D tensor instead. Reshape one column with X.reshape(-1, 1).")
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"Found a tensor of shape {tuple(X.shape)} while a minimum of 1 row and 1 column is required.")
    X = X.detach()
    if X.dtype not in (xp.float32, xp.float64):
        X = xp.astype(X, xp.float32 if X.is_floating_point() else xp.float64)
    if reset:
        estimator.n_features_in_ = X.shape[1]
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} features as "
            "input."
        )
    _check_finite(X, [])
    return X


def _check_finite(X: Array, names: list) -> None:
    xp = namespace(X)
    if bool(xp.all(xp.isfinite(X))):
        return
    column_is_bad = to_host(~xp.all(xp.isfinite(X), axis=0))
    column = int(np.flatnonzero(column_is_bad)[0])
    what = "NaN" if bool(xp.any(xp.isnan(X[:, column]))) else "infinity"
    label = f"column {names[column]!r}" if names else f"column {column}"
    more = f" and {column_is_bad.sum() - 1} more" if column_is_bad.sum() > 1 else ""
    raise ValueError(f"Input X contains {what} in {label}{more}. Drop or impute these rows before estimating a ratio.")
