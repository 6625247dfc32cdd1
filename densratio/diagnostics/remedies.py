"""What can be done about weights, in the words of one method and one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Remedies", "alternatives", "parameters_of", "remedies_for"]

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
    """Advice on a ratio: only what it and the interface have, and not what was already done.

    parameters : those of the ratio, or None where only its weights are known. words : parameter -> how a person sets it, without
    those that the interface does not have.
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
    """Remedies for a fitted ratio, or a pipeline that ends in one; for weights and functions those of any ratio."""
    last = ratio[-1] if hasattr(ratio, "steps") else ratio
    return Remedies(parameters_of(last) if hasattr(last, "get_params") and not isinstance(last, type) else None)


def parameters_of(ratio: Any) -> dict[str, Any]:
    """The parameters on which the weights of an estimator depend: a kernel that only extends weights to new rows is none."""
    extends = getattr(ratio, "objective", "") == "wasserstein"
    return {name: value for name, value in ratio.get_params(deep=False).items() if not (extends and name == "gamma")}
