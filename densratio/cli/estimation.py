"""From two frames of numbers to weights and what they do: the estimator of a name, the fit and its report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .frames import Frames

__all__ = ["Result", "estimator", "weigh"]

# What the command line has of the advice of `Remedies`.
_WORDS = {
    "gamma": "--gamma cv",
    "method": "try another method (--method)",
    "scale": "leave out --no-scale",
    "flatten": "--flatten with a smaller number than 1",
    "alpha": "--alpha 0.5",
    "max_weight": "--max-weight with a smaller number",
    "source": "the first file is the source, the second the target",
}


@dataclass(frozen=True)
class Result:
    """Weights (n_source,) of mean 1, 0 for rows left out, the method in words, the report, and warnings in words."""

    weights: np.ndarray
    method: str
    report: Any
    warnings: tuple[str, ...]


def estimator(method: str, settings: Mapping[str, Any], seed: int, *, scales: bool) -> Any:
    """The density ratio of a name in ESTIMATORS with its settings and seed. Raises ValueError for what it does not take.

    settings : parameter -> value; None leaves the method's own.
    """
    from ..estimators import ESTIMATORS

    method = method.lower()
    if method not in ESTIMATORS:
        raise ValueError(f"--method {method} is not known; use one of {', '.join(sorted(ESTIMATORS))}.")
    ratio = ESTIMATORS[method]()
    parameters = ratio.get_params(deep=False)
    given = {name: value for name, value in settings.items() if value is not None}
    given |= {} if scales else {"scale": None}
    for name in given:
        if name not in parameters:
            takers = sorted(other for other, kind in ESTIMATORS.items() if name in kind().get_params(deep=False))
            option = "--no-scale" if name == "scale" else f"--{name.replace('_', '-')}"
            raise ValueError(f"--method {method} has no {option}; these have: {', '.join(takers)}.")
    if "gamma" in given:
        given["gamma"] = _bandwidth(given["gamma"])
    return ratio.set_params(**given | ({"random_state": seed} if "random_state" in parameters else {}))


def weigh(ratio: Any, frames: Frames, flatten: float) -> Result:
    """Fit `ratio` on two frames, (n_s, d) and (n_t, d); the weights are its own to the power `flatten`."""
    from .._validation import stack_domains
    from ..diagnostics.advice import advise
    from ..diagnostics.description import describe
    from ..diagnostics.diagnosis import diagnose
    from ..diagnostics.remedies import Remedies, parameters_of

    if not 0.0 <= flatten <= 1.0:
        raise ValueError(f"--flatten must be between 0 (equal weights) and 1 (the ratio itself); got {flatten:g}.")
    X, y = stack_domains(frames.source, frames.target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            ratio.fit(X, y)
        except MemoryError:
            raise ValueError(
                f"Not enough memory for this method on {len(y)} rows; the memory of --method lsif grows with the rows alone."
            ) from None
        kept = np.asarray(ratio.weights_, dtype=np.float64) ** flatten
        kept /= np.mean(kept)
        report = diagnose(ratio, X, y, weights=kept)
    remedies = Remedies(parameters_of(ratio) | {"flatten": flatten}, _WORDS)
    # The method is named among the facts of the call.
    report = replace(report, warnings=advise(report, remedies), ratio="")
    weights = np.zeros(len(frames.is_kept))
    weights[frames.is_kept] = kept
    said = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    method = describe(ratio) + f", flattened by the power {flatten:g}" * (flatten != 1.0)
    return Result(weights, method, report, tuple(dict.fromkeys([*report.warnings, *said])))


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
