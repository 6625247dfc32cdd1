"""A train-twice method as one run: plain training, rows held out by its margins, and training anew on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densratio.training import Reweighter
from densratio.training.meta.lrw import HeldOut
from densratio.training.registry import TRAIN_TWICE

from .methods import Method
from .problems import Problem
from .session import Session, margins_of
from .settings import Experiment

__all__ = ["TwoTrainings", "session_of"]


class TwoTrainings:
    """A `Session` in two parts, half of the epochs each: of `Uniform`, and of the method on the rows that its split leaves.

    The clean validation rows are not looked at: those held out take their place. Raises ValueError for fewer than two epochs.
    """

    def __init__(self, experiment: Experiment, method: Method, seed: int, problem: Problem, device: str):
        self.identity = {**experiment.as_dict(), "method": str(method), "seed": seed, "n_train": len(problem.x)}
        self._method, self._seed, self._problem, self._device = method, seed, problem, device
        epochs = experiment.setting.epochs
        if epochs < 2:
            raise ValueError(f"{method} trains twice: epochs must be >= 2; got {epochs}.")
        halves = epochs // 2, epochs - epochs // 2
        self._experiments = [replace(experiment, setting=experiment.setting._replace(epochs=half)) for half in halves]
        self._first = Session(self._experiments[0], Method("uniform"), seed, problem, device)
        self._second: Session | None = None
        self._own: HeldOut | None = None

    @property
    def history(self) -> dict[str, list[float]]:
        """Of both trainings, one after the other."""
        parts = [part.history for part in (self._first, self._second) if part is not None]
        return {name: [value for part in parts for value in part[name]] for name in parts[0]}

    @property
    def epoch(self) -> int:
        """Epochs that are done, of both."""
        return len(self.history["accuracy"])

    @property
    def is_done(self) -> bool:
        """Whether all epochs are."""
        return self._second is not None and self._second.is_done

    @property
    def reweighter(self) -> Reweighter:
        """That of the training that is going on."""
        return self._now.reweighter

    @property
    def is_off(self) -> np.ndarray:
        """The rows that weights should lower, of those that are trained on."""
        return self._now.is_off

    @property
    def class_sizes(self) -> np.ndarray:
        """Rows (K,) of each class among those."""
        return self._now.class_sizes

    def confusion(self) -> Tensor:
        """Of the training that is going on, as of a `Session`."""
        return self._now.confusion()

    def advance(self, must_stop: Callable[[], bool], on_epoch: Callable[[Any], None] = lambda run: None) -> bool:
        """Train on until all epochs are done (True), or `must_stop()` is true after a batch (False)."""
        if not self._first.advance(must_stop, lambda session: on_epoch(self)):
            return False
        if self._second is None:
            found = margins_of(self._first, self._problem, self._device)
            self._begin_second(TRAIN_TWICE[self._method.name].split(found, seed=self._seed))
        assert self._second is not None
        return self._second.advance(must_stop, lambda session: on_epoch(self))

    def peak_memory(self) -> int | None:
        """Bytes that a batch of the second training takes at its peak."""
        return self._now.peak_memory()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        if self._second is None or self._own is None:
            return {"identity": self.identity, "first": self._first.state_dict()}
        own = [torch.as_tensor(rows) for rows in self._own]
        parts = {"first": self._first.state_dict(), "second": self._second.state_dict()}
        return {"identity": self.identity, "own": own, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the `state_dict` was taken."""
        self._first.load_state_dict(state["first"])
        if "second" in state:
            self._begin_second(HeldOut(*(rows.numpy() for rows in state["own"])))
            assert self._second is not None
            self._second.load_state_dict(state["second"])

    @property
    def _now(self) -> Session:
        return self._first if self._second is None else self._second

    def _begin_second(self, own: HeldOut) -> None:
        self._own = own
        left = self._problem.held_out(own.train, own.val)
        self._second = Session(self._experiments[1], self._method, self._seed, left, self._device)


def session_of(experiment: Experiment, method: Method, seed: int, problem: Problem, device: str) -> Session | TwoTrainings:
    """The run of a method."""
    kind = TwoTrainings if method.name in TRAIN_TWICE else Session
    if method.name == "val_only" and experiment.parameters == "published":
        problem = problem.on_validation()
    return kind(experiment, method, seed, problem, device)
