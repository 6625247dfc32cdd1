"""Warnings that name the line of the person's own loop."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

_BETWEEN = {"densratio", "torch", "lightning", "accelerate", "transformers", "skorch"}
"""Packages whose frames lie between that line and the warning."""


def warn(message: str) -> None:
    """Warn at the first line outside of this package and the frameworks that call it, however many calls lie between."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
