"""A Hugging Face Trainer whose training loss is weighted; evaluation is the Trainer's own."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("accelerate") is None:
    raise ImportError(
        "densratio.training.integrations.transformers needs Transformers and Accelerate: "
        'pip install "densratio-toolkit[transformers]"'
    )

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from ..loop.data.indexed import Indexed, map_style
from ..loop.ranks import n_ranks, of_all_ranks
from ..loop.reweighter import Reweighter
from ..loop.told import warn
from .state import LoopState, Prediction
from .validation import NumberedCollate, NumberedRows

__all__ = ["ReweightedTrainer"]

INDEX = "row_index"  # column of a batch with its row numbers (n,)
SHARE = "row_share"  # entry of a batch: its share of the rows of an optimizer step, times the number of batches in the step
FILE = "reweighter.pt"  # name in a checkpoint folder


class ReweightedTrainer(Trainer):
    """Reweighting in a Hugging Face Trainer.

        trainer = ReweightedTrainer(
            model, args, train_dataset=train_set, eval_dataset=test_set,
            reweighter=DynamicReweighter("kliep", len(train_set), len(val_set)), val_dataset=val_set,
        )

    reweighter : Reweighter. Its `loss` of the model's logits and labels is weighted: by default the cross entropy of a classifier;
        `token_cross_entropy` and others of `densratio.training.losses` serve other tasks.
    val_dataset : data set with the columns of train_dataset, whose rows are right. Batches have
        args.per_device_train_batch_size rows, with `val_refresh` at most that.
    All other parameters are the Trainer's. Training rows keep their index through column removal and any data_collator. The loss of
    an optimizer step is the mean over the rows of all its batches on all ranks, a smaller last one included. Checkpoints hold the
    reweighter: a run resumed with `resume_from_checkpoint` gives the same weights as one that did not stop.
    Raises ValueError for label_smoothing_factor, which belongs into the reweighter's loss.
    """

    # `training_step` divides by the number of batches, and SHARE makes that the mean over their rows.
    loss_is_scaled_for_ga = False

    train_dataset: Any
    data_collator: Any

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *,
        reweighter: Reweighter,
        val_dataset: Any,
        data_collator: Callable[[list[Any]], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[Any], dict] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
    ):
        if args is not None and args.label_smoothing_factor != 0:
            raise ValueError("label_smoothing_factor is not used: give the reweighter a loss that smooths the labels.")
        for name, dataset in (("train_dataset", train_dataset), ("val_dataset", val_dataset)):
            if dataset is not None:
                _check_items(map_style(dataset, name), name, data_collator)
        super().__init__(
            model, args, data_collator=data_collator, train_dataset=train_dataset, eval_dataset=eval_dataset,
            processing_class=processing_class, compute_metrics=compute_metrics, callbacks=callbacks, optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs, preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )  # fmt: skip
        self.reweighter = reweighter
        self._weighting = LoopState(
            reweighter,
            val_dataset,
            self.args.per_device_train_batch_size,
            collate_fn=self._get_collator_with_removed_columns(self.data_collator, description="validation"),
            num_workers=self.args.dataloader_num_workers,
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            name="val_dataset",
        )

    def prediction(self, outputs: Any) -> Any:
        """The part of the model's outputs that the reweighter's loss takes: the logits. Override it for other models."""
        if isinstance(outputs, Mapping):
            if "logits" not in outputs:
                raise ValueError(f"The model gives {list(outputs)} and no logits: override ReweightedTrainer.prediction.")
            return outputs["logits"]
        return outputs[0] if isinstance(outputs, tuple) else outputs

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's, with the index of rows in each batch. Raises ValueError if the reweighter has another number of rows."""
        if self.train_dataset is None:
            return super().get_train_dataloader()
        rows = NumberedRows(self.train_dataset, "train_dataset")
        self._weighting.check_train(len(rows))
        self.reweighter.to(self.args.device)
        given = self.train_dataset, self.data_collator
        collate = self._get_collator_with_removed_columns(self.data_collator, description="training")
        self.train_dataset, self.data_collator = rows, _IndexColumn(collate)
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset, self.data_collator = given

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The batches of an optimizer step, each with its share of the rows."""
        batches, n_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if len(batches) > 1:
            counts = torch.tensor([len(_index(batch)) for batch in batches], device=device if n_ranks() > 1 else None)
            counts = of_all_ranks(counts).reshape(-1, len(batches)).sum(dim=0)
            for batch, share in zip(batches, counts * len(batches) / counts.sum(), strict=True):
                batch[SHARE] = share
        return batches, n_items

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """The Trainer's, for a loss that isn't divided by num_items_in_batch: given it, transformers 4 divides by nothing."""
        return super().training_step(model, inputs)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor | tuple[Tensor, Any]:
        """The weighted loss of a training batch; in evaluation the Trainer's loss."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self._weighting.take_optimizer(self.optimizer)
        train: Any = self._rows(inputs)
        batch = self._weighting.next_validation()
        val: Any = None if batch is None else self._rows(self._prepare_inputs({**batch[0], INDEX: batch[1]}))
        name = _only_tensor(train[0])
        if name is not None:
            # Methods that keep or mix rows take one tensor.
            train, val = (rows if rows is None else (rows[0][name], *rows[1:]) for rows in (train, val))
        predicting = Prediction(model, lambda module, x: module(**(x if name is None else {name: x})), self.prediction)
        loss = self.reweighter.weighted_loss(predicting, train, val) * inputs.get(SHARE, 1.0)
        return (loss, predicting.outputs(train[0])) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # Samplers by length look into the columns.
        return super()._get_train_sampler(train_dataset.dataset if isinstance(train_dataset, NumberedRows) else train_dataset)

    def _rows(self, batch: Any) -> tuple[dict[str, Any], Any, Tensor]:
        """(columns, label, index (n,)); several labels are a tuple in the order of label_names."""
        names = self.label_names or ["labels"]
        missing = [name for name in names if batch.get(name) is None]
        if missing:
            raise ValueError(f"The batch has no {missing}: its columns are {list(batch)}. {self._why_missing(missing[0])}")
        labels = tuple(batch[name] for name in names)
        columns = {name: value for name, value in batch.items() if name not in {*names, INDEX, SHARE}}
        return columns, labels[0] if len(labels) == 1 else labels, _index(batch)

    def _why_missing(self, name: str) -> str:
        for kind, dataset in (("train", self.train_dataset), ("val", self._weighting.batches.dataset.dataset)):
            row = dataset[0]
            value = row.get(name, row.get("label") if name == "labels" else None) if isinstance(row, Mapping) else None
            if isinstance(value, str):
                return f"{kind}_dataset holds text there, such as {value!r}, which collators leave out: number the classes from 0."
        return "Name the labels with args.label_names."

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self._weighting.state_dict(), os.path.join(output_dir, FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = os.path.join(checkpoint, FILE)
        if os.path.isfile(path):
            self._weighting.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        else:
            warn(f"{checkpoint} has no {FILE}: the weights continue from their present values.")


class _IndexColumn(NumberedCollate):
    """Puts the index of the rows into the batch, a mapping."""

    def __call__(self, rows: list[tuple[Any, int]]) -> Any:
        batch, index = super().__call__(rows)
        batch[INDEX] = index
        return batch


def _check_items(dataset: Any, name: str, collator: Any) -> None:
    """Raise ValueError for items that the usual collators, which take mappings of columns, end at in other words."""
    item = dataset[0] if collator is None and len(dataset) else {}
    if isinstance(item, tuple | list):
        own = " The index of a row comes by itself: leave out Indexed." if isinstance(dataset, Indexed) else ""
        raise ValueError(
            f"An item of {name} must be a mapping of columns, such as {{'x': ..., 'labels': ...}}, unless data_collator= takes "
            f"others; got a {type(item).__name__}.{own}"
        )


def _only_tensor(columns: Mapping[str, Any]) -> str | None:
    """The name of the column if there is one alone, a tensor; otherwise None."""
    names = list(columns)
    return names[0] if len(names) == 1 and isinstance(columns[names[0]], Tensor) else None


def _index(batch: Any) -> Tensor:
    if INDEX not in batch:
        raise ValueError(
            f"The batch has no column {INDEX!r}: its columns are {list(batch)}. Where get_train_dataloader is overridden, the "
            "loader must put the index of each training row there."
        )
    return batch[INDEX]
