"""Names of the methods as a person types them on the command line of the demo."""

from __future__ import annotations

from ..training.registry import METHODS, key_of

__all__ = ["named"]


def named(text: str) -> tuple[str, ...]:
    """Methods in a list with commas, in any spelling; "all" for every one. Raises ValueError for a name of none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(METHODS) if [part.lower() for part in parts] == ["all"] else tuple(dict.fromkeys(map(key_of, parts)))
