"""From two frames of numbers to weights and what they do: the estimator of a name, scaled columns, the fit and its report."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Result", "estimator", "weigh"]


@dataclass(frozen=True)
class Result:
    """Weights (n_source,) of mean 1, the parameters that were found from the data, the report, and warnings in words."""

    weights: np.ndarray
    found: dict[str, Any]
    report: Any
    warnings: tuple[str, ...]


def estimator(method: str, gamma: str | None, seed: int) -> Any:
    """The density ratio of a name in ESTIMATORS with its bandwidth and seed set. Raises ValueError for what it does not take."""
    from ..estimators import ESTIMATORS

    method = method.lower()
    if method not in ESTIMATORS:
        raise ValueError(f"--method {method} is not known; use one of {', '.join(sorted(ESTIMATORS))}.")
    ratio = ESTIMATORS[method]()
    parameters = ratio.get_params(deep=False)
    if gamma is not None:
        if "gamma" not in parameters:
            takers = sorted(name for name, kind in ESTIMATORS.items() if "gamma" in kind().get_params(deep=False))
            raise ValueError(f"--method {method} has no bandwidth and so no --gamma; these have: {', '.join(takers)}.")
        ratio.set_params(gamma=_bandwidth(gamma))
    return ratio.set_params(random_state=seed) if "random_state" in parameters else ratio


def weigh(ratio: Any, source: Any, target: Any, numeric: list[str], *, scales: bool) -> Result:
    """Fit `ratio` on two frames, (n_s, d) and (n_t, d), whose columns `numeric` are scaled if `scales`."""
    from .._validation import stack_domains
    from ..diagnostics import diagnose

    X, y = stack_domains(source, target)
    if scales and numeric:
        X = _scaled(X, numeric)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ratio.fit(X, y)
        except MemoryError:
            raise ValueError(
                f"Not enough memory for this method on {len(y)} rows; the memory of --method lsif grows with the rows alone."
            ) from None
        weights = np.asarray(ratio.weights_, dtype=np.float64)
        report = diagnose(weights, X, y)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    found = {"gamma": ratio.gamma_} if hasattr(ratio, "gamma_") else {}
    return Result(weights, found | getattr(ratio, "best_params_", {}), report, tuple(dict.fromkeys([*report.warnings, *said])))


def _bandwidth(text: str) -> float | str:
    from ..features import BANDWIDTHS

    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if text in (*BANDWIDTHS, "cv"):
        return text
    if not 0.0 < value < np.inf:
        raise ValueError(f"--gamma must be a number > 0, {', '.join(BANDWIDTHS)} or cv; got {text}.")
    return value


def _scaled(X: Any, names: list[str]) -> Any:
    """A copy of X with mean 0 and deviation 1 in the columns `names`.

    Columns of 0 and 1 for texts stay: two different texts are then as far apart, |x - x'|^2 = 2, as two rows in a scaled
    column are on average, and a rare text is no further than a common one.
    """
    from sklearn.preprocessing import StandardScaler

    with np.errstate(all="ignore"):
        scaled = StandardScaler().fit_transform(X[names].to_numpy())
    is_finite = np.isfinite(scaled).all(axis=0)
    if not is_finite.all():
        name = names[int(np.argmin(is_finite))]
        raise ValueError(f"Column '{name}' has values too large to be scaled: divide it by a power of ten in both files.")
    X = X.copy()
    X[names] = scaled
    return X
