"""A reweighter with its validation batches, for checkpoints and checks of sizes; and a model as a reweighter calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..loop.model import Adapter
from ..loop.reweighter import Reweighter
from ..loop.validation_pass import validation_pass
from .validation import Collate, ValidationBatches

__all__ = ["LoopState", "Prediction"]


class LoopState:
    """A reweighter and its validation batches.

    val_set: map-style data set, wrapped in Indexed or not; messages call it `name`. batch_size: rows of a batch; at most the
    reweighter's `val_refresh`, if it has one.
    Raises ValueError if the reweighter was made for another number of validation rows.
    """

    def __init__(
        self,
        reweighter: Reweighter,
        val_set: Any,
        batch_size: int,
        *,
        collate_fn: Collate | None = None,
        num_workers: int = 0,
        seed: int = 0,
        name: str = "val_set",
    ):
        if not isinstance(reweighter, Reweighter):
            got = f"the class {reweighter.__name__}" if isinstance(reweighter, type) else type(reweighter).__name__
            raise TypeError(f'reweighter must be a Reweighter such as DynamicReweighter("kliep", n_train, n_val); got {got}.')
        self.reweighter = reweighter
        size = min(batch_size, getattr(reweighter, "val_refresh", None) or batch_size)
        self.batches = ValidationBatches(val_set, size, collate_fn=collate_fn, num_workers=num_workers, seed=seed, name=name)
        n_val = getattr(reweighter, "n_val", len(self.batches.dataset))
        if n_val != len(self.batches.dataset):
            raise ValueError(
                f"The reweighter was made for n_val={n_val} validation rows and the validation set has {len(self.batches.dataset)}."
            )

    def check_train(self, n_rows: int) -> None:
        """Raise ValueError if the reweighter was made for another number of training rows."""
        n_train = len(self.reweighter.weights_)
        if n_train != n_rows:
            raise ValueError(f"The reweighter was made for n_train={n_train} training rows and the training set has {n_rows}.")

    def take_optimizer(self, optimizer: Any) -> None:
        """Give the framework's optimizer to a method that follows its step, unless the method already has another."""
        if optimizer is not None and getattr(self.reweighter, "optimizer", optimizer) is None:
            self.reweighter.optimizer = optimizer

    def next_validation(self) -> tuple[Any, Tensor] | None:
        """The next validation batch (values, index), and None for a step that needs none."""
        return next(self.batches) if self.reweighter.needs_validation else None

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, for torch.save."""
        return {"reweighter": self.reweighter.state_dict(), "rows_drawn": self.batches.rows_drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        rows_drawn = state["rows_drawn"]
        self.reweighter.load_state_dict(state["reweighter"])
        self.batches.rows_drawn = rows_drawn


class Prediction(Adapter):
    """Calls a model with other arguments and outputs, and keeps its outputs.

    call(module, x) -> the outputs of the model; prediction(outputs) -> the input of a loss.
    """

    def __init__(
        self, module: nn.Module, call: Callable[[nn.Module, Any], Any], prediction: Callable[[Any], Any] = lambda outputs: outputs
    ):
        super().__init__()
        self.module = module
        self._call = call
        self._prediction = prediction
        self._given: list[tuple[Any, Any]] = []

    def forward(self, x: Any) -> Any:
        outputs = self._call(self.module, x)
        self._given.append((x, outputs))
        return self._prediction(outputs)

    def outputs(self, x: Any) -> Any:
        """The model's outputs for x: from the pass of x if there was one, or from a new pass without gradients."""
        for given, outputs in self._given:
            if given is x:
                return outputs
        with validation_pass(self.module):
            return self._call(self.module, x)

    def around(self, module: nn.Module) -> Prediction:
        """The same around another module; what one keeps the other keeps too."""
        if module is self.module:
            return self
        other = Prediction(module, self._call, self._prediction)
        other._given = self._given
        return other
