"""From two frames to weights and their report: `importance_weights`, in the words of the command line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._names import did_you_mean
from ..diagnostics.advice import advise
from ..diagnostics.remedies import Remedies, describe, parameters_of
from ..estimators import ESTIMATORS
from ..features import BANDWIDTHS
from ..tables import ColumnUse, TableEncoder, importance_weights
from ..tables.weights import named_ratio
from .advice import without_code
from .values import Frames

__all__ = ["Result", "estimator", "weigh"]

# The advice of `Remedies` that applies to the command line.
_WORDS = {
    "gamma": "--gamma cv",
    "regularization": "--regularization cv",
    "n_neighbors": "--neighbors cv",
    "classifier": "--classifier cv",
    "method": "try another method (--method)",
    "scale": "leave out --no-scale",
    "flatten": "--flatten with a smaller number than 1",
    "tame": "--tame pareto",
    "alpha": "--alpha 0.5",
    "max_weight": "--max-weight with a smaller number",
    "source": "the first file is the source, the second the target",
}
_OPTIONS = {"scale": "--no-scale", "n_neighbors": "--neighbors"}


@dataclass(frozen=True)
class Result:
    """Weights (n_source,) of mean 1 (0 for rows left out), the method in words, what was done to columns, report and warnings."""

    weights: np.ndarray
    method: str
    columns: tuple[ColumnUse, ...]
    report: Any
    warnings: tuple[str, ...]


def estimator(method: str, settings: Mapping[str, Any], seed: int) -> Any:
    """The argument `method` of `importance_weights`: "auto", or a named density ratio of ESTIMATORS with settings and seed.

    settings : parameter -> value, as typed. With "auto" they select kernel mean matching. Raises ValueError for settings that the
    method does not take.
    """
    method = method.lower()
    if method not in ("auto", *ESTIMATORS):
        names = ("auto", *sorted(ESTIMATORS))
        raise ValueError(f"--method {method} is not known; use one of {', '.join(names)}.{did_you_mean(method, names)}")
    if method == "auto" and not settings:
        return method
    ratio = named_ratio("kmm" if method == "auto" else method, seed)
    for name in settings:
        if name not in ratio.get_params(deep=False):
            takers = sorted(other for other, kind in ESTIMATORS.items() if name in kind().get_params(deep=False))
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise ValueError(f"--method {method} has no {option}; these have: {', '.join(takers)}.")
    return ratio.set_params(**{name: _READERS[name](value) if name in _READERS else value for name, value in settings.items()})


def weigh(ratio: Any, frames: Frames, flatten: float, tame: str | None, seed: int, *, keep: Sequence[str] = ()) -> Result:
    """Fit `ratio` on two frames, (n_s, d) and (n_t, d); the weights are raised to the power `flatten` and tamed by `tame`.

    keep : columns that are used even if they look like row numbers.
    """
    settings = {"method": ratio, "encoder": TableEncoder(keep=keep), "flatten": flatten, "tame": tame, "random_state": seed}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = importance_weights(frames.source, frames.target, **settings)
        except MemoryError:
            raise ValueError(
                f"Not enough memory for this method on {len(frames.source) + len(frames.target)} rows; the memory of --method lsif "
                "grows only with the number of rows."
            ) from None
    fitted, weights = result.ratio[-1], np.zeros(len(frames.is_kept))
    weights[frames.is_kept] = result.weights
    # Remedies already in use are not advised again.
    words = {name: word for name, word in _WORDS.items() if tame is None or name != "tame"}
    remedies = Remedies(parameters_of(fitted) | {"flatten": flatten}, words)
    # The method is named among the facts of the call.
    report = replace(result.diagnosis, warnings=advise(result.diagnosis, remedies), ratio="")
    said = [without_code(warning.message, "both files") for warning in caught if issubclass(warning.category, UserWarning)]
    apart = [f"Column '{use.name}': {words}." for use in result.columns for words in use.no_overlap]
    method = describe(fitted) + f", flattened by the power {flatten:g}" * (flatten != 1.0) + f", tamed by {tame}" * bool(tame)
    return Result(weights, method, result.columns, report, tuple(dict.fromkeys([*report.warnings, *apart, *said])))


def _number(option: str, text: str, *words: str, at_least_zero: bool = False) -> float | str:
    """The value of an option: a number > 0 (or >= 0), or one of `words`."""
    if text in words:
        return text
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not (0.0 < value < np.inf or (at_least_zero and value == 0.0)):
        bound = ">= 0" if at_least_zero else "> 0"
        raise ValueError(
            f"{option} must be a number {bound}, {', '.join(words[:-1])}{', ' * (len(words) > 1)}or {words[-1]}; got {text}."
        )
    return value


def _neighbors(text: str) -> int | str:
    if text in ("auto", "many", "cv"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(f"--neighbors must be a whole number > 0, auto, many, or cv; got {text}.")


def _classifier(name: str) -> Any:
    """A classifier with scikit-learn's defaults, except leaves large enough for probabilities."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = {
        "cv": lambda: "cv",
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "forest": lambda: RandomForestClassifier(200, min_samples_leaf=10, random_state=0),
        "boosting": lambda: HistGradientBoostingClassifier(random_state=0),
    }
    if name not in known:
        raise ValueError(f"--classifier is one of {', '.join(known)}; got '{name}'.")
    return known[name]()


_READERS = {
    "gamma": lambda text: _number("--gamma", text, *BANDWIDTHS, "cv"),
    "regularization": lambda text: _number("--regularization", text, "cv", at_least_zero=True),
    "n_neighbors": _neighbors,
    "classifier": _classifier,
}
"""Conversions of the text of an option to the value of a parameter."""
