"""What to type for a method, by its name: for the message of a class that was given the name of another one."""

from __future__ import annotations

from collections.abc import Collection

from ..._names import did_you_mean, nearest

__all__ = ["CALLS", "other_method"]

CALLS: dict[str, str] = {}
"""The call that makes each method by its name. The registry, which knows them all, fills it."""


def other_method(text: str, own: Collection[str]) -> str:
    """The end of a message about a name that is none of `own`: the name or the call that may be meant, or else all names."""
    names = nearest(text, [*own, *(name for name in CALLS if name not in own)])
    if names and names[0] in own:
        return did_you_mean(text, own)
    if names:
        calls = " or ".join(CALLS[name] for name in names if name not in own)
        return f" Methods of other kinds are made by name: type densratio.training.{calls}."
    others = ", ".join(name for name in CALLS if name not in own)
    return f" densratio.training.reweighter(name, n_train, ...) makes methods of other kinds by name: {others}."
