"""What can be done about weights, in the words of one method and one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Remedies", "remedies_for"]

_TUNED = ("gamma", "n_neighbors", "regularization", "classifier")
_IN_PYTHON = {
    "gamma": "gamma='cv'",
    "n_neighbors": "n_neighbors='cv'",
    "regularization": "regularization='cv'",
    "classifier": "classifier='cv'",
    "scale": "scale='auto'",
    "alpha": "alpha=0.5",
    "max_weight": "a smaller max_weight",
    "flatten": "ImportanceWeighted(..., flatten=0.5), or w ** 0.5",
    "method": "",
    "source": "the smaller value of y is the source",
}


@dataclass(frozen=True)
class Remedies:
    """Advice on a ratio: only what it and the interface have, and not what was already done.

    parameters : those of the ratio, or None where only its weights are known. words : parameter -> how a person sets it; what
    the interface does not have is missing.
    """

    parameters: Mapping[str, Any] | None = None
    words: Mapping[str, str] = field(default_factory=lambda: _IN_PYTHON)

    def tune(self) -> str:
        """How to choose the parameters better: the end of a sentence that begins with a verb."""
        another = f"try another method{' with ' * bool(self.words['method'])}{self.words['method']}"
        if self.parameters is None:
            return f"choose the method's parameters by cross-validation ({self.words['gamma']} for kernels), or {another}"
        open_ = [self.words[name] for name in _TUNED if name in self.words and self._is_untuned(name)]
        return f"choose by cross-validation ({' and '.join(open_)}), or {another}" if open_ else another

    def source(self) -> str:
        """What must hold for weights to be those of the source."""
        return self.words["source"]

    def scale(self) -> str:
        """How to put columns on one scale, and a comma; empty where they are."""
        if self.parameters is None:
            return "put columns of different units on one scale, "
        is_open = "scale" in self.words and self.parameters.get("scale", "") is None
        return f"put columns of different units on one scale ({self.words['scale']}), " if is_open else ""

    def flatten(self) -> str:
        """How to make weights more even: the beginning of a sentence."""
        text = f"Flatten the weights ({self.words['flatten']})"
        if self._offers("alpha") and not self._value("alpha"):
            text += f", estimate a relative ratio ({self.words['alpha']})"
        return text + (f", cap them ({self.words['max_weight']})" if self._offers("max_weight") else "")

    def _offers(self, name: str) -> bool:
        return name in self.words and (self.parameters is None or name in self.parameters)

    def _value(self, name: str) -> Any:
        return (self.parameters or {}).get(name)

    def _is_untuned(self, name: str) -> bool:
        # A sequence is a grid that was searched.
        value = (self.parameters or {}).get(name, "cv")
        return value != "cv" if isinstance(value, str) else not isinstance(value, list | tuple) and not hasattr(value, "__len__")


def remedies_for(ratio: Any) -> Remedies:
    """Remedies for a fitted ratio, or a pipeline that ends in one; for weights and functions those of any ratio."""
    last = ratio[-1] if hasattr(ratio, "steps") else ratio
    get: Callable[..., Mapping[str, Any]] | None = getattr(last, "get_params", None)
    return Remedies(get(deep=False) if get and not isinstance(last, type) else None)
