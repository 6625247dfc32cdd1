"""Validation of inputs: rows, domain labels, sample weights and indices, with all error messages."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import scipy.sparse
from sklearn.utils import get_tags
from sklearn.utils.validation import column_or_1d, validate_data

from ._arrays import Array, concat_rows, is_sparse, is_tensor, namespace, take_rows, to_host

__all__ = [
    "check_index", "check_rows", "check_sample_weight", "from_registry", "seed_of", "split_domains", "stack_domains",
]  # fmt: skip

T = TypeVar("T")

_SHOW_STACK = "fit(*stack_domains(X_source, X_target))"


def stack_domains(X_source: Any, X_target: Any) -> tuple[Any, Any]:
    """Two samples as one (X, y) with y = 0 for source (training) and 1 for target (test) rows, which take turns.

    The rows of each sample keep their order, so that X[y == 0] is the source and `weights_` belong to its rows. Because they
    take turns, every block of rows has both, as scikit-learn's default folds need.
    X_source (n_s, d), X_target (n_t, d): numpy arrays, torch tensors (on one device), scipy sparse rows (returned as CSR), or
    pandas or polars frames with the same columns (returned as frames). Raises ValueError for an empty sample or different columns.
    """
    n_source, n_target = (_n_rows(X, name) for X, name in ((X_source, "source"), (X_target, "target")))
    turns = _turns(n_source, n_target)
    y = (turns >= n_source).astype(int)
    if is_tensor(X_source) or is_tensor(X_target):
        if not (is_tensor(X_source) and is_tensor(X_target)):
            raise ValueError("One sample is a torch tensor and the other is not: pass both as tensors or both as arrays.")
        _same_width(X_source.shape[1], X_target.shape[1])
        xp = namespace(X_source)
        return take_rows(xp.concat([X_source, X_target]), turns), xp.asarray(y, device=X_source.device)
    if hasattr(X_source, "columns") and hasattr(X_target, "columns"):
        return _concat_frames(X_source, X_target, turns), y
    if is_sparse(X_source) or is_sparse(X_target):
        _same_width(X_source.shape[1], X_target.shape[1])
        return concat_rows(scipy.sparse.csr_array(X_source), scipy.sparse.csr_array(X_target))[turns], y
    arrays = [np.asarray(X) for X in (X_source, X_target)]
    _same_width(arrays[0].shape[1], arrays[1].shape[1])
    return np.concatenate(arrays)[turns], y


def split_domains(
    estimator: Any, X: Any, y: Any, *, reset: bool, sample_weight: Any = None
) -> tuple[Array, np.ndarray, np.ndarray | None]:
    """Checked rows X (n, d), boolean mask of the source rows (n,), and sample_weight (n,) or None.

    y (n,): domain labels. Raises ValueError unless each domain has a row of positive weight.
    """
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
    # A second sample with one column looks like a column of labels: say how to pass two samples.
    hint = f" To fit on two samples, stack them: {_SHOW_STACK}." if getattr(y, "ndim", 1) == 2 else ""
    labels = np.asarray(column_or_1d(to_host(y), warn=not hint))
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
    return X, is_source, weights


def check_rows(estimator: Any, X: Any, *, reset: bool) -> Array:
    """X (n, d) as a finite floating-point array of its own library; column names and number are checked against the fit's."""
    if is_tensor(X):
        return _check_tensor(estimator, X, reset=reset)
    names = list(getattr(X, "columns", []))
    _check_numbers(estimator, X, names)
    sparse = "csr" if get_tags(estimator).input_tags.sparse else False
    # Finiteness is checked below, where the message can name the column.
    X = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32], ensure_all_finite=False, accept_sparse=sparse)
    if is_sparse(X):
        X = scipy.sparse.csr_array(X)
    _check_finite(X, names)
    _check_size(estimator, X, names)
    return X


def check_sample_weight(sample_weight: Any, n_rows: int) -> np.ndarray | None:
    """sample_weight (n,) as finite numbers >= 0 on the host, one for each of `n_rows` rows, or None."""
    if sample_weight is None:
        return None
    weights = np.asarray(to_host(sample_weight), dtype=np.float64)
    if weights.shape != (n_rows,):
        raise ValueError(f"sample_weight must be ({n_rows},), one number >= 0 for each row of X; got shape {weights.shape}.")
    if not np.all(np.isfinite(weights)) or np.any(weights < 0.0):
        bad = int(np.flatnonzero(~(weights >= 0.0) | np.isinf(weights))[0])
        raise ValueError(f"sample_weight must hold finite numbers >= 0; row {bad} has {weights[bad]}.")
    return weights


def check_index(index: Any, n_rows: int, n_declared: int | None, name: str = "index") -> np.ndarray:
    """Row indices (n,) as host integers, one for each of `n_rows` rows and below `n_declared` unless that is None."""
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


def _turns(n_source: int, n_target: int) -> np.ndarray:
    """Places (n,) in the source rows followed by the target rows, such that both are spread evenly."""
    return np.argsort(np.concatenate([(np.arange(n) + 0.5) / n for n in (n_source, n_target)]), kind="stable")


def _concat_frames(X_source: Any, X_target: Any, turns: np.ndarray) -> Any:
    source_names, target_names = list(X_source.columns), list(X_target.columns)
    if source_names != target_names:
        missing = [str(c) for c in source_names if c not in target_names]
        extra = [str(c) for c in target_names if c not in source_names]
        if missing or extra:
            raise ValueError(f"The samples differ in their columns: only the source has {missing}, only the target has {extra}.")
        X_target = X_target[source_names]
    if type(X_source).__module__.split(".")[0] == "polars":
        import polars

        return polars.concat([X_source, X_target], how="vertical_relaxed")[turns]
    import pandas

    return pandas.concat([X_source, X_target], ignore_index=True).iloc[turns].reset_index(drop=True)


def _source_mask(labels: np.ndarray, hint: str) -> np.ndarray:
    if labels.dtype.kind == "f" and not np.all(np.isfinite(labels)):
        raise ValueError("Input y contains NaN or infinity; it must hold two domain labels, 0 = source and 1 = target.")
    values = np.unique(labels)
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
    if labels.dtype.kind in "OUST":
        warnings.warn(
            f"y holds text: {str(values[0])!r}, which sorts first, is taken as the source (training) sample and "
            f"{str(values[1])!r} as the target. Pass 0 = source and 1 = target to be explicit.",
            UserWarning,
            stacklevel=2,
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


def _check_numbers(estimator: Any, X: Any, names: list) -> None:
    """Raises ValueError for columns of a frame that hold text, with the pipeline that encodes them."""
    text = [name for name in names if _is_text(np.asarray(X[name]))] if len(set(names)) == len(names) else []
    if text:
        shown = ", ".join(repr(name) for name in text[:5]) + (", ..." if len(text) > 5 else "")
        many = len(text) > 1
        raise ValueError(
            f"Column{'s' if many else ''} {shown} hold{'' if many else 's'} text, categories or dates, and a density ratio needs "
            f"numbers. Drop or encode {'them' if many else 'it'}, in both samples at once:\n"
            f"    encode = make_column_transformer((OneHotEncoder(sparse_output=False), [{shown}]), remainder=StandardScaler())\n"
            f"    make_pipeline(encode, {type(estimator).__name__}()).fit(X, y)"
        )


def _is_text(values: np.ndarray) -> bool:
    if values.dtype.kind == "O":
        return any(isinstance(value, str) for value in values)
    return values.dtype.kind in "USmM"


def _check_size(estimator: Any, X: Array, names: list) -> None:
    """Raises ValueError for columns whose squares would overflow in the dtype of X, unless the estimator scales them first."""
    if getattr(estimator, "scale", None) == "auto" or (is_sparse(X) and not X.nnz):
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


def _check_finite(X: Array, names: list) -> None:
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
    """The entry `name` of a registry; a ValueError that lists the names where there is none."""
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"{what}={name!r} is not known; use one of {sorted([*registry, *also])}.")
    return registry[name]


def seed_of(random_state: Any) -> int:
    """An int seed from an int, a RandomState or Generator (which advances), or None (fresh; the global state is left alone)."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    raise ValueError(f"random_state must be an int, a RandomState, a Generator or None; got {random_state!r}.")
