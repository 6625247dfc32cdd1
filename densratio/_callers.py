"""The line of a person's own code that a warning names."""

from __future__ import annotations

import sys
from collections.abc import Container

__all__ = ["outer_level"]


def outer_level(between: Container[str] = ("densratio", "sklearn")) -> int:
    """The stacklevel, for a warning of the caller, of the first frame that is in none of the packages `between`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in between:
        level, frame = level + 1, frame.f_back
    return level
