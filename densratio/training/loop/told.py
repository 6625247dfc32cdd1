"""Warnings that name the line of the person's own loop."""

from __future__ import annotations

import warnings

from ..._callers import outer_level

__all__ = ["warn"]

_BETWEEN = {"densratio", "torch", "lightning", "accelerate", "transformers", "skorch"}
"""Packages whose frames lie between that line and the warning."""


def warn(message: str) -> None:
    """Warn at the first line outside of this package and the frameworks that call it, however many calls lie between."""
    warnings.warn(message, UserWarning, stacklevel=outer_level(_BETWEEN))
