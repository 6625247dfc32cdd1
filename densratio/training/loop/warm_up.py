"""The first part of a training, in which every weight is held at 1."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WarmUp"]


@dataclass(frozen=True)
class WarmUp:
    """How long all weights are 1: passes over the data, counted in rows seen / n_train, or a number of batches instead.

    Raises ValueError for numbers below 0.
    """

    epochs: float
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.epochs >= 0:
            raise ValueError(f"warmup_epochs must be >= 0; got {self.epochs!r}.")
        if self.steps is not None and self.steps < 0:
            raise ValueError(f"warmup_steps must be >= 0 or None; got {self.steps!r}.")

    def is_on(self, rows_seen: int, steps_seen: int, n_train: int) -> bool:
        """Whether it lasts after that many rows and batches."""
        return rows_seen < self.epochs * n_train if self.steps is None else steps_seen < self.steps
