"""Row weights from a fitted ratio or a callable: checked, flattened and rescaled."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array, check_is_fitted

from .._arrays import is_tensor, to_host
from .._columns import check_container, is_frame, is_series
from .._validation import check_number, check_sample_weight, check_two_dimensional
from .taming import tamed_by

__all__ = ["as_rows", "check_ratio", "name_of", "ratio_at", "row_weights"]

_SHOW_FIT = "X, domain = stack_domains(X_train, X_target)\n    ratio = {ratio}.fit(X, domain)"


def row_weights(ratio: Any, X: Any, *, flatten: float = 1.0, tame: Any = None, sample_weight: Any = None) -> np.ndarray:
    """w_i = s_i r(x_i)^flatten / m for the rows of X, with m the mean of r^flatten under the base weights s.

    s = sample_weight (n,) or ones. The weights have the sum of s, so their mean is 1 without sample_weight; flatten = 0 gives
    s itself, and a row of base weight k counts as k rows. 0^0 is 1. tame then makes r^flatten less extreme, as in `tamed_by`.
    Source: Shimodaira (2000) for the flattening.
    """
    check_number("flatten", flatten, "[0, 1]", ", from a plain fit to full weights")
    raw = ratio_at(ratio, X)
    given = check_sample_weight(sample_weight, len(raw))
    base = np.ones(len(raw)) if given is None else given
    if base.max() == 0.0:
        raise ValueError("sample_weight must contain at least one non-zero number; all are 0.")
    if flatten == 0.0:
        return base
    raw = np.where(base > 0.0, raw, 0.0)
    if raw.max() == 0.0:
        raise ValueError(
            f"The ratio is 0 at every row of positive weight ({np.count_nonzero(base)} of {len(base)}): these rows do not "
            "overlap with the target, and weighting cannot make up for that. Check which sample is the source, or fit the ratio "
            "with a smaller gamma."
        )
    # Dividing by the largest first keeps the mean of huge ratios from overflowing.
    flattened = (raw / raw.max()) ** flatten
    if tame is not None:
        flattened = tamed_by(tame, flattened).weights
    return base * (flattened / np.average(flattened, weights=base / base.max()))


def ratio_at(ratio: Any, X: Any) -> np.ndarray:
    """The ratio (n,) at the rows of X, finite and >= 0, from a fitted ratio's `transform` or a callable."""
    check_ratio(ratio)
    rows = as_rows(X)
    n_rows = int(rows.shape[0])
    if n_rows == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: X has no rows.")
    values = ratio.transform(rows) if hasattr(ratio, "transform") else ratio(rows)
    return _check_values(values, n_rows, name_of(ratio))


def check_ratio(ratio: Any) -> None:
    """Raises NotFittedError (a ValueError) for an unfitted ratio and ValueError for anything that is not a ratio."""
    if isinstance(ratio, type) and hasattr(ratio, "transform"):
        raise ValueError(f"ratio is the class {ratio.__name__}; pass a fitted instance:\n    {_show_fit(ratio.__name__ + '()')}")
    # A Series of pandas, such as weights, has a transform of its own.
    if not hasattr(ratio, "transform") or is_series(ratio):
        if hasattr(ratio, "ratio") and hasattr(ratio, "weights"):
            raise ValueError("ratio is what importance_weights returned: pass its fitted ratio, result.ratio.")
        if is_series(ratio) or not callable(ratio):
            raise ValueError(
                "ratio must be a fitted density ratio, or a callable from rows (n, d) to ratios (n,); got "
                f"{type(ratio).__name__}. To fit one:\n    {_show_fit('KLIEP()')}"
            )
        return
    if hasattr(ratio, "fit") and hasattr(ratio, "__sklearn_tags__"):
        try:
            check_is_fitted(ratio)
        except NotFittedError:
            raise NotFittedError(
                f"The ratio {name_of(ratio)} is not fitted, and can't be fitted here: its labels are the domains, not y. "
                f"Fit it first:\n    {_show_fit(repr(ratio))}\nA parameter grid clones estimators, which unfits them: search "
                'over the transforms of fitted ratios, {"ratio": [a.transform, b.transform]}.'
            ) from None


def _show_fit(ratio: str) -> str:
    return _SHOW_FIT.format(ratio="ratio" if "\n" in ratio else ratio)


def name_of(function: Any) -> str:
    """The name of a function, of a partial one's function, or of an object's class."""
    function = function.func if isinstance(function, partial) else function
    return getattr(function, "__name__", type(function).__name__)


def as_rows(X: Any) -> Any:
    """X as passed to the ratio: frames, tensors and arrays unchanged, sparse matrices as CSR, a list of rows as an array.

    Raises ValueError if X can't be read as rows, such as for masked missing values.
    """
    X = check_container(X)
    if is_frame(X) or is_tensor(X):
        return X
    array = check_array(X, dtype=None, accept_sparse="csr", ensure_all_finite=False, ensure_2d=False, allow_nd=True)
    if array.ndim == 1 and array.dtype.kind in "fiub":
        check_two_dimensional(array.shape)
    return array


def _check_values(values: Any, n_rows: int, name: str) -> np.ndarray:
    values = np.asarray(to_host(values))
    if values.shape != (n_rows,):
        raise ValueError(f"The ratio {name} must return one number for each row, shape ({n_rows},); got shape {values.shape}.")
    if values.dtype.kind not in "fiub":
        raise ValueError(f"The ratio {name} must return real numbers; got dtype {values.dtype}.")
    values = values.astype(np.float64)
    for what, is_bad in (("NaN", np.isnan(values)), ("infinite", np.isinf(values)), ("negative", values < 0.0)):
        if is_bad.any():
            raise ValueError(
                f"The ratio {name} must be finite and >= 0; it is {what} at {is_bad.sum()} of {n_rows} rows, first at row "
                f"{np.argmax(is_bad)}. Check these rows of X and the ratio there."
            )
    return values
