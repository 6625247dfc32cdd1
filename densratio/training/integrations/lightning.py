"""A Lightning callback that supplies validation batches, moves the reweighter and saves it in the checkpoint."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

if importlib.util.find_spec("lightning") is None:
    raise ImportError('densratio.training.integrations.lightning needs Lightning: pip install "densratio-toolkit[lightning]"')

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from ..loop.data.indexed import Indexed
from ..loop.reweighter import Reweighter, x_y_index
from ..loop.told import warn
from .state import LoopState
from .validation import Collate

__all__ = ["Reweighting"]


class Reweighting(Callback):
    """Reweighting in a LightningModule.

        reweighting = Reweighting(DynamicReweighter("kliep", len(train_set), len(val_set)), val_set)

        class Net(LightningModule):
            def training_step(self, batch, batch_idx):
                return reweighting.weighted_loss(self, batch)

        Trainer(callbacks=[reweighting]).fit(Net(), DataLoader(Indexed(train_set), batch_size=128, shuffle=True))

    reweighter : Reweighter; it is moved to the device of the module, and stays there.
    val_set : map-style data set of (x, y), or Indexed(..., y_key=...) around one of mappings; collate_fn and num_workers are those
        of its DataLoader, seed that of its order.
    batch_size : validation rows of a step, on each rank; with `val_refresh` at most that.
    Validation batches go through the module's transfer hooks, as training batches do. A run resumed with `ckpt_path` gives the same
    weights as one that did not stop, if Lightning gives it the same batches.
    """

    def __init__(
        self,
        reweighter: Reweighter,
        val_set: Any,
        *,
        batch_size: int = 128,
        collate_fn: Collate | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        self.reweighter = reweighter
        self._state = LoopState(reweighter, val_set, batch_size, collate_fn=collate_fn, num_workers=num_workers, seed=seed)
        self._transferred: Callable[[Any], Any] | None = None
        self._is_known = self._is_used = False

    def weighted_loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Returned by `training_step`. batch = (x, y, index), as Indexed gives it; model: the LightningModule or a part of it.

        Raises ValueError for a batch of another form.
        """
        if self._transferred is None:
            if self._is_known:
                raise RuntimeError(
                    "weighted_loss is the loss of training_step, and the trainer is not training: elsewhere take "
                    "reweighting.reweighter.losses(model(x), y).mean()."
                )
            raise RuntimeError("The trainer doesn't know this callback: give it as Trainer(callbacks=[reweighting]).")
        self._is_used = True
        train, val = x_y_index(batch, "training"), self._state.next_validation()
        return self.reweighter.weighted_loss(model, train, None if val is None else self._transferred(_validation_batch(*val)))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember that a trainer has this callback."""
        self._is_known = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError where the training set has another number of rows than the reweighter was made for."""
        dataset = getattr(trainer.train_dataloader, "dataset", None)
        # A Subset of an Indexed set may have fewer rows, and a stream may have no length.
        if isinstance(dataset, Indexed):
            self._state.check_train(len(dataset))
        self.reweighter.to(trainer.strategy.root_device)
        self._state.take_optimizer(next(iter(trainer.optimizers), None))

        def transferred(batch: Any) -> Any:
            batch = pl_module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
            return trainer.strategy.batch_to_device(batch)

        self._transferred, self._is_used = transferred, False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises the ValueError of a batch that could not be used, which comes late from a GPU; warns if none was weighted."""
        self.reweighter.check()
        if not self._is_used:
            warn(
                "The model trains without weights, as no batch came to reweighting.weighted_loss: let training_step return "
                "reweighting.weighted_loss(self, batch)."
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the trainer."""
        self._transferred = None

    def state_dict(self) -> dict[str, Any]:
        """The reweighter and the place in the validation set, for the checkpoint."""
        return self._state.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._state.load_state_dict(state_dict)


def _validation_batch(values: Any, index: Tensor) -> tuple[Any, Any, Tensor]:
    if not isinstance(values, tuple | list) or len(values) != 2:
        got = f"{len(values)} parts" if isinstance(values, tuple | list) else type(values).__name__
        raise ValueError(
            f"An item of the validation set must be (x, y); got {got}. Several inputs go together, ((x1, x2), y); of items that "
            "are mappings name the label, val_set=Indexed(val_set, y_key=...)."
        )
    return values[0], values[1], index
