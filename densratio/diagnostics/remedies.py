"""Advice on a fitted ratio's weights, in the words of its method and interface, and the ratio in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

__all__ = ["Remedies", "alternatives", "describe", "parameters_of", "remedies_for"]

_IN_PYTHON = {
    "gamma": "gamma='cv'",
    "n_neighbors": "n_neighbors='cv'",
    "regularization": "regularization='cv'",
    "classifier": "classifier='cv'",
    "method": "try another method",
    "scale": "scale='auto'",
    "flatten": "w ** 0.5, or flatten=0.5 of ImportanceWeighted",
    "tame": "tame_weights(w)",
    "alpha": "alpha=0.5",
    "max_weight": "a smaller max_weight",
    "source": "the smaller value of y is the source",
}


@dataclass(frozen=True)
class Remedies:
    """Advice on a ratio: only for parameters that it and the interface have, and that are not yet in use.

    parameters : of the ratio, or None if only its weights are known. words : parameter -> how a person sets it, without those that
    the interface lacks.
    """

    parameters: Mapping[str, Any] | None = None
    words: Mapping[str, str] = field(default_factory=lambda: _IN_PYTHON)

    def fit(self) -> list[str]:
        """Ways to a ratio that fits better."""
        ways = []
        if self._value("flatten", 1.0) < 1.0:
            ways.append("flatten less")
        if self.parameters is None:
            ways.append("put columns of different units on one scale")
            ways.append(f"choose the method's parameters by cross-validation ({self.words['gamma']} where it has a kernel)")
        elif "scale" in self.parameters and self.parameters["scale"] is None:
            ways.append(f"put columns of different units on one scale ({self.words['scale']})")
        names = [name for name in ("gamma", "n_neighbors", "regularization", "classifier") if name in self.words]
        values = {name: self._value(name, "cv") for name in names}
        # A sequence is a grid that was searched.
        untuned = [name for name, v in values.items() if v != "cv" and (isinstance(v, str) or not isinstance(v, Sequence))]
        if untuned:
            ways.append(f"choose parameters by cross-validation ({', '.join(self.words[name] for name in untuned)})")
        return [*ways, self.words["method"]]

    def flatten(self) -> list[str]:
        """Ways to more even weights."""
        ways = [f"flatten the weights ({self.words['flatten']})"]
        if "tame" in self.words:
            ways.append(f"smooth their tail ({self.words['tame']})")
        if self.parameters is None or self._value("alpha", 1.0) == 0.0:
            ways.append(f"estimate a relative ratio ({'LSIF, ' * (self.parameters is None)}{self.words['alpha']})")
        if self.parameters is None or "max_weight" in self.parameters:
            ways.append(f"cap them ({self.words['max_weight']}{' of KMM' * (self.parameters is None)})")
        return ways

    def _value(self, name: str, default: Any) -> Any:
        return (self.parameters or {}).get(name, default)


def alternatives(ways: Sequence[str]) -> str:
    """Ways as a sentence: This, that, or the other."""
    text = f"{', '.join(ways[:-1])}, or {ways[-1]}" if len(ways) > 1 else ways[0]
    return f"{text[0].upper()}{text[1:]}."


def remedies_for(ratio: Any) -> Remedies:
    """Remedies for a fitted ratio, or a pipeline that ends in one; for weights and functions, the remedies of all ratios."""
    last = ratio[-1] if hasattr(ratio, "steps") else ratio
    return Remedies(parameters_of(last) if hasattr(last, "get_params") and not isinstance(last, type) else None)


def parameters_of(ratio: Any) -> dict[str, Any]:
    """The parameters on which an estimator's weights depend, without a kernel that only extends weights to new rows."""
    return {name: value for name, value in ratio.get_params(deep=False).items() if name != "gamma" or not _only_extends(ratio)}


def _only_extends(ratio: Any) -> bool:
    return getattr(ratio, "objective", "") == "wasserstein"


def describe(ratio: Any) -> str:
    """A ratio or a pipeline that ends in one, as KMM(gamma=0.21); a stack by its members; "" for anything but an estimator."""
    if not hasattr(ratio, "get_params") or isinstance(ratio, type):
        return ""
    if hasattr(ratio, "steps"):
        return " + ".join(describe(step) for _, step in ratio.steps)
    if hasattr(ratio, "coefficients_"):
        members = sorted(ratio.coefficients_.items(), key=lambda member: -member[1])
        return f"{type(ratio).__name__}({' + '.join(f'{coef:.2g} {name}' for name, coef in members if coef > 0.0)})"
    given = {name: value for name, value in ratio.get_params(deep=False).items() if _differs(ratio, name, value)}
    # What the fit chose from the data; a kernel that only extends weights to new rows says nothing about these.
    found = {"gamma": ratio.gamma_} if hasattr(ratio, "gamma_") and not _only_extends(ratio) else {}
    shown = given | found | getattr(ratio, "best_params_", {})
    listed = ", ".join(f"{name}={_short(value)}" for name, value in shown.items())
    return f"{type(ratio).__name__}({listed})"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "steps"):
        return " + ".join(_short(step) for _, step in value.steps)
    text = type(value).__name__ if hasattr(value, "get_params") else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _differs(estimator: Any, name: str, setting: Any) -> bool:
    if name == "random_state":
        return False
    default = signature(type(estimator)).parameters[name].default
    return not (setting is default or (type(setting) is type(default) and repr(setting) == repr(default)))
