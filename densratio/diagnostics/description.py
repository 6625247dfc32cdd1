"""A fitted ratio in one line: its name, the parameters that were set, and those that were found."""

from __future__ import annotations

from typing import Any

__all__ = ["describe"]


def describe(ratio: Any) -> str:
    """A ratio or a pipeline that ends in one, as KMM(gamma=0.21); empty for what is no estimator."""
    if not hasattr(ratio, "get_params") or isinstance(ratio, type):
        return ""
    if hasattr(ratio, "steps"):
        return " + ".join(describe(step) for _, step in ratio.steps)
    given = {name: value for name, value in ratio.get_params(deep=False).items() if _differs(ratio, name, value)}
    listed = ", ".join(f"{name}={_short(value)}" for name, value in (given | _found(ratio)).items())
    return f"{type(ratio).__name__}({listed})"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "steps"):
        return " + ".join(_short(step) for _, step in value.steps)
    text = type(value).__name__ if hasattr(value, "get_params") else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _found(ratio: Any) -> dict[str, Any]:
    """The parameters that a fit chose from the data: name -> value."""
    # A kernel that only extends weights to new rows says nothing about these.
    bandwidth = {"gamma": ratio.gamma_} if hasattr(ratio, "gamma_") and getattr(ratio, "objective", "") != "wasserstein" else {}
    return bandwidth | getattr(ratio, "best_params_", {})


def _differs(estimator: Any, name: str, setting: Any) -> bool:
    from inspect import signature

    if name == "random_state":
        return False
    default = signature(type(estimator)).parameters[name].default
    return not (setting is default or (type(setting) is type(default) and repr(setting) == repr(default)))
